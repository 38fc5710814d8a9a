"""What loading a large model does to the latency of a small one that the same router serves.

The router has one core, for its pollers and its loading alike; h2load has the other and sends at a constant rate, far
below what the router can do. Requests that start while the model is LOADING count as disturbed ones, requests of runs
without any load as the baseline; both are pooled over all rounds.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bench import models, servers
from bench.context import Context, say
from bench.large_model import Large
from bench.load import LOAD_CPU, Target, check_summary, frame, parse_summary
from bench.report import Row
from protos import serving_pb2
from router.catalog import VersionState
from router.model_service import GET_MODEL_STATUS
from tessera.errors import InternalError

CONNECTIONS, RATE_PER_CONNECTION = 4, 500
_STREAMS = 16
_STATUS_POLL_S = 0.02
_LOADS_A_ROUND = 3
_TIMEOUT_S = 120.0


@dataclass
class _Loads:
    """Loads the large model again and again, as new versions, while `running`; notes when it was LOADING.

    Attributes:
        base: the base path of the model; its versions are made of hard links.
        windows: (begin, end) of each load, seconds since 1970.
    """

    address: str
    base: Path
    source: Path
    versions: Iterator[int]
    windows: list[tuple[float, float]] = field(default_factory=list)

    def once(self) -> None:
        """Add a version and wait until it serves."""
        version = next(self.versions)
        hidden = self.base / f"new-{version}"
        shutil.copytree(self.source, hidden, copy_function=os.link)
        hidden.rename(self.base / str(version))
        begin_s: float | None = None
        deadline_s = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline_s:
            state = _states(self.address).get(version)
            if state == VersionState.LOADING and begin_s is None:
                begin_s = time.time()
            if state == VersionState.AVAILABLE:
                if begin_s is None:
                    raise InternalError(f"version {version} was loaded within {_STATUS_POLL_S:g} s: it is too small")
                self.windows.append((begin_s, time.time()))
                self._forget(version)
                return
            time.sleep(_STATUS_POLL_S)
        raise InternalError(f"version {version}: not loaded within {_TIMEOUT_S:g} s")

    def _forget(self, version: int) -> None:
        """Delete all older versions, once they are unloaded."""
        while any(state != VersionState.END for n, state in _states(self.address).items() if n < version):
            time.sleep(_STATUS_POLL_S)
        for path in self.base.iterdir():
            if path.name != str(version):
                shutil.rmtree(path)


def load_interference(context: Context) -> list[Row]:
    """Measure p99 of the tiny model at a constant rate, while 1 GB is loaded beside it and while nothing is."""
    large = models.save(Large, context.work_dir / "models" / "large")
    request = models.request(context.tiny, "half_plus_two", models.tiny_inputs())
    with tempfile.TemporaryDirectory(dir=context.work_dir, prefix="large-") as folder:
        base = Path(folder)
        shutil.copytree(context.tiny, base / "1")
        with servers.running(context.log_dir) as started:
            router = started.router("half_plus_two", context.tiny, f"--model=large={base}", "--model-poll-s=0.1")
            target = servers.target(
                router, servers.PREDICT, request.wire, partial(models.check_response, expected=request.expected)
            )
            loads = _Loads(router.address, base, large, itertools.count(2))
            say(f"half_plus_two at {CONNECTIONS * RATE_PER_CONNECTION} requests/s, with and without loads of 1 GB")
            loads.once()  # the files are in the page cache from here on
            loads.windows.clear()
            quiet, disturbed = _measure(context, target, loads)
    with_loads, without = (float(np.percentile(times, 99)) for times in (disturbed, quiet))
    return [
        Row(
            name="load_interference_p99",
            value=with_loads,
            unit="µs p99 at 2,000 requests/s while 1 GB loads, one core",
            baseline="the same, nothing loads",
            baseline_value=without,
            goal=1.5,
            higher_is_better=False,
            detail={
                "p50_us": float(np.percentile(disturbed, 50)),
                "p999_us": float(np.percentile(disturbed, 99.9)),
                "quiet_p50_us": float(np.percentile(quiet, 50)),
                "quiet_p999_us": float(np.percentile(quiet, 99.9)),
                "requests": float(len(disturbed)),
                "quiet_requests": float(len(quiet)),
                "load_s": round(float(np.mean([end - begin for begin, end in loads.windows])), 2),
            },
        )
    ]


def _measure(context: Context, target: Target, loads: _Loads) -> tuple[np.ndarray, np.ndarray]:
    """Return the latencies (µs) of requests without and with a load beside them."""
    quiet: list[np.ndarray] = []
    disturbed: list[np.ndarray] = []
    for _ in range(context.durations.rounds):
        stop = threading.Event()
        watching = threading.Thread(target=_watch, args=(loads.address, stop))  # as the loads do, which costs time too
        watching.start()
        try:
            quiet.append(constant_rate(target, context.durations.run_s * _LOADS_A_ROUND)[:, 1])
        finally:
            stop.set()
            watching.join()
        loads.windows, before = [], loads.windows
        duration_s = max(4.0, context.durations.run_s * 2) * _LOADS_A_ROUND
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(constant_rate, target, duration_s)
            while not sending.done():
                loads.once()
            log = sending.result()
        disturbed += [_within(log, window) for window in loads.windows]
        loads.windows = before + loads.windows
    return np.concatenate(quiet), np.concatenate(disturbed)


def _within(log: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    begin, end = (1e6 * time_s for time_s in window)
    latencies: np.ndarray = log[(log[:, 0] >= begin) & (log[:, 0] < end), 1]
    return latencies


def constant_rate(
    target: Target, duration_s: float, per_connection: int = RATE_PER_CONNECTION, *, least: float = 0.95
) -> np.ndarray:
    """Send at the constant rate; return (start in µs since 1970, latency in µs) of every request, int64 [requests, 2].

    Raises:
        InternalError: an answer was not a good one, or less than `least` of the rate was reached.
    """
    with tempfile.TemporaryDirectory(prefix="bench-load-") as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(frame(target.request))
        command: Sequence[str] = [
            *("taskset", "-c", str(LOAD_CPU), "h2load", "--threads=1", f"--duration={round(duration_s * 1000)}ms"),
            *(f"--clients={CONNECTIONS}", f"--max-concurrent-streams={_STREAMS}", f"--rps={per_connection}"),
            *(
                f"--data={body}",
                f"--log-file={log}",
                "--header=content-type: application/grpc",
                "--header=te: trailers",
            ),
            f"http://{target.address}{target.method}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=duration_s + 60)
        summary = parse_summary(done.stdout + done.stderr)
        check_summary(summary, target.response_bytes + len(frame(b"")), CONNECTIONS * _STREAMS)
        expected = CONNECTIONS * per_connection * duration_s
        if summary.requests < least * expected:
            raise InternalError(
                f"h2load: got {summary.requests} requests, expected {expected:.0f}: the rate is too high"
            )
        columns = np.array(log.read_bytes().split(), dtype=np.int64).reshape(-1, 3)
    return columns[:, [0, 2]]


def _watch(address: str, stop: threading.Event) -> None:
    while not stop.wait(_STATUS_POLL_S):
        _states(address)


def _states(address: str) -> dict[int, int]:
    request = serving_pb2.GetModelStatusRequest()
    request.model_spec.name = "large"
    answer = serving_pb2.GetModelStatusResponse.FromString(
        servers.call(address, GET_MODEL_STATUS, request.SerializeToString())
    )
    return {status.version: status.state for status in answer.model_version_status}


CASES = {"load_interference": load_interference}
