"""Servers, routers and commands are killed, stopped and restarted under load, wherever a change may be."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest

from placement.found import Found
from placement.records import OperationState
from support.command_line import tessera_here
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster, metric, signal_to
from support.resharding import found, reshard_command, run_and_die_after, stopping_after, wait_for
from support.rpc_calls import wait_until
from support.running import ClusterFactory
from support.small_model import MODEL, SmallModel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

S = OperationState
PATIENT_S = 120.0


def _is_back(server: str, killed: str, state: Found) -> bool:
    """Whether a server other than the instance `killed` holds what requests may ask of it."""
    member, current, placement = state.members.get(server), state.current, state.current_placement
    if member is None or member.instance == killed or current is None or placement is None:
        return False
    return server not in placement.servers or member.epochs.get(MODEL) == current.epoch


def _kill_and_restart(cluster: ProxiedCluster, server: str, load: OpenLoad) -> None:
    """Kill a server, let requests go on without it, and start it again; returns when it holds its part."""
    killed = found(cluster).members[server].instance
    signal_to(cluster, server, signal.SIGKILL)
    load.wait_for_answers(50)
    cluster.start_server(server)
    wait_for(cluster, partial(_is_back, server, killed), PATIENT_S)


def test_each_server_is_killed_in_turn(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=4, replicas=2)
    assert isinstance(cluster, ProxiedCluster)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        for number in range(4):
            with load.fault("1", f"kill −9 of server {number + 1} of 4"):
                _kill_and_restart(cluster, f"server-{number}", load)
    assert load.failures == []


def test_a_server_is_stopped_for_half_a_minute(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=4, replicas=2)
    assert isinstance(cluster, ProxiedCluster)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        with load.fault("3", "SIGSTOP of a server for 30 s") as fault:
            before = metric(cluster, "tessera_fanout_hedges_total")
            signal_to(cluster, "server-0", signal.SIGSTOP)
            time.sleep(30)
            fault.note = f"{metric(cluster, 'tessera_fanout_hedges_total') - before:g} second requests"
            signal_to(cluster, "server-0", signal.SIGCONT)
            wait_for(cluster, partial(_is_back, "server-0", ""), PATIENT_S)
            load.wait_for_answers(100)
    assert load.failures == []


@pytest.mark.parametrize("victims", [("server-1",), ("server-3",), ("server-1", "server-3")])
@pytest.mark.parametrize("state", [S.PREPARING, S.PREPARED, S.COMMITTED, S.DRAINED])
def test_source_or_target_or_both_are_killed_at_any_state_of_a_change(
    start_cluster: ClusterFactory, small_model: SmallModel, state: OperationState, victims: tuple[str, ...]
) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=4, replicas=2)
    assert isinstance(cluster, ProxiedCluster)
    smaller = tessera_here(*reshard_command(cluster, "start", "--remove=server-3"))
    assert smaller.returncode == 0, smaller.stderr
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        what = "target" if victims == ("server-3",) else "source" if len(victims) == 1 else "source and target"
        with load.fault("12", f"kill −9 of the {what} of a change that is {state.value}") as fault:
            killed = run_and_die_after(state.value, reshard_command(cluster, "start", "--add=server-3"))
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            for victim in victims:  # one after the other: two replicas bear the loss of one server
                _kill_and_restart(cluster, victim, load)
            resumed = tessera_here(*reshard_command(cluster, "resume"))
            assert resumed.returncode == 0, resumed.stderr
            fault.recovered()
        load.wait_for_answers(50)
    assert load.failures == []
    after = found(cluster)
    assert after.operation is not None
    assert after.operation.state is S.DONE
    assert after.current_placement is not None
    assert "server-3" in after.current_placement.servers


def test_a_command_that_was_stopped_finds_that_another_has_taken_over(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=3)
    assert isinstance(cluster, ProxiedCluster)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        with load.fault("13", "a command is stopped while another takes its change over"):
            move = reshard_command(cluster, "start", "--remove=server-2")
            with stopping_after(S.PREPARED.value, move) as first:
                try:
                    wait_for(cluster, lambda state: state.operation is not None and state.operation.state is S.PREPARED)
                    refused = tessera_here(*reshard_command(cluster, "resume"))
                    assert refused.returncode in (0, 4), refused.stderr  # 0: its lock had run out meanwhile
                    wait_until(lambda: tessera_here(*reshard_command(cluster, "resume")).returncode == 0, PATIENT_S)
                    done = found(cluster)
                finally:
                    first.send_signal(signal.SIGCONT)
                _, errors = first.communicate(timeout=PATIENT_S)
            assert first.returncode in (0, 75), errors  # 0: it found the change done
            load.wait_for_answers(50)
    assert load.failures == []
    after = found(cluster)
    assert after.operation is not None
    assert done.operation is not None
    assert (after.current, after.operation.state) == (done.current, S.DONE)
