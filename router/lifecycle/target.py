"""What the lifecycle hands to whoever serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from router.catalog import VersionStatus
from router.lifecycle.config import ModelConfig

if TYPE_CHECKING:
    from cpp_ext import _graph


@dataclass(frozen=True)
class PlainModel:
    """What is served of one model: version → graph, label → version."""

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

    def serve_plain(self, models: Mapping[str, PlainModel]) -> None:
        """Serve exactly these plain models from now on, all changes at once.

        Raises:
            TesseraError: that cannot be; what served before goes on.
        """

    def describe_plain(self, models: Mapping[str, Mapping[int, VersionStatus]]) -> None:
        """Tell these states of versions from now on."""
