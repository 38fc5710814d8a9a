"""Virtual time, and a way to the store that fails: what a simulation runs the product's code on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from placement.memory_store import MemoryStore
from placement.store import Batch, Compare, Delete, Entry, Listing, Put, WatchLostError
from tessera.errors import DeadlineExceededError, UnavailableError


class _Jump(selectors.DefaultSelector):
    """Never waits: moves the loop's clock to the next timer instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready now."""
        assert timeout is not None, "nothing will ever happen again"
        self.loop.now_s += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only where it would wait."""

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.now_s = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Return virtual seconds."""
        return self.now_s


class LoopClock:
    """The loop's time as a `Clock`."""

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return asyncio.get_running_loop().time()

    def wall_s(self) -> float:
        """See `Clock.wall_s`."""
        return 1.7e9 + self.monotonic_s()


@dataclass
class Faults:
    """How bad it is; chances are for each call or batch. All 0: nothing fails."""

    lost: float = 0.03
    lost_answer: float = 0.03
    late: float = 0.05
    watch_lost: float = 0.03
    duplicate: float = 0.1


class FaultyStore:
    """One client's way to the store: late, lossy, cut off for a while when told so. Keeps the contract of `Store`."""

    def __init__(self, store: MemoryStore, rng: random.Random, faults: Faults) -> None:
        self._store, self._rng, self.faults = store, rng, faults
        self.cut = False

    async def _there(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.5, 2.0) if self._happens(self.faults.late) else self._rng.random() / 50)
        if self.cut:
            await asyncio.sleep(2.0)
            raise DeadlineExceededError("cut off")
        if self._happens(self.faults.lost):
            raise UnavailableError("the call was lost")

    def _happens(self, chance: float) -> bool:
        return self._rng.random() < chance

    async def get(self, key: str) -> Entry | None:
        await self._there()
        return await self._store.get(key)

    async def list_prefix(self, prefix: str) -> Listing:
        await self._there()
        return await self._store.list_prefix(prefix)

    async def put(self, key: str, value: bytes, *, expected: int | None = None, lease: int = 0) -> int:
        compares = [] if expected is None else [Compare(key, version=expected)]
        return await self.transact(compares, [Put(key, value, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        await self._there()
        return await self._store.delete(key, expected=expected)

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        await self._there()
        revision = await self._store.transact(compares, operations)
        if self.cut or self._happens(self.faults.lost_answer):
            raise UnavailableError("outcome unknown: the answer was lost")
        await asyncio.sleep(self._rng.random() / 50)
        return revision

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        watch = self._store.watch(prefix, after_revision)
        async with contextlib.aclosing(watch):
            async for batch in watch:
                await asyncio.sleep(self._rng.random() / 10)
                if self.cut or self._happens(self.faults.watch_lost):
                    raise WatchLostError("ended", "the stream broke")
                yield batch
                if self._happens(self.faults.duplicate):
                    yield batch

    async def grant_lease(self, ttl_s: int) -> int:
        await self._there()
        return await self._store.grant_lease(ttl_s)

    async def keep_lease(self, lease: int) -> float:
        await self._there()
        return await self._store.keep_lease(lease)

    async def revoke_lease(self, lease: int) -> None:
        await self._there()
        await self._store.revoke_lease(lease)

    async def close(self) -> None:
        """The shared store is not this client's to close."""
