"""The writer of request logs: counts what it writes and what it cannot, and tries again later."""

import logging
from pathlib import Path

import pytest

from router.lifecycle.config import RequestLogging
from router.request_log import RequestLogStatistics, RequestLogWriter
from router.tfrecord import read_records
from tessera.clock import ManualClock


class _Queue:
    """Gives what it was given."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.closed = False

    def take(self, *, timeout_s: float) -> list[bytes]:
        taken, self.waiting = self.waiting, []
        return taken

    def close(self) -> None:
        self.closed = True

    def counts(self) -> dict[str, int]:
        return {"sampled": 0, "dropped": 7}


def _records(directory: Path) -> list[bytes]:
    found: list[bytes] = []
    for path in sorted(directory.glob("*.tfrecord")):
        with path.open("rb") as file:
            found += read_records(file, str(path))
    return found


def test_a_stopped_writer_has_written_everything(tmp_path: Path) -> None:
    queue = _Queue()
    writer = RequestLogWriter("m", queue, RequestLogging(str(tmp_path / "x" / "m"), 1.0))
    queue.waiting = [b"a", b"b"]
    writer.start()
    writer.stop()
    writer.stop()
    assert queue.closed
    assert _records(tmp_path / "x") == [b"a", b"b"]
    assert writer.statistics() == RequestLogStatistics(written=2, dropped=7, failed=0)


def test_a_disk_that_fails_is_told_once_and_tried_again_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue, clock = _Queue(), ManualClock()
    obstacle = tmp_path / "logs"
    obstacle.touch()
    writer = RequestLogWriter("m", queue, RequestLogging(str(obstacle / "m"), 1.0), clock)
    with caplog.at_level(logging.INFO):
        for waiting in ([b"a", b"b"], [b"c"]):
            queue.waiting = waiting
            writer.step(0.0)
        clock.advance(20)
        queue.waiting = [b"d"]
        writer.step(0.0)  # fails again, but that is no news
        obstacle.unlink()
        queue.waiting = [b"e"]
        writer.step(0.0)  # too soon
        clock.advance(20)
        queue.waiting = [b"f"]
        writer.step(0.0)
    assert writer.statistics() == RequestLogStatistics(written=1, dropped=7, failed=5)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "model m: requests cannot be logged" in caplog.records[0].message
    writer.step(0.0)
    clock.advance(3600)
    writer.step(0.0)
    assert _records(obstacle) == [b"f"]
