"""Counts who holds each block of the KV cache, and finds blocks computed before."""

from __future__ import annotations

import secrets
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain, takewhile

from core.errors import AllocationError, LifetimeError


class BlockPool:
    """Hands out the blocks of a KV cache by number and counts who holds each.

    A block is used (somebody holds it), cached (nobody does, its key is known) or free. Blocks that
    nobody holds lie in one list: those without a key, then the others in order of their last use.
    `allocate` takes the first, so the list is the LRU of the cache. A shared block is full and
    never written again, so copy on write is not needed.
    The key of a full block is SHA-256(key of the block before it, its ids, salt). The chain starts
    from random bytes of this pool: what is cached cannot be guessed.

    queries, hits  tokens looked for in the cache, and found there
    evictions      cached blocks that were handed out for other tokens
    """

    def __init__(self, blocks: int, block_size: int, caching: bool = True) -> None:
        self.blocks, self.block_size, self.caching = blocks, block_size, caching
        self.queries = self.hits = self.evictions = 0
        self._refs = [0] * blocks
        self._keys: list[bytes | None] = [None] * blocks
        self._cached: dict[bytes, int] = {}
        self._idle = OrderedDict.fromkeys(range(blocks))  # a dict would slow down at its front
        self._later: dict[int, list[int]] = {}  # step -> what is released once it is complete
        self._complete = 0
        self._root = secrets.token_bytes(32)

    @property
    def free(self) -> int:
        """Count the blocks that `allocate` can hand out now, cached ones among them."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Count the holds whose release waits for a step."""
        return sum(map(len, self._later.values()))

    def allocate(self, n: int) -> list[int]:
        """Return n blocks, each held once. Raises AllocationError where fewer are idle."""
        if n > len(self._idle):
            raise AllocationError(f"{n} blocks of the KV cache are needed, {len(self._idle)} of "
                                  f"{self.blocks} are free")
        taken = [self._idle.popitem(last=False)[0] for _ in range(n)]
        for block in taken:
            self._refs[block] = 1
            if (key := self._keys[block]) is not None:
                del self._cached[key]
                self._keys[block] = None
                self.evictions += 1
        return taken

    def extend_keys(self, keys: list[bytes], ids: Sequence[int], salt: bytes = b"") -> None:
        """Append to `keys`, those of the first blocks of `ids`, the keys of the other full ones."""
        size = self.block_size
        for i in range(len(keys), len(ids) // size if self.caching else 0):
            parent = keys[-1] if keys else self._root
            own = array("q", ids[i * size:(i + 1) * size]).tobytes()
            keys.append(sha256(parent + own + salt).digest())

    def match(self, keys: Sequence[bytes], tokens: int) -> list[int]:
        """Return the blocks of the longest cached prefix of `tokens` tokens, without the last one,
        which is always computed. Hold the blocks by `acquire`."""
        known = takewhile(self._cached.__contains__, keys[:(tokens - 1) // self.block_size])
        return [self._cached[key] for key in known]

    def idle(self, blocks: Sequence[int]) -> int:
        """Count those of `blocks` that nobody holds: `acquire` makes `free` that much less."""
        return sum(not self._refs[block] for block in blocks)

    def acquire(self, blocks: Sequence[int], queries: int = 0) -> None:
        """Hold matched blocks. `queries`: the prompt's tokens, where this counts as a look-up."""
        for block in blocks:
            if not self._refs[block]:
                del self._idle[block]
            self._refs[block] += 1
        self.queries += queries
        self.hits += len(blocks) * self.block_size if queries else 0

    def enter(self, blocks: Sequence[int], keys: Sequence[bytes]) -> None:
        """Make full blocks known by their keys, once the step that writes them is queued. A key
        that another block has stays with that one."""
        for block, key in zip(blocks, keys, strict=True):
            if key not in self._cached and self._keys[block] is None:
                self._cached[key], self._keys[block] = block, key

    def release(self, blocks: Sequence[int], after: int = 0) -> None:
        """Give up one hold of each block of a sequence, once the step `after` (from 1) is complete.
        A sequence's end is evicted before its beginning. Raises LifetimeError for idle blocks."""
        if after > self._complete:
            self._later.setdefault(after, []).extend(reversed(blocks))
        else:
            self._drop(reversed(blocks))

    def completed(self, step: int) -> None:
        """Note that the steps up to `step` are complete; what waited for them is released."""
        self._complete = step
        for number in sorted(n for n in self._later if n <= step) if self._later else ():
            self._drop(self._later.pop(number))

    def _drop(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if not self._refs[block]:
                raise LifetimeError(f"block {block} of the KV cache is released, nobody holds it")
            self._refs[block] -= 1
            if not self._refs[block]:
                self._idle[block] = None
                self._idle.move_to_end(block, last=self._keys[block] is not None)

    def check(self, owners: Iterable[Sequence[int]]) -> None:
        """Raise LifetimeError with the numbers unless free + cached + used = total, and each count
        is right; `owners`: the blocks of each sequence."""
        expected = Counter(chain(*self._later.values(), *owners))
        known, idle = {k: b for b, k in enumerate(self._keys) if k is not None}, self._idle
        wrong = [f"block {b} is {'idle' if b in idle else 'used'}, held {n} times, expected "
                 f"{expected[b]}" for b, n in enumerate(self._refs)
                 if n != expected[b] or (b in idle) == (n > 0)]
        if wrong or known != self._cached:
            cached, used = sum(b in idle for b in known.values()), sum(n > 0 for n in self._refs)
            raise LifetimeError(f"{len(idle) - cached} free + {cached} cached + {used} used of "
                                f"{self.blocks} blocks; {len(known)} keys of blocks, "
                                f"{len(self._cached)} in the cache; {', '.join(wrong[:5])}")
