"""A real API server takes the manifests as k8s/README.md says, and its controllers make of them what is wanted."""

import json
from collections.abc import Callable

import pytest

from support.command_line import tessera
from support.k8s_control_plane import Answer, ControlPlane, condition, wait_for
from support.k8s_objects import OVERLAYS, ROOT, Object, of_kind, rendered

pytestmark = pytest.mark.timeout(1800)
Deploy = Callable[[str], None]


def _generations(plane: ControlPlane) -> dict[str, int]:
    """Return name → how often what is wanted of an object has changed."""
    found = plane.all_of("deployments,statefulsets,pdb,networkpolicies,cronjobs")
    return {f"{content['kind']}/{content['metadata']['name']}": content["metadata"]["generation"] for content in found}


def _addresses(plane: ControlPlane, service: str) -> dict[str, set[int]]:
    """Return the addresses behind a Service, each with its ports."""
    found: dict[str, set[int]] = {}
    for piece in plane.all_of("endpointslices", "-l", f"kubernetes.io/service-name={service}"):
        for endpoint in piece["endpoints"] or ():
            for address in endpoint["addresses"]:
                found.setdefault(address, set()).update(port["port"] for port in piece["ports"])
    return found


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "chart"])
def test_an_overlay_is_admitted_and_its_pods_run(plane: ControlPlane, deploy: Deploy, overlay: str) -> None:
    deploy(overlay)
    (autoscaler,) = of_kind(rendered(overlay), "HorizontalPodAutoscaler")
    wanted = autoscaler["spec"]["minReplicas"]
    routers = wait_for("routers", lambda: plane.ready("router", wanted))
    shards = wait_for("shard servers", lambda: plane.ready("shard", 3))
    assert {pod["metadata"]["name"] for pod in shards} == {f"tessera-shard-{number}" for number in range(3)}
    assert len({pod["spec"]["nodeName"] for pod in shards}) == 3
    assert all(pod["spec"]["priority"] == 1_000_000 for pod in (*routers, *shards))
    assert "kube-api-access" not in json.dumps([*routers, *shards])  # the token of a service account
    rest = 8501 not in _ports_of(routers[0])
    expected = {pod["status"]["podIP"]: {8500} if rest else {8500, 8501} for pod in routers}
    wait_for("the Service of routers", lambda: _addresses(plane, "tessera-router") == expected)
    if overlay in ("kind", "dev"):
        wait_for("etcd", lambda: plane.ready("etcd", 1))
    wait_for("the autoscaler", lambda: condition(plane.get("hpa/tessera-router"), "AbleToScale"))
    wait_for(
        "the budgets",
        lambda: [budget["status"].get("disruptionsAllowed") for budget in plane.all_of("pdb")] == [1, 1],
    )
    before = _generations(plane)
    deploy(overlay)  # once more: nothing is undone, the number of routers least of all
    assert _generations(plane) == before


def _ports_of(pod: Object) -> set[int]:
    return {port["containerPort"] for container in pod["spec"]["containers"] for port in container["ports"]}


def test_commands_and_uploads_run_beside_it(plane: ControlPlane, deploy: Deploy) -> None:
    deploy("prod")

    def ended(selector: str, count: int) -> bool:
        plane.provision()
        phases = [pod["status"]["phase"] for pod in plane.all_of("pods", "-l", selector)]
        return phases == ["Succeeded"] * count

    for directory in ("admin", "upload"):
        answer = plane.run("kubectl", "apply", "-k", str(ROOT / "k8s" / "jobs" / directory))
        assert "Warning" not in answer.err, answer.err
    for words in (("status",), ("k8s", "scale", "2")):  # the same twice: a name is made up each time
        for _ in range(2):
            content = tessera("k8s", "job", "--tls", "--", *words).stdout
            answer = plane.kubectl("create", "-f", "-", stdin=content)
            assert "Warning" not in answer.err, answer.err
    wait_for("the commands", lambda: ended("app.kubernetes.io/component=admin", 5))
    wait_for("the upload", lambda: plane.get("pod/tessera-upload")["status"]["phase"] == "Running")
    plane.kubectl("create", "job", "--from=cronjob/tessera-etcd-snapshot", "now")
    wait_for("the copy of etcd", lambda: ended("job-name=now", 1))


def test_a_pod_that_is_not_restricted_is_refused(plane: ControlPlane, deploy: Deploy) -> None:
    deploy("dev")
    answer = plane.kubectl("run", "loose", "--image=tessera", check=False)
    assert answer.code != 0
    assert "violates PodSecurity" in answer.err


def test_custom_objects_are_checked_against_their_definitions(plane: ControlPlane, deploy: Deploy) -> None:
    deploy("prod")
    for kind, patch, complaint in (
        ("certificate/tessera-router", {"spec": {"privateKey": {"algorithm": "DSA"}}}, "Unsupported value"),
        ("grpcroute/tessera", {"spec": {"rules": [{"backendRefs": [{"port": 1}]}]}}, "name"),
        ("backendtlspolicy/tessera-router", {"spec": {"validation": {"hostname": "no host"}}}, "hostname"),
    ):
        answer = plane.kubectl("patch", kind, "--type=merge", "-p", json.dumps(patch), check=False)
        assert answer.code != 0
        assert complaint in answer.err


def _evict(plane: ControlPlane, pod: str) -> Answer:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "tessera"}}
    path = f"/api/v1/namespaces/tessera/pods/{pod}/eviction"
    return plane.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction), check=False)


def test_only_one_shard_server_may_be_evicted_at_once(plane: ControlPlane, deploy: Deploy) -> None:
    deploy("dev")
    wait_for("shard servers", lambda: plane.ready("shard", 3))

    def allowed(count: int) -> bool:
        status = plane.get("pdb/tessera-shard").get("status", {})
        return bool(status.get("disruptionsAllowed") == count and status.get("expectedPods") == 3)

    wait_for("the budget", lambda: allowed(1))
    plane.kubectl("cordon", "--selector=kubernetes.io/os=linux")  # so that no successor comes
    try:
        assert _evict(plane, "tessera-shard-2").code == 0
        wait_for("the budget", lambda: allowed(0))
        answer = _evict(plane, "tessera-shard-1")
        assert answer.code != 0
        assert "disruption budget" in answer.err
    finally:
        plane.kubectl("uncordon", "--selector=kubernetes.io/os=linux")


def test_a_new_template_is_tried_on_the_last_server_first(plane: ControlPlane, deploy: Deploy) -> None:
    deploy("dev")
    wait_for("shard servers", lambda: plane.ready("shard", 3))

    def updated() -> set[str]:
        latest = plane.get("statefulset/tessera-shard")["status"]["updateRevision"]
        pods = plane.ready("shard", 3) or ()
        return {
            pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"]["controller-revision-hash"] == latest
        }

    wait_for("the first template", lambda: len(updated()) == 3)
    strategy = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}
    plane.kubectl("patch", "statefulset/tessera-shard", "--type=merge", "-p", json.dumps(strategy))
    plane.kubectl("set", "image", "statefulset/tessera-shard", "shard=registry.example.com/tessera:0.2.0")
    wait_for("the canary", lambda: updated() == {"tessera-shard-2"})
    plane.kubectl("rollout", "status", "statefulset/tessera-shard", "--timeout=500s")
    assert updated() == {"tessera-shard-2"}
    strategy["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0
    plane.kubectl("patch", "statefulset/tessera-shard", "--type=merge", "-p", json.dumps(strategy))
    wait_for("the others", lambda: len(updated()) == 3)
