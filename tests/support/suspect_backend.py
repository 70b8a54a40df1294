"""Adds a backend for tests, with one kernel that is wrong in a way that the test gives."""

import numpy as np
from signatures import taking_all

from core.installed.registry import Registry
from core.plugins.backend import Backend, BackendSpec
from core.plugins.kernel import Kernel


def generic(op, spoil, whole=None):
    """Make a kernel for any op: its reference in float32, then `spoil`ed. `whole(inputs, outputs)`
    may do anything after that."""
    def bind(*arrays, **attrs):
        ins, outs = arrays[:len(op.sig.params)], arrays[len(op.sig.params):]

        def launch():
            made = op.reference(*(None if a is None else a.copy() for a in ins), **attrs)
            made = made if isinstance(made, tuple) else (made,)
            targets = [a for p, a in zip(op.sig.params, ins, strict=True)
                       if p.name in op.sig.mutated]
            for target, result in zip([*targets, *outs], made, strict=True):
                if target is not None:
                    np.copyto(target, result, casting="unsafe")
                    spoil(target)
            if whole is not None:
                whole(ins, outs)
        return launch
    return taking_all(op, bind)


def spoil(array):
    """One element a row is off: by 1 % of the row's peak, or for integers the next one."""
    if array.dtype.kind == "f" and array.size:
        with np.errstate(invalid="ignore"):  # of a forbidden token's -Inf
            array[..., 0] += 0.01 * np.abs(array).max(axis=-1)
    elif array.dtype == np.int32 and array.size:
        array.reshape(-1)[0] += 1


class Suspect(Backend):
    def __init__(self):
        self.allocator = Registry().backend("cpu_numpy").allocator

    def native(self, tensor):
        return tensor.numpy()


def with_suspect(op, fault=spoil, whole=None):
    """Return a registry in which `suspect` offers one kernel, for `op`, with a fault."""
    registry = Registry()
    registry.kernels("cpu_numpy")
    registry.specs["suspect"] = BackendSpec("suspect", "cpu", "none:none", "for tests")
    registry.opened["suspect"] = Suspect()
    variables = {p.dtype for p in (*op.sig.params, *op.sig.outputs) if p.dtype_is_variable}
    every = tuple(d for d in registry.kernels("cpu_numpy", "kv_cache_write")[0].dtypes["C"])
    kernel = Kernel(op.name, "suspect", "spoilt", generic(op, fault, whole),
                    dict.fromkeys(variables, every))
    registry._kernels["suspect"] = {op.name: [kernel]}
    registry.sources[kernel] = "test"
    return registry
