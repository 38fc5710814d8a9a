"""Files of records: whole ones only, bounded in size, age and number, and what an early end leaves."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.record_files import RecordFiles
from router.tfrecord import frame, read_records
from tessera.clock import ManualClock


def _files(directory: Path, clock: ManualClock | None = None, **changes: Any) -> RecordFiles:
    settings: dict[str, Any] = {"max_file_bytes": 100, "max_files": 3, "max_file_age_s": 60.0} | changes
    return RecordFiles(directory / "logs" / "m", clock or ManualClock(), **settings)


def _read(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return list(read_records(file, str(path)))


def _all(files: RecordFiles) -> list[bytes]:
    return [record for path in files.finished() for record in _read(path)]


@given(st.lists(st.lists(st.binary(max_size=60), max_size=5), max_size=5))
def test_every_record_is_in_one_file_in_order(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[bytes]]
) -> None:
    files = _files(tmp_path_factory.mktemp("logs"), max_files=100)
    for records in parts:
        files.write(records)
    files.close()
    assert _all(files) == [record for records in parts for record in records]
    assert all(path.stat().st_size < 100 + len(frame(bytes(60))) for path in files.finished())
    assert len(list(files.prefix.parent.glob("*"))) == len(files.finished())


def test_a_file_is_not_seen_before_it_is_finished(tmp_path: Path) -> None:
    clock = ManualClock()
    files = _files(tmp_path, clock)
    files.write([b"a"])
    clock.advance(59)
    files.tick()
    assert files.finished() == []
    clock.advance(1)
    files.tick()
    assert _all(files) == [b"a"]


def test_the_oldest_files_are_deleted(tmp_path: Path) -> None:
    clock = ManualClock()
    files = _files(tmp_path, clock)
    for i in range(5):
        clock.advance(1)
        files.write([bytes([i]) * 100])
    assert [record[0] for record in _all(files)] == [2, 3, 4]


def test_what_an_early_end_leaves_is_recovered_without_the_torn_record(tmp_path: Path) -> None:
    files = _files(tmp_path, max_file_bytes=1 << 20)
    files.write([b"one", b"two"])
    (left,) = files.prefix.parent.iterdir()
    time, _, number = left.name.split("-")[1:]
    copy = left.with_name(f"m-{time}-0-{number}")  # the lock of the process that is gone is gone too
    copy.write_bytes(left.read_bytes() + frame(b"three")[:-1])
    empty = left.with_name(f"m-{time}-1-{number}")
    empty.touch()
    _files(tmp_path).recover()
    assert _all(files) == [b"one", b"two"]
    assert left.exists()  # still being written
    assert not empty.exists()
    files.write([b"four"])
    files.close()
    assert _all(files) == [b"one", b"two", b"one", b"two", b"four"]


class _FullDisk(io.FileIO):
    """Writes half of what no longer fits, as a full disk does."""

    room = 40

    def write(self, data: Any) -> int:
        if self.tell() + len(data) <= self.room:
            return super().write(data)
        super().write(data[: self.room - self.tell()])
        return self.room - self.tell()


def test_a_full_disk_leaves_a_file_of_whole_records(tmp_path: Path) -> None:
    files = _files(tmp_path)
    files.write([b"a"])
    assert files._file is not None
    full = _FullDisk(os.dup(files._file.fileno()), "r+b")
    files._file.close()
    files._file = full
    with pytest.raises(OSError) as error:  # noqa: PT011 - the number is what is checked
        files.write([b"b", b"c"])
    assert error.value.errno == errno.ENOSPC
    assert _all(files) == [b"a", b"b"]
    files.write([b"c"])
    files.close()
    assert _all(files) == [b"a", b"b", b"c"]


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(OSError, match="File exists"):
        _files(tmp_path).write([b"a"])
