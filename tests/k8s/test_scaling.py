"""The scale guard in a real API server: the set of shard servers is not shrunk under data."""

import asyncio
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from admin.k8s.api import ClusterApi
from admin.k8s.command import run_scale
from placement.keys import Keys
from placement.memory_store import MemoryStore
from placement.records import MemberRecord, MemberState, ServerRecord, ServerState
from support.k8s_control_plane import ControlPlane, wait_for
from support.k8s_objects import OVERLAYS
from tessera.errors import AbortedError, FailedPreconditionError, PermissionDeniedError

pytestmark = pytest.mark.timeout(1800)
Deploy = Callable[[str], None]
ADMIN = "--as=system:serviceaccount:tessera:tessera-admin"
SET = "statefulset/tessera-shard"


def _scale(plane: ControlPlane, servers: int) -> str:
    """Try every way to scale; return what all are refused with, or nothing when all are admitted."""
    patch = json.dumps({"spec": {"replicas": servers}})
    ways = (
        ("scale", SET, f"--replicas={servers}"),
        ("patch", SET, "--subresource=scale", "--type=merge", "-p", patch),
        ("patch", SET, "--type=merge", "-p", patch),
        (
            "patch",
            SET,
            "--type=json",
            "-p",
            json.dumps([{"op": "replace", "path": "/spec/replicas", "value": servers}]),
        ),
    )
    answers = [plane.kubectl(*way, "--dry-run=server", check=False) for way in ways]
    refused = [answer.err for answer in answers if answer.code]
    assert len(refused) in (0, len(ways)), answers
    return refused[0] if refused else ""


def _deploy_guarded(plane: ControlPlane, deploy: Deploy) -> None:
    """Apply the overlay `dev`, and wait until the API server has compiled the policy."""
    deploy("dev")
    shrink = ("scale", SET, "--replicas=2", "--dry-run=server")
    wait_for("the guard", lambda: "expected 3 or more" in plane.kubectl(*shrink, check=False).err)


def test_the_set_is_not_shrunk_under_data(plane: ControlPlane, deploy: Deploy) -> None:
    _deploy_guarded(plane, deploy)
    assert "shard servers: got 2, expected 3 or more: drain the highest ones" in _scale(plane, 2)
    assert "got 0, expected 3 or more" in _scale(plane, 0)
    assert _scale(plane, 5) == ""
    plane.kubectl("rollout", "restart", SET)  # what does not change the size is not held up
    plane.kubectl("scale", SET, "--replicas=5")
    assert "expected 5 or more" in _scale(plane, 4)
    wait_for("shard servers", lambda: plane.ready("shard", 5))
    with pytest.raises(AssertionError, match="expected 5 or more"):
        deploy("dev")  # whose overlay says 3
    assert plane.get(SET)["spec"]["replicas"] == 5


def test_the_guard_is_there_again_when_it_was_taken_away(plane: ControlPlane, deploy: Deploy) -> None:
    """An API server does not read a policy's ConfigMap any more then (kubernetes/kubernetes#130887)."""
    for _ in range(2):
        _deploy_guarded(plane, deploy)
        plane.run("kubectl", "delete", "-k", str(OVERLAYS["dev"]))
    _deploy_guarded(plane, deploy)
    plane.kubectl("scale", SET, "--replicas=4")
    assert "expected 4 or more" in _scale(plane, 3)
    plane.kubectl("delete", SET, "--cascade=foreground")  # deleting is not shrinking
    assert plane.get(SET) is None


def test_the_account_of_commands_may_do_that_one_thing(plane: ControlPlane, deploy: Deploy) -> None:
    deploy("dev")

    def may(*words: str) -> bool:
        return plane.kubectl("auth", "can-i", ADMIN, *words, check=False).out.strip() == "yes"

    assert may("patch", SET, "--subresource=scale")
    assert may("get", SET, "--subresource=scale")
    assert not may("patch", "statefulset/tessera-etcd", "--subresource=scale")
    assert not may("patch", SET)
    assert not may("delete", SET)
    assert not may("patch", "configmap/tessera-cluster")
    assert not may("list", "secrets")


def test_servers_that_are_drained_are_taken_out(plane: ControlPlane, deploy: Deploy, tmp_path: Path) -> None:
    _deploy_guarded(plane, deploy)
    wait_for("shard servers", lambda: plane.ready("shard", 3))
    api = _api_of(plane, "tessera-admin", tmp_path)
    with pytest.raises(FailedPreconditionError, match="tessera-shard-2 may get slots"):
        _scale_from_a_pod(api, 2)
    assert plane.get(SET)["spec"]["replicas"] == 3
    _scale_from_a_pod(api, 2, "tessera-shard-2")
    pods = wait_for("two servers", lambda: plane.ready("shard", 2))
    assert {pod["metadata"]["name"] for pod in pods} == {"tessera-shard-0", "tessera-shard-1"}
    _scale_from_a_pod(api, 4)
    wait_for("four servers", lambda: plane.ready("shard", 4))
    with pytest.raises(AbortedError, match="409"):
        api.patch_scale("tessera-shard", {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 5}})
    with pytest.raises(PermissionDeniedError, match="403"):
        _scale_from_a_pod(api, 2, shard_set="tessera-etcd")
    with pytest.raises(PermissionDeniedError, match="403"):
        _scale_from_a_pod(_api_of(plane, "tessera-shard", tmp_path), 5)


def _api_of(plane: ControlPlane, account: str, directory: Path) -> ClusterApi:
    """Return what a pod of a service account finds."""
    token = plane.kubectl("create", "token", account).out
    for name, text in (("token", token), ("namespace", "tessera"), ("ca.crt", plane.ca.read_text())):
        (directory / name).write_text(text)
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(plane.port)}
    return ClusterApi.in_cluster(directory, environ)


def _scale_from_a_pod(api: ClusterApi, servers: int, *drained: str, shard_set: str = "tessera-shard") -> None:
    async def run() -> None:
        store, keys = MemoryStore(), Keys("default")
        lease = await store.grant_lease(600)
        record = MemberRecord("i", "10.0.0.1:8600", "0.1.0", MemberState.SERVING, "a", 1 << 30, 0, {}, "")
        for number in range(3):
            await store.put(keys.member(f"tessera-shard-{number}"), record.to_bytes(), lease=lease)
        for name in drained:
            wanted = ServerRecord("a", 1, 1 << 30, ServerState.DRAINING)
            await store.put(keys.server(name), wanted.to_bytes())
        await run_scale(Namespace(servers=servers, shard_set=shard_set), store, keys, api)

    asyncio.run(run())
