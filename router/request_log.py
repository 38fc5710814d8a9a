"""Writes the request log of a model: takes records from the native core and puts them into files, on its own thread.

Nothing here can hold up an answer: when this thread is late, the native queue is full and records are dropped; when the
disk is full, records are lost. Both are counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from router.lifecycle.config import RequestLogging
from router.record_files import RecordFiles
from tessera.clock import Clock, SystemClock

_log = logging.getLogger("router.request_log")

_TAKE_S = 1.0
"""How long one wait for records is at most: bounds how late files are finished by their age."""
_RETRY_S = 10.0
"""After an error of the disk, records are dropped for so long before it is tried again."""
_STOP_S = 10.0


class _Queue(Protocol):
    """Where records come from: see `_graph.RequestLog`."""

    def take(self, *, timeout_s: float) -> list[bytes]: ...

    def close(self) -> None: ...

    def counts(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class RequestLogStatistics:
    """What became of the sampled requests of one model.

    Attributes:
        written: are in files.
        dropped: came while too many waited for the writer.
        failed: could not be written.
    """

    written: int
    dropped: int
    failed: int


class RequestLogWriter:
    """The request log of one model: `start` and `stop` from one thread, `statistics` from any."""

    def __init__(self, model: str, queue: _Queue, config: RequestLogging, clock: Clock | None = None) -> None:
        """`config` says where files go and how large they get."""
        self._model, self._queue = model, queue
        self._clock = clock or SystemClock()
        self._files = RecordFiles(
            Path(config.filename_prefix), self._clock, max_file_bytes=config.max_file_bytes, max_files=config.max_files
        )
        self._written = self._failed = 0
        self._failing = self._ending = False
        self._retry_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"request log {model}", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def statistics(self) -> RequestLogStatistics:
        """Return the counters of this moment; from any thread."""
        return RequestLogStatistics(self._written, self._queue.counts()["dropped"], self._failed)

    def stop(self, wait_s: float = _STOP_S) -> None:
        """Write what waits, finish the file and end; wait for that at most `wait_s`. May be called twice."""
        self._ending = True
        self._queue.close()
        self._thread.join(wait_s)

    def _run(self) -> None:
        self._attempt(self._files.recover)
        while not self._ending:
            self.step(_TAKE_S)
        self.step(0.0)  # what came before the queue was closed
        self._attempt(self._files.close)

    def step(self, timeout_s: float) -> None:
        """Write the records that come within `timeout_s`, or finish a file that is old enough."""
        records = self._queue.take(timeout_s=timeout_s)
        if self._failing and self._clock.monotonic_s() < self._retry_at_s:
            self._failed += len(records)
        elif records:
            self._write(records)
        else:
            self._attempt(self._files.tick)

    def _write(self, records: Sequence[bytes]) -> None:
        for position, record in enumerate(records):
            try:
                self._files.write([record])
            except OSError as error:
                self._failed += len(records) - position
                self._tell(error)
                return
            self._written += 1
        if self._failing:
            self._failing = False
            _log.info("model %s: requests are logged again", self._model)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        """Log the first of the errors in a row."""
        self._retry_at_s = self._clock.monotonic_s() + _RETRY_S
        if not self._failing:
            _log.error("model %s: requests cannot be logged, and are lost until they can: %s", self._model, error)
        self._failing = True
