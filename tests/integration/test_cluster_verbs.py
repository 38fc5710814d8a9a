"""`tessera cluster`, held changes and controllers: real etcd, servers, routers and the real command, under load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from admin.local_cluster import LocalCluster
from admin.serving_client import open_channel
from placement.found import Found
from placement.records import OperationState
from support.command_line import Done, tessera_here
from support.resharding import flags, found, reshard_command, wait_for
from support.running import ClusterFactory
from support.serving import Load, predict
from support.small_model import MODEL, SmallModel
from tessera.repository import Repository

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

S = OperationState


def _load(cluster: LocalCluster, model: SmallModel) -> Load:
    return Load(cluster.router_address, model.request(), model.expected[2], threads=1)


def _cluster(cluster: LocalCluster, verb: str, *arguments: str) -> Done:
    yes = ["--yes"] if verb in ("restore", "rebuild") else []
    return tessera_here("cluster", verb, *arguments, *yes, *flags(cluster))


def _reshard(cluster: LocalCluster, verb: str, *arguments: str) -> Done:
    return tessera_here(*reshard_command(cluster, verb, *arguments))


def _wait_until_ok(cluster: LocalCluster, *arguments: str) -> dict[str, Any]:
    """Return what `check` says once every point is OK: records of what was just done may be a moment late."""
    deadline_s = time.monotonic() + 60
    while True:
        done = _cluster(cluster, "check", "-o", "json", *arguments)
        if done.returncode == 0 or time.monotonic() > deadline_s:
            assert done.returncode == 0, done.stdout + done.stderr
            checks: dict[str, Any] = json.loads(done.stdout)["checks"]
            return checks
        time.sleep(0.5)


def _repository(start: Path, model: SmallModel) -> Path:
    """Return a copy of the small model's repository that a test may damage."""
    return Path(shutil.copytree(model.repository, start / "own"))


