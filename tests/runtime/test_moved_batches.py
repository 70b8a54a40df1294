"""A batch that moves on writes into a plan's inputs what a new one of the same step would."""

import random

import numpy as np

from core.runtime.batch import Batch, SequenceTable
from core.runtime.step import BLOCK_SIZE, Sampling

WIDTH, PADDED = 5, 8


def fields() -> dict[str, np.ndarray]:
    rows = dict.fromkeys(["ids", "positions", "slots", "seq_lens", "sample_positions", "last_rows",
                          "places", "temperature"], (PADDED,))
    shapes = {**rows, "query_starts": (PADDED + 1,), "block_table": (PADDED, WIDTH)}
    return {name: np.full(shape, 99, np.int32) for name, shape in shapes.items()}


def batch(slots, starts, ids) -> Batch:
    each = np.arange(len(slots), dtype=np.int32)
    return Batch(np.array(slots, np.int32), np.array(starts, np.int32), np.ones_like(each),
                 np.array(ids, np.int32), each, np.array(slots, np.int32))


def test_a_moved_batch_is_packed_as_a_new_one():
    r = random.Random(20)
    for n in (1, 3, 8):
        table, slots = SequenceTable(9, WIDTH), r.sample(range(9), n)
        starts = [r.randrange(1, 3 * BLOCK_SIZE) for _ in slots]
        held = [-(-(start + 1) // BLOCK_SIZE) for start in starts]
        for slot, blocks in zip(slots, held, strict=True):
            table.open(slot, Sampling())
            table.put_blocks(slot, 0, r.sample(range(50), blocks))
        moving, written, kept = batch(slots, starts, range(n)), fields(), []
        moving.pack(table, written)
        for _ in range(BLOCK_SIZE + 3):
            starts = [start + 1 for start in starts]
            grown = [i for i in range(n) if starts[i] == held[i] * BLOCK_SIZE]
            for i in grown:
                table.put_blocks(slots[i], held[i], [r.randrange(50)])
                held[i] += 1
            moving.move(table, grown)
            kept = moving.pack_moved(table, written, kept)
            new, expected = batch(slots, starts, [-1 - slot for slot in slots]), fields()
            new.pack(table, expected)
            assert all((written[name] == expected[name]).all() for name in expected)
            assert (moving.starts == starts).all() and (moving.ids == new.ids).all()
            beside = fields()
            moving.pack(table, beside)  # as a check that computes the step once more
            assert all((beside[name] == expected[name]).all() for name in expected)
