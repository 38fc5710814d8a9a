"""What a write leaves behind: when it succeeds, when it is repeated, when it is refused, and when it is killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from partition import bundle, plan_package, write_package
from partition.staging import staging
from support.models import saved_model
from support.packages import read_table
from tessera.errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from tessera.manifest import Manifest
from tessera.repository import Repository

TESTS = Path(__file__).resolve().parents[1]


def write(source: Path, root: Path, *, version: int = 1, max_shard_bytes: int = 1 << 18) -> Manifest:
    plan = plan_package(source, max_shard_bytes=max_shard_bytes)
    return write_package(plan, Repository(root), model="m", version=version)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return path → (inode, modification time) of every file."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_what_is_written_is_complete_read_only_and_nothing_else(tmp_path: Path) -> None:
    source = saved_model("unsplittable")
    before = tree(source)
    manifest = write(source, tmp_path)
    repository = Repository(tmp_path)
    assert repository.read_manifest("m", 1) == manifest
    repository.verify_files(manifest)
    for digest, size_bytes in manifest.blob_sizes().items():
        repository.verify_blob(digest, size_bytes)
    files = tree(tmp_path)
    assert len(files) == len(manifest.blob_sizes()) + len(manifest.files) + 1
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o444 for name in files)
    assert tree(source) == before
    values = read_table(repository, manifest.tables[0])
    assert np.array_equal(values, np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32))


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    plan = plan_package(saved_model("unsplittable"), max_shard_bytes=1 << 18)
    write_package(
        plan, Repository(tmp_path), model="m", version=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == plan.split_bytes + sum(r.bytes for r in plan.rows if r.decision != "split")


@pytest.mark.parametrize("chunk_bytes", [256, 256 * 7, 256 * 40])
def test_rows_find_their_bucket_in_every_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(bundle, "CHUNK_BYTES", chunk_bytes)  # a row has 256 bytes, and there are 33 buckets
    manifest = write(saved_model("unsplittable"), tmp_path)
    values = read_table(Repository(tmp_path), manifest.tables[0])
    assert np.array_equal(values, np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32))


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    source = saved_model("unsplittable")
    first = write(source, tmp_path)
    before = tree(tmp_path)
    assert write(source, tmp_path) == first
    assert tree(tmp_path) == before


def test_versions_share_equal_content(tmp_path: Path) -> None:
    source = saved_model("unsplittable")
    first = write(source, tmp_path)
    blobs = tree(tmp_path / "blobs")
    second = write(source, tmp_path, version=2)
    assert second.tables == first.tables
    assert tree(tmp_path / "blobs") == blobs


def test_other_content_under_the_same_version_is_refused(tmp_path: Path) -> None:
    write(saved_model("unsplittable"), tmp_path)
    before = tree(tmp_path)
    with pytest.raises(AlreadyExistsError, match="model 'm' version 1: exists with other content"):
        write(saved_model("module_ranks"), tmp_path)
    assert tree(tmp_path) == before
    with pytest.raises(AlreadyExistsError, match="exists with another partitioning"):
        write(saved_model("unsplittable"), tmp_path, max_shard_bytes=1 << 20)
    assert Repository(tmp_path).versions("m") == [1]


def test_a_damaged_blob_that_is_there_is_replaced(tmp_path: Path) -> None:
    manifest = write(saved_model("unsplittable"), tmp_path)
    repository = Repository(tmp_path)
    path = repository.blob_path(manifest.tables[0].blobs[3])
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataLossError):
        repository.verify_blob(manifest.tables[0].blobs[3], path.stat().st_size)
    write(saved_model("unsplittable"), tmp_path)
    repository.verify_blob(manifest.tables[0].blobs[3], path.stat().st_size)


def test_damaged_weights_make_no_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(saved_model("unsplittable"), source)
    data = source / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(DataLossError, match="has CRC-32C"):
        write(source, tmp_path / "repository")
    assert Repository(tmp_path / "repository").models() == []


def test_a_full_disk_is_said_and_leaves_nothing_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ResourceExhaustedError, match=f"repository {tmp_path}: cannot be written: .*No space left"):
            write(saved_model("unsplittable"), tmp_path)
    assert Repository(tmp_path).models() == []
    write(saved_model("unsplittable"), tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(FailedPreconditionError, match="cannot be written"):
        write(saved_model("unsplittable"), file)


def test_two_writers_of_one_package_do_not_meet(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    with staging(repository, "m", 1), pytest.raises(AbortedError, match="version 1: is being written"):
        write(saved_model("unsplittable"), tmp_path)
    write(saved_model("unsplittable"), tmp_path)


def run_script(name: str, *arguments: str, timeout_s: float = 100.0) -> str:
    """Run a script of tests/support with TensorFlow of its own, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, str(TESTS / "support" / name), *arguments],
        env=environment,
        timeout=timeout_s,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_a_writer_killed_at_any_point_leaves_nothing_visible(tmp_path: Path) -> None:
    result = json.loads(run_script("partition_crash.py", str(saved_model("unsplittable")), str(tmp_path)))
    assert result["points"] > 20
    assert result["visible_after_kill"] == 0
    assert result["resumed"] == result["points"]
    assert result["tables_kept_by_resume"] > 0


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    result = json.loads(run_script("partition_memory.py", str(tmp_path)))
    assert result["table_bytes"] >= 4 * result["allowed_bytes"]
    assert result["fails_with_bytes"] < result["allowed_bytes"]
