from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from placement.keys import Keys
from placement.lock import Lock
from placement.membership import Registration
from placement.memory_store import MemoryStore
from placement.operation import LoadResult, load_model, plan_load
from placement.records import (
    CurrentRecord,
    LockRecord,
    MemberRecord,
    MemberState,
    MetaRecord,
    OperationRecord,
    OperationState,
    PackageRef,
    ReadyRecord,
    ServerRecord,
    ServerState,
)
from placement.store import ABSENT, Compare, Delete, Put
from placement.view import ClusterView
from tessera.errors import AbortedError, DeadlineExceededError, FailedPreconditionError, UnavailableError

KEYS = Keys("c")
REF = PackageRef(1, "0" * 64)


@pytest.fixture(autouse=True)
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("placement.operation.default_slots", lambda servers: 64)


class Server:
    """What a shard server does for placement: registers, and reports every target as ready."""

    def __init__(self, store: MemoryStore, server: str, *, reports: bool = True, capacity: int = 1 << 40) -> None:
        self._view = ClusterView(store, KEYS, rng=random.Random(1))
        self._id, self._reports, self._store = server, reports, store
        record = MemberRecord(f"i-{server}-{random.random()}", "h:1", "b", MemberState.SERVING, server, capacity, 0)
        self.registration = Registration(store, KEYS.member(server), record)

    async def __aenter__(self) -> Server:
        await self.registration.start()
        self._view.start()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._view.stop()
        await self.registration.stop()

    async def _run(self) -> None:
        while self._reports:
            snapshot = await self._view.wait_for(lambda s: self._unreported(s.models.get("m")), 60)
            view = snapshot.models["m"]
            assert view.target
            await self.registration.report_ready(KEYS, view.target, view.operation_version, 1)
            await asyncio.sleep(0.01)

    def _unreported(self, view: Any) -> bool:
        target = view.target if view else None
        return bool(target and self._id in target.servers and (target.epoch, self._id) not in view.ready)


async def load(store: MemoryStore, **changes: Any) -> LoadResult:
    arguments: dict[str, Any] = {
        "model": "m",
        "versions": [REF],
        "slot_bytes": lambda slots: [100] * slots,
        "replicas": 1,
        "owner": "me",
        "timeout_s": 30.0,
    }
    return await load_model(store, KEYS, **{**arguments, **changes})


async def interrupted_load(store: MemoryStore, until: str) -> None:
    """Begin a load, and end its driver when it says `until`."""
    said = asyncio.Event()
    loading = asyncio.create_task(load(store, progress=lambda text: said.set() if text.startswith(until) else None))
    async with asyncio.timeout(10):
        await said.wait()
    loading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loading


async def operation_of(store: MemoryStore) -> OperationRecord:
    entry = await store.get(KEYS.operation("m"))
    assert entry
    return OperationRecord.from_bytes(entry.value, entry.key)


def test_a_model_is_loaded_when_every_server_is_ready_and_again_is_nothing() -> None:
    async def body() -> None:
        store = MemoryStore()
        said: list[str] = []
        async with Server(store, "a"), Server(store, "b"):
            result = await load(store, replicas=2, progress=said.append)
            assert result.changed
            assert result.placement.epoch == 1
            assert result.placement.servers == ("a", "b")
            entry = await store.get(KEYS.current("m"))
            assert entry
            current = CurrentRecord.from_bytes(entry.value, entry.key)
            assert (current.epoch, current.digest) == (1, result.placement.digest)
            assert (await operation_of(store)).state is OperationState.DONE
            assert len((await store.list_prefix(KEYS.audits)).entries) == 1
            assert await store.get(KEYS.lock("m")) is None
            again = await load(store, replicas=2)
            assert not again.changed
            assert again.placement == result.placement
            with pytest.raises(FailedPreconditionError, match="resharding"):
                await load(store, versions=[PackageRef(2, "1" * 64)])
        assert any("servers to hold" in text for text in said)

    asyncio.run(body())


def test_a_plan_is_what_a_load_then_does_and_writes_nothing() -> None:
    async def body() -> None:
        store = MemoryStore()
        wanted: dict[str, Any] = {"model": "m", "versions": [REF], "slot_bytes": lambda slots: [100] * slots}
        with pytest.raises(FailedPreconditionError, match="servers"):
            await plan_load(store, KEYS, **wanted, replicas=2)
        async with Server(store, "a"), Server(store, "b"):
            before = await store.list_prefix(KEYS.prefix)
            plan = await plan_load(store, KEYS, **wanted, replicas=2)
            assert await store.list_prefix(KEYS.prefix) == before
            assert plan is not None
            assert [(s.id, s.slots_after, s.bytes_after) for s in plan.servers] == [("a", 64, 6400), ("b", 64, 6400)]
            assert (await load(store, replicas=2)).placement == plan.placement
            assert await plan_load(store, KEYS, **wanted, replicas=2) is None
            with pytest.raises(FailedPreconditionError, match="resharding"):
                await plan_load(store, KEYS, **{**wanted, "versions": [PackageRef(2, "1" * 64)]}, replicas=2)

    asyncio.run(body())


