"""Routers are killed and restarted, together with everything else, while clients know two of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from admin.local_cluster import _free_ports
from admin.serving_client import wait_until_available
from placement.found import Found
from placement.records import MemberState
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster, child, signal_to
from support.resharding import found, wait_for
from support.rpc_calls import wait_until
from support.running import ClusterFactory
from support.small_model import MODEL, SmallModel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PATIENT_S = 120.0
ROUTERS = ("router-a", "router-b")


def _two_routers(start_cluster: ClusterFactory, **settings: int) -> tuple[ProxiedCluster, dict[str, str]]:
    """Return a cluster, and the addresses of its two routers."""
    cluster = start_cluster(make=ProxiedCluster, replicas=2, **settings)
    assert isinstance(cluster, ProxiedCluster)
    return cluster, {name: _start_router(cluster, name) for name in ROUTERS}


def _start_router(cluster: ProxiedCluster, name: str) -> str:
    address = cluster.start_router_beside(name)
    wait_until_available(address, {MODEL: (1, 2)}, timeout_s=PATIENT_S)
    return address


def test_each_of_two_routers_is_killed_in_turn(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster, routers = _two_routers(start_cluster, shards=3)
    with OpenLoad(routers, small_model) as load:
        load.wait_for_answers(50)
        for name in ROUTERS:
            with load.fault("2", f"kill −9 of {name} of two; clients try the other once"):
                signal_to(cluster, name, signal.SIGKILL)
                load.wait_for_answers(100)
                load.routers = {**load.routers, name: _start_router(cluster, name)}
            load.wait_for_answers(50)
    assert load.failures == []


def test_everything_is_restarted_one_after_the_other(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster, routers = _two_routers(start_cluster, shards=4)
    with OpenLoad(routers, small_model) as load:
        load.wait_for_answers(50)
        for server in (f"server-{number}" for number in range(4)):
            before = found(cluster).members[server].instance
            with load.fault("24", f"restart of {server} of 4 (SIGTERM)"):
                child(cluster, server).process.terminate()
                assert child(cluster, server).process.wait(PATIENT_S) == 0
                cluster.start_server(server)
                wait_for(cluster, partial(_serves, server, before), PATIENT_S)
            load.wait_for_answers(25)
        for name in ROUTERS:
            with load.fault("24", f"restart of {name} of two (SIGTERM); clients try the other once"):
                child(cluster, name).process.terminate()
                assert child(cluster, name).process.wait(PATIENT_S) == 0
                load.routers = {**load.routers, name: _start_router(cluster, name)}
            load.wait_for_answers(25)
    assert load.failures == []


def _serves(server: str, before: str, state: Found) -> bool:
    """Whether another instance than `before` holds its part."""
    member = state.members.get(server)
    is_new = member is not None and member.instance != before
    return is_new and member is not None and member.state is MemberState.SERVING and MODEL in member.epochs


def test_a_router_without_etcd_disk_and_peers_is_not_ready_and_ends_when_it_is_told(
    small_model: SmallModel, tmp_path: Path
) -> None:
    (port,) = _free_ports(1)
    command = [sys.executable, "-m", "router", "--listen=127.0.0.1:0", f"--metrics-port={port}"]
    command += ["--etcd=127.0.0.1:1", f"--repository={small_model.repository}", f"--state-dir={tmp_path}"]
    command += [f"--ready-file={tmp_path / 'ready'}"]

    def readiness() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as router:
        try:
            wait_until(lambda: readiness() == 503, PATIENT_S)
            assert not (tmp_path / "ready").exists()
        finally:
            router.terminate()
        assert router.wait(PATIENT_S) == 0
