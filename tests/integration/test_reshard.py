"""Changes of a live placement: real etcd, servers, a router and the real command, under load with checked answers."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from admin.local_cluster import LocalCluster
from admin.serving_client import open_channel
from placement.records import OperationState
from support.resharding import found, reshard, reshard_command, run, run_and_die_after, wait_for
from support.running import ClusterFactory
from support.serving import Load, predict
from support.small_model import SmallModel
from tessera.errors import NotFoundError, UnavailableError

pytestmark = pytest.mark.integration
S = OperationState


def _load(cluster: LocalCluster, model: SmallModel) -> Load:
    return Load(cluster.router_address, model.request(), model.expected[2], threads=2)


def _add_server(cluster: LocalCluster, name: str) -> None:
    cluster.start_server(name)
    wait_for(cluster, lambda state: name in state.members and bool(state.members[name].epochs))


def test_two_servers_become_three_and_two_again_and_nobody_notices(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=2)
    with _load(cluster, small_model) as load:
        _add_server(cluster, "server-2")
        planned = json.loads(reshard(cluster, "plan", "--add=server-2", "-o", "json").stdout)
        grown = reshard(cluster, "start", "--add=server-2")
        assert grown.returncode == 0, grown.stderr
        state = found(cluster)
        assert state.current_placement
        assert state.current_placement.servers == ("server-0", "server-1", "server-2")
        assert planned["moved_bytes"] <= 1.1 * planned["minimum_moved_bytes"]
        assert planned["epochs"] == [state.current_placement.epoch]
        assert [planned["servers"][2][k] for k in ("slots_now", "bytes_now")] == [0, 0]
        total_bytes = sum(server["bytes_now"] for server in planned["servers"])

        shrunk = reshard(cluster, "start", "--remove=server-0", "-o", "json")
        assert shrunk.returncode == 0, shrunk.stderr
        assert json.loads(shrunk.stdout)["state"] == "DONE"
        state = found(cluster)
        assert state.current_placement
        assert state.current_placement.servers == ("server-1", "server-2")
        held = {server: member.bytes_used for server, member in state.members.items()}
        assert held["server-0"] == 0
        assert sum(held.values()) == total_bytes
        load.wait_for_answers(50)

        back = reshard(cluster, "reverse")
        assert back.returncode == 0, back.stderr
        again = reshard(cluster, "start", "--remove=server-2", "--replicas=2")
        assert again.returncode == 0, again.stderr
        load.wait_for_answers(50)
    assert load.failures == []
    state = found(cluster)
    assert state.current_placement
    assert (state.current_placement.servers, state.current_placement.replicas) == (("server-0", "server-1"), 2)
    assert [member.error for member in state.members.values()] == ["", "", ""]


@pytest.mark.parametrize("state", [S.PREPARING, S.PREPARED, S.COMMITTED, S.DRAINED])
def test_kill_minus_nine_of_the_command_at_any_state_then_resume(
    start_cluster: ClusterFactory, small_model: SmallModel, state: OperationState
) -> None:
    cluster = start_cluster(shards=3)
    with _load(cluster, small_model) as load:
        killed = run_and_die_after(state.value, reshard_command(cluster, "start", "--remove=server-1"))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        operation = found(cluster).operation
        assert operation
        assert operation.state is state
        load.wait_for_answers(30)
        if state in (S.PREPARING, S.PREPARED):
            status = json.loads(run(["reshard", "status", "ranker", "-o", "json", *_flags(cluster)]).stdout)
            assert (status["resumable"], status["abortable"]) == (True, True)
        else:
            refused = reshard(cluster, "abort")
            assert refused.returncode == 4, refused.stderr
            assert "point of no return" in refused.stderr
        resumed = reshard(cluster, "resume")
        assert resumed.returncode == 0, resumed.stderr
        load.wait_for_answers(30)
    assert load.failures == []
    after = found(cluster)
    assert after.current_placement
    assert after.current_placement.servers == ("server-0", "server-2")
    assert after.members["server-1"].bytes_used == 0


def _flags(cluster: LocalCluster) -> list[str]:
    return [f"--etcd={cluster.etcd_endpoint}", f"--cluster={cluster.cluster}"]


@pytest.mark.parametrize("state", [S.PREPARING, S.PREPARED])
def test_kill_minus_nine_of_the_command_before_the_commit_then_abort(
    start_cluster: ClusterFactory, small_model: SmallModel, state: OperationState
) -> None:
    cluster = start_cluster(shards=3)
    before = found(cluster)
    with _load(cluster, small_model) as load:
        killed = run_and_die_after(state.value, reshard_command(cluster, "start", "--remove=server-1"))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        aborted = reshard(cluster, "abort")
        assert aborted.returncode == 0, aborted.stderr
        assert "ABORTED" in aborted.stdout
        load.wait_for_answers(30)
    assert load.failures == []
    after = found(cluster)
    assert after.current == before.current
    used = {server: member.bytes_used for server, member in before.members.items()}
    assert {server: member.bytes_used for server, member in after.members.items()} == used


def test_a_server_that_is_killed_while_it_prepares_is_waited_for_and_nothing_fails(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3, replicas=2)
    _add_server(cluster, "server-3")
    with _load(cluster, small_model) as load:
        victim = next(child for child in cluster.children.children if child.name == "server-3")
        os.kill(victim.process.pid, signal.SIGSTOP)  # so that it is in the middle of it
        prepared = reshard(cluster, "start", "--add=server-3", "--no-wait")
        assert prepared.returncode == 0, prepared.stderr
        os.kill(victim.process.pid, signal.SIGKILL)
        victim.process.wait(10)
        command = [sys.executable, "-m", "admin", *reshard_command(cluster, "resume")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as resuming:
            wait_for(cluster, lambda state: "server-3" not in state.members)
            time.sleep(1.0)
            state = found(cluster)
            assert state.operation
            assert state.operation.state is S.PREPARING
            cluster.start_server("server-3")
            _, errors = resuming.communicate(timeout=90)
        assert resuming.returncode == 0, errors
        load.wait_for_answers(50)
    assert load.failures == []
    after = found(cluster)
    assert after.current_placement
    assert "server-3" in after.current_placement.servers


def test_what_does_not_fit_is_refused_before_anything_is_staged(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=2)
    small = [f"--etcd={cluster.etcd_endpoint}", f"--repository={small_model.repository}", "--capacity-bytes=4KiB"]
    command = [sys.executable, "-m", "shard_server", "--server-id=tiny", "--listen=127.0.0.1:0", *small]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tiny:
        try:
            wait_for(cluster, lambda state: "tiny" in state.members)
            refused = reshard(cluster, "start", "--move=slots=0-4095,to=tiny")
            assert refused.returncode == 4, refused.stderr
            assert "tiny" in refused.stderr
            assert "capacity" in refused.stderr
            assert found(cluster).operation.kind == "load"  # type: ignore[union-attr]
        finally:
            tiny.terminate()
            tiny.wait(30)


def test_usage_and_absence_are_told_by_exit_codes(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=1)
    cases = [
        (2, "expected --add", reshard(cluster, "start")),
        (2, "--move: got", reshard(cluster, "plan", "--move=everything")),
        (3, "server-9", reshard(cluster, "start", "--add=server-9")),
        (4, "operation is load", reshard(cluster, "reverse")),
        (0, "nothing to change", reshard(cluster, "start", "--rebalance")),
    ]
    for code, says, done in cases:
        assert done.returncode == code, done.stderr
        assert says in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_router_that_never_reaches_etcd_learns_from_the_servers_where_slots_have_gone(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3)
    router = next(child for child in cluster.children.children if child.name == "router")
    router.process.terminate()
    assert router.process.wait(30) == 0
    etcd, cluster.etcd_endpoint = cluster.etcd_endpoint, "127.0.0.1:1"
    cluster.start_router()  # from its disk: nobody answers there
    cluster.etcd_endpoint = etcd
    deadline_s = time.monotonic() + 30
    with open_channel(cluster.router_address) as channel:

        def answer() -> bool:
            try:
                return predict(channel, small_model.request())[0] == small_model.expected[2]
            except (UnavailableError, NotFoundError):  # its servers, or the model, are not there yet
                return False

        while not answer():
            assert time.monotonic() < deadline_s
        moved = reshard(cluster, "start", "--remove=server-1")
        assert moved.returncode == 0, moved.stderr
        assert found(cluster).members["server-1"].bytes_used == 0
        # The first one meets a server that has dropped what it asks for, waits for the newer placement and runs again.
        for _ in range(20):
            assert predict(channel, small_model.request(), timeout_s=30.0)[0] == small_model.expected[2]
