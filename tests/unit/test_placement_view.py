from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from placement.disk_cache import DiskCache
from placement.keys import Keys
from placement.memory_store import MemoryStore
from placement.records import CurrentRecord, MemberRecord, MemberState, PackageRef, Placement
from placement.store import Batch, Listing, Put, WatchLostError
from placement.view import ClusterSnapshot, ClusterView
from tessera.errors import DataLossError, DeadlineExceededError, UnavailableError

KEYS = Keys("c")
MEMBER = MemberRecord("i1", "h:1", "b", MemberState.SERVING, "d", 10, 0)


def document(epoch: int) -> Placement:
    return Placement("m", epoch, 1, 2, ("a",), ((0,), (0,)), (PackageRef(1, "0" * 64),))


async def flip(store: MemoryStore, epoch: int) -> None:
    placement = document(epoch)
    current = CurrentRecord(1, epoch, placement.digest, "op", placement.versions)
    await store.transact(
        [],
        [
            Put(KEYS.placement("m", epoch), placement.to_bytes()),
            Put(KEYS.current("m"), current.to_bytes()),
            Put(KEYS.member("a"), MEMBER.to_bytes()),
        ],
    )


def epoch_of(snapshot: ClusterSnapshot) -> int:
    view = snapshot.models.get("m")
    return view.placement.epoch if view and view.placement else 0


