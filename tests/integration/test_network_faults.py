"""Connections that are late, slow, cut, frozen or half-open, under an open loop of requests with checked answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import pytest

from support.command_line import tessera_here
from support.fault_proxy import FaultProxy
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster, compact, follows_etcd, metric
from support.resharding import found, reshard_command
from support.rpc_calls import wait_until
from support.running import ClusterFactory
from support.small_model import SmallModel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_DROPS = int(os.environ.get("TESSERA_FAULT_DROPS", "5"))


def test_connections_to_a_server_that_are_late_slow_cut_frozen_or_half_open_fail_no_request(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(
        make=ProxiedCluster,
        proxied=["server-0", "server-1", "server-2"],
        shards=3,
        replicas=2,
        router_arguments=("--metrics-port=0",),
    )
    assert isinstance(cluster, ProxiedCluster)
    late, cut, frozen = cluster.proxies.values()
    hedges = "tessera_fanout_hedges_total"
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        steps: tuple[tuple[str, FaultProxy, Callable[[], None]], ...] = (
            ("a server answers 200 ms late", late, lambda: late.delay(0.2)),
            ("connections to a server are reset", cut, cut.cut),
            ("connections to a server are frozen", frozen, frozen.freeze),
            ("connections to a server are half-open", cut, cut.half_open),
            ("a server's answers come at 1 kB/s", late, lambda: late.throttle(1e3)),
        )
        for what, proxy, breaks in steps:
            before = metric(cluster, hedges)
            with load.fault("4", what) as fault:
                breaks()
                load.wait_for_answers(50)
                fault.note = f"{metric(cluster, hedges) - before:g} second requests"
            proxy.heal()
            load.wait_for_answers(25)
        assert metric(cluster, hedges) > 0, "nothing was asked of the servers that were broken"
    assert load.failures == []


def test_a_router_whose_connections_to_etcd_break_again_and_again_serves_and_follows(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(make=ProxiedCluster, proxied=["router"], shards=2, router_arguments=("--metrics-port=0",))
    assert isinstance(cluster, ProxiedCluster)
    proxy, relists = cluster.proxies["router"], "tessera_store_relists_total"

    def follows_again(connections: int) -> bool:
        return proxy.connections > connections and follows_etcd(cluster)

    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        before, began_s = metric(cluster, relists), time.monotonic()
        with load.fault("8", f"a router's connection to etcd is reset {_DROPS} times") as fault:
            for _ in range(_DROPS):
                connections = proxy.connections
                proxy.drop()
                wait_until(partial(follows_again, connections), 60)
            fault.recovered()
        took_s = time.monotonic() - began_s
        assert metric(cluster, relists) - before < 3 * _DROPS + took_s + 10, "no busy loop"

        with load.fault("8", "etcd forgets its history while a router is cut off") as fault:
            proxy.cut()
            wait_until(lambda: not follows_etcd(cluster), 60)
            compact(cluster)
            load.wait_for_answers(25)
            proxy.heal()
            wait_until(lambda: follows_etcd(cluster), 60)
            fault.recovered()
        moved = tessera_here(*reshard_command(cluster, "start", "--remove=server-1"))
        assert moved.returncode == 0, moved.stderr  # the router has said that it uses the new placement
        load.wait_for_answers(25)
        state = found(cluster)
        assert state.current is not None
        assert metric(cluster, "tessera_placement_epoch") == state.current.epoch
    assert load.failures == []