def test_a_model_without_tables_needs_no_servers() -> None:
    async def body() -> None:
        store = MemoryStore()
        result = await load(store, slot_bytes=lambda slots: [0] * slots, min_servers=4)
        assert result.placement.servers == ()
        assert await store.get(KEYS.current("m"))

    asyncio.run(body())


def test_nothing_becomes_current_while_a_server_is_not_ready() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"), Server(store, "b", reports=False):
            with pytest.raises(DeadlineExceededError, match="1 of 2 servers to hold their part of epoch 1: b"):
                await load(store, timeout_s=1.0)
            assert await store.get(KEYS.current("m")) is None
            assert (await operation_of(store)).state is OperationState.PREPARING

    asyncio.run(body())


def test_a_server_that_cannot_hold_its_part_is_waited_for_by_name_and_reason() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"), Server(store, "b", reports=False) as failing:
            record = failing.registration.record
            assert isinstance(record, MemberRecord)
            await failing.registration.update(replace(record, error="blob ab12: no such file"))
            with pytest.raises(DeadlineExceededError, match=r"epoch 1: b \(cannot: blob ab12: no such file\)"):
                await load(store, timeout_s=1.0)

    asyncio.run(body())


def test_an_interrupted_load_goes_on_with_the_same_placement() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"):
            async with Server(store, "b", reports=False):
                await interrupted_load(store, "waiting for 1 of 2 servers")
                before = await operation_of(store)
            async with Server(store, "b"):
                result = await load(store)
        assert (await operation_of(store)).id == before.id
        assert result.placement.epoch == 1

    asyncio.run(body())


def test_a_load_that_counted_on_servers_that_are_gone_starts_over() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"):
            async with Server(store, "b", reports=False):
                await interrupted_load(store, "waiting for 1 of 2 servers")
            result = await load(store)
        assert result.placement.epoch == 2
        assert result.placement.servers == ("a",)

    asyncio.run(body())


def test_another_content_before_the_commit_replaces_the_first() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"), Server(store, "b", reports=False):
            await interrupted_load(store, "waiting for 1 of 2 servers")
        other = PackageRef(2, "1" * 64)
        async with Server(store, "a"):
            result = await load(store, versions=[other])
        assert result.placement.versions == (other,)
        assert result.placement.epoch == 2

    asyncio.run(body())


class CrashingStore(MemoryStore):
    """Fails the `fail_at`-th transaction, before or after it took effect."""

    def __init__(self, fail_at: int, *, after: bool, error: type[BaseException]) -> None:
        super().__init__()
        self._left, self._after, self._error = fail_at, after, error
        self.armed = False

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        if not self.armed or not any(c.key == KEYS.lock("m") and c.created for c in compares):
            return await super().transact(compares, operations)
        self._left -= 1
        if self._left != 0:
            return await super().transact(compares, operations)
        if self._after:
            await super().transact(compares, operations)
        raise self._error("outcome unknown")


class Killed(BaseException):
    """The driver's process dies here."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_driver_that_dies_at_any_write_leaves_what_the_next_one_finishes(fail_at: int, after: bool) -> None:
    async def body() -> None:
        store = CrashingStore(fail_at, after=after, error=Killed)
        async with Server(store, "a"), Server(store, "b"):
            store.armed = True
            with pytest.raises(Killed):
                await load(store)
            result = await load(store)
            assert result.placement.epoch == 1
            assert (await operation_of(store)).state is OperationState.DONE
            assert result.changed is not (after and fail_at == 2)

    asyncio.run(body())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_write_of_unknown_outcome_is_read_again(fail_at: int, after: bool) -> None:
    async def body() -> None:
        store = CrashingStore(fail_at, after=after, error=UnavailableError)
        async with Server(store, "a"):
            store.armed = True
            result = await load(store)
            assert result.placement.epoch == 1
            assert len((await store.list_prefix(KEYS.audits)).entries) == 1

    asyncio.run(body())


class UnreadyStore(MemoryStore):
    """Lets a server's report vanish just before the first commit."""

    commits = 0

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        if any(operation.key == KEYS.current("m") for operation in operations):
            self.commits += 1
            if self.commits == 1:
                await self.delete(KEYS.ready("m", 1, "a"))
        return await super().transact(compares, operations)


