"""Where a package is written before it is visible: one locked directory, blobs by content, a journal to resume from.

Nothing under its final name is ever partial: every file is written here, synced, made read-only and renamed. A run that
dies leaves this directory, whose name begins with a dot; the next run of the same (model, version) goes on from it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tessera.errors import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TesseraError,
)
from tessera.repository import Repository


class Staging:
    """The directory of one write in progress. Made by `staging`; used by one thread."""

    def __init__(self, repository: Repository, directory: Path) -> None:
        """`directory` exists and is locked."""
        self.repository = repository
        self.directory = directory
        self._journal = directory / "journal.json"
        self._temporary = directory / "blobs"
        shutil.rmtree(self._temporary, ignore_errors=True)
        shutil.rmtree(self.package, ignore_errors=True)
        self._temporary.mkdir()
        self._count = 0

    @property
    def package(self) -> Path:
        """The package directory before it is renamed."""
        return self.directory / "package"

    def new_file(self) -> Path:
        """Return the path of a file that does not exist yet, for a blob in the making."""
        self._count += 1
        return self._temporary / str(self._count)

    def publish_blob(self, path: Path, digest: str, size_bytes: int) -> None:
        """Move a finished file to where its content belongs; an undamaged blob that is there already stays.

        Durable after `sync_blobs`. Costs an fsync, or a read of what is there.
        """
        try:
            self.repository.verify_blob(digest, size_bytes)
        except (NotFoundError, DataLossError):
            target = self.repository.blob_path(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            seal(path)
            path.replace(target)
        else:
            path.unlink()

    def sync_blobs(self, digests: Iterable[str]) -> None:
        """Make the names of blobs durable."""
        directories = {self.repository.blob_path(digest).parent for digest in digests}
        for directory in sorted(directories):
            sync_directory(directory)
        for directory in {directory.parent for directory in directories}:
            sync_directory(directory)
            sync_directory(directory.parent)

    def finished(self, work: str) -> list[str] | None:
        """Return the digests that `finish` recorded for a piece of work, or None."""
        value = self._read_journal().get(work)
        return list(value) if value is not None else None

    def finish(self, work: str, digests: list[str]) -> None:
        """Record that all blobs of a piece of work are in place; durable. `work` says exactly what was done."""
        self.sync_blobs(digests)
        journal = self._read_journal() | {work: digests}
        new = self.directory / "journal.new"
        new.write_text(json.dumps(journal))
        sync(new)
        new.replace(self._journal)
        sync_directory(self.directory)

    def _read_journal(self) -> dict[str, list[str]]:
        try:
            journal = json.loads(self._journal.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DataLossError(
                f"{self._journal}: is damaged: {error}; remove {self.directory} to start over"
            ) from error
        return {str(work): [str(digest) for digest in digests] for work, digests in journal.items()}


@contextmanager
def staging(repository: Repository, model: str, version: int) -> Iterator[Staging]:
    """Lock and yield the staging directory of (model, version); remove it if the body succeeds.

    Raises:
        AbortedError: another process writes the same package.
    """
    final = repository.package_dir(model, version)
    directory = final.parent / f".{final.name}.writing"
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not directory.exists() or directory.stat().st_ino != os.fstat(descriptor).st_ino:
                raise BlockingIOError  # finished and removed between opening and locking
        except BlockingIOError as error:
            raise AbortedError(f"model {model!r} version {version}: is being written by another process") from error
        yield Staging(repository, directory)
        shutil.rmtree(directory)
    finally:
        os.close(descriptor)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `root` is written into errors of Tessera.

    Raises:
        ResourceExhaustedError: the disk or the quota is full.
        PermissionDeniedError: the file system does not allow it.
        FailedPreconditionError: anything else.
    """
    try:
        yield
    except OSError as error:
        kind: type[TesseraError] = FailedPreconditionError
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kind = ResourceExhaustedError
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            kind = PermissionDeniedError
        raise kind(f"repository {root}: cannot be written: {error}") from error


def hash_file(path: Path) -> tuple[str, int]:
    """Return SHA-256 (hex) and bytes of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, os.fstat(file.fileno()).st_size


def sync(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path) -> None:
    """Make the content of a file durable and the file read-only."""
    sync(path)
    path.chmod(0o444)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
