from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from shard_server.staging.blob_dir import BlobDir
from shard_server.staging.origin import KeptManifests
from support.blobs import blobs_of, digest_of, put, sizes_of
from tessera.errors import (
    DataLossError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from tessera.manifest import Manifest

A, B, C = b"a" * 100, b"b" * 100, b"c" * 100


def bring(blob_dir: BlobDir, content: bytes) -> None:
    with blob_dir.coming(digest_of(content), len(content)) as blob:
        blob.write(content[blob.offset :])
        blob.finish()


def names(root: Path) -> set[str]:
    return {file.name for file in (root / "blobs").rglob("*") if file.is_file()}


def test_a_blob_gets_its_name_only_when_it_is_whole_and_right(tmp_path: Path) -> None:
    blob_dir = BlobDir(tmp_path)
    digest = digest_of(A)
    blob_dir.need({digest: 100})
    with blob_dir.coming(digest, 100) as blob:
        blob.write(A[:60])
        with pytest.raises(DataLossError, match="ended after 60 bytes, expected 100"):
            blob.finish()
        blob.write(B[:40])
        with pytest.raises(DataLossError, match="has SHA-256"):
            blob.finish()
        with pytest.raises(DataLossError, match="more than 100 bytes"):
            blob.write(b"x")
        assert names(tmp_path) == set()
        blob.restart()
        blob.write(A)
        blob.finish()
    assert names(tmp_path) == {digest}
    assert blob_dir.is_verified(digest)
    assert blob_dir.used_bytes == 100
    assert blob_dir.path(digest).stat().st_mode & 0o777 == 0o444
    assert list((tmp_path / "partial").iterdir()) == []


def test_what_an_earlier_process_began_is_gone_on_with(tmp_path: Path) -> None:
    blob_dir = BlobDir(tmp_path)
    digest = digest_of(A)
    blob_dir.need({digest: 100})
    with blob_dir.coming(digest, 100) as blob:
        blob.write(A[:70])
    blob_dir.close()
    after = BlobDir(tmp_path)
    after.need({digest: 100})
    with after.coming(digest, 100) as blob:
        assert blob.offset == 70
        blob.write(A[70:])
        blob.finish()
    assert after.path(digest).read_bytes() == A


def test_a_beginning_that_is_too_long_or_no_longer_needed_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    for content in (A, B):
        (tmp_path / "partial" / digest_of(content)).write_bytes(content * 2)
    blob_dir = BlobDir(tmp_path)
    blob_dir.need({digest_of(A): 100})
    assert [file.name for file in (tmp_path / "partial").iterdir()] == [digest_of(A)]
    with blob_dir.coming(digest_of(A), 100) as blob:
        assert blob.offset == 0


def test_what_is_no_longer_needed_stays_until_its_room_is_and_the_oldest_goes_first(tmp_path: Path) -> None:
    blob_dir = BlobDir(tmp_path, budget_bytes=300)
    for content in (A, B, C):
        blob_dir.need(sizes_of(blobs_of(content)))
        bring(blob_dir, content)
    assert len(names(tmp_path)) == 3
    blob_dir.need(sizes_of(blobs_of(A)))  # B went out of need before C
    new = b"d" * 100
    blob_dir.need(sizes_of(blobs_of(A, new)))
    bring(blob_dir, new)
    assert names(tmp_path) == {digest_of(content) for content in (A, C, new)}
    blob_dir.close()
    # The order outlives the process: C has not been needed for longest now.
    after = BlobDir(tmp_path, budget_bytes=300)
    after.need(sizes_of(blobs_of(A, B)))
    bring(after, B)
    assert names(tmp_path) == {digest_of(content) for content in (A, new, B)}


def test_what_does_not_fit_is_refused_before_anything_is_removed(tmp_path: Path) -> None:
    blob_dir = BlobDir(tmp_path, budget_bytes=150)
    blob_dir.need(sizes_of(blobs_of(A)))
    bring(blob_dir, A)
    with pytest.raises(ResourceExhaustedError, match=r"--blob-dir-bytes: .* 200 bytes .* may hold 150"):
        blob_dir.need(sizes_of(blobs_of(A, B)))
    assert names(tmp_path) == {digest_of(A)}
    with pytest.raises(ResourceExhaustedError, match="no room for a blob of 100 bytes"), blob_dir.coming("0" * 64, 100):
        pass
    assert names(tmp_path) == {digest_of(A)}
    assert blob_dir.used_bytes == 100


def test_what_is_needed_may_be_said_while_a_blob_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob_dir = BlobDir(tmp_path)
    gone = tmp_path / "partial" / digest_of(A)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([gone]) if path.name == "partial" else listed(path))
    blob_dir.need(sizes_of(blobs_of(A)))
    blob_dir.need({})


