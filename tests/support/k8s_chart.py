"""Makes the Helm chart's templates from the objects that kustomize renders, so that there is one source for both.

A template is an object in which some values give way to expressions; nothing else differs. values.yaml and Chart.yaml
are written by hand; the schema of the values follows from them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.k8s_objects import K8S, Object, dump, read

CHART = K8S / "helm" / "tessera"
NAMESPACE = "tessera"
IMAGE = (
    "{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}"
    "{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}"
)
Path_ = tuple[str | int, ...]

_CONTAINER: Path_ = ("spec", "template", "spec", "containers", 0)
_CLAIM: Path_ = ("spec", "resources", "requests", "storage")
VALUES: Sequence[tuple[str, str, Path_, str]] = (
    ("StatefulSet", "tessera-shard", ("spec", "replicas"), "shard.servers"),
    ("StatefulSet", "tessera-shard", (*_CONTAINER, "resources", "requests", "cpu"), "shard.cpu"),
    ("StatefulSet", "tessera-shard", (*_CONTAINER, "resources", "requests", "memory"), "shard.memory"),
    ("StatefulSet", "tessera-shard", (*_CONTAINER, "resources", "limits", "memory"), "shard.memory"),
    ("StatefulSet", "tessera-shard", ("spec", "volumeClaimTemplates", 0, *_CLAIM), "shard.cache"),
    ("Deployment", "tessera-router", (*_CONTAINER, "resources", "requests", "cpu"), "router.cpu"),
    ("Deployment", "tessera-router", (*_CONTAINER, "resources", "requests", "memory"), "router.memory"),
    ("Deployment", "tessera-router", (*_CONTAINER, "resources", "limits", "memory"), "router.memory"),
    ("HorizontalPodAutoscaler", "tessera-router", ("spec", "minReplicas"), "router.minReplicas"),
    ("HorizontalPodAutoscaler", "tessera-router", ("spec", "maxReplicas"), "router.maxReplicas"),
    ("ConfigMap", "tessera-config", ("data", "router.toml"), "router.config"),
    ("ConfigMap", "tessera-config", ("data", "shard.toml"), "shard.config"),
    ("ConfigMap", "tessera-cluster", ("data", "name"), "cluster.name"),
    ("ConfigMap", "tessera-cluster", ("data", "etcd"), "cluster.etcd"),
    ("PersistentVolumeClaim", "tessera-repository", _CLAIM, "repository.storage"),
    ("StatefulSet", "tessera-etcd", (*_CONTAINER, "image"), "etcd.image"),
)
"""Kind, name and place of every value that is the same in kustomize by default."""

_INSERTED: Sequence[tuple[str, str, Path_, str]] = (
    ("Service", "tessera-router", ("spec", "type"), "router.serviceType"),
    ("PersistentVolumeClaim", "tessera-repository", ("spec", "storageClassName"), "repository.storageClass"),
    (
        "StatefulSet",
        "tessera-shard",
        ("spec", "volumeClaimTemplates", 0, "spec", "storageClassName"),
        "shard.cacheClass",
    ),
)
"""Keys that are there only if the value is."""


def chart(name: str) -> Any:
    """Return the content of a YAML file of the chart."""
    (content,) = read(f"helm/tessera/{name}")
    return content


def base_name(name: str) -> str:
    """Return the name of a ConfigMap without the hash that kustomize appends."""
    return re.sub(r"^(tessera-config)-[a-z0-9]{10}$", r"\1", name)


def at(content: Any, path: Path_) -> Any:
    """Return what is at a place of an object."""
    for key in path:
        content = content[key]
    return content


def templates(objects: Sequence[Object]) -> dict[str, str]:
    """Return file name → text for every object but the namespace, which Helm is told on the command line."""
    found: dict[str, str] = {}
    for content in objects:
        if content["kind"] != "Namespace":
            name = base_name(content["metadata"]["name"])
            file = f"{name}-{content['kind'].lower()}.yaml"
            assert file not in found
            found[file] = _template(content, name)
    return found


def schema(values: Any) -> dict[str, Any]:
    """Return the JSON schema of the values: those that are there, of the types that they have, and no others."""
    if isinstance(values, dict):
        properties = {key: schema(value) for key, value in values.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    return {"type": {bool: "boolean", int: "integer", str: "string"}[type(values)]}


def files(objects: Sequence[Object]) -> dict[Path, str]:
    """Return all files of the chart that are made."""
    values = chart("values.yaml")
    content = schema(values)
    content["properties"]["global"] = {"type": "object"}  # a chart that has this one as a part passes it on
    made = {CHART / "templates" / name: text for name, text in templates(objects).items()}
    made[CHART / "values.schema.json"] = json.dumps(content, indent=2) + "\n"
    return made


class _Tokens:
    """Stands in for expressions while an object is written as YAML."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def put(self, text: str) -> str:
        self._texts.append(text)
        return f"TOKEN{len(self._texts) - 1:04}END"

    def resolve(self, text: str) -> str:
        text = re.sub(
            r"^( *)(\w+): TOKEN(\d{4})END\?$",
            lambda m: (
                f"{m[1]}{{{{- with {self._texts[int(m[3])]} }}}}\n{m[1]}{m[2]}: {{{{ . }}}}\n{m[1]}{{{{- end }}}}"
            ),
            text,
            flags=re.MULTILINE,
        )
        return re.sub(r"TOKEN(\d{4})END", lambda m: self._texts[int(m[1])], text)


