"""kernelyard core: tensors, ops, graphs, plugins, and the plan that binds them."""

from core.runtime.run_op import run_op

__version__ = "0.1.0"
__all__ = ["__version__", "run_op"]
