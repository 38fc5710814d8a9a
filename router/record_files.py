"""Files of TFRecord that appear whole: written under a temporary name, renamed when they are full or old."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from router.tfrecord import frame, read_records
from tessera.clock import Clock
from tessera.errors import DataLossError

_log = logging.getLogger("router.record_files")

SUFFIX = ".tfrecord"
_UNFINISHED = ".unfinished"
_numbers = itertools.count(1)  # of the files of this process, which may have several writers for one prefix


@dataclass
class RecordFiles:
    """Writes records to `{prefix}-{Unix time, ms}-{process}-{number}.tfrecord`; for one thread.

    Attributes:
        prefix: directory and beginning of the names; the directory is made when it is first needed.
        max_file_bytes: a file that has this many is finished.
        max_file_age_s: likewise one that was begun so long ago, as soon as `tick` is called.
        max_files: finished files that are kept.
    """

    prefix: Path
    clock: Clock
    max_file_bytes: int
    max_files: int
    max_file_age_s: float = 600.0
    _file: FileIO | None = None
    _path: Path = field(default_factory=Path)
    _size_bytes: int = 0
    _begun_s: float = 0.0

    def write(self, records: Sequence[bytes]) -> None:
        """Append `records`, in one or more files; what was written survives the process.

        Raises:
            OSError: the disk is full or cannot be written; none or some of the records were written, whole ones only.
        """
        for record in records:
            framed = frame(record)
            file = self._file or self._begin()
            try:
                if file.write(framed) != len(framed):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError:
                self._abandon()
                raise
            self._size_bytes += len(framed)
            if self._size_bytes >= self.max_file_bytes:
                self._finish()

    def tick(self) -> None:
        """Finish the file if it is old enough.

        Raises:
            OSError: that cannot be done.
        """
        if self._file is not None and self.clock.monotonic_s() - self._begun_s >= self.max_file_age_s:
            self._finish()

    def close(self) -> None:
        """Finish the file, if there is one.

        Raises:
            OSError: that cannot be done; what was written can be recovered.
        """
        if self._file is not None:
            self._finish()

    def recover(self) -> None:
        """Finish what processes that ended early have left under this prefix, without what they wrote in part.

        Raises:
            OSError: a file cannot be read or changed.
        """
        for path in sorted(self.prefix.parent.glob(f"{self.prefix.name}-*{SUFFIX}{_UNFINISHED}")):
            with path.open("r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # somebody is writing it
                if not path.exists():
                    continue  # somebody has finished it since
                size_bytes = _whole_bytes(file, str(path))
                if size_bytes == 0:
                    path.unlink()
                    continue
                file.truncate(size_bytes)
                path.rename(path.with_suffix(""))
                _log.info("%s: was left by a process that ended early; %d bytes were whole", path, size_bytes)

    def finished(self) -> list[Path]:
        """Return the files that can be read, the oldest first."""
        return sorted(self.prefix.parent.glob(f"{self.prefix.name}-*{SUFFIX}"))

    def _begin(self) -> FileIO:
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        time_ms = int(self.clock.wall_s() * 1000)
        name = f"{self.prefix.name}-{time_ms:013d}-{os.getpid()}-{next(_numbers):06d}{SUFFIX}"
        self._path = self.prefix.with_name(name + _UNFINISHED)
        # Locked before it has the name under which others look for files that nobody writes.
        new = self.prefix.with_name(name + ".new")
        # Unbuffered: after an error nothing is left that a later flush would write into the middle of things.
        file = new.open("xb", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._path)
        except OSError:
            file.close()
            raise
        self._file, self._size_bytes, self._begun_s = file, 0, self.clock.monotonic_s()
        return file

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            os.fsync(file.fileno())
            self._path.rename(self._path.with_suffix(""))
        for path in self.finished()[: -self.max_files]:
            path.unlink(missing_ok=True)

    def _abandon(self) -> None:
        """Keep what was whole before the write that failed; the error of that write is what counts."""
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            try:
                file.truncate(self._size_bytes)
                if self._size_bytes:
                    self._path.rename(self._path.with_suffix(""))
                else:
                    self._path.unlink()
            except OSError as error:
                _log.warning("%s: cannot be finished: %s", self._path, error)


def _whole_bytes(file: BinaryIO, name: str) -> int:
    """Return how many bytes of `file` are whole records."""
    return sum(_sizes(file, name))


def _sizes(file: BinaryIO, name: str) -> Iterator[int]:
    try:
        for record in read_records(file, name):
            yield len(frame(record))
    except DataLossError:
        return
