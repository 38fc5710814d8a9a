"""The directory of blobs of one server: what is whole, what is partly there, and what may go.

    blobs/ab/abcd…    whole, read-only, verified before it got this name
    partial/abcd…     the beginning of a blob: as much as its size says
    manifests/…       see `shard_server.staging.manifests`
    lock              held by the process that uses the directory

A blob that no placement needs any more stays, in case it is needed again, until its room is wanted: then the one goes
first that has not been needed for longest. One that is unlinked while it is mapped stays readable for those who map it.
Thread-safe.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shard_server.staging.partial_blob import PartialBlob
from tessera.errors import DataLossError, FailedPreconditionError, NotFoundError, ResourceExhaustedError
from tessera.manifest_checks import check_digest
from tessera.repository import Repository
from tessera.settings import format_bytes

RESERVED_DISK_BYTES = 64 << 20
"""Free bytes of the file system that are left to others."""


def free_disk_bytes(directory: Path) -> int:
    """Return how many bytes this process may still write below `directory`."""
    found = os.statvfs(directory)
    return max(0, found.f_bavail * found.f_frsize - RESERVED_DISK_BYTES)


class BlobDir:
    """See the module. Used by one process; `close` ends that."""

    def __init__(self, root: Path, budget_bytes: int = 0, free_bytes: Callable[[Path], int] = free_disk_bytes) -> None:
        """Take `root`, which is made if it is not there, and look at what it holds.

        Args:
            root: of this server alone.
            budget_bytes: what blobs may take; 0: what the file system has.
            free_bytes: says what it still has.

        Raises:
            FailedPreconditionError: another process uses it, or it cannot be written.
        """
        self.root, self.budget_bytes, self._free_bytes = root, budget_bytes, free_bytes
        self._files = Repository(root)
        self._lock = threading.RLock()
        self._verified: set[str] = set()
        self._needed: Mapping[str, int] = {}
        self._coming: set[str] = set()
        try:
            for name in ("blobs", "partial", "manifests"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FailedPreconditionError(f"--blob-dir {root}: cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise FailedPreconditionError(f"--blob-dir {root}: is used by another process") from error
        self._idle = _scan(root)  # not needed: digest → bytes, the one that was not needed for longest first
        self._sizes = dict(self._idle)  # all that are whole
        self._used_bytes = sum(self._sizes.values())  # with those that are coming

    def close(self) -> None:
        """Let others use the directory. May be called twice."""
        file, self._lock_file = self._lock_file, -1
        if file >= 0:
            os.close(file)

    @property
    def used_bytes(self) -> int:
        """Bytes of all whole blobs, and of those that are coming."""
        with self._lock:
            return self._used_bytes

    def path(self, digest: str) -> Path:
        """Return the file of a blob, which need not exist."""
        return self._files.blob_path(digest)

    def has(self, digest: str, size_bytes: int) -> bool:
        """Whether a file of that name and size is there; it may be damaged."""
        return self._sizes.get(digest) == size_bytes

    def is_verified(self, digest: str) -> bool:
        """Whether it is there, and this process has seen its content."""
        return digest in self._verified

    def trust(self, digest: str) -> None:
        """Take a file that is there for verified."""
        self._verified.add(digest)

    def verify(self, digest: str, size_bytes: int) -> None:
        """Read a file that is there through; a wrong one is removed.

        Raises:
            NotFoundError, DataLossError: it is not, or no longer, there; names the file.
        """
        self.check(digest, size_bytes)
        self._verified.add(digest)

    def check(self, digest: str, size_bytes: int) -> None:
        """As `verify`, of a file that may go meanwhile."""
        try:
            self._files.verify_blob(digest, size_bytes)
        except (NotFoundError, DataLossError):
            self._remove(digest)
            raise

    def need(self, blobs: Mapping[str, int]) -> None:
        """Say which blobs (digest → bytes) are needed from now on; nothing else may go to make room.

        What was begun and is no longer needed is removed.

        Raises:
            ResourceExhaustedError: they do not fit, even when everything else goes; nothing has changed.
        """
        needed_bytes = sum(blobs.values())
        with self._lock:
            if self.budget_bytes and needed_bytes > self.budget_bytes:
                raise ResourceExhaustedError(
                    f"--blob-dir-bytes: the placements give this server {needed_bytes:,} bytes of blobs, {self.root} "
                    f"may hold {self.budget_bytes:,}"
                )
            missing_bytes = sum(size for digest, size in blobs.items() if digest not in self._sizes)
            idle_bytes = sum(size for digest, size in self._idle.items() if digest not in blobs)
            idle_bytes += sum(self._sizes.get(digest, 0) for digest in self._needed if digest not in blobs)
            begun_bytes = sum(map(_size, (self.root / "partial").iterdir()))
            if missing_bytes > self._free_bytes(self.root) + idle_bytes + begun_bytes:
                raise ResourceExhaustedError(
                    f"disk: {missing_bytes:,} bytes of blobs are missing, the file system of {self.root} has room for "
                    f"{self._free_bytes(self.root) + idle_bytes + begun_bytes:,}"
                )
            for digest in self._needed:
                if digest not in blobs and digest in self._sizes:
                    self._idle[digest] = self._sizes[digest]
                    os.utime(self.path(digest))
            for digest in blobs:
                self._idle.pop(digest, None)
            self._needed = dict(blobs)
            for file in (self.root / "partial").iterdir():
                if file.name not in blobs and file.name not in self._coming:
                    file.unlink(missing_ok=True)

    @contextmanager
    def coming(self, digest: str, size_bytes: int) -> Iterator[PartialBlob]:
        """Make room for a blob and give the file that it is written to; what was written stays when it is not finished.

        Raises:
            ResourceExhaustedError: there is no room for it; says how much there is.
        """
        check_digest(digest, "digest")
        partial = self.root / "partial" / digest
        with self._lock:
            self._make_room(size_bytes, max(0, size_bytes - _size(partial)))
            self._coming.add(digest)
            self._used_bytes += size_bytes
        whole = False
        try:
            with PartialBlob(partial, self.path(digest), digest, size_bytes) as blob:
                yield blob
                whole = blob.finished
        finally:
            with self._lock:
                self._coming.discard(digest)
                if whole:
                    self._sizes[digest] = size_bytes
                    self._verified.add(digest)
                    if digest not in self._needed:
                        self._idle[digest] = size_bytes
                else:
                    self._used_bytes -= size_bytes
                    if digest not in self._needed:
                        partial.unlink(missing_ok=True)

    def _make_room(self, size_bytes: int, disk_bytes: int) -> None:
        """Remove what is not needed until `size_bytes` more fit. REQUIRED: the lock is held."""
        while True:
            over_bytes = self._used_bytes + size_bytes - self.budget_bytes if self.budget_bytes else 0
            short_bytes = disk_bytes - self._free_bytes(self.root)
            if over_bytes <= 0 and short_bytes <= 0:
                return
            if not self._idle:
                room = f"{self.root} may hold {format_bytes(self.budget_bytes)}, " if over_bytes > 0 else ""
                raise ResourceExhaustedError(
                    f"disk: no room for a blob of {size_bytes:,} bytes: {room}its file system has "
                    f"{self._free_bytes(self.root):,} bytes left"
                )
            self._remove(next(iter(self._idle)))

    def _remove(self, digest: str) -> None:
        with self._lock:
            self._verified.discard(digest)
            self._idle.pop(digest, None)
            self._used_bytes -= self._sizes.pop(digest, 0)
            self.path(digest).unlink(missing_ok=True)


def _size(partial: Path) -> int:
    """Return the bytes of a file; 0 if it is not there, for another thread may just have given it its name."""
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0


def _scan(root: Path) -> OrderedDict[str, int]:
    """Return the blobs in `root`, by the time at which they were last needed."""
    found = [file for folder in (root / "blobs").iterdir() if folder.is_dir() for file in folder.iterdir()]
    files = [(file, file.lstat()) for file in found if _is_digest(file.name)]
    return OrderedDict((file.name, info.st_size) for file, info in sorted(files, key=lambda item: item[1].st_mtime_ns))


def _is_digest(name: str) -> bool:
    return len(name) == 64 and all(digit in "0123456789abcdef" for digit in name)
