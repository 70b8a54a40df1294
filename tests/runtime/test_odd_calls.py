"""No argument of run_op, of a session, an allocator or a tensor gives anything but our errors."""

import numpy as np
import pytest

import models
from core import HostAllocator, Tensor, f32, run_op
from core.errors import KernelyardError, OptionError, PromptError, ShapeError
from core.reading import shown
from core.runtime.step import Sampling


class Hostile:
    """Fails in whatever a check may ask of it."""

    def _fail(self, *_):
        raise ValueError("hostile")
    __repr__ = __len__ = __eq__ = __bool__ = __iter__ = _fail
    __hash__ = None


ENDLESS = []
ENDLESS.append(ENDLESS)
ODD = {"None": None, "text": "x", "bytes": b"x", "dict": {"a": 1}, "half": 1.5, "nan": float("nan"),
       "-1": -1, "10**5000": 10**5000, "array": np.array([1, 2]), "texts": np.array(["a"]),
       "objects": np.array([None, 1], object), "endless": ENDLESS, "hostile": Hostile(),
       "list of a list": [[]], "type": int}
odd = pytest.mark.parametrize("value", ODD.values(), ids=ODD)
ROWS, ONES = np.ones((2, 4), np.float32), np.ones(4, np.float32)


@odd
@pytest.mark.parametrize("name", ["x", "weight", "eps", "other", "backend", "kernel", "past"])
def test_run_op(name, value):
    given = {"x": ROWS, "weight": ONES, "eps": 1e-5, name: value}
    if (name in ("kernel", "past") and value is None) or (name, type(value)) == ("eps", float):
        pytest.skip("it is none")
    with pytest.raises(KernelyardError):
        run_op("rms_norm", given.pop("x"), given.pop("weight"), **given)


@odd
def test_an_op_s_name(value):
    with pytest.raises(KernelyardError, match=r"^unknown op "):
        run_op(value, ROWS)


@odd
def test_bytes_to_allocate(value):
    with pytest.raises(KernelyardError, match=r"^cannot allocate "):
        HostAllocator().allocate(value)


@odd
@pytest.mark.parametrize("at", range(5))
def test_a_tensor(at, value):
    given = [HostAllocator().allocate(64), (1,), f32, 0, (1,)]
    if at == 4 and (value is None or isinstance(value, bytes)):  # bytes are numbers
        pytest.skip("it is none")
    given[at] = value
    with pytest.raises(KernelyardError):
        Tensor(*given)


def test_a_tensor_s_shape_is_of_whole_numbers():
    with pytest.raises(ShapeError, match="expected whole numbers"):
        Tensor(HostAllocator().allocate(64), (1.5, "2"), f32)


@pytest.fixture(scope="module")
def model():
    with models.load("stories-llama2", max_context=64) as loaded:
        yield loaded


@odd
def test_a_session(model, value):
    for ids in ([value], [10**6], *[value] * (not isinstance(value, (bytes, np.ndarray)))):
        with pytest.raises(PromptError):
            model.session.prefill(ids)
    if not isinstance(value, int) or value < 0:
        with pytest.raises(PromptError):
            model.session.truncate(value)
    assert model.generate("Once", max_new_tokens=2).run().text


@odd
def test_how_a_session_samples(model, value):
    with pytest.raises(OptionError, match=r"^sampling is "):
        model.session.sample_with(value)
    with pytest.raises(PromptError, match=r"^ids are "):
        model.session.sample_with(Sampling(penalty=2.0), [value])
    if not isinstance(value, (int, float)) or value != value:
        with pytest.raises(OptionError, match=r"^top_p is "):
            Sampling(top_p=value)
    with pytest.raises(OptionError, match=r"^show is "):
        model.generate("Once").stream(None if value is int else value)
    assert model.generate("Once", max_new_tokens=2).run().text


@odd
def test_what_a_message_shows(value):
    assert len(shown(value)) < 200
