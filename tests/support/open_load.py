"""An open loop of requests with checked answers: sent at a constant rate, whatever becomes of those before.

Latencies count from when a request was due. Answers are compared, byte for byte once one of them was decoded, with
what plain TensorFlow answers for the version that they claim.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from admin.serving_client import PREDICTION_SERVICE, open_channel
from admin.tensors import from_tensor
from protos import serving_pb2
from support.fault_report import Measured, record

if TYPE_CHECKING:
    from support.small_model import SmallModel  # imports TensorFlow

RATE_ENV = "TESSERA_FAULT_RATE"
DEFAULT_RATE = 50.0
"""Requests per second: a machine that has much else to do has to keep up with it."""

TIMEOUT_S = 30.0
WRONG = "wrong"
"""What the failure of a request begins with that got an answer, but not the right one."""

_SLOW_FACTOR = 3
_WARM_UP = 20
_MAX_IN_FLIGHT = 2000
_MAX_KNOWN_ANSWERS = 100
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, how long it took from then on, and what was wrong with it (empty: nothing)."""

    due_s: float
    took_s: float
    failure: str = ""
    version: int = 0


@dataclass
class OpenLoad:
    """Sends the small model's request until it is left; then `fault`s are recorded.

    Args:
        routers: name → address of the routers, which are asked in turn; a router that comes back elsewhere changes
            its own. With several, a request that one of them fails with UNAVAILABLE is sent to another, once.
        model: what is asked for, and what is answered.
        version: the version that is asked for; none: the newest.
        serving: the versions that may answer; the test changes it while it changes what serves.
        rate: requests per second.
    """

    routers: dict[str, str]
    model: SmallModel
    version: int | None = None
    serving: frozenset[int] = frozenset({2})
    rate: float = field(default_factory=lambda: float(os.environ.get(RATE_ENV, DEFAULT_RATE)))
    samples: list[Sample] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _known: dict[bytes, tuple[int, bool]] = field(default_factory=dict)
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)
    _in_flight: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._wire = self.model.request(self.version).SerializeToString()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.wait_for_answers(_WARM_UP + 50)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        deadline_s = time.monotonic() + TIMEOUT_S + 5
        while self._in_flight and time.monotonic() < deadline_s:
            time.sleep(0.01)
        for channel in self._channels.values():
            channel.close()
        if kind is None:
            usual = usual_of(self.samples, self._faults[0].begin_s) if self._faults else []
            for fault in self._faults:
                record(fault.measured(usual, self.samples))

    @property
    def failures(self) -> list[str]:
        """What was wrong with the requests that failed, or whose answers were wrong."""
        return [sample.failure for sample in self.samples if sample.failure]

    def wait_for_answers(self, more: int, timeout_s: float = 60.0) -> None:
        """Wait until `more` requests that are sent from now on have ended."""
        now_s = time.monotonic()
        start = len(self.samples)
        while sum(sample.due_s >= now_s for sample in self.samples[start:]) < more:
            assert time.monotonic() < now_s + timeout_s, (
                f"no {more} answers within {timeout_s:g} s; {self.failures[:3]}"
            )
            time.sleep(0.02)

    @contextmanager
    def fault(self, number: str, what: str) -> Iterator[Fault]:
        """Measure the requests that are sent inside, against those before the first fault, as `number`: `what`."""
        fault = Fault(number, what, time.monotonic(), self.rate)
        self._faults.append(fault)
        yield fault
        fault.end_s = time.monotonic()

    def _run(self) -> None:
        began_s, sent = time.monotonic(), 0
        while not self._stop.is_set():
            due_s = began_s + sent / self.rate
            if (wait_s := due_s - time.monotonic()) > 0:
                time.sleep(wait_s)
            with self._lock:
                full = self._in_flight >= _MAX_IN_FLIGHT
                self._in_flight += not full
            if full:
                self.samples.append(Sample(due_s, 0.0, f"not sent: {_MAX_IN_FLIGHT} requests wait for their answer"))
            else:
                self._send(due_s, sent, tries=min(2, len(self.routers)))
            sent += 1

    def _send(self, due_s: float, turn: int, tries: int) -> None:
        addresses = list(self.routers.values())
        address = addresses[turn % len(addresses)]
        with self._lock:
            channel = self._channels.get(address) or self._channels.setdefault(address, open_channel(address))
        method: Any = channel.unary_unary(PREDICTION_SERVICE + "Predict")
        future = method.future(self._wire, timeout=TIMEOUT_S)
        future.add_done_callback(lambda done: self._done(done, due_s, turn, tries))

    def _done(self, future: Any, due_s: float, turn: int, tries: int) -> None:
        """Note how a request ended; on a thread of gRPC."""
        code = future.code()
        if code in _AGAIN and tries > 1 and not self._stop.is_set():
            self._send(due_s, turn + 1, tries - 1)
            return
        version, failure = 0, ""
        if code is grpc.StatusCode.OK:
            version, right = self._read(future.result())
            if not right:
                failure = f"{WRONG}: the answer is not that of version {version}, which it claims"
            elif version not in self.serving:
                failure = f"{WRONG}: got version {version}, expected one of {sorted(self.serving)}"
        else:
            failure = f"{code.name}: {future.details()}"
        with self._lock:
            self.samples.append(Sample(due_s, time.monotonic() - due_s, failure, version))
            self._in_flight -= 1

    def _read(self, wire: bytes) -> tuple[int, bool]:
        """Return the version that an answer claims, and whether it is that version's answer."""
        known = self._known.get(wire)
        if known is None:
            response = serving_pb2.PredictResponse.FromString(wire)
            outputs: Mapping[str, Any] = {alias: from_tensor(tensor) for alias, tensor in response.outputs.items()}
            version = response.model_spec.version.value
            known = version, outputs == self.model.expected.get(version)
            if len(self._known) < _MAX_KNOWN_ANSWERS:
                self._known[wire] = known
        return known


