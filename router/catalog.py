"""What the router knows of its models: an immutable value that the slow calls answer from, replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from tessera.errors import Code, InvalidArgumentError, NotFoundError, UnavailableError


class VersionState(IntEnum):
    """TensorFlow Serving's states of a model version, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """One version of one model.

    Attributes:
        signature_defs: serialized `SignatureDefMap`; empty until the version is available.
        error_message: why the version is not available; empty when nothing is wrong.
    """

    state: VersionState
    error_code: Code = Code.OK
    error_message: str = ""
    signature_defs: bytes = b""


@dataclass(frozen=True)
class Catalog:
    """All models of a router; `models[name][version]` and `labels[name][label]`.

    Attributes:
        labels: whether their versions are available or not.
        labels_known: False until the models of the start have come: nobody can say that there is no such label.
    """

    models: Mapping[str, Mapping[int, VersionStatus]] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    labels_known: bool = True

    def statuses(self, model: str, version: int | None = None) -> list[tuple[int, VersionStatus]]:
        """Return the versions of `model`, largest first, or only `version`.

        Raises:
            NotFoundError: no such model, or no such version of it; TensorFlow Serving's text.
        """
        versions = self.models.get(model, {})
        if not versions:
            raise NotFoundError(f"Could not find any versions of model {model}")
        if version is None:
            return sorted(versions.items(), reverse=True)
        if version not in versions:
            raise NotFoundError(f"Could not find version {version} of model {model}")
        return [(version, versions[version])]

    def version_of_label(self, model: str, label: str) -> int:
        """Return the version that `label` stands for.

        Raises:
            InvalidArgumentError: the model has no such label; TensorFlow Serving's text.
            UnavailableError: labels are not known yet; likewise.
        """
        version = self.labels.get(model, {}).get(label)
        if version is not None:
            return version
        if not self.labels_known:
            raise UnavailableError(f"Model labels does not init yet.{label}")
        raise InvalidArgumentError(f"Unrecognized servable version label: {label}")

    def available(self, model: str, version: int | None = None, label: str | None = None) -> tuple[int, VersionStatus]:
        """Return the version that a request for (model, version or label or neither: the largest) would get.

        Raises:
            NotFoundError: it is not there or not available; TensorFlow Serving's text.
            InvalidArgumentError, UnavailableError: as `version_of_label`.
        """
        if label is not None:
            version = self.version_of_label(model, label)
        candidates = {
            number: status
            for number, status in self.models.get(model, {}).items()
            if status.state == VersionState.AVAILABLE and version in (None, number)
        }
        if not candidates:
            wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise NotFoundError(f"Servable not found for request: {wanted}")
        number = max(candidates)
        return number, candidates[number]

    @property
    def problems(self) -> list[str]:
        """One line per version that failed, for logs and status."""
        return [
            f"{model} version {version}: {status.error_message}"
            for model, versions in sorted(self.models.items())
            for version, status in sorted(versions.items())
            if status.error_message
        ]
