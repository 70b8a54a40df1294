"""Declares the products of one 16-bit dtype that a family of kernels computes."""

from collections.abc import Callable
from typing import Any

from cuda_cupy.kernels.declare import kernels
from cuda_cupy.kernels.linear import CUT_OFF


def declare_products(suffix: str, supports: Callable[..., str | None], run: Callable[..., Any], *,
                     priority: int, gated_priority: int) -> None:
    """Declare linear, its form with float32 out, qkv_linear and gate_up_swiglu.

    run  binds out = x @ weight.T for up to three weights, or swiglu of two where `gated`: called
         with x, weights, biases (None where there is none), outs and `gated`
    gated_priority  of gate_up_swiglu; `priority` is that of the others
    """
    halves = {"A": "f16 bf16", "W": "f16 bf16"}
    how: dict[str, Any] = {"supports": supports, "priority": priority}

    @kernels.implements("linear", name=f"linear_{suffix}", dtypes={**halves, "O": "f16 bf16"},
                        **how)
    @kernels.implements("linear", name=f"linear_{suffix}_wide", dtypes={**halves, "O": "f32"},
                        tolerance=CUT_OFF, **how)
    def linear(x, weight, bias, out):
        return run(x, [weight], [bias], [out], gated=False)

    @kernels.implements("qkv_linear", name=f"qkv_{suffix}", dtypes=halves, **how)
    def qkv(x, first, second, third, first_bias, second_bias, third_bias, first_out, second_out,
            third_out):
        return run(x, [first, second, third], [first_bias, second_bias, third_bias],
                   [first_out, second_out, third_out], gated=False)

    @kernels.implements("gate_up_swiglu", name=f"gate_up_{suffix}", dtypes=halves,
                        supports=supports, priority=gated_priority)
    def gate_up(x, gate, up, out):
        return run(x, [gate, up], [], [out], gated=True)
