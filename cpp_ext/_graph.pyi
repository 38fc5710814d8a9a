"""TensorFlow graphs without Python: loads SavedModels and packages, answers Predict, Classify, Regress, MultiInference.

REQUIRED: `tensorflow` need not have been imported; importing it before or after is fine. Raises `tessera.errors`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__version__: str

Capsule = Any
TensorSpec = tuple[str, Sequence[int] | None]
"""dtype as numpy names it, or "string"; dimensions: -1 for any, None for any rank."""

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
        split_large_inputs: bool = True,
    ) -> None:
        """Sizes are in rows. Without `split_large_inputs` a whole request of more rows than `max_batch_size` is refused. `max_in_flight_batches` 0: as many as the lane finds best; `padding` is "pad_up", "batch_down" or "min_cost".

        Raises:
            InvalidArgumentError: a field has a wrong value; names it.
        """

def recode_tensor(tensor_proto: bytes, *, tensor_content: bool = False) -> bytes:
    """Decode a serialized TensorProto and encode it again, as Predict does with inputs and outputs.

    Raises:
        InvalidArgumentError: it cannot be read; names the field.
    """

class GraphWatch:
    """Tells when a graph is gone, without holding it."""

    @property
    def freed(self) -> bool:
        """Whether nothing refers to the graph any more and its memory is free again."""
    def wait(self, timeout_s: float) -> bool:
        """Block until it is freed, at most `timeout_s`; return whether it is."""

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
        request_batching: bool = False,
    ) -> Graph:
        """Load the SavedModel (or package) directory `path`; `blobs` maps the SHA-256 (hex) that TesseraBlob ops name to files.

        `name` ("model:version") is for messages about its batches. Without `batching` the regions between TesseraBatch
        and TesseraUnbatch run request by request, and `batch_regions` is empty.
        With `request_batching` whole requests of signatures without such regions share batches; a region of
        `batch_regions` is then named like its signature.
        `sessions_only` runs every signature as "callable": for tests, and to compare.

        Raises:
            NotFoundError: no saved_model.pb, or a blob is not in `blobs` or not on disk; names it.
            InvalidArgumentError, FailedPreconditionError: TensorFlow refuses the graph.
            DataLossError: a blob has another size than its op says.
        """
    @staticmethod
    def foreign(
        signatures: Mapping[str, tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]],
        run: Callable[[str, dict[str, np.ndarray[Any, Any]], list[str]], Mapping[str, np.ndarray[Any, Any]]],
        *,
        name: str = "",
        workers: int = 4,
        max_waiting: int = 1024,
        request_batching: bool = False,
    ) -> Graph:
        """Make a graph of a model that Python runs: `run(signature, inputs, outputs)` is called on `workers` threads of its own.

        `signatures` has inputs and outputs of each. `run` returns a dict with an array for each of `outputs`, which
        are all of the signature's; types and shapes are checked against `signatures`. What it raises is the request's
        error: a TesseraError with its code, anything else INTERNAL. Beyond `max_waiting` requests that wait for a
        worker more are refused with RESOURCE_EXHAUSTED; those whose deadline passes meanwhile do not begin.

        Raises:
            InvalidArgumentError: a dtype that is none, or a number out of range; names it.
        """
    @property
    def signatures(self) -> dict[str, str]:
        """Signature name → how it runs: "inline" (own executor on the poller's thread), "async" (with TesseraLookup, batched, or of another platform) or "callable" (TensorFlow's session on a bounded pool), "refused" (requests get the reason as an error; TensorFlow's own `__saved_model_init_op` is one)."""
    @property
    def signature_defs(self) -> bytes:
        """A serialized `tensorflow.serving.SignatureDefMap`."""
    def watch(self) -> GraphWatch:
        """Return what tells when this graph is gone."""
    @property
    def lookup_tables(self) -> int:
        """How many tables the package's TesseraLookup ops refer to (highest position + 1; 0: none)."""
    @property
    def batch_regions(self) -> dict[str, dict[str, Any]]:
        """Region → {"signatures": names of the signatures that it is in, "in_loop": whether it is in the body of a loop, "refused": why it runs request by request nevertheless; empty when it is batched}."""
    own_policy: object
    """For whoever gives the graph its policies: the one that the model brings with it (`batching.policy.Policy`), or None. Nothing here reads it."""
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

class TrafficSplit:
    """How the requests to a model that name neither a version nor a label are divided. Immutable but for its counters."""

    def __init__(self, percent: Mapping[int | str, float], *, sticky_header: str = "") -> None:
        """`percent` maps versions or labels to shares, which sum up to 100.

        A client, told by the metadata value `sticky_header` (lower case) or else by the request's `client_id`, always gets
        the same share; when percentages change it only moves to a share that grew in relation to the one it leaves. Without
        either, chance decides request by request. The share of a version that is not there goes to the others.

        Raises:
            InvalidArgumentError: no share or more than 64, one twice, one negative, another sum than 100; says which.
        """
    def counts(self) -> dict[str, dict[str, int]]:
        """Return version or label → {"chosen": requests that it got, "rerouted": requests it did not get because its version was not there}."""

class AnswerHook:
    """Looks at answered requests (base class of what does)."""

class RequestLog(AnswerHook):
    """Keeps PredictionLog records of sampled successful requests until a writer takes them; bounded, never in the way of an answer."""

    def __init__(self, *, model: str, sampling_rate: float, max_records: int = 1024, max_bytes: int = 67108864) -> None:
        """`sampling_rate` is 0 to 1; `model` is what the records say. While `max_records` or `max_bytes` of messages wait, further ones are dropped.

        Raises:
            InvalidArgumentError: a number is out of range; names it.
        """
    def take(self, *, timeout_s: float) -> list[bytes]:
        """Return serialized `tensorflow.serving.PredictionLog`s, oldest first, as soon as there are any; none after `timeout_s` or `close`. For one writer; waits without the GIL."""
    def close(self) -> None:
        """Keep nothing more, and let `take` return at once; what waits can still be taken."""
    def counts(self) -> dict[str, int]:
        """Return {"sampled": records that were kept, "dropped": those that were not because too much waited}."""

class Shadow(AnswerHook):
    """Sends a copy of successful requests to another version of the model and compares the answers, which nobody else gets to see.

    Requests that this version answered itself are not copied. Copies run on one thread of the process, after the answer.
    A few of the differences are logged, at most one message in ten seconds.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        model: str,
        version: int | str,
        percent: float = 100.0,
        tolerance: float = 0.0,
        max_in_flight: int = 16,
        timeout_s: float = 10.0,
    ) -> None:
        """`version` is a version or a label; `percent` of the requests are copied. Numbers may differ by `tolerance`, relative to them above 1.

        Does not keep `predictor` alive. Copies above `max_in_flight`, or 64 MiB of messages, are dropped.

        Raises:
            InvalidArgumentError: a number is out of range; names it.
        """
    def counts(self) -> dict[str, int]:
        """Return {"equal", "different", "failed", "dropped", "in_flight"}: what became of the copies."""

class Version:
    """One servable version of a model inside a snapshot."""

    def __init__(
        self,
        *,
        version: int,
        graph: Graph,
        route: Capsule | None = None,
        labels: Sequence[str] = (),
        hooks: Sequence[AnswerHook] = (),
    ) -> None:
        """`route` is a `TESSERA_ROUTE_CAPSULE`; REQUIRED when the graph has TesseraLookup ops. `hooks` see its answers, in their order.

        Raises:
            FailedPreconditionError: the graph has TesseraLookup ops, and there is no route or fan-out, or the route has too few tables.
        """

def latency_bounds_micros() -> list[float]:
    """Return the bounds of the cells of `Predictor.stats()`'s latencies: 10 · 1.8^i for i < 33."""

class Predictor:
    """Answers Predict, Classify, Regress and MultiInference from the current snapshot; a request pins what it resolved until it ends.

    Requests above `max_in_flight` (4,096) are refused with RESOURCE_EXHAUSTED. With `check_method_names` a signature
    serves only the method that its `method_name` says (tensorflow_model_server's `--enable_signature_method_name_check`).
    """

    def __init__(
        self, *, max_in_flight: int = ..., tensor_content: bool = False, check_method_names: bool = False
    ) -> None: ...
    def publish(
        self,
        models: Mapping[str, Sequence[Version]],
        *,
        traffic: Mapping[str, TrafficSplit] = ...,
        labels: Mapping[str, Mapping[str, int]] = ...,
        labels_known: bool = True,
    ) -> None:
        """Replace the whole snapshot atomically: model name → versions (any order; "latest" is the largest).

        Requests that name neither version nor label are divided by the model's split in `traffic`, where it has one. Give
        the same object again as long as the configuration is the same: its counters go on.

        `labels` says (by model) what labels stand for whose version is not there: such a request gets NOT_FOUND, one with any
        other label INVALID_ARGUMENT, or UNAVAILABLE unless `labels_known`.

        Raises:
            InvalidArgumentError: a model without versions, or with a version or a label twice; nothing was changed.
        """
    def handler(self, method: str = "Predict") -> Capsule:
        """Return the `TESSERA_HANDLER_CAPSULE` for `/tensorflow.serving.PredictionService/{method}`: Predict, Classify, Regress or MultiInference.

        Raises:
            InvalidArgumentError: there is no such method.
        """
    def call(
        self,
        method: str,
        request: bytes,
        *,
        timeout_s: float,
        metadata: Mapping[str, str] | None = None,
        entrypoint: str = "INTERNAL",
    ) -> bytes:
        """Answer one serialized request and wait, without the GIL: for warm-up, tools and tests, not for serving.

        `metadata` (keys in lower case) is what a client would send as headers. `entrypoint` "INTERNAL" keeps the call
        out of `stats()["methods"]` and away from answer hooks (request log, shadowing); "GRPC" and "REST" count it as such.

        Raises:
            TesseraError: what a client would get; DeadlineExceededError after `timeout_s`.
        """
    def stats(self) -> dict[str, Any]:
        """Return what was counted since the predictor was made; publishing changes none of it.

        requests, errors (by code name), in_flight: all calls; run_again: how often one was, because servers had moved on to a newer placement; awaiting_newer: those that wait for one to be published. `models`: name → {version → requests}, of what is published now; `traffic`: name → `TrafficSplit.counts()`, likewise.
        `methods`: what clients asked for, as model → method → entry point ("GRPC", "REST") → dict; only what occurred. Requests
        for models that were never served, and those refused before they were read, are under the model "(unknown)". The dict has:
            codes: code name → requests, "OK" among them.
            latency_micros, runtime_micros: of the successes, the whole request and TensorFlow alone. Histograms
                {"counts", "sum", "count"}: cell i counts bounds[i-1] <= v < bounds[i] of `latency_bounds_micros()`, the
                last one (34 in all) everything above.
            stages_micros: of the successes, {"decode", "run", "encode"}: histograms whose cell i counts
                2^(i-1) <= v < 2^i, the last one (26 in all) everything above.
            examples: of Classify, Regress and MultiInference that were run, the examples in a request: a histogram like those of
                stages with 16 cells; its sum is the number of all examples.
        """

class Profiler:
    """A profile of this process, recorded from the construction on; thrown away unless collected."""

    def __init__(self, options: bytes = b"") -> None:
        """Start to record; `options` is a serialized `tensorflow.ProfileOptions`, empty for TensorFlow's defaults.

        Raises:
            UnavailableError: another profile is being recorded.
            InvalidArgumentError: `options` is something else.
        """
    def collect(self) -> tuple[bytes, bool]:
        """End the recording; return a serialized `tensorflow.profiler.XSpace`, and whether it is empty. REQUIRED: once. Releases the GIL."""

def file_descriptor(file: str) -> bytes:
    """Return the serialized `FileDescriptorProto` of a .proto file that TensorFlow was built with ("tensorflow/core/framework/tensor.proto").

    Raises:
        NotFoundError: there is none.
    """

def json_to_inputs(body: bytes, signature: Sequence[tuple[str, int]]) -> tuple[bool, bytes]:
    """Return whether a REST predict is in rows, and its inputs as a serialized PredictRequest; `signature` is (alias, DataType) of each input.

    Raises:
        InvalidArgumentError, UnimplementedError: with TensorFlow Serving's texts.
    """

def json_to_examples(body: bytes) -> bytes:
    """Return the Input of a REST classify or regress as a serialized ClassificationRequest.

    Raises:
        InvalidArgumentError: with TensorFlow Serving's texts.
    """

def response_to_json(method: str, response: bytes, *, rows: bool = True) -> bytes:
    """Return the JSON of a PredictResponse, ClassificationResponse or RegressionResponse; `rows` is for the first.

    Raises:
        InvalidArgumentError: JSON cannot hold it.
        InternalError: it cannot be read.
    """

class Rest:
    """Answers REST predict, classify and regress, JSON to JSON, by the predictor's handlers.

    `start` and `take` belong to one event loop, which watches `fileno` for reading; the other methods to any thread.
    Requests that are expected to take less than `inline_budget_micros` run during `start`, the others on `threads`
    threads; more than `max_in_flight` at once are answered with RESOURCE_EXHAUSTED.
    """

    def __init__(
        self, predictor: Predictor, *, threads: int = 2, max_in_flight: int = 4096, inline_budget_micros: int = 200
    ) -> None:
        """Start the threads.

        Raises:
            InvalidArgumentError: a number is too small; names it.
            InternalError: the process has too many open files.
        """
    def start(
        self,
        method: str,
        model: str,
        version: int | None,
        label: str | None,
        body: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        timeout_s: float,
    ) -> int | tuple[int, bytes]:
        """Begin a request; return (status code, JSON) if it has ended already, otherwise a token that `take` will return.

        `headers` reach the handlers as metadata: what is about the request, up to 8 KiB of it. `timeout_s` 0 is no limit.

        Raises:
            InvalidArgumentError: `method` is not predict, classify or regress.
        """
    def cancel(self, token: int) -> None:
        """Ask for an early end; its answer comes nevertheless. Harmless for requests that have ended."""
    def take(self) -> list[tuple[int, int, bytes]]:
        """Return (token, status code, JSON) of the requests that have ended since the last call."""
    def fileno(self) -> int:
        """Return what is readable while `take` has something."""
    @property
    def in_flight(self) -> int:
        """How many requests have not ended."""
    def stop(self) -> None:
        """Cancel what is in flight, end the threads, answer UNAVAILABLE from now on. May be called twice."""
