"""TensorFlow graphs without Python: loads SavedModels and packages, answers Predict.

REQUIRED: `tensorflow` need not have been imported; importing it before or after is fine. Raises `tessera.errors`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__version__: str

Capsule = Any

def configure(*, fanout: Capsule | None = None, intra_op_threads: int = 0, onednn: bool = False) -> None:
    """Set what the process has once: the fan-out that TesseraLookup asks, Eigen's threads (0: one per core). REQUIRED: before the first `Graph.load`.

    `onednn` says what is expected: TensorFlow itself decides when its libraries are loaded, from the environment
    variable TF_ENABLE_ONEDNN_OPTS, so that has to be set before this module is imported. False while it is on is
    only logged.

    Raises:
        FailedPreconditionError: a second call has other values; `onednn` is True and TensorFlow has it off; the fan-out
            is of another build.
        InvalidArgumentError: fanout is not a capsule of the right kind, or intra_op_threads is negative.
    """

def recode_tensor(tensor_proto: bytes, *, tensor_content: bool = False) -> bytes:
    """Decode a serialized TensorProto and encode it again, as Predict does with inputs and outputs.

    Raises:
        InvalidArgumentError: it cannot be read; names the field.
    """

class Graph:
    """One loaded version of a model: immutable, shared, freed when the last request that pinned it has ended."""

    @staticmethod
    def load(
        path: str,
        *,
        tags: Sequence[str] = ("serve",),
        blobs: Mapping[str, str] | None = None,
        sessions_only: bool = False,
    ) -> Graph:
        """Load the SavedModel (or package) directory `path`; `blobs` maps the SHA-256 (hex) that TesseraBlob ops name to files.

        `sessions_only` runs every signature as "callable": for tests, and to compare.

        Raises:
            NotFoundError: no saved_model.pb, or a blob is not in `blobs` or not on disk; names it.
            InvalidArgumentError, FailedPreconditionError: TensorFlow refuses the graph.
            DataLossError: a blob has another size than its op says.
        """
    @property
    def signatures(self) -> dict[str, str]:
        """Signature name → how it runs: "inline" (own executor on the poller's thread), "async" (with TesseraLookup) or "callable" (TensorFlow's session on a bounded pool), "refused" (requests get the reason as an error; TensorFlow's own `__saved_model_init_op` is one)."""
    @property
    def signature_defs(self) -> bytes:
        """A serialized `tensorflow.serving.SignatureDefMap`."""
    @property
    def lookup_tables(self) -> int:
        """How many tables the package's TesseraLookup ops refer to (highest position + 1; 0: none)."""
    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        route: Capsule | None = None,
        timeout_s: float = 60.0,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Run one signature and wait: for verification and notebooks, not for serving. Strings are object arrays of bytes.

        Raises:
            InvalidArgumentError, FailedPreconditionError: what Predict says of a wrong signature, input or route.
            DeadlineExceededError: no answer within `timeout_s`; the lookups were cancelled.
        """

class Version:
    """One servable version of a model inside a snapshot."""

    def __init__(self, *, version: int, graph: Graph, route: Capsule | None = None, labels: Sequence[str] = ()) -> None:
        """`route` is a `TESSERA_ROUTE_CAPSULE`; REQUIRED when the graph has TesseraLookup ops.

        Raises:
            FailedPreconditionError: the graph has TesseraLookup ops, and there is no route or fan-out, or the route has too few tables.
        """

class Predictor:
    """Answers Predict from the current snapshot; a request pins what it resolved until it ends.

    Requests above `max_in_flight` (4,096) are refused with RESOURCE_EXHAUSTED.
    """

    def __init__(self, *, max_in_flight: int = ..., tensor_content: bool = False) -> None: ...
    def publish(self, models: Mapping[str, Sequence[Version]]) -> None:
        """Replace the whole snapshot atomically: model name → versions (any order; "latest" is the largest).

        Raises:
            InvalidArgumentError: a model without versions, or with a version or a label twice; nothing was changed.
        """
    def handler(self) -> Capsule:
        """Return the `TESSERA_HANDLER_CAPSULE` for `/tensorflow.serving.PredictionService/Predict`."""
    def stats(self) -> dict[str, Any]:
        """Return: requests, errors (by code name), in_flight, and `models`: name → {version → requests}."""
