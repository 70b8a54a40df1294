"""Serves the public names of `core` and `models` under one name.

    import kernelyard as ky

    with ky.load("stories-llama2", backend="cpu_numpy") as model:
        print(model.generate("Once upon a time", max_new_tokens=20).run().text)

A name is looked up when it is first used, so that `import kernelyard` always works.
"""

from kernelyard import _start  # noqa: F401 - first of all: it hears of Ctrl-C

# isort: split
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core import *  # noqa: F403
    from models import *  # noqa: F403


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Return a public name. Raises ImportError where another project's package shadows ours."""
    if name.startswith("__") and name not in ("__all__", "__version__"):
        raise AttributeError(name)
    from kernelyard._own import check_own
    check_own("core", "models")
    import core
    import models
    if name == "__all__":
        return [*core.__all__, *models.__all__]
    for module in (models, core):
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"kernelyard has no public name {name!r}; docs/plugin-api.md lists them")
