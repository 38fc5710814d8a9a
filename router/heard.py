"""Placements that shard servers told of while this router does not hear from the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from placement.records import Placement
from placement.snapshot import ClusterSnapshot
from tessera.errors import DataLossError

_log = logging.getLogger("router.heard")

POLL_S = 0.05
"""How often to ask whether servers told anything: requests that they refused wait for it."""


def newer_placements(snapshot: ClusterSnapshot, documents: Mapping[str, bytes]) -> dict[str, Placement]:
    """Return model → placement, of those in `documents` that are newer than what `snapshot` has of the model.

    What cannot be read is left out, with a line in the log: it came from a server, and the store will say it again.
    """
    newer = {}
    for model, document in documents.items():
        view = snapshot.models.get(model)
        if view is None or view.placement is None:
            continue
        try:
            placement = Placement.from_bytes(document, f"placement of {model} from a server")
        except DataLossError as error:
            _log.error("%s", error.message)
            continue
        if placement.model == model and placement.epoch > view.placement.epoch:
            newer[model] = placement
    return newer


def with_heard(snapshot: ClusterSnapshot, heard: Mapping[str, Placement]) -> ClusterSnapshot:
    """Return `snapshot` in which the models of `heard` have that placement, where it is newer."""
    models = dict(snapshot.models)
    for model, placement in heard.items():
        view = models.get(model)
        if view is not None and view.placement is not None and placement.epoch > view.placement.epoch:
            models[model] = replace(view, placement=placement, target=None, base=None)
    return replace(snapshot, models=MappingProxyType(models))
