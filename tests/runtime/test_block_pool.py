"""Tests counting, caching, sharing and deferred release of the KV cache's blocks."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import AllocationError, LifetimeError
from core.runtime.kv_cache import BlockPool

SIZE = 4


def keys_of(pool: BlockPool, ids, salt: bytes = b"") -> list[bytes]:
    keys: list[bytes] = []
    pool.extend_keys(keys, ids, salt)
    return keys


def compute(pool: BlockPool, ids, salt: bytes = b"") -> list[int]:
    """Hold blocks of a whole sequence as if they had been computed."""
    keys = keys_of(pool, ids, salt)
    matched = pool.match(keys, len(ids))
    pool.acquire(matched, len(ids))
    blocks = matched + pool.allocate(-(-len(ids) // SIZE) - len(matched))
    pool.enter(blocks[:len(keys)], keys)
    return blocks


def test_full_blocks_are_found_again_but_never_the_last_token():
    pool = BlockPool(8, SIZE)
    blocks = compute(pool, range(9))
    assert pool.match(keys_of(pool, range(9)), 9) == blocks[:2]
    assert pool.match(keys_of(pool, range(8)), 8) == blocks[:1]
    assert pool.match(keys_of(pool, [0, 1, 2, 3, 9, 9]), 6) == blocks[:1]
    assert pool.match(keys_of(pool, range(1, 9)), 8) == []
    assert compute(pool, range(9))[:2] == blocks[:2]
    assert (pool.queries, pool.hits) == (18, 8)


def test_a_block_depends_on_all_before_it_and_on_the_salt():
    pool = BlockPool(16, SIZE)
    a, b = keys_of(pool, [1] * 12), keys_of(pool, [2] * 4 + [1] * 8)
    assert len({*a, *b}) == 6
    assert not {*a} & {*keys_of(pool, [1] * 12, b"other")}
    compute(pool, [1] * 12, b"mine")
    assert pool.match(keys_of(pool, [1] * 12, b"yours"), 12) == []
    assert not {*a} & {*keys_of(BlockPool(16, SIZE), [1] * 12)}, "each pool has a random start"


def test_keys_go_on_where_they_ended():
    pool = BlockPool(8, SIZE)
    keys = keys_of(pool, range(6))
    pool.extend_keys(keys, range(13))
    assert keys == keys_of(pool, range(13)) and len(keys) == 3


def test_without_caching_nothing_is_found():
    pool = BlockPool(8, SIZE, caching=False)
    pool.release(compute(pool, range(9)))
    assert keys_of(pool, range(9)) == [] and pool.match([], 9) == []
    assert pool.free == 8


def test_least_recently_used_goes_first_and_a_sequence_from_its_end():
    pool = BlockPool(6, SIZE)
    old, new = compute(pool, range(9)), compute(pool, range(50, 59))
    pool.release(old)
    pool.release(new)
    assert pool.free == 6 and pool.evictions == 0
    assert set(pool.allocate(2)) == {old[2], new[2]}, "blocks that are not full are no loss"
    assert pool.allocate(3) == [old[1], old[0], new[1]] and pool.evictions == 3
    assert pool.match(keys_of(pool, range(50, 59)), 9) == new[:1]


def test_using_a_cached_block_makes_it_young():
    pool = BlockPool(4, SIZE)
    a, b = compute(pool, range(8)), compute(pool, range(50, 58))
    for blocks in (a, b):
        pool.release(blocks)
    pool.acquire(a)
    pool.release(a)
    assert pool.allocate(2) == b[::-1]


def test_a_shared_block_is_free_when_its_last_holder_leaves():
    pool = BlockPool(8, SIZE)
    a = compute(pool, range(9))
    b = compute(pool, range(9))
    assert pool.free == 4
    pool.release(a)
    assert pool.free == 5 and pool.idle(b[:2]) == 0
    pool.release(b)
    assert pool.free == 8 and pool.idle(b[:2]) == 2


def test_two_that_compute_the_same_keep_their_own_blocks():
    pool = BlockPool(8, SIZE)
    keys = keys_of(pool, range(8))
    a, b = pool.allocate(2), pool.allocate(2)
    pool.enter(a, keys)
    pool.enter(b, keys)
    assert pool.match(keys, 9) == a
    pool.check([a, b])
    pool.release(b)
    assert set(pool.allocate(2)) == set(b), "nobody can find them, so they go first"
    pool.check([a, b])


def test_release_waits_for_its_step():
    pool = BlockPool(4, SIZE)
    a, b = pool.allocate(2), pool.allocate(2)
    pool.release(a, after=2)
    pool.release(b, after=1)
    assert (pool.free, pool.waiting) == (0, 4)
    pool.completed(1)
    assert (pool.free, pool.waiting) == (2, 2) and set(pool.allocate(2)) == set(b)
    pool.completed(2)
    assert (pool.free, pool.waiting) == (2, 0)
    pool.release(b, after=2)
    assert pool.free == 4, "step 2 is complete already"


def test_errors_name_the_numbers():
    pool = BlockPool(4, SIZE)
    blocks = pool.allocate(3)
    with pytest.raises(AllocationError, match="2 blocks of the KV cache are needed, 1 of 4"):
        pool.allocate(2)
    assert pool.free == 1, "a refusal takes nothing"
    pool.release(blocks)
    with pytest.raises(LifetimeError, match=f"block {blocks[2]} "):
        pool.release(blocks)


@pytest.mark.parametrize("damage", [
    lambda pool: pool._refs.__setitem__(1, 2), lambda pool: pool._refs.__setitem__(3, 1),
    lambda pool: pool._idle.pop(3), lambda pool: pool._idle.setdefault(0),
    lambda pool: pool._cached.clear(), lambda pool: pool._keys.__setitem__(0, None),
    lambda pool: pool._later.__setitem__(9, [0])], ids=[
    "count too high", "idle but held", "lost", "idle twice", "cache emptied", "key lost",
    "released too often"])
def test_check_finds_damage(damage):
    pool = BlockPool(4, SIZE)
    blocks = compute(pool, range(8))
    pool.check([blocks])
    damage(pool)
    with pytest.raises(LifetimeError, match=r"free \+ .* cached \+ .* used of 4 blocks"):
        pool.check([blocks])


@settings(max_examples=150, deadline=None)
@given(st.integers(4, 40), st.randoms(use_true_random=False), st.booleans())
def test_counts_agree_after_any_operations(blocks, rng: random.Random, caching):
    pool, step, held = BlockPool(blocks, SIZE, caching), 1, []
    for _ in range(60):
        ids = [rng.randrange(2) for _ in range(rng.randrange(1, 20))]
        if rng.random() < 0.5 and pool.free >= -(-len(ids) // SIZE):
            keys = keys_of(pool, ids)
            matched = pool.match(keys, len(ids))
            before = pool.free
            idle = pool.idle(matched)
            pool.acquire(matched)
            assert pool.free == before - idle
            held.append(matched + pool.allocate(-(-len(ids) // SIZE) - len(matched)))
            pool.enter(held[-1][:len(keys)], keys)
        elif held and rng.random() < 0.7:
            pool.release(held.pop(rng.randrange(len(held))), after=step + rng.randrange(-1, 2))
        else:
            pool.completed(step)
            step += 1
        pool.check(held)
    for blocks_of_one in held:
        pool.release(blocks_of_one)
    pool.completed(step + 2)
    pool.check([])
    assert (pool.free, pool.waiting) == (blocks, 0)


def test_an_operation_on_a_block_takes_microseconds():
    pool = BlockPool(100_000, 16)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        taken = [pool.allocate(1) for _ in range(256)]
        best = min(best, time.perf_counter() - start)
        for blocks in taken:
            pool.release(blocks)
    assert best < 256 * 5e-6, f"{best / 256 * 1e6:.1f} µs a block"
