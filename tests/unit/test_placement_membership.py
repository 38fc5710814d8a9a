from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from placement.keys import Keys
from placement.membership import Registration
from placement.memory_store import MemoryStore
from placement.records import MemberRecord, MemberState, OperationRecord, OperationState, PackageRef, Placement
from placement.store import Compare, Delete, Entry, Put
from tessera.clock import ManualClock
from tessera.errors import FailedPreconditionError, UnavailableError

KEYS = Keys("c")
KEY = KEYS.member("a")
MEMBER = MemberRecord("i1", "h:1", "b", MemberState.STARTING, "d", 10, 0)


class FlakyStore(MemoryStore):
    """Fails every call while `broken`."""

    broken = False

    async def get(self, key: str) -> Entry | None:
        if self.broken:
            raise UnavailableError("the store is gone")
        return await super().get(key)

    async def keep_lease(self, lease: int) -> float:
        if self.broken:
            raise UnavailableError("the store is gone")
        return await super().keep_lease(lease)

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        if self.broken:
            raise UnavailableError("the store is gone")
        return await super().transact(compares, operations)


async def stored(store: MemoryStore) -> MemberRecord | None:
    entry = await store.get(KEY)
    return MemberRecord.from_bytes(entry.value, KEY) if entry else None


async def eventually(store: MemoryStore, record: MemberRecord | None) -> None:
    async with asyncio.timeout(5):
        while await stored(store) != record:  # noqa: ASYNC110 (stands for another process)
            await asyncio.sleep(0.02)


def test_a_record_lives_from_start_to_stop() -> None:
    async def body() -> None:
        store = MemoryStore()
        registration = Registration(store, KEY, MEMBER)
        await registration.start()
        assert await stored(store) == MEMBER
        entry = await store.get(KEY)
        assert entry is not None
        assert entry.lease == registration.lease != 0
        serving = replace(MEMBER, state=MemberState.SERVING)
        await registration.update(serving)
        assert await stored(store) == serving
        await registration.stop()
        await registration.stop()
        assert await stored(store) is None

    asyncio.run(body())


def test_a_duplicate_id_is_refused_with_the_others_address_and_does_no_harm() -> None:
    async def body() -> None:
        store = MemoryStore()
        first = Registration(store, KEY, MEMBER)
        await first.start()
        second = Registration(store, KEY, replace(MEMBER, instance="i2", address="h:2"), takeover_wait_s=0.3)
        with pytest.raises(FailedPreconditionError, match=r"members/a: duplicate id: held by instance i1 at h:1"):
            await second.start()
        assert await stored(store) == MEMBER
        await first.stop()

    asyncio.run(body())


def test_a_restarted_process_waits_for_its_predecessors_lease() -> None:
    async def body() -> None:
        clock = ManualClock()
        store = MemoryStore(clock=clock)
        lease = await store.grant_lease(10)
        await store.put(KEY, MEMBER.to_bytes(), lease=lease)
        again = replace(MEMBER, instance="i2")
        registration = Registration(store, KEY, again, takeover_wait_s=5)
        starting = asyncio.create_task(registration.start())
        await asyncio.sleep(0.05)
        assert not starting.done()
        clock.advance(11)
        await asyncio.wait_for(starting, 5)
        assert await stored(store) == again
        await registration.stop()

    asyncio.run(body())


def test_a_lost_lease_is_replaced_and_the_record_comes_back() -> None:
    async def body() -> None:
        store = MemoryStore()
        registration = Registration(store, KEY, MEMBER, ttl_s=1)
        await registration.start()
        old = registration.lease
        await store.revoke_lease(old)
        assert await stored(store) is None
        await eventually(store, MEMBER)
        assert registration.lease != old
        assert registration.registrations == 2
        await registration.stop()

    asyncio.run(body())


def test_a_deleted_record_comes_back() -> None:
    async def body() -> None:
        store = MemoryStore()
        registration = Registration(store, KEY, MEMBER, ttl_s=1)
        await registration.start()
        await store.delete(KEY)
        await eventually(store, MEMBER)
        await registration.stop()

    asyncio.run(body())


def test_an_update_while_the_store_is_gone_is_written_later() -> None:
    async def body() -> None:
        store = FlakyStore()
        registration = Registration(store, KEY, MEMBER, ttl_s=1)
        await registration.start()
        store.broken = True
        serving = replace(MEMBER, state=MemberState.SERVING)
        await registration.update(serving)
        await asyncio.sleep(0.5)
        store.broken = False
        await eventually(store, serving)
        await registration.stop()

    asyncio.run(body())


def test_a_start_without_a_store_fails_and_may_be_repeated() -> None:
    async def body() -> None:
        store = FlakyStore()
        registration = Registration(store, KEY, MEMBER)
        store.broken = True
        with pytest.raises(UnavailableError):
            await registration.start()
        store.broken = False
        await registration.start()
        assert await stored(store) == MEMBER
        await registration.stop()

    asyncio.run(body())


def test_a_ready_report_compares_the_operation_and_lives_under_the_members_lease() -> None:
    async def body() -> None:
        store = MemoryStore()
        registration = Registration(store, KEY, MEMBER)
        await registration.start()
        placement = Placement("m", 1, 1, 1, ("a",), ((0,),), (PackageRef(1, "0" * 64),))
        operation = OperationRecord("o", "load", OperationState.PREPARING, 0, 1, placement.digest, "me")
        version = await store.put(KEYS.operation("m"), operation.to_bytes())
        assert not await registration.report_ready(KEYS, placement, version - 1, 7)
        assert await registration.report_ready(KEYS, placement, version, 7)
        revision = (await store.list_prefix("/")).revision
        assert await registration.report_ready(KEYS, placement, version, 7)
        assert (await store.list_prefix("/")).revision == revision, "a repeated report writes nothing"
        await registration.stop()
        assert await store.get(KEYS.ready("m", 1, "a")) is None

    asyncio.run(body())
