"""Runs bench/cpp/batch/batch_driver: one process per contender, stopped (SIGSTOP) while it is not its turn.

An idle process of TensorFlow's batch function wakes up a thousand times a second and would disturb the others.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from admin.processes import fast_allocator
from tessera.errors import InternalError

_LOAD_TIMEOUT_S = 300.0
_DRAIN_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Load:
    """Requests to the model at position `model`: closed loop of `clients`, or open loop at `rate` a second."""

    clients: int = 0
    rate: float = 0.0
    model: int = 0

    @property
    def words(self) -> str:
        """As the driver reads it."""
        return f"{self.model}:closed:{self.clients}" if self.clients else f"{self.model}:open:{self.rate:g}"


@dataclass(frozen=True)
class Result:
    """What a run has shown; see bench/cpp/batch/batch_report.h."""

    loads: tuple[dict[str, Any], ...]
    totals: dict[str, float]

    @property
    def load(self) -> dict[str, Any]:
        """Of the only load, or the first."""
        return self.loads[0]

    @property
    def cpu_us(self) -> float:
        """CPU time per good answer, of the whole process: also what sends the requests, and looks at the answers."""
        good = sum(load["good"] for load in self.loads)
        return self.totals["cpu_s"] * 1e6 / good if good else 0.0

    @property
    def rows_per_batch(self) -> float:
        """Of Tessera's regions; 0 if nothing was batched."""
        return self.totals["rows"] / self.totals["batches"] if self.totals["batches"] else 0.0


class Driver:
    """A process with loaded models. Use as a context manager."""

    def __init__(
        self,
        binary: Path,
        engine: Literal["tessera", "session"],
        models: Sequence[tuple[Path, Path]],
        *,
        op_library: Path,
        log: Path,
        inter_op_threads: int = 0,
        intra_op_threads: int = 0,
    ) -> None:
        """Load `models` (SavedModel, samples).

        `inter_op_threads` is of a session, 0: one a core, -1: the callers' threads run all; `intra_op_threads` is what
        one large operation may use, 0: one a core.

        Raises:
            InternalError: a model cannot be loaded, or a region of it is not batched.
        """
        command = [
            *(str(binary), f"--engine={engine}", f"--inter-op={inter_op_threads}", f"--intra-op={intra_op_threads}"),
            f"--op-library={op_library}",
            *(f"{model}={samples}" for model, samples in models),
        ]
        environ = {**os.environ, **fast_allocator(), "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "1"}
        self._log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environ
            )
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._text = b""
        try:
            self.regions: dict[str, str] = self._read_line(_LOAD_TIMEOUT_S)["regions"]
            if refused := {region: reason for region, reason in self.regions.items() if reason}:
                raise InternalError(f"{models[0][0]}: regions are not batched: {refused}")
        except BaseException:
            self.close()
            raise
        self._stop()

    def run(
        self,
        loads: Sequence[Load],
        seconds: float,
        *,
        warm_up_s: float = 0.0,
        events: int = 0,
        deadline_us: int = 0,
        poison: float = 0.0,
        cancel: float = 0.0,
        threads: int = 256,
    ) -> Result:
        """Send requests and return what came of them; without loads, measure the idle process.

        Args:
            loads: What to send.
            seconds: Of the measured time.
            warm_up_s: Of the same load before.
            events: Threads that start all requests, as a router's pollers do; 0: a blocking thread per client.
            deadline_us: Of each request; 0: none.
            poison: Share of requests that are to fail.
            cancel: Share of requests that are cancelled within 2 ms.
            threads: That wait for answers in an open loop with `events` 0.

        Raises:
            InternalError: the process died or did not end in time; the message has the end of its log.
        """
        options = {
            "seconds": seconds,
            "warmup": warm_up_s,
            "events": events,
            "deadline_us": deadline_us,
            "poison": poison,
            "cancel": cancel,
            "threads": threads,
        }
        words = ["run", *(f"{name}={value}" for name, value in options.items()), *(load.words for load in loads)]
        answer = self._ask(" ".join(words), seconds + warm_up_s + _DRAIN_TIMEOUT_S)
        return Result(tuple(answer.pop("loads")), answer)

    def set_policy(self, **fields: int) -> None:
        """Batch all regions of the first model by this policy (fields as in the driver's header)."""
        self._ask(" ".join(["policy 0", *(f"{name}={value}" for name, value in fields.items())]), _DRAIN_TIMEOUT_S)

    def close(self) -> None:
        """End the process."""
        self._selector.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait(_END_TIMEOUT_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, line: str, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed(f"{line}: the driver has ended") from None
        answer = self._read_line(timeout_s)
        self._stop()
        return answer

    def _read_line(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        end_s = time.monotonic() + timeout_s
        while b"\n" not in self._text:
            if not self._selector.select(max(end_s - time.monotonic(), 0)):
                raise self._failed(f"no answer within {timeout_s:g} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise self._failed("the driver has ended")
            self._text += part
        line, self._text = self._text.split(b"\n", 1)
        return dict(json.loads(line))

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def _failed(self, what: str) -> InternalError:
        code = self._process.poll()
        end = self._log.read_bytes()[-1500:].decode("utf-8", "replace")
        return InternalError(f"batch_driver {self._process.args!r}: {what}, exit code {code}: …{end}")
