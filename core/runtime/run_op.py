"""run_op: run one op on NumPy arrays, through the same plan and kernels as a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import core.ops  # noqa: F401 - fills the vocabulary
from core.errors import CheckError, DtypeError, OpError
from core.installed.registry import Registry, default_registry, split_backends
from core.ir.fusion import FusedOp
from core.ir.graph import Graph, Value
from core.ir.op import Op, find_op
from core.ir.signature import Env
from core.plan.arena import GUARD
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy, Override
from core.plan.weights import WeightStore
from core.reading import shown
from core.runtime.step import BLOCK_SIZE
from core.tensor.dtype import DType, as_dtype, i4x2
from core.tensor.tensor import Array, Tensor, TensorSpec


def run_op(name: str, *inputs: Array | None, backend: str = "cpu_numpy", kernel: str | None = None,
           past: int | None = None, **attrs: Any) -> Any:  # noqa: ANN401 - one array or several
    """Run one op and return its results: one array, or a tuple (in-place inputs first).

    inputs   in the order of the op's signature; None for an absent optional one. Arrays are not
             modified: ops that update an input return the updated copy
    backend  names as for `--backend`, or "reference" for the float64 definition
    kernel   choose one kernel of that backend by name
    past     attention only: q [T,H,d] with plain k, v [past+T,Hkv,d] instead of a paged cache

    Raises OpError for inputs outside the definition, NoKernelError when no kernel takes them.
    """
    default_registry()  # plugins add ops
    op = find_op(name)
    if kernel is not None and not isinstance(kernel, str):
        raise OpError(f"kernel is {shown(kernel)}, expected the name of a kernel")
    backend = ",".join(split_backends(backend))
    if past is not None:
        inputs = _plain_attention(op, inputs, past)
    arrays = _typed(op, op.named(inputs), attrs)
    _described(op, arrays, attrs)  # shapes first: value checks rely on them
    op.check_values(arrays)
    results = (run_reference(op, arrays, attrs) if backend == "reference" else
               run_kernel(op, arrays, attrs, backend=backend, kernel=kernel))
    return results[0] if len(results) == 1 else results


def run_kernel(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any], *,
               backend: str, kernel: str | None = None, registry: Registry | None = None,
               composed: bool = False) -> tuple[Array | None, ...]:
    """Return the results of one op by a kernel of `backend`, as new NumPy arrays. Raises CheckError
    where it writes beyond its outputs or its workspace."""
    plan = single_op_plan(op, arrays, attrs, backend=backend, kernel=kernel, registry=registry,
                          composed=composed, guard=GUARD)
    for arena in plan.arenas.values():
        arena.poison()
    plan.run()
    if stray := sum(arena.stray_writes() for arena in plan.arenas.values()):
        who = ", ".join(dict.fromkeys(b.kernel.id for b in plan.bindings))
        raise CheckError(f"{op.name}: {who} wrote {stray} bytes beyond its outputs or its "
                         "workspace, expected none; python -m models.conform shows in which cases")
    return read_results(plan, op)


def single_op_plan(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any], *,
                   backend: str, kernel: str | None = None, registry: Registry | None = None,
                   guard: int = 0, place: Callable[[str, Array, DType], Tensor] | None = None,
                   composed: bool = False) -> Plan:
    """Make a plan of one node over copies of the arrays; of a fused op's parts where `composed`.

    `place(name, array, dtype)` may put an input or a weight into a tensor of its own making.
    """
    registry = registry or default_registry()
    graph = Graph(op.name)
    names = split_backends(backend)
    allocator = registry.backend(names[0]).allocator
    values: list[Value | None] = []
    tensors: dict[str, Tensor] = {}
    weights: dict[str, Array] = {}
    for p in op.sig.params:
        array = arrays[p.name]
        if array is None:
            values.append(None)
            continue
        spec = TensorSpec(array.shape, _dtype_of(p.name, array))
        if p.name in op.weight_params:
            weights[p.name] = array
            values.append(graph.weight(p.name, spec))
        else:
            values.append(graph.input(p.name, spec))
            tensors[p.name] = (place(p.name, array, spec.dtype) if place is not None
                               else Tensor.from_numpy(array, allocator, spec.dtype))
    result = (op.declare(graph, values, op.complete(attrs))
              if composed and isinstance(op, FusedOp)
              else graph.add(op.name, *values, name=op.name, **attrs))
    for key, value in zip(op.result_names, result if isinstance(result, tuple) else (result,),
                          strict=True):
        if value is not None:
            graph.output(key, value)
    overrides = (Override.parse(f"{op.name}={names[0]}:{kernel}"),) if kernel else ()
    for override in overrides:
        override.check(registry)
    store = WeightStore(weights)
    store.dtypes.update({k: _dtype_of(k, a) for k, a in weights.items()})
    if place is not None:
        for key, array in weights.items():
            store.put(key, place(key, array, store.dtypes[key]))
    return Plan(graph, KernelPolicy(registry, names, overrides, fusion=False), store, tensors,
                guard=guard)


def read_results(plan: Plan, op: Op) -> tuple[Array | None, ...]:
    """Copy the results of a single-op plan for `op`, None for an absent one."""
    return tuple(np.array(plan.output(k).numpy()) if k in plan.graph.outputs else None
                 for k in op.result_names)


def run_reference(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any],
                  ) -> tuple[Array | None, ...]:
    """Return the reference's results in float64."""
    full, env, _ = _described(op, arrays, attrs)
    return op.reference_in(np.float64, arrays, env, full)


