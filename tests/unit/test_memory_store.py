from __future__ import annotations

import asyncio
import random

import pytest

from placement.memory_store import MemoryStore
from placement.store import WatchLostError
from support.store_contract import Harness, StoreContract
from tessera.clock import ManualClock
from tessera.errors import FailedPreconditionError, UnavailableError


@pytest.fixture
def harness() -> Harness:
    clock = ManualClock()
    store = MemoryStore(clock=clock, rng=random.Random(7))

    async def advance(seconds: float) -> None:
        clock.advance(seconds)
        store.expire_leases()

    return Harness(lambda: store, "/test/", store.compact, advance)


class TestMemoryStore(StoreContract):
    pass


def test_a_store_refuses_a_second_event_loop() -> None:
    store = MemoryStore()
    asyncio.run(store.put("a", b""))
    with pytest.raises(FailedPreconditionError, match="another event loop"):
        asyncio.run(store.get("a"))


def test_a_watch_that_is_too_far_behind_is_lost() -> None:
    async def body() -> None:
        store = MemoryStore(kept_batches=3)
        start = (await store.list_prefix("a")).revision
        for i in range(4):
            await store.put("a", str(i).encode())
        with pytest.raises(WatchLostError, match="compacted"):
            await anext(store.watch("a", start))
        assert [e.entry.value for e in (await anext(store.watch("a", start + 1))).events if e.entry] == [b"1"]

    asyncio.run(body())


def test_closing_ends_watches_and_calls() -> None:
    async def body() -> None:
        store = MemoryStore()
        start = (await store.list_prefix("a")).revision
        waiting = asyncio.ensure_future(anext(store.watch("a", start)))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(WatchLostError, match="ended"):
            await waiting
        with pytest.raises(UnavailableError):
            await store.get("a")

    asyncio.run(body())


def test_leases_end_by_themselves_on_the_machines_clock() -> None:
    async def body() -> None:
        store = MemoryStore()
        lease = await store.grant_lease(1)
        start = await store.put("a", b"", lease=lease)
        async with asyncio.timeout(3):
            batch = await anext(store.watch("a", start))
        assert batch.events[0].entry is None
        await store.close()

    asyncio.run(body())


def test_two_stores_do_not_agree_by_luck() -> None:
    async def body() -> None:
        revisions = {(await MemoryStore(rng=random.Random(seed)).list_prefix("a")).revision for seed in range(8)}
        assert len(revisions) == 8

    asyncio.run(body())
