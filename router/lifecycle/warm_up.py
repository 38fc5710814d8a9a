"""Replays a version's warm-up file before it serves, so that no client pays for what the first requests set up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from protos import prediction_log_pb2 as pb
from protos import serving_pb2
from router.lifecycle.actions import Load
from router.tfrecord import read_records
from tessera.errors import InvalidArgumentError, NotFoundError, TesseraError, UnimplementedError, error_class

if TYPE_CHECKING:
    from cpp_ext import _graph

_log = logging.getLogger("router.lifecycle")

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
CALL_TIMEOUT_S = 300.0
"""Of one request: the first one may compile what it runs."""

_METHODS = {
    "predict_log": "Predict",
    "classify_log": "Classify",
    "regress_log": "Regress",
    "multi_inference_log": "MultiInference",
}


class Caller(Protocol):
    """Answers requests to one version: `_graph.Predictor.call` of a predictor that has nothing else."""

    def __call__(self, method: str, request: bytes, *, timeout_s: float) -> bytes:
        """Answer, or raise what a client would get."""


@dataclass(frozen=True)
class Replay:
    """Sends each request of the file to the new version.

    Args:
        make_caller: (load, graph) → what answers for that version alone.
        iterations: how often each request is sent; 0: once.
    """

    make_caller: Callable[[Load, _graph.Graph], Caller]
    iterations: int = 0

    def __call__(self, load: Load, graph: _graph.Graph) -> int:
        """Replay the file of `load` to `graph`, if there is one, and return how many requests it has. Blocks.

        Raises:
            InvalidArgumentError: over 1,000 records, or one that is no PredictionLog.
            UnimplementedError: a record of a kind that cannot be replayed.
            DataLossError: the file is damaged.
            TesseraError: a request failed, with its code.
        """
        path = load.candidate.path / FILE
        if not path.is_file():
            return 0
        call = self.make_caller(load, graph)
        count = 0
        for count, (method, request) in enumerate(_requests(path, load.model), start=1):
            try:
                for _ in range(max(1, self.iterations)):
                    call(method, request, timeout_s=CALL_TIMEOUT_S)
            except TesseraError as error:
                raise error_class(error.code)(f"warm-up request {count} of {path}: {error.message}") from error
        _log.info("model %s version %d: warmed up by %d requests", load.model, load.version, count)
        return count


def _requests(path: Path, model: str) -> Iterator[tuple[str, bytes]]:
    """Yield (method, request) for each record; the requests ask for `model`, whatever they asked for when logged."""
    try:
        with path.open("rb") as file:
            for number, record in enumerate(read_records(file, str(path)), start=1):
                if number > MAX_RECORDS:
                    raise InvalidArgumentError(
                        f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
                    )
                yield _request(record, f"warm-up request {number} of {path}", model)
    except OSError as error:
        raise NotFoundError(f"warm-up requests: {path}: {error.strerror}") from error


def _request(record: bytes, place: str, model: str) -> tuple[str, bytes]:
    try:
        log = pb.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        if kind not in _METHODS:
            raise UnimplementedError(f"{place}: Unsupported log_type for warmup: {kind or 'none'}")
        request: bytes = getattr(log, kind).request
        if kind == "multi_inference_log":
            tasks = pb.AddressedTasks.FromString(request)
            for task in tasks.tasks:
                _address(task.model_spec, model)
            return _METHODS[kind], tasks.SerializeToString()
        addressed = pb.Addressed.FromString(request)
        _address(addressed.model_spec, model)
        return _METHODS[kind], addressed.SerializeToString()
    except DecodeError as error:
        raise InvalidArgumentError(f"{place}: is not a PredictionLog: {error}") from error


def _address(spec: serving_pb2.ModelSpec, model: str) -> None:
    spec.name = model
    spec.ClearField("version")
    spec.ClearField("version_label")
