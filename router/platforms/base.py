"""What a platform is: one kind of model that can be served, TensorFlow's among others.

A platform says whether a version directory is complete, what loading it takes, and loads it as a native graph. From
there on everything is the same for all: batching, versions and labels, warm-up, REST, metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cpp_ext import _graph


@dataclass(frozen=True)
class MemoryEstimate:
    """What one version of a model takes, in bytes; an upper bound as far as it can be known without loading.

    Attributes:
        resident_bytes: once it serves.
        peak_bytes: while it loads, `resident_bytes` included.
    """

    resident_bytes: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a version is loaded. The server makes one value of its settings, the loader fills in model and version.

    Attributes:
        model: the model's name, for messages.
        version: likewise.
        blobs: SHA-256 (hex) → file, of a package's weights.
        saved_model_tags: which of a SavedModel's graphs is served.
        batching: batch the regions that a graph marks for it.
        request_batching: batch whole requests of graphs without such regions.
        per_version_batching: take the policy of `request_batching` from `batching_params.pbtxt` in the
            version's directory, and do not batch versions that have no such file.
        intra_op_threads: threads that one large operation may use; 0: one per core.
        prefer_tflite_model: serve `model.tflite` where a version of platform "tensorflow" has one.
        tflite_pools: with `tflite_interpreters_per_pool`, how many requests a TFLite model runs at once;
            0: one per core.
        tflite_interpreters_per_pool: see there.
        python_workers: requests that a Python-callable model runs at once.
    """

    model: str = "default"
    version: int = 1
    blobs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    saved_model_tags: tuple[str, ...] = ("serve",)
    batching: bool = True
    request_batching: bool = False
    per_version_batching: bool = False
    intra_op_threads: int = 0
    prefer_tflite_model: bool = False
    tflite_pools: int = 0
    tflite_interpreters_per_pool: int = 1
    python_workers: int = 4

    @property
    def name(self) -> str:
        """`model:version`, as messages and statistics name it."""
        return f"{self.model}:{self.version}"


class Platform(Protocol):
    """One kind of model. Stateless, or safe to use from several threads; every method may block on files.

    `path` is the directory of one version, a numbered one as a rule.
    """

    @property
    def name(self) -> str:
        """What a model's configuration calls it (`model_platform`)."""

    def is_complete(self, path: Path) -> bool:
        """Return whether all files of the version are there: False for a directory that is still being copied.

        Raises nothing: what cannot be read is not complete.
        """

    def estimate(self, path: Path) -> MemoryEstimate:
        """Return what the version will take.

        Raises:
            NotFoundError: a file is not there; names it.
        """

    def load(self, path: Path, options: LoadOptions) -> _graph.Graph:
        """Load the version and return it ready to answer. Blocks for as long as that takes: for a loader's thread.

        Raises:
            TesseraError: it cannot be loaded; NotFoundError and DataLossError name the file.
        """
