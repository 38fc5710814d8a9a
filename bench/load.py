"""Closed-loop load by h2load on a core of its own, and what it measured.

h2load sends one prepared gRPC message again and again. It only sees HTTP, where every gRPC answer has status 200, so
two things are checked: here, that the bytes of the answers are exactly those of as many good answers; and by
`bench.servers`, that a real client gets the right answer before and after.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tessera.errors import FailedPreconditionError, InternalError

SERVER_CPU, LOAD_CPU = 0, 1
_MAX_CONNECTIONS = 4


@dataclass(frozen=True)
class Target:
    """One server, the request to send to it, and the size of its answer.

    Attributes:
        address: host:port.
        method: `/package.Service/Method`.
        request: The message, without gRPC's frame.
        response_bytes: Bytes of a good answer, without gRPC's frame.
        pids: The processes whose CPU time counts: all that take part in answering.
        http1: JSON over HTTP/1.1, one request a connection at a time, instead of gRPC; `method` is the path.
    """

    address: str
    method: str
    request: bytes
    response_bytes: int
    pids: tuple[int, ...]
    http1: bool = False

    def framed(self, message: bytes) -> bytes:
        """Return what is sent as the body for `message`."""
        return message if self.http1 else frame(message)


@dataclass(frozen=True)
class Point:
    """One run, or the medians of several.

    Attributes:
        requests_per_s: Answers per second of wall time.
        p50_us: Median latency, microseconds.
        p99_us: 99th percentile of the latency, microseconds.
        cpu_us: CPU time of all `Target.pids` per request, microseconds.
        load_cpu: Share of its core that the load generator used; near 1 it may have been the limit.
    """

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    load_cpu: float

    @property
    def requests_per_core_s(self) -> float:
        """Requests per second of CPU time."""
        return 1e6 / self.cpu_us


@dataclass(frozen=True)
class Summary:
    """What h2load printed."""

    requests: int
    failed: int
    not_2xx: int
    data_bytes: int


def frame(message: bytes) -> bytes:
    """Return `message` in gRPC's frame: not compressed, length, bytes."""
    return struct.pack(">BI", 0, len(message)) + message


def parse_summary(text: str) -> Summary:
    """Return the numbers of h2load's report.

    Raises:
        InternalError: it is not such a report; the message has its end.
    """
    requests = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", text)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    data = re.search(r"traffic: .*, \S+ \((\d+)\) data", text)
    if not (requests and statuses and data):
        raise InternalError(f"h2load: expected its report, got …{text[-500:]}")
    done, succeeded = (int(number) for number in requests.groups())
    not_2xx = sum(int(number) for number in statuses.groups()[1:])
    return Summary(succeeded, done - succeeded, not_2xx, int(data[1]))


def check_summary(summary: Summary, response_bytes: int, concurrency: int) -> None:
    """Check that every answer was a good one.

    Args:
        summary: What h2load printed.
        response_bytes: Bytes of a good answer with gRPC's frame.
        concurrency: Requests in flight; those that the end of the run cut off may have sent bytes.

    Raises:
        InternalError: requests failed, none was made, or the bytes are not those of good answers.
    """
    if summary.failed or summary.not_2xx or not summary.requests:
        raise InternalError(f"h2load: got {summary}, expected requests of which none failed")
    expected = summary.requests * response_bytes
    if not expected <= summary.data_bytes <= expected + concurrency * response_bytes:
        raise InternalError(
            f"h2load: got {summary.data_bytes} bytes in {summary.requests} answers, expected {response_bytes} in each: "
            "some answers are errors"
        )


def percentiles_us(log: bytes) -> tuple[float, float]:
    """Return the 50th and 99th percentile of the third column of h2load's log: start, status, microseconds."""
    latencies = np.array(log.split(), dtype=np.int64).reshape(-1, 3)[:, 2]
    p50, p99 = np.percentile(latencies, [50, 99])
    return float(p50), float(p99)


def run_once(target: Target, concurrency: int, duration_s: float) -> Point:
    """Send requests for `duration_s`, `concurrency` at any moment.

    Raises:
        FailedPreconditionError: h2load or a second core is missing.
        InternalError: an answer was not a good one.
    """
    if LOAD_CPU not in os.sched_getaffinity(0):
        raise FailedPreconditionError(f"core {LOAD_CPU} is not there: servers and load need a core each")
    with tempfile.TemporaryDirectory(prefix="bench-load-") as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(target.framed(target.request))
        command = h2load_command(target, concurrency, duration_s, body, log)
        load_before_s, before_s = _children_cpu_s(), sum(map(process_cpu_s, target.pids))
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=duration_s + 60)
        except FileNotFoundError as error:
            raise FailedPreconditionError(
                f"{error.filename}: not found (Debian: apt-get install nghttp2-client util-linux)"
            ) from None
        cpu_s = sum(map(process_cpu_s, target.pids)) - before_s
        load_cpu_s = _children_cpu_s() - load_before_s
        summary = parse_summary(done.stdout + done.stderr)
        check_summary(summary, target.response_bytes + len(target.framed(b"")), concurrency)
        p50_us, p99_us = percentiles_us(log.read_bytes())
    rate, cpu_us = summary.requests / duration_s, cpu_s * 1e6 / summary.requests
    return Point(rate, p50_us, p99_us, cpu_us, load_cpu_s / duration_s)


def h2load_command(target: Target, concurrency: int, duration_s: float, body: Path, log: Path) -> list[str]:
    """Return the command line: few connections with several streams each, as gRPC clients do it, or HTTP/1.1."""
    url = f"http://{target.address}{target.method}"
    common = ("taskset", "-c", str(LOAD_CPU), "h2load", "--threads=1", f"--duration={round(duration_s * 1000)}ms")
    files = (f"--data={body}", f"--log-file={log}")
    if target.http1:
        return [*common, "--h1", f"--clients={concurrency}", *files, "--header=content-type: application/json", url]
    connections = min(concurrency, _MAX_CONNECTIONS)
    if concurrency % connections:
        raise InternalError(f"concurrency: got {concurrency}, expected a multiple of {connections}")
    return [
        *(*common, f"--clients={connections}", f"--max-concurrent-streams={concurrency // connections}", *files),
        *("--header=content-type: application/grpc", "--header=te: trailers", url),
    ]


def interleaved(
    targets: Mapping[str, Target], concurrency: int, *, rounds: int, duration_s: float, warm_up_s: float
) -> dict[str, list[Point]]:
    """Measure all targets in turn, `rounds` times over, so that a disturbance of the machine meets all of them."""
    for target in targets.values():
        run_once(target, concurrency, warm_up_s)
    points: dict[str, list[Point]] = {name: [] for name in targets}
    for _ in range(rounds):
        for name, target in targets.items():
            points[name].append(run_once(target, concurrency, duration_s))
    return points


def median(points: Sequence[Point]) -> Point:
    """Return the median of each field by itself."""
    return Point(*(statistics.median(getattr(point, field.name) for point in points) for field in fields(Point)))


def process_cpu_s(pid: int) -> float:
    """Return the CPU time (user and system, all threads) that a process has used, in seconds."""
    return parse_cpu_s(Path(f"/proc/{pid}/stat").read_text(), os.sysconf("SC_CLK_TCK"))


def parse_cpu_s(stat: str, ticks_per_s: int) -> float:
    """Return utime + stime of the text of /proc/<pid>/stat; the name in it may hold spaces and parentheses."""
    after_name = stat.rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / ticks_per_s


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
