"""The view and the registration against a real etcd that is compacted, stopped, killed and restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from placement.etcd_store import EtcdStore
from placement.keys import Keys
from placement.membership import Registration
from placement.operation import load_model
from placement.records import CurrentRecord, MemberRecord, MemberState, PackageRef, Placement
from placement.store import Put
from placement.view import ClusterSnapshot, ClusterView
from support.etcd_process import EtcdProcess
from tessera.errors import DeadlineExceededError, UnavailableError

pytestmark = pytest.mark.integration

KEYS = Keys("c")
REF = PackageRef(1, "0" * 64)
MEMBER = MemberRecord("i1", "h:1", "b", MemberState.SERVING, "d", 1 << 40, 0)


def fast_store(etcd: EtcdProcess) -> EtcdStore:
    return EtcdStore([etcd.endpoint], timeout_s=0.5, progress_interval_s=0.3, silence_s=1.0)


async def flip(store: EtcdStore, epoch: int) -> int:
    placement = Placement("m", epoch, 1, 2, ("a",), ((0,), (0,)), (REF,))
    current = CurrentRecord(1, epoch, placement.digest, "op", placement.versions)
    puts = [Put(KEYS.placement("m", epoch), placement.to_bytes()), Put(KEYS.current("m"), current.to_bytes())]
    return await store.transact([], puts)


async def persistently(call: Callable[[], Any]) -> Any:
    """Repeat `call` until the store answers."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await call()
            except (UnavailableError, DeadlineExceededError):
                await asyncio.sleep(0.05)


def epoch_of(snapshot: ClusterSnapshot) -> int:
    view = snapshot.models.get("m")
    return view.placement.epoch if view and view.placement else 0


def run(body: Callable[[EtcdProcess], Any]) -> None:
    with EtcdProcess() as process:
        asyncio.run(body(process))


def test_a_view_serves_on_while_etcd_is_stopped_and_follows_again() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store = fast_store(etcd)
        await flip(store, 1)
        view = ClusterView(store, KEYS)
        view.start()
        await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        etcd.pause()
        async with asyncio.timeout(10):
            while view.status.connected:  # noqa: ASYNC110 (the view tells only of changes)
                await asyncio.sleep(0.05)
        assert epoch_of(view.snapshot) == 1
        etcd.resume()
        await persistently(lambda: flip(store, 2))
        await view.wait_for(lambda s: epoch_of(s) == 2, 15)
        assert view.status.connected
        assert sum(view.status.relists.values()) < 30, "no busy loop"
        await view.stop()
        await store.close()

    run(body)


def test_a_view_serves_on_while_etcd_is_dead_and_catches_up_past_a_compaction() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store, writer = fast_store(etcd), fast_store(etcd)
        await flip(store, 1)
        view = ClusterView(store, KEYS)
        view.start()
        await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        etcd.kill()
        async with asyncio.timeout(10):
            while view.status.connected:  # noqa: ASYNC110 (the view tells only of changes)
                await asyncio.sleep(0.05)
        assert epoch_of(view.snapshot) == 1
        await asyncio.to_thread(etcd.start)
        for epoch in range(2, 6):
            newest = await persistently(partial(flip, writer, epoch))
        await asyncio.to_thread(etcd.compact, newest)
        await view.wait_for(lambda s: epoch_of(s) == 5, 15)
        await view.stop()
        await store.close()
        await writer.close()

    run(body)


def test_a_registration_comes_back_after_etcd_lost_it() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store = fast_store(etcd)
        registration = Registration(store, KEYS.member("a"), MEMBER, ttl_s=2)
        await registration.start()
        etcd.pause()
        await asyncio.sleep(3.5)
        etcd.resume()
        await persistently(lambda: store.revoke_lease(registration.lease))
        async with asyncio.timeout(15):
            while await persistently(lambda: store.get(KEYS.member("a"))) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await registration.stop()
        assert await persistently(lambda: store.get(KEYS.member("a"))) is None
        await store.close()

    run(body)


def test_a_model_is_loaded_on_a_real_etcd() -> None:
    async def body(etcd: EtcdProcess) -> None:
        store, other = EtcdStore([etcd.endpoint]), EtcdStore([etcd.endpoint])
        registration = Registration(store, KEYS.member("a"), MEMBER)
        await registration.start()
        view = ClusterView(store, KEYS)
        view.start()

        async def serve() -> None:
            snapshot = await view.wait_for(lambda s: "m" in s.models and s.models["m"].target is not None, 10)
            model = snapshot.models["m"]
            assert model.target
            assert await registration.report_ready(KEYS, model.target, model.operation_version, 1)

        serving = asyncio.create_task(serve())
        result = await load_model(
            other,
            KEYS,
            model="m",
            versions=[REF],
            slot_bytes=lambda slots: [10] * slots,
            replicas=1,
            owner="test",
            timeout_s=10,
        )
        await serving
        snapshot = await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        assert snapshot.models["m"].placement == result.placement
        assert snapshot.models["m"].target is None
        assert snapshot.address_of("a") == "h:1"
        await view.stop()
        await registration.stop()
        await store.close()
        await other.close()

    run(body)
