"""TensorFlow graphs without Python: loads SavedModels and packages, answers Predict.

REQUIRED: `tensorflow` need not have been imported; importing it before or after is fine. Raises `tessera.errors`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__version__: str

Capsule = Any

def configure(
    *,
    fanout: Capsule | None = None,
    intra_op_threads: int = 0,
    onednn: bool = False,
    max_in_flight_batches: int = 0,
    inline_budget_micros: int = 5000,
) -> None:
    """Set what the process has once: the fan-out that TesseraLookup asks, Eigen's threads (0: one per core), how devices are shared. REQUIRED: before the first `Graph.load`.

    `max_in_flight_batches` is how many batches a device lane runs at once (0: one or two, whichever it finds better); a
    batch that is expected to take longer than `inline_budget_micros` does not run on the thread of the request that completes it.
    `onednn` says what is expected: TensorFlow itself decides when its libraries are loaded, from the environment
    variable TF_ENABLE_ONEDNN_OPTS, so that has to be set before this module is imported. False while it is on is
    only logged.

    Raises:
        FailedPreconditionError: a second call has other values; `onednn` is True and TensorFlow has it off; the fan-out
            is of another build.
        InvalidArgumentError: fanout is not a capsule of the right kind, or a number is negative; names it.
    """

def batch_lanes() -> dict[str, dict[str, Any]]:
    """Return what each device lane of this process has counted: name → busy_ns (at least one batch in flight), since_ns, now_ns, in_flight, in_flight_limit, timer_wakeups."""

class BatchPolicy:
    """How the tasks of one subgraph are batched. Immutable."""

    def __init__(
        self,
        *,
        max_batch_size: int = 64,
        allowed_batch_sizes: Sequence[int] = (),
        batch_timeout_micros: int = 0,
        max_enqueued_rows: int = 4096,
        max_enqueued_bytes: int = 268435456,
        max_in_flight_batches: int = 0,
        priority: int = 0,
        weight: float = 1.0,
        padding: str = "pad_up",
    ) -> None:
        """Sizes are in rows. `max_in_flight_batches` 0: as many as the lane finds best; `padding` is "pad_up", "batch_down" or "min_cost".

        Raises:
            InvalidArgumentError: a field has a wrong value; names it.
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
        name: str = "",
        batching: bool = True,
    ) -> Graph:
        """Load the SavedModel (or package) directory `path`; `blobs` maps the SHA-256 (hex) that TesseraBlob ops name to files.

        `name` ("model:version") is for messages about its batches. Without `batching` the regions between TesseraBatch
        and TesseraUnbatch run request by request, and `batch_regions` is empty.
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
    @property
    def batch_regions(self) -> dict[str, dict[str, Any]]:
        """Region → {"signatures": names of the signatures that it is in, "in_loop": whether it is in the body of a loop, "refused": why it runs request by request nevertheless; empty when it is batched}."""
    def set_batching(self, policies: Mapping[str, BatchPolicy]) -> None:
        """Batch each region by its policy, those that are not named by `BatchPolicy()`, from the next task on; while serving.

        Raises:
            NotFoundError: there is no such region; names it. Nothing was changed.
        """
    def batching_stats(self) -> dict[str, dict[str, Any]]:
        """Return region → totals since the load.

        tasks, rows, batches, padding_rows, padding_elements and elements (of inputs whose lengths are padded), inline_batches, batch_sizes (rows with padding → batches), close_reasons (by
        name: idle, full, timeout, deadline, all_in_loop, bisect), queue_delay_micros and execution_micros (histograms:
        {"counts", "sum", "count"}; cell i counts 2^(i-1) <= v < 2^i, the last one all above), rejected_rows_bound, rejected_bytes_bound,
        rejected_too_large, expired_queued, expired_running, cancelled, failed_batches, bisected_batches, device_ns;
        and what is now: enqueued_rows, enqueued_bytes, in_loop.
        """
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