def test_the_disk_is_looked_at_before_and_during(tmp_path: Path) -> None:
    free = [1000]
    blob_dir = BlobDir(tmp_path, free_bytes=lambda directory: free[0])
    blob_dir.need(sizes_of(blobs_of(A)))
    bring(blob_dir, A)
    free[0] = 50
    with pytest.raises(ResourceExhaustedError, match="disk: 100 bytes of blobs are missing"):
        blob_dir.need(sizes_of(blobs_of(A, B)))
    blob_dir.need(sizes_of(blobs_of(B)))  # A may go
    free[0] = 0
    with pytest.raises(ResourceExhaustedError, match="no room"):
        bring(blob_dir, B)
    assert names(tmp_path) == set()


def test_a_full_disk_is_told_and_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    big = b"x" * 100_000
    blob_dir = BlobDir(tmp_path)
    blob_dir.need(sizes_of(blobs_of(big)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResourceExhaustedError, match=r"disk: .*too large"):
            bring(blob_dir, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == set()
    bring(blob_dir, big)  # goes on from what was written
    assert names(tmp_path) == {digest_of(big)}


def test_a_damaged_file_is_found_and_removed(tmp_path: Path) -> None:
    put(tmp_path, {digest_of(A): B, digest_of(C): C})
    blob_dir = BlobDir(tmp_path)
    assert not blob_dir.is_verified(digest_of(C))
    blob_dir.verify(digest_of(C), 100)
    assert blob_dir.is_verified(digest_of(C))
    with pytest.raises(DataLossError, match="has SHA-256"):
        blob_dir.verify(digest_of(A), 100)
    assert (blob_dir.has(digest_of(A), 100), blob_dir.used_bytes) == (False, 100)
    with pytest.raises(NotFoundError):
        blob_dir.verify(digest_of(A), 100)


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    first = BlobDir(tmp_path)
    with pytest.raises(FailedPreconditionError, match="used by another process"):
        BlobDir(tmp_path)
    first.close()
    BlobDir(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FailedPreconditionError, match=r"--blob-dir .*file/below: cannot be used"):
        BlobDir(tmp_path / "file" / "below")


class _Origin:
    name = "origin"

    def __init__(self) -> None:
        self.there = True

    def read(self, digest: str, offset: int, length: int) -> bytes:
        raise AssertionError

    def read_manifest(self, model: str, version: int) -> Manifest:
        if not self.there:
            raise UnavailableError("origin: gone")
        return Manifest(model=model, version=version, tables=(), weights=(), signatures={}, files=())


def test_manifests_that_were_read_once_are_there_while_the_repository_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeptManifests, "MAX_FILES", 2)
    origin = _Origin()
    kept = KeptManifests(origin, tmp_path)
    for version in (1, 2, 3):
        first = kept.read_manifest("m", version)
        os.utime(tmp_path / f"m@{version}.json", ns=(version, version))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m@2.json", "m@3.json"]
    origin.there = False
    assert kept.read_manifest("m", 3) == first
    with pytest.raises(UnavailableError, match="origin: gone"):
        kept.read_manifest("m", 1)
