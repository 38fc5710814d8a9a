from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from placement.change import Change, ChangeDriver
from placement.document import PackageRef, Placement
from placement.found import Reader
from placement.memory_store import MemoryStore
from placement.records import AuditRecord, LockRecord, OperationRecord, OperationState
from placement.store import Compare, Delete, Put
from support.fake_cluster import KEYS, MODEL, SLOTS, FakeRouter, FakeServer, make_current, make_placement, until
from tessera.errors import AbortedError, DeadlineExceededError, FailedPreconditionError, NotFoundError, UnavailableError

S = OperationState


def driver(store: MemoryStore, owner: str = "me", **settings: object) -> ChangeDriver:
    return ChangeDriver(store, KEYS, MODEL, owner=owner, **{"grace_s": 0.3, **settings})  # type: ignore[arg-type]


async def change_to(store: MemoryStore, *servers: str, version: PackageRef | None = None) -> Change:
    """Return a change to waves of placements on `servers`."""
    found = await Reader(store, KEYS, MODEL).read()
    targets: list[Placement] = []
    for wave, names in enumerate(servers):
        target = make_placement(found.last_epoch + 1 + wave, names)
        targets.append(replace(target, versions=(version,)) if version else target)
    return Change(found, tuple(targets), "reshard", f"to {servers[-1]}")


async def operation_of(store: MemoryStore) -> OperationRecord:
    entry = await store.get(KEYS.operation(MODEL))
    assert entry
    return OperationRecord.from_bytes(entry.value, entry.key)


async def current_epoch(store: MemoryStore) -> int:
    current = (await Reader(store, KEYS, MODEL).read()).current
    assert current
    return current.epoch


@contextlib.asynccontextmanager
async def cluster(
    store: MemoryStore, servers: str = "abc", current: str = "ab"
) -> AsyncIterator[dict[str, FakeServer]]:
    """Run servers and a router, with a placement on `current`."""
    await make_current(store, make_placement(1, current))
    async with contextlib.AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeServer(store, name)) for name in servers}
        await stack.enter_async_context(FakeRouter(store))
        await asyncio.sleep(0.05)
        yield fakes


def test_a_change_goes_through_every_state_and_servers_end_with_exactly_their_slots() -> None:
    async def body() -> None:
        store = MemoryStore()
        said: list[str] = []
        async with cluster(store) as servers:
            change = await change_to(store, "bc")
            done = await driver(store, progress=said.append).begin(change, timeout_s=20)
            assert done.state is S.DONE
            assert await current_epoch(store) == 2
            await until(lambda: not servers["a"].slots)
            assert servers["b"].slots | servers["c"].slots == set(range(SLOTS))
            audits = (await store.list_prefix(KEYS.audits)).entries
            assert [AuditRecord.from_bytes(e.value, e.key).result for e in audits] == ["epoch 2 is current"]
        order = [state for state in S if any(text.startswith(state.value) for text in said)]
        assert order == [S.PREPARING, S.PREPARED, S.COMMITTED, S.DRAINED, S.DONE]

    asyncio.run(body())


def test_servers_keep_what_requests_use_until_the_last_of_them_has_ended() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store) as servers, FakeRouter(store, "slow", pin=1) as slow:
            before = set(servers["a"].slots)
            changing = asyncio.create_task(driver(store).begin(await change_to(store, "bc"), timeout_s=20))
            await until(lambda: _is(store, S.COMMITTED))
            await asyncio.sleep(0.3)
            assert (await operation_of(store)).state is S.COMMITTED
            assert servers["a"].slots == before
            await slow.let_go()
            assert (await changing).state is S.DONE
            await until(lambda: not servers["a"].slots)

    asyncio.run(body())


async def _is(store: MemoryStore, state: OperationState) -> bool:
    entry = await store.get(KEYS.operation(MODEL))
    return entry is not None and OperationRecord.from_bytes(entry.value, entry.key).state is state


