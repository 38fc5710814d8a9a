"""What a shard server does when what it is to hold cannot be mapped, or was damaged after it was."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpp_ext import _rpc
from placement.keys import Keys
from placement.records import CurrentRecord, PackageRef, Placement
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import Entry, Listing
from shard_server.desired import DesiredPackage, PackageKey
from shard_server.holder import MountedHolder
from shard_server.holdings import Holdings, MountedFiles
from support.plain_packages import write_package
from tessera.errors import DataLossError, ResourceExhaustedError
from tessera.manifest import Manifest
from tessera.repository import Repository

BUCKETS = [bytes([number]) * 128 for number in range(5)]


def _held(tmp_path: Path) -> tuple[Holdings, Mapping[PackageKey, DesiredPackage]]:
    """Return holdings of nothing, and a package that they may hold."""
    manifest = write_package(tmp_path, "ranker", 1, {"users": BUCKETS})
    holdings = Holdings(MountedFiles(Repository(tmp_path), verify_content=True), _rpc.TableStore())
    package = DesiredPackage(manifest, (frozenset(range(len(BUCKETS))),))
    return holdings, {PackageKey("ranker", 1, manifest.digest): package}


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_no_memory_for_a_thread_is_told_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    holdings, desired = _held(tmp_path)

    def start(thread: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(ResourceExhaustedError, match=r"memory: there is none for mapping 5 blobs"):
            holdings.apply(desired)
    assert (holdings.bytes_mapped, holdings.packages) == (0, {})
    holdings.apply(desired)
    assert (holdings.bytes_mapped, holdings.packages) == (5 * 128, desired)


def test_a_bug_is_not_taken_for_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holdings, desired = _held(tmp_path)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("threads can only be started once")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="only be started once"):
        holdings.apply(desired)


def test_a_damaged_blob_is_given_up_with_its_packages_until_it_is_whole_again(tmp_path: Path) -> None:
    first = write_package(tmp_path, "ranker", 1, {"users": BUCKETS})
    second = write_package(tmp_path, "other", 1, {"items": [b"i" * 64]})
    repository = Repository(tmp_path)
    store = _rpc.TableStore()
    holder = MountedHolder("a", Holdings(MountedFiles(repository, verify_content=False), store), 1 << 20, repository)
    snapshot = _snapshot(first, second)
    assert holder.hold(snapshot).problem == ""
    held = holder.holdings.packages
    assert {key.model for key in held} == {"ranker", "other"}

    digest = first.tables[0].blobs[3]
    holder.check(digest, 128)
    path = repository.blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(bytes(128))
    with pytest.raises(DataLossError, match=digest):
        holder.check(digest, 128)
    assert holder.holdings.packages == held  # until `hold` is called
    for _ in range(2):
        with pytest.raises(DataLossError, match=digest):
            holder.hold(snapshot)
        assert {key.model for key in holder.holdings.packages} == {"other"}
        assert not store.retire(bytes.fromhex(first.digest))  # it is not served any more

    path.write_bytes(BUCKETS[3])
    assert holder.hold(snapshot).problem == ""
    assert holder.holdings.packages == held
    assert store.retire(bytes.fromhex(first.digest))


def _snapshot(*manifests: Manifest) -> ClusterSnapshot:
    """Return what the store says when server "a" holds these packages whole."""
    keys, snapshot = Keys("c"), ClusterSnapshot()
    entries: list[Entry] = []
    for manifest in manifests:
        reference = PackageRef(manifest.version, manifest.digest)
        placement = Placement(manifest.model, 1, 1, 2, ("a",), ((0,), (0,)), (reference,))
        current = CurrentRecord(1, 1, placement.digest, "op", placement.versions)
        entries += [Entry(keys.placement(manifest.model, 1), placement.to_bytes(), 1, 1)]
        entries += [Entry(keys.current(manifest.model), current.to_bytes(), 1, 1)]
    return replace_all(keys, snapshot, Listing(tuple(entries), 1))
