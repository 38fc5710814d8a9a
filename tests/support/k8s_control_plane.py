"""A real control plane of Kubernetes on free ports of 127.0.0.1: etcd, API server, controllers, scheduler.

The programs are those of `make k8s-tools`. kwok plays the nodes: a pod that is scheduled becomes ready at once, one of
a Job ends well, and no container runs. Nothing outlives the thread that starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from admin.processes import bound_to_parent
from support.etcd_process import EtcdProcess, free_port
from support.k8s_objects import Object, dump
from support.k8s_tools import TOOLS

TIMEOUT_S = 600.0
ZONES: Mapping[str, str] = {"node-0": "zone-a", "node-1": "zone-b", "node-2": "zone-c"}
"""Name of each node → its zone."""

_TOKEN = "administrator"
T = TypeVar("T")


def wait_for(what: str, ask: Callable[[], T | None]) -> T:
    """Return the first answer of `ask` that is not None or False.

    Raises:
        TimeoutError: there was none in time.
    """
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        found = ask()
        if found is not None and found is not False:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {TIMEOUT_S:g} s")


@dataclass(frozen=True)
class Answer:
    """What a program said."""

    code: int
    out: str
    err: str


class ControlPlane:
    """Talks to the API server as an administrator."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        self.ca = directory / "certificates" / "apiserver.crt"
        self.kubeconfig = directory / "kubeconfig"

    def run(self, *words: str, stdin: str = "", check: bool = True) -> Answer:
        """Run a program of `make k8s-tools` against this cluster.

        Raises:
            AssertionError: it failed, and `check` is set; quotes it.
        """
        own = {name: str(self.directory / name.lower()) for name in ("HOME", "KUBECACHEDIR", "HELM_CACHE_HOME")}
        done = subprocess.run(
            [str(TOOLS / "bin" / words[0]), *words[1:]],
            env={**os.environ, **own, "KUBECONFIG": str(self.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return Answer(done.returncode, done.stdout, done.stderr)

    def kubectl(self, *words: str, stdin: str = "", check: bool = True) -> Answer:
        """Run kubectl in our namespace.

        Raises:
            AssertionError: as `run`.
        """
        return self.run("kubectl", "--namespace=tessera", *words, stdin=stdin, check=check)

    def get(self, name: str) -> Any:
        """Return an object, named as in pod/tessera-shard-0; None if it is not there."""
        text = self.kubectl("get", name, "--ignore-not-found", "-o", "json").out
        return json.loads(text) if text else None

    def all_of(self, kinds: str, *selector: str) -> list[Object]:
        """Return all objects of some kinds."""
        items: list[Object] = json.loads(self.kubectl("get", kinds, *selector, "-o", "json").out)["items"]
        return items

    def apply(self, *objects: Object) -> None:
        """Make or change objects."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=dump(*objects))

    def provision(self) -> None:
        """Make a volume for every claim that waits for one, as the provisioner of a class would."""
        for claim in self.all_of("pvc"):
            if claim["status"]["phase"] == "Pending" and not claim["spec"].get("volumeName"):
                self.apply(_volume(claim))

    def ready(self, component: str, count: int) -> list[Object] | None:
        """Return the pods of a component if `count` of them are ready, and no other ones are there."""
        self.provision()
        pods = self.all_of("pods", "-l", f"app.kubernetes.io/component={component}")
        good = [pod for pod in pods if condition(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]]
        return good if len(good) == len(pods) == count else None


def condition(content: Object, kind: str) -> bool:
    """Return whether a condition of an object's status holds."""
    found = content.get("status", {}).get("conditions", [])
    return any(one["type"] == kind and one["status"] == "True" for one in found)


def _volume(claim: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"for-{claim['metadata']['uid']}"},
        "spec": {
            "capacity": claim["spec"]["resources"]["requests"],
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"].get("storageClassName", ""),
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"]},
            "hostPath": {"path": "/volume"},
        },
    }


@contextmanager
def control_plane(directory: Path) -> Iterator[ControlPlane]:
    """Yield a control plane with three nodes; ends everything at the end."""
    plane = ControlPlane(directory, free_port())
    _write_keys(plane)
    started: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str, *flags: str) -> None:
        with (directory / f"{name}.log").open("wb") as log:
            command = bound_to_parent([str(TOOLS / "bin" / name), *flags])
            started[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        for name, process in started.items():
            assert process.poll() is None, f"{name} ended: {(directory / f'{name}.log').read_text()[-2000:]}"
        return plane.run("kubectl", "get", "--raw=/readyz", check=False).code == 0

    with EtcdProcess() as etcd:
        try:
            start("kube-apiserver", *_api_server_flags(plane, etcd.endpoint))
            wait_for("API server", answers)
            _start_the_rest(plane, start)
            plane.apply(*(_node(name, zone) for name, zone in ZONES.items()))
            plane.run("kubectl", "apply", "--server-side", "-f", str(TOOLS / "crds"))
            plane.run("kubectl", "wait", "--for=condition=Established", "crd", "--all", f"--timeout={TIMEOUT_S:g}s")
            wait_for("nodes", lambda: answers() and all(condition(node, "Ready") for node in plane.all_of("nodes")))
            yield plane
        finally:
            for process in reversed(started.values()):
                process.kill()
                process.wait()


def _write_keys(plane: ControlPlane) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (plane.directory / "accounts.key").write_bytes(text)
    (plane.directory / "tokens.csv").write_text(f"{_TOKEN},administrator,1,system:masters\n", "utf-8")
    cluster = {"server": f"https://127.0.0.1:{plane.port}", "certificate-authority": str(plane.ca)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "administrator", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "administrator"}}],
        "current-context": "test",
    }
    plane.kubeconfig.write_text(dump(content), "utf-8")


def _api_server_flags(plane: ControlPlane, etcd: str) -> Sequence[str]:
    key = plane.directory / "accounts.key"
    return (
        f"--etcd-servers=http://{etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={plane.port}",
        f"--cert-dir={plane.ca.parent}",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--token-auth-file={plane.directory / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        # Debian's etcd 3.4 cannot do it; kwok would try it again and again, and look at a pod once in a minute.
        "--feature-gates=WatchList=false",
    )


def _start_the_rest(plane: ControlPlane, start: Callable[..., None]) -> None:
    flags = (
        f"--kubeconfig={plane.kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )
    start(
        "kube-controller-manager",
        *flags,
        f"--secure-port={free_port()}",
        f"--cert-dir={plane.directory / 'controllers'}",
        f"--root-ca-file={plane.ca}",
        f"--service-account-private-key-file={plane.directory / 'accounts.key'}",
        "--use-service-account-credentials=true",
        "--pvclaimbinder-sync-period=1s",
        "--node-monitor-grace-period=1h",  # a busy machine is no reason to think that nodes are lost
    )
    start("kube-scheduler", *flags, f"--secure-port={free_port()}", f"--cert-dir={plane.directory / 'scheduler'}")
    start(
        "kwok",
        f"--kubeconfig={plane.kubeconfig}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=0",  # nobody waits for signs of life
        f"--server-address=127.0.0.1:{free_port()}",
        *(f"--config={path}" for path in sorted((TOOLS / "stages").glob("*.yaml"))),
    )


def _node(name: str, zone: str) -> Object:
    """Return a node with room for everything, and GPUs."""
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "100Gi", "nvidia.com/gpu": "8"}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": zone,
        "nvidia.com/gpu.present": "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": room, "allocatable": room},
    }
