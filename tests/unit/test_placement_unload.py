from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from placement.change import ChangeDriver
from placement.found import Found, Reader
from placement.keys import Kind
from placement.memory_store import MemoryStore
from placement.operation import load_model
from placement.records import AuditRecord, OperationRecord, OperationState
from placement.unload import unload_model
from support.fake_cluster import KEYS, MODEL, REF, SLOTS, FakeRouter, FakeServer, make_current, make_placement, until
from tessera.errors import DeadlineExceededError, FailedPreconditionError, NotFoundError


@contextlib.asynccontextmanager
async def cluster(store: MemoryStore) -> AsyncIterator[dict[str, FakeServer]]:
    await make_current(store, make_placement(1, "ab"))
    async with FakeServer(store, "a") as a, FakeServer(store, "b") as b, FakeRouter(store):
        await until(lambda: a.slots and b.slots)
        yield {"a": a, "b": b}


async def read(store: MemoryStore) -> Found:
    return await Reader(store, KEYS, MODEL).read()


async def unload(store: MemoryStore, timeout_s: float = 60.0, *, wait: bool = True) -> OperationRecord:
    return await unload_model(store, KEYS, MODEL, owner="me", timeout_s=timeout_s, wait=wait)


def test_an_unloaded_model_is_dropped_by_all_and_can_be_loaded_again() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store) as servers:
            done = await unload(store)
            assert (done.state, done.kind, done.target_epoch) == (OperationState.DONE, "unload", 2)
            assert not servers["a"].slots
            assert not servers["b"].slots
            found = await read(store)
            assert found.current
            assert (found.current.unloaded, found.current.epoch, found.current_placement) == (True, 2, None)
            kinds = {keys.kind for e in (await store.list_prefix(KEYS.prefix)).entries if (keys := KEYS.parse(e.key))}
            assert Kind.PLACEMENT not in kinds  # the documents went; the pointer stays
            audits = (await store.list_prefix(KEYS.audits)).entries
            records = [AuditRecord.from_bytes(entry.value, entry.key) for entry in audits]
            assert [(one.command, one.model) for one in records] == [(f"model unload {MODEL}", MODEL)]
            with pytest.raises(NotFoundError, match="nothing to unload"):
                await unload(store)

            loaded = await load_model(
                store, KEYS, model=MODEL, versions=(REF,), slot_bytes=lambda slots: [1] * slots, replicas=1,
                owner="me", timeout_s=60.0,
            )  # fmt: skip
            assert loaded.placement.epoch == 3  # no epoch twice
            assert len(servers["a"].slots | servers["b"].slots) == loaded.placement.slots

    asyncio.run(body())


def test_servers_keep_what_a_running_request_uses() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store) as servers, FakeRouter(store, "slow", pin=1) as slow:
            with pytest.raises(DeadlineExceededError, match="routers to end requests"):
                await unload(store, 1.0)
            assert servers["a"].slots | servers["b"].slots == set(range(SLOTS))
            await slow.let_go()
            driver = ChangeDriver(store, KEYS, MODEL, owner="another", grace_s=0.3)
            assert (await driver.resume(timeout_s=60)).state is OperationState.DONE
            await until(lambda: not servers["a"].slots and not servers["b"].slots)

    asyncio.run(body())


def test_without_waiting_it_is_written_and_resumed_later() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store) as servers:
            assert (await unload(store, wait=False)).state is OperationState.COMMITTED
            with pytest.raises(FailedPreconditionError, match="is under way"):
                await unload(store)
            driver = ChangeDriver(store, KEYS, MODEL, owner="another", grace_s=0.3)
            with pytest.raises(FailedPreconditionError, match="point of no return"):
                await driver.abort("no", timeout_s=5)
            assert (await driver.resume(timeout_s=60)).state is OperationState.DONE
            assert not servers["a"].slots

    asyncio.run(body())


def test_a_model_that_is_being_changed_or_is_not_there_is_not_unloaded() -> None:
    async def body() -> None:
        store = MemoryStore()
        with pytest.raises(NotFoundError, match="has no placement"):
            await unload(store)
        await make_current(store, make_placement(1, "ab"))
        operation = OperationRecord("o", "reshard", OperationState.PREPARING, 1, 2, "d", "ana")
        await store.put(KEYS.operation(MODEL), operation.to_bytes())
        with pytest.raises(FailedPreconditionError, match=r"operation o .* of ana is under way"):
            await unload(store)
        await store.put(KEYS.operation(MODEL), replace(operation, state=OperationState.DONE).to_bytes())
        assert (await unload(store, wait=False)).state is OperationState.COMMITTED

    asyncio.run(body())
