"""What is left when the store was lost or has gone back: backups, what servers know, and a new generation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from placement.backup import backup_of, read_backup, write_backup
from placement.change import Change, ChangeDriver
from placement.found import Reader
from placement.keys import Keys
from placement.memory_store import MemoryStore
from placement.records import (
    CurrentRecord,
    MemberRecord,
    MemberState,
    OperationRecord,
    OperationState,
    Placement,
    epochs_before,
)
from placement.republish import begin_generation, ended, put_all, republish
from placement.routing_records import merged, newest, routing_records, snapshot_of, with_records
from placement.snapshot import ClusterSnapshot, replace_all
from placement.view import ClusterView
from support.fake_cluster import KEYS, MODEL, FakeRouter, FakeServer, make_current, make_placement, until
from tessera.clock import SystemClock
from tessera.errors import AbortedError, DataLossError, FailedPreconditionError, NotFoundError

S = OperationState
OPERATION = OperationRecord("o", "reshard", S.COMMITTED, 4, 5, "d", "ana", paused=True, later_digests=("x",))


async def _snapshot(store: MemoryStore) -> ClusterSnapshot:
    return replace_all(KEYS, ClusterSnapshot(), await store.list_prefix(KEYS.prefix))


async def _restore(store: MemoryStore, path: Path) -> int:
    backup = read_backup(path, KEYS)
    generation = await begin_generation(store, KEYS, above=backup.generation)
    await put_all(store, {key: value for key, value in backup.entries.items() if "placements" in key})
    await republish(
        store, KEYS, generation, backup.placements(), backup.operations(), owner="me", command="test",
        clock=SystemClock(),
    )  # fmt: skip
    return generation


def test_a_backup_is_restored_under_a_generation_that_those_who_saw_more_take_up(tmp_path: Path) -> None:
    path = tmp_path / "backup"

    async def body() -> None:
        old = MemoryStore()
        await make_current(old, make_placement(5, "ab"))
        lease = await old.grant_lease(60)
        await old.put(KEYS.member("a"), b"a living process", lease=lease)
        await old.put(KEYS.operation(MODEL), OPERATION.to_bytes())
        backup = backup_of(KEYS, await old.list_prefix(KEYS.prefix))
        assert KEYS.member("a") not in backup.entries
        write_backup(path, backup)
        await make_current(old, make_placement(9, "bc"))  # after the backup
        seen = await _snapshot(old)

        new = MemoryStore()
        assert await _restore(new, path) == 2
        after = replace_all(KEYS, seen, await new.list_prefix(KEYS.prefix))
        view = after.models[MODEL]
        assert after.problems == {}
        assert view.placement == replace(make_placement(5, "ab"), epoch=epochs_before(2) + 1)
        assert view.operation
        assert (view.operation.state, view.operation.paused, view.operation.later_digests) == (S.DONE, False, ())
        assert await _restore(new, path) == 3  # once more is a generation more
        found = await Reader(new, KEYS, MODEL).read()
        assert (found.generation, found.last_epoch) == (3, epochs_before(3) + 1)

    asyncio.run(body())


def test_a_change_after_a_restore_uses_epochs_that_nobody_has_seen() -> None:
    async def body() -> None:
        store = MemoryStore()
        await make_current(store, make_placement(5, "ab"))
        async with FakeServer(store, "a"), FakeServer(store, "b") as b, FakeRouter(store):
            generation = await begin_generation(store, KEYS, above=1)
            old = make_placement(5, "ab")
            placements = {MODEL: (CurrentRecord(1, 5, old.digest, "o", old.versions), old)}
            await republish(store, KEYS, generation, placements, {}, owner="me", command="test", clock=SystemClock())
            await until(lambda: b.registration.record.epochs.get(MODEL) == epochs_before(2) + 1)
            found = await Reader(store, KEYS, MODEL).read()
            change = Change(found, (make_placement(found.last_epoch + 1, "b"),), "reshard", "test")
            done = await ChangeDriver(store, KEYS, MODEL, owner="me", grace_s=0.1).begin(change, timeout_s=30)
            assert (done.state, done.target_epoch) == (S.DONE, epochs_before(2) + 2)

    asyncio.run(body())


def test_a_store_that_has_gone_back_is_not_changed() -> None:
    async def body() -> None:
        store = MemoryStore()
        await make_current(store, make_placement(5, "a"))
        async with FakeServer(store, "a") as a:
            await until(lambda: a.registration.record.state is MemberState.SERVING)
            await a.reconciler.stop()
            await a.update(epochs={MODEL: 9})
            found = await Reader(store, KEYS, MODEL).read()
            change = Change(found, (make_placement(6, "a"),), "reshard", "test")
            with pytest.raises(FailedPreconditionError, match=r"server a has seen epoch 9, .* is 5: .*gone back"):
                await ChangeDriver(store, KEYS, MODEL, owner="me").begin(change, timeout_s=30)

    asyncio.run(body())


def test_two_who_begin_a_generation_at_once_do_not_both() -> None:
    async def body() -> None:
        store = MemoryStore()
        done = await asyncio.gather(*(begin_generation(store, KEYS, above=4) for _ in range(3)), return_exceptions=True)
        begun = [one for one in done if isinstance(one, int)]
        assert len(begun) == len(set(begun)) >= 1
        assert min(begun) == 5
        assert all(isinstance(one, int | AbortedError) for one in done)

    asyncio.run(body())


@pytest.mark.parametrize(
    ("state", "target", "expected"),
    [(S.COMMITTED, 5, S.DONE), (S.DRAINED, 4, S.DONE), (S.PREPARING, 6, S.ABORTED), (S.ABORTED, 6, S.ABORTED)],
)
def test_what_was_under_way_has_ended(state: OperationState, target: int, expected: OperationState) -> None:
    operation = ended(replace(OPERATION, state=state, target_epoch=target), 5, "cluster restore")
    assert operation.state is expected
    assert not operation.active


def test_a_backup_that_is_damaged_missing_or_of_something_else_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        store = MemoryStore()
        await make_current(store, make_placement(5, "ab"))
        listing = await store.list_prefix(KEYS.prefix)
        path = tmp_path / "backup"
        write_backup(path, backup_of(KEYS, listing))
        with pytest.raises(DataLossError, match=r"got format 1 of cluster 'c', expected format 1 of cluster 'other'"):
            read_backup(path, Keys("other"))
        damaged = bytearray(path.read_bytes())
        damaged[-20] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataLossError, match=r"backup .*damaged"):
            read_backup(path, KEYS)
        with pytest.raises(NotFoundError, match="no such file"):
            read_backup(tmp_path / "missing", KEYS)
        without = [entry for entry in listing.entries if "placements" not in entry.key]
        with pytest.raises(DataLossError, match="lacks the document"):
            backup_of(KEYS, replace(listing, entries=tuple(without))).placements()

    asyncio.run(body())


def test_labels_and_unloaded_models_come_back_as_they_were() -> None:
    async def body() -> None:
        store = MemoryStore()
        placement = make_placement(5, "ab")
        labelled = (replace(placement.versions[0], labels=("stable",)),)
        current = CurrentRecord(1, 5, placement.digest, "o", labelled)
        gone = CurrentRecord(1, 7, "", "o", ())
        pointers = {MODEL: (current, placement), "gone": (gone, None)}
        await republish(store, KEYS, 4, pointers, {}, owner="me", command="test", clock=SystemClock())
        backup = backup_of(KEYS, await store.list_prefix(KEYS.prefix))
        assert backup.generation == 4
        found, document = backup.placements()[MODEL]
        assert (found.versions, found.epoch) == (labelled, epochs_before(4) + 1)
        assert document == replace(placement, epoch=found.epoch)
        assert backup.placements()["gone"] == (
            replace(gone, generation=4, epoch=found.epoch, operation=found.operation),
            None,
        )
        snapshot = snapshot_of(KEYS, routing_records(KEYS, await _snapshot(store)))
        assert snapshot.models["gone"].current == backup.placements()["gone"][0]
        assert newest(KEYS, {"h:1": routing_records(KEYS, snapshot)})["gone"].document is None

    asyncio.run(body())


def _records(placement: Placement, generation: int = 1, **addresses: str) -> dict[str, bytes]:
    current = CurrentRecord(generation, placement.epoch, placement.digest, "o", placement.versions)
    members = {
        KEYS.member(server): MemberRecord("i", address, "b", MemberState.SERVING, server, 1, 0).to_bytes()
        for server, address in addresses.items()
    }
    return {
        KEYS.current(MODEL): current.to_bytes(),
        KEYS.placement(MODEL, placement.epoch): placement.to_bytes(),
        **members,
    }


def test_the_highest_generation_and_epoch_of_all_servers_wins() -> None:
    answers = {
        "h:1": _records(make_placement(7, "ab"), a="h:1", b="old:2"),
        "h:2": _records(make_placement(9, "a"), a="old:1", b="h:2"),
        "h:3": _records(make_placement(3, "b"), generation=2),
        "h:4": {},
    }
    assert newest(KEYS, answers)[MODEL].by == "h:3"
    snapshot = snapshot_of(KEYS, merged(KEYS, answers))
    assert snapshot.models[MODEL].placement == make_placement(3, "b")
    assert {name: one.record.address for name, one in snapshot.members.items()} == {
        "a": "h:1",  # its own word of itself
        "b": "h:2",
    }
    del answers["h:3"]
    assert newest(KEYS, answers)[MODEL].current.epoch == 9


def test_servers_that_contradict_each_other_are_named() -> None:
    answers = {"h:1": _records(make_placement(7, "ab")), "h:2": _records(make_placement(7, "b"))}
    with pytest.raises(DataLossError, match=r"\(1, 7\) has digest \w+ at h:1 and \w+ at h:2"):
        newest(KEYS, answers)
    del answers["h:2"][KEYS.placement(MODEL, 7)]
    with pytest.raises(DataLossError, match="h:2 names epoch 7 and does not have its document"):
        newest(KEYS, answers)


def test_only_what_is_newer_is_taken_up() -> None:
    known = snapshot_of(KEYS, _records(make_placement(7, "ab"), a="h:1", b="h:2"))
    for records in (_records(make_placement(7, "ab")), _records(make_placement(6, "b")), {}):
        assert with_records(KEYS, known, records) == (known, [])
    snapshot, models = with_records(KEYS, known, _records(make_placement(8, "bc"), b="other:2", c="h:3"))
    assert models == [MODEL]
    assert snapshot.models[MODEL].placement == make_placement(8, "bc")
    assert (snapshot.address_of("b"), snapshot.address_of("c")) == ("h:2", "h:3")
    assert (
        routing_records(KEYS, snapshot)[KEYS.current(MODEL)] == _records(make_placement(8, "bc"))[KEYS.current(MODEL)]
    )
    with pytest.raises(DataLossError, match="not zlib"):
        with_records(KEYS, known, {**_records(make_placement(8, "b")), KEYS.placement(MODEL, 8): b"junk"})


def test_a_view_that_was_offered_something_newer_keeps_it_until_the_store_says_more() -> None:
    async def body() -> None:
        store = MemoryStore()
        await make_current(store, make_placement(7, "ab"))
        view = ClusterView(store, KEYS)
        told: list[int] = []
        view.subscribe(lambda snapshot: told.append(snapshot.models[MODEL].placement.epoch))  # type: ignore[union-attr]
        assert view.offer(_records(make_placement(8, "b"), b="h:2")) == [MODEL]
        assert view.offer(_records(make_placement(8, "b"), b="h:2")) == []
        view.start()
        await view.wait_for(lambda snapshot: snapshot.revision > 0, 20)
        assert view.snapshot.models[MODEL].placement == make_placement(8, "b")  # the store is older
        assert "went back" in view.snapshot.problems[KEYS.current(MODEL)]
        await make_current(store, make_placement(9, "a"))
        await view.wait_for(lambda snapshot: snapshot.models[MODEL].placement.epoch == 9, 20)  # type: ignore[union-attr]
        await until(lambda: told[-1] == 9)
        assert told[0] == 8
        await view.stop()

    asyncio.run(body())
