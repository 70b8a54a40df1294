"""Keeps what running requests hold: blocks of the KV cache, and a slot each."""

from __future__ import annotations

from collections.abc import Iterable

from core.runtime.kv_cache import BlockPool
from models.serving.request import Request


class Holdings:
    """Gives blocks and slots to requests and takes them back, and feeds the prefix cache."""

    def __init__(self, pool: BlockPool, slots: int) -> None:
        self.pool = pool
        self.slots = list(range(slots))[::-1]

    def blocks(self, tokens: int) -> int:
        """Return how many blocks hold so many tokens."""
        return -(-tokens // self.pool.block_size)

    def growth(self, request: Request) -> int:
        """Return how many blocks a request may come to need beyond those that it holds, or that it
        would be admitted with."""
        return self.blocks(request.limit - 1) - (len(request.blocks) or self.blocks(request.total))

    def match(self, request: Request, spare: int) -> list[int] | None:
        """Return the cached blocks of a request's prefix, None unless there are blocks for all of
        its tokens and `spare` ones besides. Logits of cached tokens are not computed, so a request
        that asks for those of its prompt has no cached prefix."""
        pool = self.pool
        pool.extend_keys(request.keys, request.ids, request.salt)
        matched = ([] if request.params.prompt_logprobs is not None
                   else pool.match(request.keys, request.total))
        need = self.blocks(request.total) - len(matched) + pool.idle(matched)
        return matched if need + spare <= pool.free else None

    def next_key(self, request: Request, matched: list[int]) -> bytes | None:
        """Return the key of the first block that a request could share and that is not cached."""
        if request.params.prompt_logprobs is not None:
            return None
        last = (request.total - 1) // self.pool.block_size
        return next(iter(request.keys[len(matched):last]), None)

    def coming(self, prompts: Iterable[Request]) -> set[bytes]:
        """Return the keys of the blocks that these prompts compute next."""
        return {r.keys[r.entered] for r in prompts if r.entered < len(r.keys)}

    def give(self, request: Request, matched: list[int]) -> None:
        """Give a request a slot and blocks for its tokens; `matched` ones are computed already."""
        pool = self.pool
        pool.acquire(matched, 0 if request.preemptions else request.total)
        request.blocks = matched + pool.allocate(self.blocks(request.total) - len(matched))
        request.capacity = len(request.blocks) * pool.block_size
        request.computed = len(matched) * pool.block_size
        request.entered = len(matched)
        request.slot = self.slots.pop()
        if not request.preemptions:
            request.cached_tokens = request.computed

    def grow(self, request: Request) -> None:
        """Give a request one more block."""
        self.enter(request)
        request.blocks += self.pool.allocate(1)
        request.capacity += self.pool.block_size

    def take(self, request: Request) -> None:
        """Take everything that a request holds, once the last step that names it is complete."""
        self.enter(request)
        self.pool.release(request.blocks, after=request.last_step)
        self.slots.append(request.slot)
        request.blocks, request.slot = [], -1
        request.capacity = request.computed = request.entered = 0

    def enter(self, request: Request) -> None:
        """Let others find the blocks that are full of known ids."""
        full = min(request.computed, len(request.ids)) // self.pool.block_size
        if self.pool.caching and full > (done := request.entered):
            self.pool.extend_keys(request.keys, request.ids, request.salt)
            self.pool.enter(request.blocks[done:full], request.keys[done:full])
            request.entered = full
