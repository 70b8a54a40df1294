"""Finds which call of a plugin a thread is in, from its frames: for a step that does not end."""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType

from core.failures import ask, place_in, who
from core.plan.plan import run_all
from core.plugins.kernel import Call, Kernel
from core.verify.crosscheck import CrossCheck


@dataclass(frozen=True, eq=False)
class CallInProgress:
    """Hold a call of one of a kernel's functions.

    what   the function: launch, bind, ..., or the check of what it computed
    place  FILE:LINE of the plugin where the thread stands
    """

    what: str
    kernel: Kernel
    call: Call
    place: str

    def same_as(self, other: CallInProgress | None) -> bool:
        """Say whether both are the same call, wherever in it the thread stands."""
        return other is not None and (self.what, self.kernel) == (other.what, other.kernel) \
            and self.call is other.call

    def late(self, limit_s: float) -> str:
        """Say that the call has taken longer than its limit."""
        inside = "" if self.what == "launch" else f" in {self.what}"
        return f"{who(self.kernel, self.call)}: took over {limit_s:g} s{inside}, at {self.place}"


def call_of(frame: FrameType | None) -> CallInProgress | None:
    """Return the innermost call of a plugin on a stack of frames, None where it is in none."""
    inner = frame
    while frame is not None:
        found = _called(frame)
        if found is not None:
            what, kernel, call = found
            return CallInProgress(what, kernel, call, place_in(inner, kernel))
        frame = frame.f_back
    return None


def _called(frame: FrameType) -> tuple[str, Kernel, Call] | None:
    names = frame.f_locals
    if frame.f_code is run_all.__code__:
        launch = names.get("launch")
        of = next((b for b in names["bindings"] if launch in b.launches), None)
        return None if of is None else ("launch", of.kernel, of.call)
    if frame.f_code is Kernel.bind_to.__code__:
        return "bind", names["self"], names["call"]
    if frame.f_code is ask.__code__:
        return names["what"], names["kernel"], names["call"]
    if frame.f_code is CrossCheck._node.__code__:
        return "the check", names["binding"].kernel, names["binding"].call
    return None