def _described(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any],
               ) -> tuple[dict[str, Any], Env, dict[str, DType]]:
    """Return complete attributes, bound names, and the dtype of each result."""
    specs = {k: None if a is None else TensorSpec(a.shape, _dtype_of(k, a))
             for k, a in arrays.items()}
    full = op.complete(attrs)
    inplace = {k: s.dtype for k in op.sig.mutated if (s := specs[k]) is not None}
    outs = {k: s.dtype for k, s in op.infer(specs, full).items()}
    return full, op.bind(specs, full), {**inplace, **outs}


def _typed(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any],
           ) -> dict[str, Array | None]:
    """Convert arrays as the signature wants them: any integers for i32 (range-checked), f64
    refused."""
    typed: dict[str, Array | None] = {}
    for p in op.sig.params:
        array = arrays[p.name]
        if array is not None:
            array = _array(op, p.name, array)
            if p.dtype == "i32" and array.dtype.kind in "iu" and array.dtype != np.int32:
                if array.size and not -2**31 <= int(array.min()) <= int(array.max()) < 2**31:
                    raise DtypeError(f"{op.name}: `{p.name}` holds values outside int32")
                array = array.astype(np.int32)
            if p.dtype == "f32" and array.dtype == np.float64:
                array = array.astype(np.float32)
            if array.dtype == np.float64:
                raise DtypeError(f"{op.name}: `{p.name}` is float64; backends compute in float32, "
                                 "float16 or bfloat16: convert it with .astype")
            _dtype_of(p.name, array)
        typed[p.name] = array
    return typed


def _array(op: Op, name: str, value: object) -> Array:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OpError(f"{op.name}: `{name}` is {shown(value)}, expected an array: "
                      f"{error}") from None


def _dtype_of(param: str, array: Array) -> DType:
    if array.dtype == np.uint8 and param == "codes":
        return i4x2
    return as_dtype(array.dtype)


def _plain_attention(op: Op, inputs: tuple[Array | None, ...], past: int,
                     ) -> tuple[Array | None, ...]:
    if op.name != "attention" or len(inputs) != 3 or any(a is None for a in inputs) \
            or not isinstance(past, (int, np.integer)) or past < 0:
        raise OpError(f"past={shown(past)} goes with run_op('attention', q, k, v, past=P, "
                      "scale=...), P >= 0")
    q, k, v = (_array(op, name, a) for name, a in zip("qkv", inputs, strict=True))
    if q.ndim != 3 or k.shape != v.shape or k.ndim != 3 or k.shape[0] != past + q.shape[0]:
        raise OpError(f"attention with past={past}: q is {list(q.shape)}, k {list(k.shape)}, "
                      f"v {list(v.shape)}; expected q [T,H,d] and k, v [past+T,Hkv,d]")
    length = k.shape[0]
    blocks = max(1, -(-length // BLOCK_SIZE))
    cache = np.zeros((2, blocks * BLOCK_SIZE, *k.shape[1:]), k.dtype)
    cache[0, :length], cache[1, :length] = k, v
    return (q, cache.reshape(2, blocks, BLOCK_SIZE, *k.shape[1:]), None,
            np.arange(blocks, dtype=np.int32)[None], np.array([0, q.shape[0]], np.int32),
            np.array([length], np.int32))

