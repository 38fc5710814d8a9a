"""What a shard server does when what it is to hold cannot be mapped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpp_ext import _rpc
from shard_server.desired import DesiredPackage, PackageKey
from shard_server.holdings import Holdings, MountedFiles
from support.plain_packages import write_package
from tessera.errors import ResourceExhaustedError
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