class BrokenStore(MemoryStore):
    """Fails while `broken`; counts listings."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.listings = 0

    async def list_prefix(self, prefix: str) -> Listing:
        self.listings += 1
        if self.broken:
            raise UnavailableError("the store is gone")
        return await super().list_prefix(prefix)

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        async for batch in super().watch(prefix, after_revision):
            if self.broken:
                raise UnavailableError("the store is gone")
            yield batch


def view_of(store: MemoryStore, **arguments: object) -> ClusterView:
    return ClusterView(store, KEYS, rng=random.Random(1), **arguments)  # type: ignore[arg-type]


def test_a_view_follows_and_tells_its_subscribers() -> None:
    async def body() -> None:
        store = MemoryStore()
        await flip(store, 1)
        view = view_of(store)
        told: list[int] = []
        end = view.subscribe(lambda snapshot: told.append(epoch_of(snapshot)))
        assert view.status.last_contact_age_s is None
        view.start()
        await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        await flip(store, 2)
        snapshot = await view.wait_for(lambda s: epoch_of(s) == 2, 5)
        await asyncio.sleep(0)
        assert view.snapshot is snapshot
        assert told == [1, 2]
        end()
        end()
        await flip(store, 3)
        await view.wait_for(lambda s: epoch_of(s) == 3, 5)
        await asyncio.sleep(0)
        assert told == [1, 2]
        assert view.status.connected
        assert view.status.relists == {"start": 1}
        await view.stop()
        await view.stop()

    asyncio.run(body())


def test_a_view_goes_on_with_the_last_snapshot_and_comes_back() -> None:
    async def body() -> None:
        store = BrokenStore()
        await flip(store, 1)
        view = view_of(store)
        view.start()
        await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        store.broken = True
        await flip(store, 2)
        await asyncio.sleep(0.4)
        assert epoch_of(view.snapshot) == 1
        assert not view.status.connected
        assert 2 <= store.listings < 20
        store.broken = False
        await view.wait_for(lambda s: epoch_of(s) == 2, 10)
        assert view.status.connected
        assert view.status.relists["error"] >= 1
        await view.stop()

    asyncio.run(body())


def test_a_view_recovers_from_compaction() -> None:
    async def body() -> None:
        store = MemoryStore(kept_batches=2)
        await flip(store, 1)
        view = view_of(store)
        view.start()
        await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        for epoch in range(2, 9):
            await flip(store, epoch)
        await view.wait_for(lambda s: epoch_of(s) == 8, 5)
        assert view.status.relists["compacted"] == 1
        await view.stop()

    asyncio.run(body())


class WatchlessStore(BrokenStore):
    """Lists, but loses every watch at once."""

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        raise WatchLostError("cancelled", "always")
        yield


def test_a_watch_that_is_lost_again_and_again_makes_no_busy_loop() -> None:
    async def body() -> None:
        store = WatchlessStore()
        await flip(store, 1)
        view = view_of(store)
        view.start()
        await asyncio.sleep(1.0)
        assert epoch_of(view.snapshot) == 1
        assert store.listings < 12
        await view.stop()

    asyncio.run(body())


def test_a_view_lists_again_from_time_to_time() -> None:
    async def body() -> None:
        store = BrokenStore()
        view = view_of(store, relist_interval_s=0.05)
        view.start()
        async with asyncio.timeout(5):
            while view.status.relists.get("periodic", 0) < 3:  # noqa: ASYNC110 (the view tells only of changes)
                await asyncio.sleep(0.01)
        assert set(view.status.relists) == {"start", "periodic"}
        await view.stop()

    asyncio.run(body())


def test_waiting_ends_with_the_deadline() -> None:
    async def body() -> None:
        view = view_of(MemoryStore())
        view.start()
        with pytest.raises(DeadlineExceededError, match=r"within 0\.05 s"):
            await view.wait_for(lambda s: False, 0.05)
        await view.stop()

    asyncio.run(body())


def test_problems_are_counted_once_each() -> None:
    async def body() -> None:
        store = MemoryStore()
        await flip(store, 1)
        view = view_of(store)
        view.start()
        await view.wait_for(lambda s: epoch_of(s) == 1, 5)
        await store.put(KEYS.current("m"), b"damaged")
        await view.wait_for(lambda s: bool(s.problems), 5)
        await flip(store, 2)
        await view.wait_for(lambda s: not s.problems, 5)
        assert view.status.problems == 1
        await view.stop()

    asyncio.run(body())


async def snapshot_of_epoch(epoch: int) -> ClusterSnapshot:
    store = MemoryStore()
    await flip(store, epoch)
    view = view_of(store)
    view.start()
    snapshot = await view.wait_for(lambda s: epoch_of(s) == epoch, 5)
    await view.stop()
    return snapshot


def test_the_disk_cache_gives_back_what_routing_needs(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "placement", KEYS)
    assert cache.load() is None
    snapshot = asyncio.run(snapshot_of_epoch(3))
    cache.save(snapshot)
    loaded = cache.load()
    assert loaded is not None
    assert loaded.models == snapshot.models
    assert loaded.address_of("a") == "h:1"
    assert not loaded.members["a"].live
    assert [path.name for path in tmp_path.iterdir()] == ["placement"]


def test_what_is_loaded_from_disk_goes_on_with_the_store_and_never_back(tmp_path: Path) -> None:
    async def body() -> None:
        cache = DiskCache(tmp_path / "placement", KEYS)
        cache.save(await snapshot_of_epoch(3))
        store = MemoryStore()
        await flip(store, 2)
        view = view_of(store, initial=cache.load())
        assert epoch_of(view.snapshot) == 3
        view.start()
        snapshot = await view.wait_for(lambda s: s.revision > 0, 5)
        assert epoch_of(snapshot) == 3
        assert "went back" in snapshot.problems[KEYS.current("m")]
        assert snapshot.members["a"].live
        cache.save(snapshot)
        again = cache.load()
        assert again is not None
        assert epoch_of(again) == 3
        await flip(store, 4)
        await view.wait_for(lambda s: epoch_of(s) == 4, 5)
        await view.stop()

    asyncio.run(body())


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other cluster"])
def test_a_damaged_cache_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "placement"
    cache = DiskCache(path, KEYS)
    cache.save(asyncio.run(snapshot_of_epoch(1)))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[-10:]
    elif damage == "empty":
        data.clear()
    else:
        cache = DiskCache(path, Keys("other"))
    path.write_bytes(data)
    with pytest.raises(DataLossError, match=str(path)):
        cache.load()


def test_a_cache_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    snapshot = asyncio.run(snapshot_of_epoch(1))
    cache = DiskCache(tmp_path / "missing" / "placement", KEYS)
    with pytest.raises(UnavailableError, match="missing"):
        cache.save(snapshot)