def test_a_commit_compares_that_every_report_still_stands() -> None:
    async def body() -> None:
        store = UnreadyStore()
        async with Server(store, "a"), Server(store, "b"):
            result = await load(store)
        assert result.placement.epoch == 1
        assert store.commits == 2

    asyncio.run(body())


def test_the_clusters_generation_is_written() -> None:
    async def body() -> None:
        store = MemoryStore()
        await store.put(KEYS.meta, MetaRecord("uuid", 1, 5).to_bytes())
        async with Server(store, "a"):
            await load(store)
        entry = await store.get(KEYS.current("m"))
        assert entry
        assert CurrentRecord.from_bytes(entry.value, entry.key).generation == 5

    asyncio.run(body())


def test_two_drivers_at_once_both_end_with_one_placement() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"), Server(store, "b"):
            one, two = await asyncio.gather(load(store, owner="one"), load(store, owner="two"))
        assert one.placement == two.placement
        assert [one.changed, two.changed].count(True) == 1

    asyncio.run(body())


def test_a_driver_that_lost_its_lock_writes_nothing() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a", reports=False):
            said = asyncio.Event()
            loading = asyncio.create_task(load(store, progress=lambda text: said.set()))
            await said.wait()
            entry = await store.get(KEYS.lock("m"))
            assert entry
            await store.delete(KEYS.lock("m"))
            await store.put(KEYS.lock("m"), LockRecord("thief").to_bytes())
            await report(store, "a")
            with pytest.raises(FailedPreconditionError, match="lock was lost"):
                await loading
            assert await store.get(KEYS.current("m")) is None

    asyncio.run(body())


async def report(store: MemoryStore, server: str) -> None:
    """Report the target as ready on behalf of `server`."""
    operation = await operation_of(store)
    member = await store.get(KEYS.member(server))
    assert member
    instance = MemberRecord.from_bytes(member.value, member.key).instance
    ready = ReadyRecord(instance, operation.target_digest, 1)
    await store.put(KEYS.ready("m", operation.target_epoch, server), ready.to_bytes())


def test_a_report_of_an_earlier_process_does_not_count() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a", reports=False) as server:
            await interrupted_load(store, "waiting for 1 of 1 servers")
            await report(store, "a")
            record = server.registration.record
            entry = await store.get(KEYS.member("a"))
            assert entry
            assert isinstance(record, MemberRecord)
            await store.put(entry.key, replace(record, instance="another").to_bytes(), lease=entry.lease)
            with pytest.raises(DeadlineExceededError, match="epoch 1: a"):
                await load(store, timeout_s=0.5)

    asyncio.run(body())


def test_operators_records_override_what_members_say() -> None:
    async def body() -> None:
        store = MemoryStore()
        cordoned = ServerRecord("a", 1, 1 << 40, ServerState.CORDONED)
        await store.put(KEYS.server("a"), cordoned.to_bytes())
        await store.put(KEYS.server("b"), replace(cordoned, state=ServerState.ACTIVE, weight=3).to_bytes())
        async with Server(store, "a"), Server(store, "b"), Server(store, "c"):
            result = await load(store)
        assert result.placement.servers == ("b", "c")
        assert result.plan
        by_id = {row.id: row.bytes_after for row in result.plan.servers}
        assert by_id["b"] == pytest.approx(3 * by_id["c"], rel=0.1)

    asyncio.run(body())


def test_too_small_servers_are_refused_at_once() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a", capacity=1000):
            with pytest.raises(FailedPreconditionError, match="capacity"):
                await load(store)
        assert await store.get(KEYS.operation("m")) is None

    asyncio.run(body())


def test_a_load_waits_for_the_servers_that_were_promised() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Server(store, "a"):
            loading = asyncio.create_task(load(store, min_servers=2))
            await asyncio.sleep(0.3)
            assert not loading.done()
            async with Server(store, "b"):
                assert (await loading).placement.servers == ("a", "b")

    asyncio.run(body())


def test_a_lock_names_its_holder_and_its_token_fences() -> None:
    async def body() -> None:
        store = MemoryStore()
        async with Lock(store, KEYS.lock("m"), "one") as lock:
            with pytest.raises(FailedPreconditionError, match="held by one"):
                async with Lock(store, KEYS.lock("m"), "two"):
                    pass
            await store.transact([lock.compare], [Put("/x", b"")])
            await store.delete(KEYS.lock("m"))
            await store.put(KEYS.lock("m"), LockRecord("two").to_bytes(), expected=ABSENT)
            with pytest.raises(AbortedError):
                await store.transact([lock.compare], [Put("/x", b"")])

    asyncio.run(body())
