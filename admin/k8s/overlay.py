# mypy: disable-error-code="import-untyped"
# PyYAML brings no types of its own.
"""Writes a cluster's size down: as a kustomization on top of another one, as values of the chart, or as manifests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from admin.k8s.quantity import format_quantity
from admin.k8s.sizing import ClusterSize
from tessera.errors import FailedPreconditionError, NotFoundError

NAMESPACE = "tessera"
SHARD_SET = "tessera-shard"
_RENDER_TIMEOUT_S = 60
_MAX_ERROR_CHARS = 1000
_RENDERERS = (("kubectl", "kustomize"), ("kustomize", "build"))


def values(size: ClusterSize) -> dict[str, Any]:
    """Return the size as values of k8s/helm/tessera."""
    return {
        "shard": {
            "servers": size.servers,
            "memory": format_quantity(size.shard_memory_bytes),
            "cache": format_quantity(size.cache_bytes),
        },
        "router": {"memory": format_quantity(size.router_memory_bytes)},
        "repository": {"storage": format_quantity(size.repository_bytes)},
    }


def kustomization(size: ClusterSize, base: str) -> dict[str, Any]:
    """Return a kustomization that gives the objects of `base` (a path as kustomize takes it) this size."""
    patches = (
        _containers(
            "StatefulSet",
            SHARD_SET,
            "shard",
            size.shard_memory_bytes,
            replicas=size.servers,
            volumeClaimTemplates=[
                {
                    "metadata": {"name": "cache"},
                    "spec": {"accessModes": ["ReadWriteOnce"], **_storage(size.cache_bytes)},
                }
            ],
        ),
        _containers("Deployment", "tessera-router", "router", size.router_memory_bytes),
        _object(
            "v1",
            "PersistentVolumeClaim",
            "tessera-repository",
            spec=_storage(size.repository_bytes),
        ),
    )
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [base],
        "patches": [{"patch": to_yaml(patch)} for patch in patches],
    }


def _object(version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


def _storage(count: int) -> dict[str, Any]:
    return {"resources": {"requests": {"storage": format_quantity(count)}}}


def _containers(kind: str, name: str, container: str, memory_bytes: int, **spec: Any) -> dict[str, Any]:
    memory = {"memory": format_quantity(memory_bytes)}
    resources = {"requests": memory, "limits": dict(memory)}
    template = {"spec": {"containers": [{"name": container, "resources": resources}]}}
    return _object("apps/v1", kind, name, spec={**spec, "template": template})


def to_yaml(content: Any) -> str:
    """Return `content` as YAML in the order that it has."""
    text: str = yaml.safe_dump(content, sort_keys=False, width=120)
    return text


def manifests(size: ClusterSize, base: Path) -> str:
    """Return all objects of the kustomization in directory `base` at this size; runs kubectl or kustomize.

    Raises:
        NotFoundError: no such kustomization, or neither program is there.
        FailedPreconditionError: the program refuses it, or does not end; quotes what it says.
    """
    if not (base / "kustomization.yaml").is_file():
        raise NotFoundError(f"--base {base}: expected a directory with a kustomization.yaml")
    found = [(path, verb) for name, verb in _RENDERERS if (path := shutil.which(name))]
    if not found:
        raise NotFoundError("kubectl or kustomize: neither is on the PATH; `-o kustomization` needs none of them")
    with tempfile.TemporaryDirectory(prefix="tessera-k8s-") as directory:
        relative = os.path.relpath(base.resolve(), Path(directory).resolve())  # kustomize takes no absolute paths
        (Path(directory) / "kustomization.yaml").write_text(to_yaml(kustomization(size, relative)), "utf-8")
        command = [*found[0], directory]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_RENDER_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise FailedPreconditionError(f"{' '.join(found[0])}: did not end within {_RENDER_TIMEOUT_S} s") from None
    if done.returncode:
        raise FailedPreconditionError(f"{' '.join(found[0])}: {done.stderr.strip()[:_MAX_ERROR_CHARS]}")
    return done.stdout
