"""What the lifecycle hands to whoever serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from router.catalog import VersionStatus
from router.lifecycle.config import ModelConfig, ServerConfig

if TYPE_CHECKING:
    from cpp_ext import _graph


@dataclass(frozen=True)
class PlainModel:
    """What is served of one model: version → graph, label → version, without labels of versions that are not there."""

    config: ModelConfig
    graphs: Mapping[int, _graph.Graph]
    labels: Mapping[str, int]


class Target(Protocol):
    """Who serves what was loaded."""

    def adopt_plain(self, model: str, version: int, graph: _graph.Graph) -> None:
        """Prepare a graph that was just loaded, before it serves.

        Raises:
            TesseraError: it must not serve.
        """

    def serve_plain(self, models: Mapping[str, PlainModel], config: ServerConfig, *, started: bool) -> None:
        """Serve exactly these plain models from now on, all changes at once.

        Args:
            models: by name; those of which a version is available.
            config: what holds now: labels, also of versions that are not available, and what is done with the traffic
                of the cluster's models.
            started: the models of the start have come; until then nobody can say that there is no such label.

        Raises:
            TesseraError: that cannot be; what served before goes on.
        """

    def cluster_versions(self, model: str) -> Collection[int]:
        """Return the versions of a model of the cluster that answer requests."""

    def cluster_bytes(self) -> int:
        """Return the memory that the packages of the cluster take."""

    def describe_plain(self, models: Mapping[str, Mapping[int, VersionStatus]]) -> None:
        """Tell these states of versions from now on."""
