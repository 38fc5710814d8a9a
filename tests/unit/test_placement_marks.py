"""A change that waits for an operator: paused, held before its commit, verified."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from placement.change import Change, ChangeDriver
from placement.found import Reader
from placement.memory_store import MemoryStore
from placement.records import OperationRecord, OperationState
from support.fake_cluster import KEYS, MODEL, FakeRouter, FakeServer, make_current, make_placement, until
from tessera.errors import FailedPreconditionError, NotFoundError

S = OperationState


def driver(store: MemoryStore, owner: str = "me") -> ChangeDriver:
    return ChangeDriver(store, KEYS, MODEL, owner=owner, grace_s=0.3, lock_wait_s=5.0)


async def change_to(store: MemoryStore, *servers: str, hold: bool = False) -> Change:
    found = await Reader(store, KEYS, MODEL).read()
    targets = tuple(make_placement(found.last_epoch + 1 + wave, names) for wave, names in enumerate(servers))
    return Change(found, targets, "reshard", f"to {servers[-1]}", hold=hold)


async def operation_of(store: MemoryStore) -> OperationRecord:
    found = await Reader(store, KEYS, MODEL).read()
    assert found.operation
    return found.operation


async def current_epoch(store: MemoryStore) -> int:
    found = await Reader(store, KEYS, MODEL).read()
    assert found.current
    return found.current.epoch


@contextlib.asynccontextmanager
async def cluster(store: MemoryStore) -> AsyncIterator[None]:
    await make_current(store, make_placement(1, "ab"))
    async with contextlib.AsyncExitStack() as stack:
        for name in "abc":
            await stack.enter_async_context(FakeServer(store, name))
        await stack.enter_async_context(FakeRouter(store))
        yield


def test_a_held_change_stops_when_it_is_prepared_and_is_committed_once_it_was_verified() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store):
            held = await driver(store).begin(await change_to(store, "bc", "ac", hold=True), timeout_s=30)
            assert (held.state, held.hold, held.target_epoch) == (S.PREPARED, True, 2)
            assert await current_epoch(store) == 1
            assert (await driver(store).resume(timeout_s=30)).state is S.PREPARED  # resuming is not committing
            with pytest.raises(FailedPreconditionError, match="epoch 2 was not verified"):
                await driver(store).commit(timeout_s=30)
            with pytest.raises(FailedPreconditionError, match="PREPARED for epoch 2, expected 3"):
                await driver(store).verified(3, timeout_s=30)
            assert (await driver(store).verified(2, timeout_s=30)).verified_epoch == 2
            done = await driver(store).commit(timeout_s=30)
            assert (done.state, done.hold, done.target_epoch) == (S.DONE, False, 3)
            with pytest.raises(FailedPreconditionError, match="is DONE, expected PREPARED"):
                await driver(store).commit(timeout_s=30)

    asyncio.run(body())


def test_a_held_change_may_be_committed_unverified_or_given_up() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store):
            await driver(store).begin(await change_to(store, "bc", hold=True), timeout_s=30)
            assert (await driver(store).abort("no", timeout_s=30)).state is S.ABORTED
            assert await current_epoch(store) == 1
            await driver(store).begin(await change_to(store, "bc", hold=True), timeout_s=30)
            assert (await driver(store).commit(unverified=True, timeout_s=30)).state is S.DONE
            assert await current_epoch(store) == 3

    asyncio.run(body())


def test_a_pause_stops_the_driver_that_is_at_work_and_outlives_it() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store), FakeServer(store, "d", stages=False) as late:
            first = asyncio.create_task(driver(store, "ana").begin(await change_to(store, "bd"), timeout_s=30))
            await until(lambda: _is(store, S.PREPARING))
            assert (await driver(store, "bob").pause(timeout_s=30)).paused
            assert (await first).paused  # ana's command ends, and says so
            late.stages = True
            await late.apply(late.view.snapshot)
            assert (await driver(store, "controller").carry_on(timeout_s=30)).state is S.PREPARING
            assert (await operation_of(store)).paused
            done = await driver(store, "bob").resume(timeout_s=30)
            assert (done.state, done.paused) == (S.DONE, False)

    asyncio.run(body())


async def _is(store: MemoryStore, state: OperationState) -> bool:
    found = await Reader(store, KEYS, MODEL).read()
    return found.operation is not None and found.operation.state is state


def test_a_paused_change_can_be_given_up() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store), FakeServer(store, "d", stages=False):
            await driver(store).begin(await change_to(store, "bd"), timeout_s=30, wait=False)
            await driver(store).pause(timeout_s=30)
            assert (await driver(store).pause(timeout_s=30)).paused  # twice is once
            aborted = await driver(store).abort("enough", timeout_s=30)
            assert (aborted.state, aborted.paused) == (S.ABORTED, False)

    asyncio.run(body())


def test_after_the_commit_a_pause_keeps_what_the_base_needs() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store), FakeRouter(store, "slow", pin=1) as slow:
            changing = asyncio.create_task(driver(store).begin(await change_to(store, "bc"), timeout_s=30))
            await until(lambda: _is(store, S.COMMITTED))
            await driver(store, "bob").pause(timeout_s=30)
            assert ((await changing).state, (await operation_of(store)).state) == (S.COMMITTED, S.COMMITTED)
            await slow.let_go()
            assert (await driver(store).resume(timeout_s=30)).state is S.DONE

    asyncio.run(body())


def test_there_has_to_be_something_to_pause() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store):
            for call in (
                driver(store).pause(timeout_s=5),
                driver(store).commit(timeout_s=5),
                driver(store).verified(1, timeout_s=5),
            ):
                with pytest.raises(NotFoundError, match="no operation"):
                    await call
            await driver(store).begin(await change_to(store, "bc"), timeout_s=30)
            with pytest.raises(FailedPreconditionError, match=r"is reshard, DONE; only a change that is under way"):
                await driver(store).pause(timeout_s=5)

    asyncio.run(body())
