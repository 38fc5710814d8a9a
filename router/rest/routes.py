"""Paths of TensorFlow Serving's REST API. Matching is by the undecoded path and ignores case, as there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from tessera.errors import InvalidArgumentError

_API: Final = re.compile(r"(?is)/v1/.*")
_VERSION: Final = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_INFER: Final = re.compile(r"(?ia)/v1/models/(?P<model>[^/:]+)" + _VERSION + r":(?P<method>classify|regress|predict)")
_READ: Final = re.compile(r"(?ia)/v1/models(?:/(?P<model>[^/:]+))?" + _VERSION + r"(?:/(?P<metadata>metadata))?")
_MAX_VERSION: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class InferRoute:
    """A POST to `…:predict`, `…:classify` or `…:regress`; at most one of version and label is given."""

    method: str
    model: str
    version: int | None
    label: str | None


@dataclass(frozen=True, slots=True)
class ReadRoute:
    """A GET of a model's state or, with `metadata`, of its signatures."""

    model: str
    version: int | None
    label: str | None
    metadata: bool


def is_api(path: str) -> bool:
    """Return whether the path belongs to the API at all."""
    return _API.fullmatch(path) is not None


def parse(verb: str, path: str) -> InferRoute | ReadRoute:
    """Return what a request to the API asks for.

    Raises:
        InvalidArgumentError: it is none of the API's requests, or the version is no 64-bit number.
    """
    pattern = _INFER if verb == "POST" else _READ if verb == "GET" else None
    match = pattern.fullmatch(path) if pattern is not None else None
    if match is None:
        raise InvalidArgumentError(f"Malformed request: {verb} {path}")
    groups = match.groupdict()
    version = None
    if groups["version"] is not None:
        version = int(groups["version"]) if len(groups["version"]) < 400 else _MAX_VERSION + 1
        if version > _MAX_VERSION:
            raise InvalidArgumentError(f"Failed to convert version: {groups['version']} to numeric.")
    label = _decoded(groups["label"]) if groups["label"] is not None else None
    model = _decoded(groups["model"] or "")
    if verb == "POST":
        return InferRoute(groups["method"].lower(), model, version, label)
    if not model:
        raise InvalidArgumentError("Missing model name in request.")
    return ReadRoute(model, version, label, groups["metadata"] is not None)


def _decoded(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", errors="replace")
