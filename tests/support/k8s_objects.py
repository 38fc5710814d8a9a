# mypy: disable-error-code="import-untyped"
# PyYAML brings no types of its own.
"""The manifests of k8s/ as objects: rendered ones from tests/golden/k8s, and what is asked of them again and again."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
RENDERED = ROOT / "tests" / "golden" / "k8s"
OVERLAYS: Mapping[str, Path] = {
    "kind": K8S / "overlays" / "kind",
    "dev": K8S / "overlays" / "dev",
    "prod": K8S / "overlays" / "prod",
    "gpu": ROOT / "tests" / "k8s" / "gpu",
    "chart": ROOT / "tests" / "k8s" / "chart",
}
"""Name of a rendered file → what it is rendered from."""

INPUTS_DIGEST = "inputs.sha256"
CLUSTER_SCOPED = {
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
Object = dict[str, Any]


@cache
def rendered(name: str) -> tuple[Object, ...]:
    """Return the objects of an overlay. Not to be changed."""
    return tuple(parse((RENDERED / f"{name}.yaml").read_text("utf-8")))


def parse(text: str) -> list[Object]:
    """Return the objects of a YAML stream."""
    return [content for content in yaml.safe_load_all(text) if content is not None]


def dump(*objects: Any) -> str:
    """Return a YAML stream; no object is written as a reference to another."""
    text: str = yaml.safe_dump_all(copy.deepcopy(objects), sort_keys=False, width=1000, allow_unicode=True)
    return text


def read(path: str) -> list[Object]:
    """Return the objects of one file of k8s/, as it is written there."""
    return parse((K8S / path).read_text("utf-8"))


def inputs_digest() -> str:
    """Return one SHA-256 over everything that the rendered files depend on."""
    hasher = hashlib.sha256()
    for directory in (K8S / "base", K8S / "components", K8S / "overlays", OVERLAYS["gpu"], OVERLAYS["chart"]):
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                name = path.relative_to(ROOT)
                hasher.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return hasher.hexdigest()


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [content for content in objects if content["kind"] in kinds]


def one(objects: tuple[Object, ...], kind: str, name: str) -> Object:
    """Return the one object of a kind and a name."""
    (found,) = [content for content in of_kind(objects, kind) if content["metadata"]["name"] == name]
    return found


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """Yield every pod or pod template with a name for messages."""
    for content in objects:
        name = f"{content['kind']} {content['metadata'].get('name')}"
        if content["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, content["spec"]["template"]
        elif content["kind"] == "CronJob":
            yield name, content["spec"]["jobTemplate"]["spec"]["template"]
        elif content["kind"] == "Pod":
            yield name, content


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod, those of its start too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def labels(content: Object) -> dict[str, str]:
    """Return the labels of an object."""
    found: dict[str, str] = content["metadata"].get("labels", {})
    return found


def selects(selector: Object, values: Mapping[str, str]) -> bool:
    """Return whether a label selector (matchLabels, matchExpressions with In and Exists) matches labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if values.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        value = values.get(expression["key"])
        if expression["operator"] == "In":
            if value not in expression["values"]:
                return False
        elif expression["operator"] == "Exists":
            if value is None:
                return False
        else:
            raise AssertionError(f"operator {expression['operator']}: not known to this test")
    return True


def jobs() -> tuple[Object, ...]:
    """Return what an operator creates by hand."""
    return (*read("jobs/admin/job.yaml"), *read("jobs/upload/pod.yaml"))
