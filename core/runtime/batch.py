"""Describe what one step computes for which sequences, and lay it out in the inputs of a plan.

Sequences live in slots; what a step must know of each stands in arrays by slot, so that packing a
step of many sequences costs a few array operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.runtime.step import BLOCK_SIZE, GraphKind, Sampling
from core.tensor.tensor import Array

#: the inputs of `sample` for each row, and where `Sampling` holds them
SETTINGS = {"temperature": np.float32, "top_k": np.int32, "top_p": np.float32,
            "min_p": np.float32, "penalty": np.float32}
#: inputs that grow with a token, and their rows of `Batch.moved`
_MOVING = {"positions": 0, "seq_lens": 1, "sample_positions": 1, "slots": 2}
Kept = list[tuple[Array, Array]]  # fields of a plan's inputs, and the numbers that go there


def bucket(n: int) -> int:
    """Return the number of rows of the plan for `n` of them: 1, 2, 4, 8, 16, 24, 32, 48, 64, 96,
    ... two for each doubling, four beyond 256."""
    if n <= 8:
        return 1 << max(n - 1, 0).bit_length()
    step = max(8, 1 << ((n - 1).bit_length() - (2 if n <= 256 else 3)))
    return -(-n // step) * step


def batch_dims(slots: int, width: int) -> dict[str, int]:
    """Return the dimensions that all steps of a batch share, with one block: of `slots` sequences,
    each of at most `width` blocks."""
    return {"B": width, "NB": 1, "BS": BLOCK_SIZE, "N": slots}


def widest_dims(slots: int, tokens: int) -> dict[str, int]:
    """Return the dimensions of a step of so many tokens in which every slot samples."""
    rows = bucket(slots)
    return {"T": bucket(tokens), "S": rows, "R": rows, "E": bucket(tokens)}


class SequenceTable:
    """Holds the sequences of a batch by slot.

    blocks    i32 [slots, blocks of a sequence], -1 where there is none
    settings  how each is sampled: the fields of `Sampling`, as arrays
    seeds     i32 [slots, 2], low word first
    """

    def __init__(self, slots: int, width: int) -> None:
        self.blocks = np.full((slots, width), -1, np.int32)
        self.settings = {name: np.zeros(slots, dtype) for name, dtype in SETTINGS.items()}
        self.seeds = np.zeros((slots, 2), np.int32)

    def open(self, slot: int, sampling: Sampling) -> None:
        """Give a slot to a sequence, which has no blocks yet."""
        self.blocks[slot] = -1
        for name, numbers in self.settings.items():
            numbers[slot] = getattr(sampling, name)
        self.seeds[slot] = np.array([sampling.seed & (2**64 - 1)], "<u8").view("<i4")

    def put_blocks(self, slot: int, first: int, blocks: Sequence[int]) -> None:
        """Let a sequence own more blocks, from its `first` on."""
        self.blocks[slot, first:first + len(blocks)] = blocks


@dataclass(frozen=True)
class Adjustments:
    """Holds what changes the logits of R rows; see `core.ops.adjust_logits`.

    starts i32 [R+1]; ids i32, penalties f32, add f32 [E]; mask i32 [R, ceil(V/32)] or None
    """

    starts: Array
    ids: Array
    penalties: Array
    add: Array
    mask: Array | None = None


@dataclass(slots=True)
class Batch:
    """Holds one step of several sequences.

    slots      i32 [s], each sequence's slot
    starts     i32 [s], its tokens in the KV cache before the step
    counts     i32 [s], its tokens that the step computes, at least 1
    ids        i32 [sum of counts], these tokens; -1 - slot is the one that the device sampled last
               in that slot
    rows       i32 [R], the tokens of the step that logits come from, as indices of `ids`
    places     i32 [R], the slot for which a row samples; -1 for a row without a next token
    adjust     what changes these rows' logits, None for nothing
    top        how many log-probabilities a row gives beside its target's, None for none at all
    targets    i32 [R], the tokens that log-probabilities are of; -1 - r is what row r samples
    grown      once it has moved on, the sequences that have got a block for that
    moved      then, the numbers of its inputs that grow with each token, i32 [3, s]
    """

    slots: Array
    starts: Array
    counts: Array
    ids: Array
    rows: Array
    places: Array
    adjust: Adjustments | None = None
    top: int | None = None
    targets: Array | None = None
    grown: Sequence[int] = ()
    moved: Array | None = None

    def move(self, table: SequenceTable, grown: Sequence[int]) -> None:
        """Move on: let each sequence compute the token that it samples in this step, where each
        samples one and nothing is asked about logits."""
        self.grown = grown
        if self.moved is None:
            self.ids, ends = -1 - self.slots, self.starts + self.counts
            blocks = table.blocks[self.slots, ends // BLOCK_SIZE]
            self.moved = np.stack([ends, ends + 1, blocks * BLOCK_SIZE + ends % BLOCK_SIZE])
            self.starts = self.moved[0]
            return
        np.add(self.moved, self.counts, self.moved)
        if grown:
            rows = list(grown)
            blocks = table.blocks[self.slots[rows], self.starts[rows] // BLOCK_SIZE]
            self.moved[2, rows] = blocks * BLOCK_SIZE  # which the token begins

    def kind(self, table: SequenceTable) -> GraphKind:
        """Return the graph that computes this."""
        if not len(self.rows):
            return GraphKind("none", batch=True)
        greedy = not table.settings["temperature"][self.places[self.places >= 0]].any()
        adjust = ("none" if self.adjust is None else
                  "listed" if self.adjust.mask is None else "mask")
        head = "all" if len(self.rows) == len(self.ids) else "last"
        return GraphKind(head, "argmax" if greedy else "sample", False, True, adjust, self.top)

    def dims(self, kind: GraphKind) -> dict[str, int]:
        """Return the dimensions of the plan for it, rounded up to `bucket`s."""
        tokens, sequences = len(self.ids), len(self.slots)
        found = {"T": bucket(tokens), "S": bucket(sequences), "R": bucket(len(self.rows))}
        if found["T"] > tokens and found["S"] == sequences:
            found["S"] = bucket(sequences + 1)  # an idle sequence has the tokens that pad the step
        if kind.head == "all":
            found["R"] = found["T"]
        if self.adjust is not None:
            found["E"] = bucket(max(len(self.adjust.ids), 64))
        return found

    def pack_moved(self, table: SequenceTable, fields: Mapping[str, Array], kept: Kept) -> Kept:
        """Write the step into a plan's inputs where it was packed before it moved on. Returns what
        the next call takes as `kept`, first an empty list."""
        if not kept and self.moved is not None:
            n = len(self.slots)
            fields["ids"][:n] = self.ids
            kept = [(fields[name][:n], self.moved[row]) for name, row in _MOVING.items()
                    if name in fields]
        for field, numbers in kept:
            field[:] = numbers
        if self.grown:
            rows = list(self.grown)
            fields["block_table"][rows] = table.blocks[self.slots[rows]]
        return kept

    def pack(self, table: SequenceTable, fields: Mapping[str, Array]) -> None:
        """Write the step into a plan's inputs, by name. What pads it belongs to idle sequences, and
        writes nothing."""
        tokens, n, rows = len(self.ids), len(self.slots), len(self.rows)
        ends = np.cumsum(self.counts)
        owners = np.repeat(self.slots, self.counts)
        places = np.arange(tokens) - np.repeat(ends - self.counts - self.starts, self.counts)
        blocks = table.blocks[owners, places // BLOCK_SIZE]
        slots = np.where(blocks < 0, -1, blocks * BLOCK_SIZE + places % BLOCK_SIZE)
        _fill(fields, "ids", self.ids, 0)
        _fill(fields, "positions", places, 0)
        _fill(fields, "slots", slots, -1)
        _fill(fields, "block_table", table.blocks[self.slots], -1)
        _fill(fields, "seq_lens", self.starts + self.counts, 0)
        starts = fields["query_starts"]
        starts[0], starts[1:n + 1] = 0, ends
        idle, whole = len(starts) - 1 - n, len(fields["ids"])
        # one token for each idle sequence as far as they go, the rest for the last one
        starts[n + 1:] = np.minimum(tokens + np.arange(1, idle + 1), whole)
        starts[-1] = whole
        if not rows:
            return
        _fill(fields, "last_rows", self.rows, 0)
        _fill(fields, "places", self.places, -1)
        _fill(fields, "sample_positions", places[self.rows] + 1, 0)
        for name, numbers in table.settings.items():
            _fill(fields, name, numbers[self.places], 1)
        _fill(fields, "seeds", table.seeds[self.places], 0)
        if self.targets is not None:
            _fill(fields, "targets", self.targets, 0)
        if (adjust := self.adjust) is not None:
            _fill(fields, "adjust_starts", adjust.starts, adjust.starts[-1])
            _fill(fields, "adjust_ids", adjust.ids, 0)
            _fill(fields, "adjust_penalties", adjust.penalties, 1)
            _fill(fields, "adjust_add", adjust.add, 0)
            if adjust.mask is not None:
                _fill(fields, "adjust_mask", adjust.mask, -1)


def _fill(fields: Mapping[str, Array], name: str, values: Any, rest: float) -> None:  # noqa: ANN401 - an array or a list
    """Write the first rows of a field, and `rest` into those that pad it."""
    if name in fields:
        fields[name][:len(values)] = values
        fields[name][len(values):] = rest
