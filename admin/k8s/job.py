"""A Job that runs one `tessera` command in the cluster, as an object of Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAME = "tessera-admin"
_LABELS = {"app.kubernetes.io/name": "tessera", "app.kubernetes.io/component": "admin"}
_TLS_DIR = "/etc/tessera-etcd-tls"
TLS_WORDS = (f"--etcd-ca={_TLS_DIR}/ca.crt", f"--etcd-cert={_TLS_DIR}/tls.crt", f"--etcd-key={_TLS_DIR}/tls.key")
"""For an etcd that asks for certificates: files of the Secret tessera-etcd-client."""


def job(words: Sequence[str], *, image: str, namespace: str, tls: bool, token: bool) -> dict[str, Any]:
    """Return the Job; its name is made up by the API server, so that it may be created again and again.

    Args:
        words: of the command, without `tessera`.
        image: that holds it.
        namespace: of the cluster.
        tls: mount the client certificate for etcd.
        token: let it talk to the Kubernetes API.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{NAME}-", "namespace": namespace, "labels": dict(_LABELS)},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": dict(_LABELS)}, "spec": _pod(words, image, tls, token)},
        },
    }


def _pod(words: Sequence[str], image: str, tls: bool, token: bool) -> dict[str, Any]:
    mounts = [
        {"name": "repository", "mountPath": "/models", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "repository", "persistentVolumeClaim": {"claimName": "tessera-repository"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    if tls:
        mounts.append({"name": "etcd-tls", "mountPath": _TLS_DIR, "readOnly": True})
        volumes.append({"name": "etcd-tls", "secret": {"secretName": "tessera-etcd-client", "defaultMode": 0o440}})
    return {
        "restartPolicy": "Never",
        "serviceAccountName": NAME,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "tessera",
                "image": image,
                "command": ["tessera"],
                "args": list(words),
                "env": [_from_cluster("CLUSTER", "name"), _from_cluster("ETCD", "etcd")],
                "resources": {
                    "requests": {"cpu": "250m", "memory": "1Gi", "ephemeral-storage": "64Mi"},
                    "limits": {"memory": "1Gi", "ephemeral-storage": "256Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _from_cluster(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"configMapKeyRef": {"name": "tessera-cluster", "key": key}}}
