"""What a container of the manifests would be told: its flags, its environment and its configuration file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from admin.k8s.quantity import parse_quantity
from router.settings import RouterSettings
from shard_server.settings import ShardServerSettings
from support.k8s_objects import Object, one
from tessera.settings import load

SETTINGS: Mapping[str, type[RouterSettings] | type[ShardServerSettings]] = {
    "router": RouterSettings,
    "shard_server": ShardServerSettings,
}
_FIELDS = {
    "metadata.name": "tessera-pod-0",
    "metadata.namespace": "tessera",
    "spec.nodeName": "node-a",
    "status.podIP": "10.1.2.3",
}


def environment(objects: tuple[Object, ...], container: Object) -> dict[str, str]:
    """Return the environment as the kubelet would make it."""
    values: dict[str, str] = {}
    for entry in container.get("env", []):
        source: dict[str, Any] = entry.get("valueFrom", {})
        if "fieldRef" in source:
            value = _FIELDS[source["fieldRef"]["fieldPath"]]
        elif "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            value = one(objects, "ConfigMap", reference["name"])["data"][reference["key"]]
        elif "resourceFieldRef" in source:
            kind, _, resource = source["resourceFieldRef"]["resource"].partition(".")
            value = str(parse_quantity(container["resources"][kind][resource]))
        else:
            value = entry["value"]
        values[entry["name"]] = value
    return values


def words(objects: tuple[Object, ...], container: Object) -> list[str]:
    """Return the arguments with $(NAME) replaced.

    Raises:
        KeyError: one names no variable.
    """
    values = environment(objects, container)
    return [re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], word) for word in container.get("args", [])]


def settings(
    objects: tuple[Object, ...], container: Object, config: str, directory: Path
) -> RouterSettings | ShardServerSettings:
    """Return the settings that a router or a shard server would read.

    Args:
        objects: of the overlay.
        container: of the pod.
        config: name of the ConfigMap with the files.
        directory: to write them to.

    Raises:
        SettingsError: the process would refuse them.
    """
    process = container["command"][2]
    for name, text in one(objects, "ConfigMap", config)["data"].items():
        (directory / name).write_text(text, "utf-8")
    arguments = [word.replace("--config=/etc/tessera/", f"--config={directory}/") for word in words(objects, container)]
    return load(SETTINGS[process], process, arguments, environment(objects, container))
