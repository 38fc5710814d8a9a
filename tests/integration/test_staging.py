"""Shard servers with directories of their own: real processes, real bytes, answers checked under load."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.local_cluster import LocalCluster
from placement.found import Found
from support.blobs import digest_of
from support.plain_packages import write_package
from support.resharding import found, reshard, reshard_command, wait_for
from support.running import ClusterFactory
from support.serving import Load
from support.small_model import MODEL, SmallModel
from tessera.repository import Repository

pytestmark = pytest.mark.integration

SCHEME = "file://"
"""With a scheme the servers take the repository for an object store."""


def _blobs(directory: Path) -> dict[str, int]:
    """Return the whole blobs of a server: digest → bytes."""
    return {file.name: file.stat().st_size for file in (directory / "blobs").rglob("*") if file.is_file()}


def _child(cluster: LocalCluster, name: str) -> subprocess.Popen[bytes]:
    return [child for child in cluster.children.children if child.name == name][-1].process


def _kill(cluster: LocalCluster, name: str) -> None:
    process = _child(cluster, name)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    wait_for(cluster, lambda state: name not in state.members)


def _is_whole(state: Found, server: str) -> bool:
    """Whether the server says that it holds what the current placement gives it."""
    member, current = state.members.get(server), state.current
    return member is not None and current is not None and member.epochs.get(MODEL) == current.epoch


def test_servers_fetch_what_they_lack_from_each_other_and_keep_it_over_restarts(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    origin = tmp_path / "origin"
    origin.symlink_to(small_model.repository)
    cluster = start_cluster(shards=2, replicas=2, server_blob_dirs=True, server_repository=f"{SCHEME}{origin}")
    before = {server: _blobs(cluster.blob_dir(server)) for server in ("server-0", "server-1")}
    sizes = dict(before["server-0"])
    assert before["server-1"] == sizes  # two replicas
    with Load(cluster.router_address, small_model.request(), small_model.expected[2], threads=1) as load:
        # The object store goes away: manifests are kept, and blobs come from peers.
        origin.rename(tmp_path / "away")
        _kill(cluster, "server-1")
        damaged = next(iter(sizes))
        path = cluster.blob_dir("server-1") / "blobs" / damaged[:2] / damaged
        path.chmod(0o644)
        path.write_bytes(b"\0" * sizes[damaged])
        cluster.start_server("server-1")
        state = wait_for(cluster, lambda state: _is_whole(state, "server-1"))
        assert digest_of(path.read_bytes()) == damaged
        assert "has SHA-256" in state.members["server-1"].staging.problem
        (tmp_path / "away").rename(origin)

        cluster.start_server("server-2")
        wait_for(cluster, lambda state: "server-2" in state.members)
        planned = json.loads(reshard(cluster, "plan", "--add=server-2", "-o", "json").stdout)
        grown = reshard(cluster, "start", "--add=server-2")
        assert grown.returncode == 0, grown.stderr
        load.wait_for_answers(30)
    assert load.failures == []
    new = _blobs(cluster.blob_dir("server-2"))
    assert sum(new.values()) == planned["moved_bytes"] <= 1.1 * planned["minimum_moved_bytes"]
    status = json.loads(reshard(cluster, "status", "-o", "json").stdout)
    staging = next(server["staging"] for server in status["servers"] if server["id"] == "server-2")
    assert staging["done_bytes"] == staging["total_bytes"] == planned["moved_bytes"]
    assert "of" in reshard(cluster, "status").stdout
    # What server-0 and server-1 no longer hold stays on their disks, in case they need it again.
    assert _blobs(cluster.blob_dir("server-0")) == sizes
    assert found(cluster).members["server-0"].bytes_used < sum(sizes.values())


class _Bytes:
    """A package of 63 buckets of 256 KiB; a second version changes one of them."""

    BUCKET = 256 << 10

    def __init__(self, repository: Path) -> None:
        self.repository = Repository(repository)
        rng = random.Random(5)
        buckets = [rng.randbytes(self.BUCKET) for _ in range(63)]
        self.first = write_package(repository, MODEL, 1, {"rows": buckets})
        self.second = write_package(repository, MODEL, 2, {"rows": [*buckets[:-1], rng.randbytes(self.BUCKET)]})


@pytest.fixture
def plain(tmp_path: Path) -> _Bytes:
    return _Bytes(tmp_path / "plain")


@pytest.fixture
def plain_cluster(tmp_path: Path, plain: _Bytes) -> Iterator[LocalCluster]:
    """One server without a router, with version 1 loaded, that fetches at most 8 MiB a second."""
    cluster = LocalCluster(
        repository=plain.repository.root,
        directory=tmp_path,
        shards=1,
        server_arguments=("--pollers=1", "--populate", "--staging-bytes-per-s=8MiB", "--staging-parallel=2"),
        server_blob_dirs=True,
    )
    try:
        cluster.start_control_plane()
        cluster.start_servers()
        tessera(cluster, "model", "load", f"{MODEL}:1", "--replicas=1")
        yield cluster
    finally:
        cluster.stop()


def tessera(cluster: LocalCluster, *command: str) -> str:
    flags = [f"--repository={cluster.repository}", f"--etcd={cluster.etcd_endpoint}", f"--cluster={cluster.cluster}"]
    done = subprocess.run(
        [sys.executable, "-m", "admin", *command, *flags], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _resident_blob_bytes(pid: int, directory: Path) -> int:
    """Return how much of the blobs below `directory` the process has in memory."""
    resident_bytes, counted = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            counted = str(directory) in line
        elif counted and line.startswith("Rss:"):
            resident_bytes += int(line.split()[1]) << 10
    return resident_bytes


def test_a_version_that_changes_one_bucket_moves_and_maps_one_bucket(
    plain_cluster: LocalCluster, plain: _Bytes
) -> None:
    directory, pid = plain_cluster.blob_dir("server-0"), _child(plain_cluster, "server-0").pid
    before = _blobs(directory)
    assert sum(before.values()) == 63 * plain.BUCKET == _resident_blob_bytes(pid, directory)
    tessera(plain_cluster, "model", "rollout", MODEL, "2", "--keep", "--yes")
    added = {digest: size for digest, size in _blobs(directory).items() if digest not in before}
    assert added == {plain.second.tables[0].blobs[-1]: plain.BUCKET}
    # Both versions serve, and share what they have in common.
    assert _resident_blob_bytes(pid, directory) == 64 * plain.BUCKET
    member = found(plain_cluster).members["server-0"]
    assert member.bytes_used == 64 * plain.BUCKET
    assert (member.staging.done_bytes, member.staging.total_bytes) == (plain.BUCKET, plain.BUCKET)


def test_a_server_that_is_killed_while_it_fetches_goes_on_where_it_was(plain_cluster: LocalCluster) -> None:
    cluster, directory = plain_cluster, plain_cluster.blob_dir("server-1")
    cluster.start_server("server-1")
    wait_for(cluster, lambda state: "server-1" in state.members)
    command = [sys.executable, "-m", "admin", *reshard_command(cluster, "start", "--move=slots=0-4095,to=server-1")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as moving:
        # 16 MiB take two seconds: it is in the middle of it, and says so.
        state = wait_for(cluster, lambda state: len(_blobs(directory)) >= 3 if directory.exists() else False)
        _kill(cluster, "server-1")
        there = _blobs(directory)
        cluster.start_server("server-1")
        _, errors = moving.communicate(timeout=90)
    assert moving.returncode == 0, errors
    state = found(cluster)
    member = state.members["server-1"]
    assert member.bytes_used == 63 * _Bytes.BUCKET
    assert member.staging.done_bytes == member.staging.total_bytes == 63 * _Bytes.BUCKET
    assert member.staging.limit_bytes_per_s == 8 << 20
    # Nothing that was whole came again, and nothing is left over.
    assert there.keys() <= _blobs(directory).keys()
    assert list((directory / "partial").iterdir()) == []
    assert state.members["server-0"].bytes_used == 0
