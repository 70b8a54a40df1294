"""Tests pieces of large blocks of device memory."""

import random

import pytest

from core import Suballocator
from core.errors import AllocationError

LEAST, MOST, SLAB = Suballocator.LEAST, Suballocator.MOST, Suballocator.SLAB


class Driver:
    """Gives addresses one after another, and `limit` bytes at most."""

    def __init__(self, limit=1 << 40):
        self.limit, self.next, self.taken = limit, 1 << 30, {}

    def take(self, nbytes):
        if sum(self.taken.values()) + nbytes > self.limit:
            raise AllocationError("no more")
        handle, self.next = self.next, self.next + -(-nbytes // 512) * 512
        self.taken[handle] = nbytes
        return handle, handle

    def give(self, handle):
        del self.taken[handle]


def test_pieces_do_not_overlap_and_all_memory_comes_back():
    driver, draw = Driver(), random.Random(1)
    memory, live = Suballocator(driver.take, driver.give), {}
    for _ in range(2000):
        if live and draw.random() < 0.48:
            memory.free(live.pop(draw.choice(list(live)))[0])
            continue
        nbytes = int(2 ** draw.uniform(18, 27))
        handle, address = memory.allocate(nbytes)
        assert address % 512 == 0 or not LEAST <= nbytes <= MOST
        assert all(address + nbytes <= other or other + size <= address
                   for other, (_, size) in live.items())
        live[address] = handle, nbytes
    for handle, _ in live.values():
        memory.free(handle)
    assert not driver.taken


def test_weights_of_a_model_waste_little():
    """Allocate Qwen2.5-0.5B's weights: 8.3 MiB, which alone take 10 of the driver's pages of 2
    MiB."""
    driver = Driver()
    memory = Suballocator(driver.take, driver.give)
    sizes = 24 * [*3 * [896 * 4864 * 2], *2 * [896 * 896 * 2]]
    for nbytes in sizes:
        memory.allocate(nbytes)
    assert sum(driver.taken.values()) <= sum(sizes) + SLAB


def test_the_room_of_the_last_piece_is_given_again():
    memory = Suballocator((driver := Driver()).take, driver.give)
    kept = memory.allocate(LEAST)
    for _ in range(100):
        memory.free(memory.allocate(MOST)[0])
    assert len(driver.taken) == 1 and kept[1] in driver.taken


def test_where_no_slab_fits_a_piece_is_taken_by_itself():
    driver = Driver(limit=2 * LEAST)
    memory = Suballocator(driver.take, driver.give)
    handle, _ = memory.allocate(LEAST)
    assert list(driver.taken.values()) == [LEAST]
    with pytest.raises(AllocationError):
        memory.allocate(2 * LEAST)
    memory.free(handle)
    assert not driver.taken
