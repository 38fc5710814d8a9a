"""Where packages and blobs come from first: a repository on a file system, or in an object store through fsspec."""

from __future__ import annotations

import importlib
import logging
import os
import re
from pathlib import Path
from typing import Protocol

from tessera.errors import InvalidArgumentError, NotFoundError, UnavailableError
from tessera.manifest import MAX_MANIFEST_BYTES, Manifest
from tessera.manifest_checks import check_digest, check_model, check_version
from tessera.repository import Repository, parse_manifest

_log = logging.getLogger("shard_server.staging")

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


class Source(Protocol):
    """Something that has blobs. Thread-safe."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Return the bytes of a blob from `offset` on: at most `length`, at least one unless the blob ends there.

        Raises:
            NotFoundError: it does not have the blob.
            TesseraError: it cannot be read now.
        """


class Origin(Source, Protocol):
    """A repository, which also has the manifests."""

    def read_manifest(self, model: str, version: int) -> Manifest:
        """Return the manifest of a package.

        Raises:
            NotFoundError: no such package.
            DataLossError: it is damaged; names the place.
            UnavailableError: the repository cannot be read now.
        """


def is_url(repository: str) -> bool:
    """Whether `repository` names an object store and not a directory."""
    return _URL.match(repository) is not None


def open_origin(repository: str) -> Origin:
    """Return what `repository`, a directory or a URL of fsspec, names.

    Raises:
        InvalidArgumentError: the URL is of a kind that is not known, or whose library is not installed.
    """
    return ObjectStore(repository) if is_url(repository) else Mounted(Repository(repository))


class Mounted:
    """A repository on a file system."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.name = f"repository {repository.root}"

    def read_manifest(self, model: str, version: int) -> Manifest:
        """See `Origin.read_manifest`."""
        try:
            return self._repository.read_manifest(model, version)
        except OSError as error:
            raise UnavailableError(f"{self.name}: {error.strerror}") from error

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """See `Source.read`."""
        try:
            with self._repository.open_blob(digest) as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise UnavailableError(f"{self.name}: blob {digest}: {error.strerror}") from error


class ObjectStore:
    """A repository whose files are objects below a URL, such as s3://bucket/models."""

    def __init__(self, url: str) -> None:
        """Open `url`; nothing is read.

        Raises:
            InvalidArgumentError: as `open_origin`.
        """
        self.name = f"repository {url}"
        try:
            fsspec = importlib.import_module("fsspec.core")  # only here: most servers have a directory
            self._files, self._root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InvalidArgumentError(f"--repository {url}: {error}") from error

    def read_manifest(self, model: str, version: int) -> Manifest:
        """See `Origin.read_manifest`."""
        path = f"packages/{check_model(model)}/{check_version(version)}/manifest.json"
        try:
            data = self._cat(path, 0, MAX_MANIFEST_BYTES + 1)
        except NotFoundError as error:
            raise NotFoundError(f"model {model!r} version {version}: no package in {self.name}") from error
        return parse_manifest(data, model, version, f"{self.name}: {path}")

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """See `Source.read`."""
        check_digest(digest, "digest")
        return self._cat(f"blobs/{digest[:2]}/{digest}", offset, offset + length)

    def _cat(self, path: str, start: int, end: int) -> bytes:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{path}", start=start, end=end))
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.name}: {path}: no such object") from error
        except Exception as error:  # each kind of store has errors of its own
            raise UnavailableError(f"{self.name}: {path}: {type(error).__name__}: {error}") from error


class KeptManifests:
    """Manifests that were read once, kept on disk: a server starts again while its repository cannot be reached."""

    MAX_FILES = 1024

    def __init__(self, origin: Origin, directory: Path) -> None:
        """Keep in `directory`, which exists, at most `MAX_FILES`: those that were read last."""
        self._origin, self._directory = origin, directory

    def read_manifest(self, model: str, version: int) -> Manifest:
        """Return what the repository has, or, while it has nothing to give, what was kept of it.

        Raises:
            NotFoundError, DataLossError, UnavailableError: as `Origin.read_manifest`.
        """
        file = self._directory / f"{check_model(model)}@{check_version(version)}.json"
        try:
            manifest = self._origin.read_manifest(model, version)
        except (UnavailableError, NotFoundError) as error:
            if not file.exists():
                raise
            _log.warning("%s; going on with the manifest that was kept", error.message)
            return parse_manifest(file.read_bytes(), model, version, str(file))
        self._keep(file, manifest.to_bytes())
        return manifest

    def _keep(self, file: Path, data: bytes) -> None:
        try:
            new = file.with_name(f".{file.name}")
            new.write_bytes(data)
            new.replace(file)
            kept = sorted(self._directory.glob("*.json"), key=lambda one: one.stat().st_mtime_ns)
            for old in kept[: -self.MAX_FILES]:
                old.unlink()
        except OSError as error:  # it is only a precaution
            _log.warning("%s: not kept: %s", file, error.strerror)
