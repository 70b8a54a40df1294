"""Tests the definitions of the ops around sampling by numbers that come from elsewhere, and a
property by a kernel that breaks it. The matrix holds every backend to the definitions."""

import numpy as np
import pytest

from core import run_op
from core.ops.sampling import INF, NAN


def reference(name, *inputs, **attrs):
    with np.errstate(all="ignore"):
        return run_op(name, *inputs, backend="reference", **attrs)


def adjusted(logits, entries, mask=None):
    """Adjust one row by entries of (id, penalty, added)."""
    ids, penalties, add = zip(*entries, strict=True) if entries else ((), (), ())
    return reference("adjust_logits", np.array([logits], np.float32), np.array([0, len(ids)]),
                     np.array(ids, np.int32), np.array(penalties, np.float32),
                     np.array(add, np.float32), mask)[0].tolist()


def test_tokens_wait_for_the_next_step():
    last = np.array([7, 8, 9])
    last = reference("put_tokens", np.array([50, 60, 70]), np.array([2, -1, 0]), last)
    assert last.tolist() == [70, 8, 50]
    assert reference("pick_ids", np.array([-1, 5, -3, 0, -2, -4]), last).tolist() == [
        70, 5, 50, 0, 8, 0]


def test_penalties_and_biases():
    assert adjusted([2, -2, 1, 0], [(0, 2, 0), (1, 2, 0.5), (2, 1, -INF)]) == [1, -3.5, -INF, 0]
    assert adjusted([2, -2], []) == [2, -2]
    assert adjusted([2, -2], [(2, 2, 1), (-1, 2, 1)]) == [2, -2]


def test_each_step_is_rounded_to_float32():
    x, penalty, add = np.float32([1.1]), np.float32([3]), np.float32([-1e-7])
    assert adjusted(x, [(0, penalty[0], add[0])])[0] == float((x / penalty + add)[0])


def test_a_mask_holds_32_tokens_a_word_the_lowest_bit_first():
    mask = np.zeros((1, 2), np.int32)
    mask[0] = [-2**31 + 1, 0b10]
    kept = adjusted(np.arange(40), [(0, 1, 5), (1, 1, 5)], mask)
    assert {i: x for i, x in enumerate(kept) if x != -INF} == {0: 5, 31: 31, 33: 33}


def test_the_penalty_is_that_of_sample():
    rng = np.random.default_rng(0)
    logits, seen = rng.standard_normal((64, 50), np.float32), rng.random((64, 50)) < 0.3
    counts, each = seen.sum(1), np.full(64, 1.7, np.float32)
    entries = int(counts.sum())
    changed = reference("adjust_logits", logits, np.cumsum([0, *counts]), np.nonzero(seen)[1],
                        np.full(entries, 1.7, np.float32), np.zeros(entries, np.float32))
    rest = [np.zeros(64, np.int32), np.ones(64, np.float32), np.zeros(64, np.float32)]
    _, token = reference("sample", logits, np.zeros(64, np.float32), *rest, each,
                         np.zeros((64, 2), np.int32), np.zeros(64, np.int32), seen.astype(np.int8))
    assert (reference("argmax", changed.astype(np.float32)) == token).all()


def test_log_probs_are_logarithms_of_softmax():
    x = np.random.default_rng(1).standard_normal((5, 20), np.float32) * 4
    chosen, rank, top_ids, top = reference("log_probs", x, np.arange(5), n=20)
    expected = np.log(reference("softmax", x))
    np.testing.assert_allclose(chosen, expected[np.arange(5), np.arange(5)], rtol=1e-12)
    np.testing.assert_allclose(top, -np.sort(-expected), rtol=1e-12)
    assert (np.take_along_axis(top_ids, rank[:, None] - 1, 1)[:, 0] == np.arange(5)).all()


def test_log_probs_near_0_keep_their_digits():
    chosen, *_ = reference("log_probs", np.array([[50.0, 0.0]], np.float32), np.array([0]), n=0)
    assert chosen[0] == pytest.approx(-np.exp(-50), rel=1e-12)


@pytest.mark.parametrize("row, token, rank, best", [
    ([1, 3, 3, 2], 2, 1, [1, 2, 3]), ([1, 3, 3, 2], 3, 3, [1, 2, 3]),
    ([1, NAN, INF, NAN], 2, 3, [1, 3, 2]), ([1, NAN, INF, NAN], 3, 1, [1, 3, 2]),
    ([-INF, -INF, -INF], 2, 1, [0, 1, 2]), ([1, 2, 3], 3, 0, [2, 1, 0]),
    ([0.0, -0.0, -1], 1, 1, [0, 1, 2])])
def test_ranks_and_the_order_of_the_likeliest(row, token, rank, best):
    row = np.array([row], np.float32)
    chosen, found, top_ids, top = reference("log_probs", row, np.array([token]), n=3)
    assert found[0] == rank and top_ids[0].tolist() == best
    if not np.isfinite(row.max()):
        assert np.isnan(top).all() and np.isnan(chosen).all()
    assert np.isnan(chosen[0]) == (rank == 0 or not np.isfinite(row.max()))
