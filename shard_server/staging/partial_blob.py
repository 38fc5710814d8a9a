"""A blob that is being written: appended, hashed as it comes, and given its name only when it is what that promises."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tessera.errors import DataLossError, ResourceExhaustedError, UnavailableError

_CHUNK_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


class PartialBlob:
    """One file, from its first byte, or from where an earlier process got, to its name. Used by one thread."""

    def __init__(self, partial: Path, final: Path, digest: str, size_bytes: int) -> None:
        """Open `partial`, which may hold the beginning of the blob; it becomes `final`.

        Raises:
            ResourceExhaustedError, UnavailableError: it cannot be opened.
        """
        self._partial, self._final = partial, final
        self.digest, self.size_bytes = digest, size_bytes
        self.finished = False
        self._hasher = hashlib.sha256()
        self.offset = 0
        try:
            self._file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._file).st_size > size_bytes:
                os.ftruncate(self._file, 0)
            while chunk := os.read(self._file, _CHUNK_BYTES):
                self._hasher.update(chunk)
                self.offset += len(chunk)
        except OSError as error:
            raise _refused(partial, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            DataLossError: that is more than the blob has.
            ResourceExhaustedError: the disk is full.
            UnavailableError: it cannot be written for another reason.
        """
        if self.offset + len(chunk) > self.size_bytes:
            raise DataLossError(f"blob {self.digest}: has more than {self.size_bytes} bytes")
        self._hasher.update(chunk)
        try:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise _refused(self._partial, error) from error
        self.offset += len(chunk)

    def restart(self) -> None:
        """Forget everything that was written."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hasher = hashlib.sha256()
        self.offset = 0

    def finish(self) -> None:
        """Give the blob its name.

        Raises:
            DataLossError: it is not what its name promises.
            ResourceExhaustedError, UnavailableError: it could not be made durable.
        """
        if self.offset != self.size_bytes:
            raise DataLossError(f"blob {self.digest}: ended after {self.offset} bytes, expected {self.size_bytes}")
        found = self._hasher.hexdigest()
        if found != self.digest:
            raise DataLossError(f"blob {self.digest}: has SHA-256 {found}")
        try:
            os.fsync(self._file)
            os.fchmod(self._file, 0o444)
            self._final.parent.mkdir(exist_ok=True)
            self._partial.replace(self._final)
        except OSError as error:
            raise _refused(self._partial, error) from error
        self.finished = True


def _refused(path: Path, error: OSError) -> ResourceExhaustedError | UnavailableError:
    if error.errno in _NO_ROOM:
        return ResourceExhaustedError(f"disk: {path}: {error.strerror}")
    return UnavailableError(f"disk: {path}: {error.strerror}")
