"""A client and a load generator for integration tests; imports neither TensorFlow nor its protos."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from admin.serving_client import PREDICTION_SERVICE, call, open_channel
from admin.tensors import from_tensor, to_tensor
from protos import serving_pb2
from tessera.errors import TesseraError

INT32, STRING, INT64, FLOAT32 = 3, 7, 9, 1


def predict_request(
    model: str,
    inputs: Mapping[str, tuple[Any, int]],
    *,
    version: int | None = None,
    label: str = "",
    signature: str = "",
    output_filter: tuple[str, ...] = (),
) -> serving_pb2.PredictRequest:
    """Return a request; `inputs` maps alias → (nested lists, DataType number)."""
    request = serving_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for alias, (value, dtype) in inputs.items():
        request.inputs[alias].CopyFrom(to_tensor(alias, value, dtype))
    return request


def predict(
    channel: grpc.Channel, request: serving_pb2.PredictRequest, timeout_s: float = 10.0
) -> tuple[dict[str, Any], int]:
    """Return (output alias → nested lists, version that answered)."""
    answer = call(channel, PREDICTION_SERVICE + "Predict", request.SerializeToString(), timeout_s)
    response = serving_pb2.PredictResponse.FromString(answer)
    return {alias: from_tensor(t) for alias, t in response.outputs.items()}, response.model_spec.version.value


@dataclass
class Load:
    """Sends one request over and over from a few threads, while the test breaks things.

    Attributes:
        expected: the outputs that every answer must equal.
    """

    router: str
    request: serving_pb2.PredictRequest
    expected: Mapping[str, Any]
    threads: int = 4
    timeout_s: float = 10.0
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._running = [threading.Thread(target=self._run, daemon=True) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        self.wait_for_answers(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(self.timeout_s + 5)

    def wait_for_answers(self, more: int, timeout_s: float = 30.0) -> None:
        """Wait until `more` further answers (or failures) have come."""
        target = self.answers + len(self.failures) + more
        deadline = time.monotonic() + timeout_s
        while self.answers + len(self.failures) < target:
            assert time.monotonic() < deadline, f"no {more} answers within {timeout_s} s; failures: {self.failures[:3]}"
            time.sleep(0.01)

    def expected_of(self, version: int) -> Mapping[str, Any]:
        """Return the outputs that an answer of `version` must equal."""
        return self.expected

    def _run(self) -> None:
        with open_channel(self.router) as channel:
            while not self._stop.is_set():
                started_s = time.monotonic()
                failure = ""
                try:
                    outputs, version = predict(channel, self.request, self.timeout_s)
                    if outputs != self.expected_of(version):
                        failure = f"wrong answer of version {version}: {outputs}"
                except TesseraError as error:
                    failure = error.message
                with self._lock:
                    self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
                    if failure:
                        self.failures.append(failure)
                    else:
                        self.answers += 1
                if failure:
                    time.sleep(0.01)
