"""etcd is killed, stopped, loses its majority, or comes back from an old copy of itself: requests do not notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from support.command_line import tessera, tessera_here
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster, child, follows_etcd, metric, signal_to
from support.resharding import flags, found, reshard_command, wait_for
from support.rpc_calls import wait_until
from support.running import ClusterFactory
from support.small_model import SmallModel
from support.three_etcds import ThreeEtcds

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

_GONE_S = float(os.environ.get("TESSERA_FAULT_ETCD_S", "60"))
_LEASE_S = 10.0
PATIENT_S = 120.0


def _restart_etcd(cluster: ProxiedCluster) -> None:
    """Start it again with the same ports and data."""
    words = child(cluster, "etcd").process.args
    assert isinstance(words, list)
    command = [str(word) for word in words]
    cluster.children.start("etcd", command[command.index(shutil.which("etcd") or "etcd") :])


def test_etcd_is_dead_for_a_minute_and_nothing_but_changes_waits_for_it(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=3, replicas=2)
    assert isinstance(cluster, ProxiedCluster)
    before = found(cluster)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        with load.fault("5", f"etcd is dead for {_GONE_S:g} s") as fault:
            signal_to(cluster, "etcd", signal.SIGKILL)
            end_s = time.monotonic() + _GONE_S
            refused = tessera(*reshard_command(cluster, "start", "--remove=server-2"))
            assert refused.returncode == 1, refused.stderr
            assert "etcd: no connection" in refused.stderr
            time.sleep(max(0.0, end_s - time.monotonic()))
            back_s = time.monotonic()
            _restart_etcd(cluster)
            wait_until(lambda: follows_etcd(cluster), PATIENT_S)
            after = wait_for(cluster, lambda state: len(state.members) == 3, PATIENT_S)
            fault.recovered()
            fault.note = f"followed {time.monotonic() - back_s:.1f} s after it was started"
        load.wait_for_answers(50)
    assert load.failures == []
    assert after.current == before.current


def test_all_leases_run_out_together_and_no_server_is_given_up(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=3, replicas=2)
    assert isinstance(cluster, ProxiedCluster)
    before = found(cluster)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        with load.fault("6", f"etcd is stopped for {3 * _LEASE_S:g} s, all leases run out") as fault:
            signal_to(cluster, "etcd", signal.SIGSTOP)
            time.sleep(3 * _LEASE_S)
            signal_to(cluster, "etcd", signal.SIGCONT)
            wait_until(lambda: follows_etcd(cluster), PATIENT_S)
            load.wait_for_answers(50)
            after = wait_for(cluster, lambda state: len(state.members) == 3 and bool(state.routers), PATIENT_S)
            fault.recovered()
            fault.note = f"the router ignored leases {metric(cluster, 'tessera_lease_panics_total'):g} times"
        load.wait_for_answers(50)
    assert load.failures == []
    assert after.current == before.current
    assert {name: member.bytes_used for name, member in after.members.items()} == {
        name: member.bytes_used for name, member in before.members.items()
    }


def test_etcd_loses_its_majority_and_then_the_member_that_the_router_follows(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ThreeEtcds, shards=2)
    assert isinstance(cluster, ThreeEtcds)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        with load.fault("7", "two of three members of etcd are dead") as fault:
            for name in ("etcd-0", "etcd-1"):
                signal_to(cluster, name, signal.SIGKILL)
            wait_until(lambda: not follows_etcd(cluster), PATIENT_S)
            load.wait_for_answers(100)
            for name in ("etcd-0", "etcd-1"):
                cluster.start_member(name)
            wait_until(lambda: follows_etcd(cluster), PATIENT_S)
            fault.recovered()
        assert tessera_here(*reshard_command(cluster, "start", "--remove=server-1")).returncode == 0

        for what, is_cut in (("resets", True), ("loses", False)):
            with load.fault("7", f"the network {what} what the router sends to the member of etcd that it follows"):
                lost = cluster.followed()[:1]
                for proxy in lost:
                    if is_cut:
                        proxy.cut()
                    else:
                        proxy.freeze()
                change = "--add=server-1" if is_cut else "--remove=server-1"
                moved = tessera_here(*reshard_command(cluster, "start", change))
                assert moved.returncode == 0, moved.stderr  # the router has said that it uses the new placement
            for proxy in lost:
                proxy.heal()
            load.wait_for_answers(50)
    assert load.failures == []


def test_an_old_copy_of_etcd_is_not_believed_until_it_is_rebuilt(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=3)
    assert isinstance(cluster, ProxiedCluster)

    def check() -> str:
        done = tessera_here("cluster", "check", *flags(cluster))
        return done.stdout + done.stderr if done.returncode else ""

    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        child(cluster, "etcd").process.terminate()
        child(cluster, "etcd").process.wait(30)
        shutil.copytree(cluster.directory / "etcd", cluster.directory / "old")
        _restart_etcd(cluster)
        moved = tessera_here(*reshard_command(cluster, "start", "--remove=server-2"))
        assert moved.returncode == 0, moved.stderr
        epoch = metric(cluster, "tessera_placement_epoch")
        with load.fault("27", "etcd comes back as it was before a change; `tessera cluster rebuild`") as fault:
            signal_to(cluster, "etcd", signal.SIGKILL)
            shutil.rmtree(cluster.directory / "etcd")
            (cluster.directory / "old").rename(cluster.directory / "etcd")
            _restart_etcd(cluster)
            wait_until(lambda: "it has gone back" in check(), PATIENT_S)
            refused = tessera_here(*reshard_command(cluster, "start", "--remove=server-1"))
            assert refused.returncode == 4, refused.stdout
            assert "the store has gone back" in refused.stderr
            load.wait_for_answers(50)
            assert metric(cluster, "tessera_placement_epoch") == epoch
            rebuilt = tessera_here("cluster", "rebuild", "--yes", *flags(cluster))
            assert rebuilt.returncode == 0, rebuilt.stderr
            wait_until(lambda: not check(), PATIENT_S)
            fault.recovered()
        again = tessera_here(*reshard_command(cluster, "start", "--add=server-2"))
        assert again.returncode == 0, again.stderr
        load.wait_for_answers(50)
    assert load.failures == []
    status = json.loads(tessera_here("cluster", "status", "-o", "json", *flags(cluster)).stdout)
    assert status["generation"] == 2


def test_a_router_that_is_cut_off_from_etcd_learns_of_changes_from_the_servers(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ProxiedCluster, proxied=["router"], shards=3, replicas=2)
    assert isinstance(cluster, ProxiedCluster)
    changes = ("--remove=server-2", "--replicas=1", "--add=server-2", "--remove=server-0", "--add=server-0")
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        with load.fault("15", f"a router is cut off from etcd during {len(changes)} changes") as fault:
            cluster.proxies["router"].cut()
            wait_until(lambda: not follows_etcd(cluster), PATIENT_S)
            for change in changes:
                done = tessera_here(*reshard_command(cluster, "start", change))
                assert done.returncode == 0, done.stderr
                load.wait_for_answers(50)
            assert not follows_etcd(cluster)
            cluster.proxies["router"].heal()
            wait_until(lambda: follows_etcd(cluster), PATIENT_S)
            fault.recovered()
        load.wait_for_answers(50)
    assert load.failures == []
    after = found(cluster)
    assert after.current is not None
    assert metric(cluster, "tessera_placement_epoch") == after.current.epoch
