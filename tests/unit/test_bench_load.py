"""Reading what h2load and the kernel say, and refusing answers that are errors."""

from pathlib import Path

import pytest

from bench import load
from tessera.errors import InternalError

_REPORT = """\
finished in 2.00s, 3383.00 req/s, 343.64KB/s
requests: 6766 total, 6766 started, 6766 done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, {failed} 4xx, 0 5xx
traffic: 343.64KB (351883) total, 12.57KB (12870) headers (space savings 96.27%), 297.33KB (304470) data
                     min         max         mean         sd        +/- sd
time for request:      234us      1.41ms       284us        41us    91.69%
"""


def test_a_report_is_read() -> None:
    summary = load.parse_summary(_REPORT.format(succeeded=6766, failed=0))
    assert summary == load.Summary(requests=6766, failed=0, not_2xx=0, data_bytes=304470)


def test_failed_requests_are_seen() -> None:
    summary = load.parse_summary(_REPORT.format(succeeded=6760, failed=6))
    assert (summary.failed, summary.not_2xx) == (6, 6)
    with pytest.raises(InternalError, match="none failed"):
        load.check_summary(summary, 45, 1)


def test_another_text_is_refused_with_its_end() -> None:
    with pytest.raises(InternalError, match="Could not connect"):
        load.parse_summary("starting benchmark...\nCould not connect to the host\n")


@pytest.mark.parametrize("data_bytes", [450, 495, 540])
def test_answers_of_the_right_size_pass(data_bytes: int) -> None:
    load.check_summary(load.Summary(10, 0, 0, data_bytes), 45, concurrency=2)


@pytest.mark.parametrize("data_bytes", [0, 405, 449, 541, 1000])
def test_answers_without_their_bytes_are_errors(data_bytes: int) -> None:
    with pytest.raises(InternalError, match="some answers are errors"):
        load.check_summary(load.Summary(10, 0, 0, data_bytes), 45, concurrency=2)


@pytest.mark.parametrize("summary", [(0, 0, 0, 0), (10, 1, 0, 450), (10, 0, 1, 450)])
def test_runs_without_requests_or_with_failed_ones_are_errors(summary: tuple[int, int, int, int]) -> None:
    with pytest.raises(InternalError, match="none failed"):
        load.check_summary(load.Summary(*summary), 45, concurrency=1)


def test_percentiles_are_of_the_third_column() -> None:
    log = b"".join(b"17952290\t200\t%d\n" % latency for latency in range(1, 101))
    assert load.percentiles_us(log) == pytest.approx((50.5, 99.01))


def test_cpu_time_of_a_process_with_a_strange_name() -> None:
    stat = "42 (a b) c) S " + " ".join(["0"] * 10) + " 150 50 7 7 20 0"
    assert load.parse_cpu_s(stat, 100) == 2.0


def test_frame_is_flag_and_big_endian_length() -> None:
    assert load.frame(b"abc") == b"\x00\x00\x00\x00\x03abc"


@pytest.mark.parametrize(("concurrency", "clients", "streams"), [(1, 1, 1), (8, 4, 2), (32, 4, 8)])
def test_concurrency_is_connections_times_streams(concurrency: int, clients: int, streams: int) -> None:
    target = load.Target("127.0.0.1:1", "/a.B/C", b"", 0, ())
    command = load.h2load_command(target, concurrency, 0.5, Path("body"), Path("log"))
    assert f"--clients={clients}" in command
    assert f"--max-concurrent-streams={streams}" in command
    assert "--duration=500ms" in command
    assert command[-1] == "http://127.0.0.1:1/a.B/C"


def test_concurrency_that_cannot_be_had_exactly_is_refused() -> None:
    with pytest.raises(InternalError, match="multiple of 4"):
        load.h2load_command(load.Target("", "", b"", 0, ()), 6, 1.0, Path("body"), Path("log"))


def test_medians_are_taken_field_by_field() -> None:
    points = [load.Point(10, 5, 9, 2, 0.1), load.Point(30, 1, 8, 3, 0.2), load.Point(20, 3, 7, 1, 0.3)]
    assert load.median(points) == load.Point(20, 3, 8, 2, 0.2)
    assert load.median(points).requests_per_core_s == 500_000
