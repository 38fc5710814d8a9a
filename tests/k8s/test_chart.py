"""Helm installs, upgrades and removes the chart in a real API server."""

from collections.abc import Iterator

import pytest

from support.k8s_chart import CHART
from support.k8s_control_plane import ControlPlane, wait_for

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    plane.run("kubectl", "create", "namespace", "tessera")
    plane.run("kubectl", "label", "namespace", "tessera", "pod-security.kubernetes.io/enforce=restricted")
    yield "tessera"
    plane.kubectl("delete", "deployments,statefulsets,pods", "--all")
    plane.run("kubectl", "delete", "namespace", "tessera")
    plane.run("kubectl", "delete", "pv", "--all")


def test_the_chart_is_installed_upgraded_and_removed(plane: ControlPlane, namespace: str) -> None:
    release = ("tessera", str(CHART), "--namespace", namespace)
    plane.run("helm", "install", *release, "--set", "router.minReplicas=3")
    for component, count in (("router", 3), ("shard", 3), ("etcd", 1)):
        wait_for(component, lambda: plane.ready(component, count))  # noqa: B023 (it is called here only)
    plane.run("helm", "upgrade", *release, "--set", "shard.servers=4")
    wait_for("one more server", lambda: plane.ready("shard", 4))
    answer = plane.run("helm", "upgrade", *release, "--set", "shard.servers=2", check=False)
    assert answer.code != 0
    assert "expected 4 or more" in answer.err
    plane.run("helm", "upgrade", *release, "--set", "shard.servers=4")  # it can be mended
    plane.run("helm", "uninstall", *release[:1], *release[2:], "--wait")
    assert plane.get("statefulset/tessera-shard") is None
    claims = {claim["metadata"]["name"] for claim in plane.all_of("pvc")}
    assert {f"cache-tessera-shard-{number}" for number in range(4)} <= claims  # what servers had fetched stays
