"""Everything is restarted, one process after the other, under load with checked answers."""

import threading
from dataclasses import dataclass, field

import grpc
import pytest

from admin.local_cluster import LocalCluster
from admin.processes import Child
from admin.serving_client import open_channel, wait_until_available
from placement.records import MemberState
from support.resharding import wait_for
from support.running import ClusterFactory
from support.serving import Load, predict
from support.small_model import MODEL, SmallModel
from tessera.errors import Code, TesseraError

pytestmark = pytest.mark.integration


@dataclass
class TwoRouterLoad(Load):
    """As `Load`, by clients that know two routers and try the other once when one is UNAVAILABLE.

    Attributes:
        routers: their addresses now; a router that comes back elsewhere changes its own.
    """

    routers: dict[str, str] = field(default_factory=dict)

    def _run(self) -> None:
        channels: dict[str, grpc.Channel] = {}
        turn = threading.get_ident()
        try:
            while not self._stop.is_set():
                turn += 1
                addresses = list(self.routers.values())
                for address in addresses:
                    channels.setdefault(address, open_channel(address))
                failure = ""
                for tries in range(2):
                    try:
                        address = addresses[(turn + tries) % 2]
                        outputs, version = predict(channels[address], self.request, self.timeout_s)
                        failure = "" if outputs == self.expected_of(version) else f"wrong: {version}: {outputs}"
                        break
                    except TesseraError as error:
                        failure = error.message
                        # gRPC cancels what comes at the very moment when a server shuts down.
                        if error.code not in (Code.UNAVAILABLE, Code.CANCELLED):
                            break
                with self._lock:
                    if failure:
                        self.failures.append(failure)
                    else:
                        self.answers += 1
        finally:
            for channel in channels.values():
                channel.close()


def _child(cluster: LocalCluster, name: str) -> Child:
    return [child for child in cluster.children.children if child.name == name][-1]


def _restart_server(cluster: LocalCluster, name: str) -> None:
    """End a server as Kubernetes does, and start it again: at another address, as it happens."""
    before = wait_for(cluster, lambda state: name in state.members).members[name].instance
    server = _child(cluster, name)
    server.process.terminate()
    assert server.process.wait(60) == 0, server.tail()
    cluster.start_server(name)
    wait_for(
        cluster,
        lambda state: (
            name in state.members
            and state.members[name].instance != before
            and state.members[name].state is MemberState.SERVING
            and MODEL in state.members[name].epochs
        ),
    )


def test_a_rolling_restart_of_everything_fails_no_request(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3, replicas=2)
    routers = {"router": cluster.router_address, "router-b": cluster.add_router("router-b")}
    wait_until_available(routers["router-b"], {MODEL: (1, 2)}, timeout_s=60)
    load = TwoRouterLoad(
        cluster.router_address, small_model.request(), small_model.expected[2], threads=3, routers=routers
    )
    with load:
        for number in range(3):
            _restart_server(cluster, f"server-{number}")
            load.wait_for_answers(50, timeout_s=60)
        for name in ("router", "router-b"):
            router = _child(cluster, name)
            router.process.terminate()
            assert router.process.wait(60) == 0, router.tail()
            if name == "router":
                cluster.start_router()
            address = cluster.router_address if name == "router" else cluster.add_router(name)
            wait_until_available(address, {MODEL: (1, 2)}, timeout_s=60)
            load.routers = {**load.routers, name: address}
            load.wait_for_answers(50, timeout_s=60)
    assert load.failures == []


def test_a_server_that_has_slots_alone_says_so_when_it_drains(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=2)
    server = _child(cluster, "server-0")
    server.process.terminate()
    assert server.process.wait(60) == 0
    log = server.log_path.read_text("utf-8")
    assert f"slots of model {MODEL}: requests for them will fail" in log
