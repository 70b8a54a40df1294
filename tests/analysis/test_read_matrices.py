"""The bytes that a step reads count every kind of product."""

import pytest

from core.conformance.cases import Case, cells, examples_of
from core.installed.registry import default_registry
from core.ir.op import OPS
from core.ops.linear import Product
from core.runtime.run_op import single_op_plan
from models.analysis.batch_bench import read_matrices

default_registry()  # brings the plugins' ops into OPS
PRODUCTS = sorted(name for name, op in OPS.items() if isinstance(op, Product))


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_counts_its_matrices_and_not_its_bias(name):
    op = OPS[name]
    dtypes = cells(op)[0]
    case = next(c for e in examples_of(op, dtypes) if (c := Case(op, "none", dtypes, e)).arrays[
        "x"].shape[0] and c.arrays["bias"] is not None)
    plan = single_op_plan(op, case.arrays, case.attrs, backend="cpu_numpy")
    matrices = [case.arrays[p] for p in op.weight_params - {"bias"} if case.arrays[p] is not None]
    assert read_matrices(plan.graph, plan.weights.arrays) == sum(a.nbytes for a in matrices)


def test_there_are_three_kinds():
    assert PRODUCTS == ["block_linear", "linear", "quantized_linear"]