def _template(original: Object, name: str) -> str:
    content, tokens = copy.deepcopy(original), _Tokens()
    kind = content["kind"]
    content["metadata"]["name"] = name
    for where, which, path, value in VALUES:
        if (where, which) == (kind, name):
            text = f"{{{{ .Values.{value} }}}}"
            if isinstance(at(content, path), str):  # text, even where it looks like a number
                text = f"{{{{ .Values.{value} | toString | quote }}}}"
            at(content, path[:-1])[path[-1]] = tokens.put(text)
    for where, which, path, value in _INSERTED:
        if (where, which) == (kind, name):
            at(content, path[:-1])[path[-1]] = tokens.put(f".Values.{value}") + "?"
    _walk(content, tokens)
    if kind in ("Deployment", "StatefulSet") and name != "tessera-etcd":
        process = "router" if kind == "Deployment" else "shard"
        content["spec"]["template"]["metadata"]["annotations"] = {
            "checksum/config": tokens.put(f"{{{{ .Values.{process}.config | sha256sum }}}}")
        }
    text = tokens.resolve(dump(content))
    condition = _condition(kind, name)
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text


def _walk(content: Any, tokens: _Tokens) -> None:
    """Replace what stands in many objects: the namespace, our image, names with a hash."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items):
        if key in ("namespace", "kubernetes.io/metadata.name") and value == NAMESPACE:
            content[key] = tokens.put("{{ .Release.Namespace }}")
        elif key == "app.kubernetes.io/managed-by":
            content[key] = tokens.put("{{ .Release.Service }}")
        elif key == "image" and value == "tessera":
            content[key] = tokens.put(IMAGE)
        elif key == "name" and isinstance(value, str):
            content[key] = base_name(value)
        else:
            _walk(value, tokens)


def _condition(kind: str, name: str) -> str:
    if kind == "NetworkPolicy":
        return f"{'and .Values.etcd.enabled ' if name == 'etcd' else ''}.Values.networkPolicy.enabled"
    if name == "tessera-etcd":
        return ".Values.etcd.enabled"
    if name == "tessera-scale-guard":
        return ".Values.scaleGuard.enabled"
    return {"PriorityClass": ".Values.priorityClass.create", "PersistentVolumeClaim": ".Values.repository.create"}.get(
        kind, ""
    )