def test_a_held_change_is_verified_before_it_is_committed_and_check_says_what_is_wrong(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    repository = _repository(tmp_path, small_model)
    cluster = start_cluster(shards=3, repository=repository)
    with _load(cluster, small_model) as load:
        held = _reshard(cluster, "start", "--remove=server-2", "--relayout=8192", "--no-commit")
        assert held.returncode == 0, held.stderr
        assert "PREPARED (epoch 1 -> 2, held" in held.stdout
        refused = _reshard(cluster, "commit", "--yes")
        assert refused.returncode == 4, refused.stderr
        assert "was not verified" in refused.stderr

        known = f"--repository={repository}"
        table = small_model_table(small_model)
        blob = repository / "blobs" / table[:2] / table
        whole = blob.read_bytes()
        damaged = blob.with_suffix(".new")
        damaged.write_bytes(bytes(byte ^ 1 for byte in whole))
        damaged.replace(blob)  # servers have the old file mapped
        wrong = _reshard(cluster, "verify", known, "--rows=4000")
        assert wrong.returncode == 1, wrong.stderr
        assert "rows differ from the repository's" in wrong.stderr
        damaged.write_bytes(whole)
        damaged.replace(blob)
        verified = _reshard(cluster, "verify", known)
        assert verified.returncode == 0, verified.stderr
        assert "of 2 servers are those of the repository" in verified.stdout

        assert _reshard(cluster, "pause").returncode == 0
        done = _reshard(cluster, "commit", "--yes")
        assert done.returncode == 0, done.stderr
        load.wait_for_answers(30)
    assert load.failures == []
    placement = found(cluster).current_placement
    assert placement
    assert (placement.servers, placement.slots) == (("server-0", "server-1"), 8192)
    checks = _wait_until_ok(cluster, known, "--rows=50")
    assert "rows are those of the repository" in checks

    status = _cluster(cluster, "status", "-o", "json")
    assert status.returncode == 0, status.stderr
    content = json.loads(status.stdout)
    assert (content["servers"], content["routers"], content["generation"]) == (3, 1, 1)
    stopped = next(child for child in cluster.children.children if child.name == "server-1")
    stopped.process.terminate()
    stopped.process.wait(60)
    bad = _cluster(cluster, "check")
    assert bad.returncode == 4, bad.stdout
    assert "server-1 is gone" in bad.stdout
    assert "every slot has all its replicas" in bad.stderr


def small_model_table(model: SmallModel) -> str:
    """Return the digest of a blob that the small model's version 2 has."""
    return Repository(model.repository).read_manifest(MODEL, 2).tables[0].blobs[0]


def test_placements_are_rebuilt_from_servers_after_etcd_was_lost_for_good_and_a_router_starts_without_it(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    cluster = start_cluster(shards=2, replicas=2)
    backup = tmp_path / "backup"
    assert _cluster(cluster, "backup", str(backup)).returncode == 0
    moved = _reshard(cluster, "start", "--replicas=1")
    assert moved.returncode == 0, moved.stderr
    _wait_until_ok(cluster)
    with _load(cluster, small_model) as load:
        _lose_etcd(cluster)
        wait_for(cluster, lambda state: len(state.members) == 2 and bool(state.routers))
        missing = _cluster(cluster, "rebuild", "--dry-run")
        assert missing.returncode == 0, missing.stderr
        assert found(cluster).current is None
        rebuilt = _cluster(cluster, "rebuild")
        assert rebuilt.returncode == 0, rebuilt.stderr
        load.wait_for_answers(30)
        _wait_until_ok(cluster)
        load.wait_for_answers(30)
        refused = _cluster(cluster, "restore", str(backup))
        assert refused.returncode == 4, refused.stderr
        assert "--replace" in refused.stderr
        after = found(cluster)
        assert after.current
        assert (after.generation, after.current.epoch) == (2, 1_000_000_001)
        grown = _reshard(cluster, "start", "--replicas=2")
        assert grown.returncode == 0, grown.stderr
        load.wait_for_answers(30)
    assert load.failures == []
    restored = _cluster(cluster, "restore", str(backup), "--replace")
    assert restored.returncode == 0, restored.stderr
    _wait_until_ok(cluster)
    assert found(cluster).generation == 3
    _start_a_router_without_etcd(cluster, small_model, tmp_path / "second.ready")


def _start_a_router_without_etcd(cluster: LocalCluster, small_model: SmallModel, ready: Path) -> None:
    """Kill etcd; a router with nothing on its disk serves what servers know."""
    peers = ",".join(member.address for member in found(cluster).members.values())
    etcd = next(child for child in cluster.children.children if child.name == "etcd-again")
    etcd.process.kill()
    command = [
        sys.executable, "-m", "router", "--listen=127.0.0.1:0", "--pollers=1", "--drain-timeout-s=1",
        f"--etcd={cluster.etcd_endpoint}", f"--repository={cluster.repository}", f"--ready-file={ready}",
        f"--placement-peers={peers}",
    ]  # fmt: skip
    child = cluster.children.start("second-router", command)
    deadline_s = time.monotonic() + 60
    while not ready.exists():
        child.check_running()
        assert time.monotonic() < deadline_s, child.tail()
        time.sleep(0.1)
    with open_channel(json.loads(ready.read_text())["address"]) as channel:
        assert predict(channel, small_model.request()) == (small_model.expected[2], 2)


def _lose_etcd(cluster: LocalCluster) -> None:
    """Kill etcd, remove its data, and start an empty one at the same address."""
    etcd = next(child for child in cluster.children.children if child.name == "etcd")
    assert isinstance(etcd.process.args, list)
    command = [str(word) for word in etcd.process.args]
    etcd.process.kill()
    etcd.process.wait(30)
    shutil.rmtree(cluster.directory / "etcd")
    cluster.children.start("etcd-again", command[command.index(shutil.which("etcd") or "etcd") :])
    assert _cluster(cluster, "status").returncode == 0


def test_a_controller_ends_what_a_command_left_and_another_follows_when_it_is_killed(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3)

    def controller(name: str) -> subprocess.Popen[bytes]:
        return cluster.children.start(name, [sys.executable, "-m", "admin", "controller", *flags(cluster)]).process

    with _load(cluster, small_model) as load:
        first = controller("controller-0")
        assert _reshard(cluster, "start", "--remove=server-2", "--no-wait").returncode == 0
        done = wait_for(cluster, lambda state: _is(state, S.DONE))
        assert done.operation
        assert done.operation.owner.startswith("controller ")
        first.kill()
        first.wait(30)
        second = controller("controller-1")  # has to wait until the election of the first has run out
        assert _reshard(cluster, "start", "--add=server-2", "--no-wait").returncode == 0
        again = wait_for(cluster, lambda state: _is(state, S.DONE) and _epoch(state) > 2)
        assert again.current_placement
        assert again.current_placement.servers == ("server-0", "server-1", "server-2")
        load.wait_for_answers(30)
        second.terminate()
        assert second.wait(60) == 0
    assert load.failures == []


def _epoch(state: Found) -> int:
    return state.current.epoch if state.current is not None else 0


def _is(state: Found, wanted: OperationState) -> bool:
    return state.operation is not None and state.operation.state is wanted and state.operation.kind == "reshard"