def test_waves_follow_each_other_and_one_record_tells_all() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store, "abcd") as servers:
            done = await driver(store).begin(await change_to(store, "bc", "cd", "ad"), timeout_s=20)
            assert (done.state, done.target_epoch, done.origin_epoch) == (S.DONE, 4, 1)
            assert done.later_digests == ()
            assert await current_epoch(store) == 4
            await until(lambda: not servers["b"].slots and not servers["c"].slots)

    asyncio.run(body())


def test_an_abort_before_the_commit_leaves_everything_as_it_was() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store, "ab") as servers, FakeServer(store, "c", stages=False):
            change = await change_to(store, "bc")
            with pytest.raises(DeadlineExceededError, match=r"1 of 2 servers to hold .*: c; .*resume"):
                await driver(store).begin(change, timeout_s=0.5)
            assert (await operation_of(store)).state is S.PREPARING
            aborted = await driver(store).abort("an operator said so", timeout_s=20)
            assert (aborted.state, aborted.error) == (S.ABORTED, "an operator said so")
            assert await current_epoch(store) == 1
            assert servers["a"].slots | servers["b"].slots == set(range(SLOTS))
            again = await driver(store).abort("twice", timeout_s=20)
            assert again == aborted
            # An epoch is never used again: a late report of the first try cannot count for the second.
            done = await driver(store).begin(await change_to(store, "a"), timeout_s=20)
            assert done.target_epoch == 3

    asyncio.run(body())


def test_after_the_commit_an_abort_is_refused() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store), FakeRouter(store, "slow", pin=1):
            with pytest.raises(DeadlineExceededError, match="1 routers to end requests"):
                await driver(store).begin(await change_to(store, "bc"), timeout_s=1.0)
            with pytest.raises(FailedPreconditionError, match=r"past the point of no return.*reverse"):
                await driver(store).abort("too late", timeout_s=5)

    asyncio.run(body())


def test_a_second_operator_is_refused_while_the_first_is_at_work() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store, "ab"), FakeServer(store, "c", stages=False):
            first = asyncio.create_task(driver(store, "ana").begin(await change_to(store, "bc"), timeout_s=20))
            await until(lambda: _is(store, S.PREPARING))
            with pytest.raises(FailedPreconditionError, match=r"to bc, PREPARING\) of ana is under way"):
                await driver(store, "bob").begin(await change_to(store, "a"), timeout_s=5)
            with pytest.raises(FailedPreconditionError, match="held by ana"):
                await driver(store, "bob", lock_wait_s=0.0).abort("mine", timeout_s=5)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first

    asyncio.run(body())


def test_a_plan_that_is_out_of_date_is_refused() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store):
            stale = await change_to(store, "bc")
            await driver(store).begin(await change_to(store, "ac"), timeout_s=20)
            with pytest.raises(AbortedError):
                await driver(store).begin(stale, timeout_s=5)
            assert await current_epoch(store) == 2

    asyncio.run(body())


def test_there_has_to_be_something_to_change_and_to_resume() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with FakeServer(store, "a"):
            with pytest.raises(FailedPreconditionError, match="no placement yet"):
                await driver(store).begin(await change_to(store, "a"), timeout_s=5)
            for call in (driver(store).resume(timeout_s=5), driver(store).abort("x", timeout_s=5)):
                with pytest.raises(NotFoundError, match="no operation"):
                    await call

    asyncio.run(body())


def test_a_router_that_has_vanished_is_waited_for_for_its_grace() -> None:
    async def body() -> None:
        store = MemoryStore()
        said: list[str] = []
        async with cluster(store):
            async with FakeRouter(store, "gone") as gone:
                gone.registration._known_key = ""  # it dies without a word
            change = await change_to(store, "bc")
            done = await driver(store, progress=said.append).begin(change, timeout_s=20)
            assert done.state is S.DONE
            assert done.routers == ("gone", "r")
            again = await driver(store).begin(await change_to(store, "ab"), timeout_s=20)
            assert again.routers == ("r",)  # it is waited for once
        assert any("routers that are not heard of: gone" in text for text in said)

    asyncio.run(body())


