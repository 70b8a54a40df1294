"""Two results of 16 bits agree where they round a near tie to different sides, and not beyond."""

import numpy as np
import pytest

from core import f16
from core.conformance.properties.subject import Subject
from core.installed.registry import default_registry


@pytest.fixture
def agree():
    """Return a subject's judgement of its f16 product against a changed one."""
    registry = default_registry()
    subject = Subject(registry, registry.kernels("cpu_numpy", "linear")[0],
                      {"A": f16, "W": f16, "O": f16})
    rng = np.random.default_rng(0)
    case = subject.case({"x": rng.normal(size=(1, 64)), "weight": rng.normal(size=(70, 64)),
                         "bias": None}, {})
    stored = case.expected["out"].rounded

    def judge(change):
        bits = stored.view(np.uint16).copy()
        change(bits[0])
        subject.agree(case, {"out": bits.view(np.float16)}, {"out": stored})
    return judge


def test_one_value_at_the_other_side_of_a_tie_agrees(agree):
    def change(bits):
        bits[29] += 1
    agree(change)


def test_every_value_one_step_off_does_not(agree):
    def change(bits):
        bits += 1
    with pytest.raises(AssertionError, match="NMSE"):
        agree(change)