@dataclass
class Fault:
    """What a test did, and when."""

    number: str
    what: str
    begin_s: float
    rate: float
    end_s: float = 0.0
    recovered_s: float | None = None
    note: str = ""

    def recovered(self) -> None:
        """Say that all is as before now, where it is not answers that tell."""
        self.recovered_s = time.monotonic()

    def measured(self, usual: Sequence[Sample], samples: Sequence[Sample]) -> Measured:
        """Return the numbers of the requests that were due while it lasted, beside the `usual` ones."""
        during = [sample for sample in samples if self.begin_s <= sample.due_s < self.end_s]
        usual_ms = p99_ms(usual)
        late = [s.due_s + s.took_s for s in during if s.failure or 1e3 * s.took_s > _SLOW_FACTOR * usual_ms]
        recovered_s = self.recovered_s or max(late, default=self.begin_s)
        return Measured(
            number=self.number,
            what=self.what,
            rate=self.rate,
            requests=len(during),
            failed=sum(bool(s.failure) and not s.failure.startswith(WRONG) for s in during),
            wrong=sum(s.failure.startswith(WRONG) for s in during),
            p99_before_ms=usual_ms,
            p99_during_ms=p99_ms(during),
            recovery_s=recovered_s - self.begin_s,
            note=self.note,
        )


def usual_of(samples: Sequence[Sample], first_fault_s: float) -> list[Sample]:
    """Return the requests before the first fault, without those that had to wait for connections."""
    return [sample for sample in samples if sample.due_s < first_fault_s][_WARM_UP:]


def p99_ms(samples: Sequence[Sample]) -> float:
    """Return the 99th percentile of the time that good answers took; 0 if there is none."""
    took_s = sorted(sample.took_s for sample in samples if not sample.failure)
    return 1e3 * took_s[min(len(took_s) - 1, int(0.99 * len(took_s)))] if took_s else 0.0