def test_a_degraded_cluster_is_not_changed() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store) as servers:
            await servers["a"].update(error="disk on fire")
            servers["a"].reconciler._apply = _nothing  # its error stays
            with pytest.raises(DeadlineExceededError, match=r"servers of epoch 1 to be well: a \(cannot: disk on fire"):
                await driver(store).begin(await change_to(store, "bc"), timeout_s=1.0)
            assert (await operation_of(store)).state is S.PREPARED
            assert await current_epoch(store) == 1

    asyncio.run(body())


async def _nothing(snapshot: object) -> bool:
    return True


def test_a_server_that_was_given_up_is_not_waited_for() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store, "bc", current="ab"):
            change = replace(await change_to(store, "bc"), lost=("a",))
            assert (await driver(store).begin(change, timeout_s=20)).state is S.DONE

    asyncio.run(body())


class CrashingStore(MemoryStore):
    """Fails the `fail_at`-th transaction of a driver, before or after it took effect."""

    def __init__(self, fail_at: int, *, after: bool, error: type[BaseException]) -> None:
        super().__init__()
        self._left, self._after, self._error = fail_at, after, error

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        if not any(c.key == KEYS.lock(MODEL) and c.created for c in compares):
            return await super().transact(compares, operations)
        self._left -= 1
        if self._left != 0:
            return await super().transact(compares, operations)
        if self._after:
            await super().transact(compares, operations)
        raise self._error("outcome unknown")


class Killed(BaseException):
    """The driver's process dies here."""


STEPS = 7  # document, operation, PREPARING, PREPARED, COMMITTED, DRAINED, DONE


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(1, STEPS + 1))
def test_a_driver_that_dies_at_any_write_leaves_what_resume_finishes(fail_at: int, after: bool) -> None:
    async def body() -> None:
        store = CrashingStore(fail_at, after=after, error=Killed)
        async with cluster(store) as servers:
            change = await change_to(store, "bc")
            with pytest.raises(Killed):
                await driver(store).begin(change, timeout_s=20)
            if fail_at == 1 or (fail_at == 2 and not after):  # no operation was written yet: plan again
                done = await driver(store).begin(await change_to(store, "bc"), timeout_s=20)
            else:
                done = await driver(store).resume(timeout_s=20)
            assert done.state is S.DONE
            assert await current_epoch(store) == done.target_epoch
            assert await driver(store).resume(timeout_s=20) == done
            await until(lambda: not servers["a"].slots)

    asyncio.run(body())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(3, STEPS + 1))
def test_a_driver_that_dies_at_any_write_leaves_what_abort_ends(fail_at: int, after: bool) -> None:
    async def body() -> None:
        store = CrashingStore(fail_at, after=after, error=Killed)
        async with cluster(store):
            with pytest.raises(Killed):
                await driver(store).begin(await change_to(store, "bc"), timeout_s=20)
            if fail_at < 5 or (fail_at == 5 and not after):
                assert (await driver(store).abort("given up", timeout_s=20)).state is S.ABORTED
                assert await current_epoch(store) == 1
            else:
                with pytest.raises(FailedPreconditionError, match="point of no return"):
                    await driver(store).abort("given up", timeout_s=20)

    asyncio.run(body())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(1, STEPS + 1))
def test_a_write_of_unknown_outcome_is_read_again(fail_at: int, after: bool) -> None:
    async def body() -> None:
        store = CrashingStore(fail_at, after=after, error=UnavailableError)
        async with cluster(store):
            done = await driver(store).begin(await change_to(store, "bc"), timeout_s=20)
            assert done.state is S.DONE
            assert len((await store.list_prefix(KEYS.audits)).entries) == 1

    asyncio.run(body())


def test_a_driver_that_lost_its_lock_writes_nothing() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with cluster(store, "ab"), FakeServer(store, "c", stages=False) as late:
            running = asyncio.create_task(driver(store).begin(await change_to(store, "bc"), timeout_s=20))
            await until(lambda: _is(store, S.PREPARING))
            await store.delete(KEYS.lock(MODEL))
            await store.put(KEYS.lock(MODEL), LockRecord("thief").to_bytes())
            late.stages = True
            await late.apply(late.view.snapshot)
            with pytest.raises(AbortedError, match="lock was lost"):
                await running
            assert (await operation_of(store)).state is S.PREPARING

    asyncio.run(body())
