"""Gives kernels made by tests the parameters of their op."""

from inspect import Parameter, Signature, signature


def taking_all(op, bind):
    """Declare every parameter of the op for a `bind` that takes `*arrays`, and return it."""
    if any(p.kind is Parameter.VAR_POSITIONAL for p in signature(bind).parameters.values()):
        arrays = [*(p.name for p in op.sig.params), *(p.name for p in op.sig.outputs)]
        bind.__signature__ = Signature(
            [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in arrays]
            + [Parameter(name, Parameter.KEYWORD_ONLY) for name in op.plain_attributes])
    return bind
