"""A repository: a directory of packages and the blobs that they share.

    blobs/ab/abcd…                            raw bytes, named by their SHA-256
    packages/<model>/<version>/manifest.json  see `tessera.manifest`
                               saved_model.pb the root graph
                               assets/…       what its tables are filled from

Reading only; `partition` writes. What is visible is complete: names that begin with a dot are being written and are
never listed. Nothing is followed out of the root: a symbolic link that leads elsewhere is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tessera.errors import DataLossError, InvalidArgumentError, NotFoundError, PermissionDeniedError, TesseraError
from tessera.manifest import MAX_MANIFEST_BYTES, Manifest
from tessera.manifest_checks import check_digest, check_integer, check_model, check_version

_CHUNK_BYTES = 1 << 20


class Repository:
    """Reads one repository. Holds no state but the root, so it may be shared by threads."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """`root` need not exist yet: it then has no models."""
        self.root = Path(root).resolve()

    def package_dir(self, model: str, version: int) -> Path:
        """Return the directory of a package, which need not exist.

        Raises:
            InvalidArgumentError: no possible name or version of a model.
        """
        return self.root / "packages" / check_model(model) / str(check_version(version))

    def blob_path(self, digest: str) -> Path:
        """Return the file of a blob, which need not exist.

        Raises:
            InvalidArgumentError: `digest` is not a SHA-256 in hexadecimal.
        """
        return self.root / "blobs" / check_digest(digest, "digest")[:2] / digest

    def models(self) -> list[str]:
        """Return the names of the models that have a package, sorted."""
        return [name for name in self._names(self.root / "packages", check_model) if self.versions(name)]

    def versions(self, model: str) -> list[int]:
        """Return the versions of a model, ascending; empty when there is no such model.

        Raises:
            InvalidArgumentError: no possible name of a model.
        """
        directory = self.root / "packages" / check_model(model)
        names = self._names(directory, _check_version_name)
        return sorted(int(name) for name in names if (directory / name / "manifest.json").is_file())

    def read_manifest(self, model: str, version: int) -> Manifest:
        """Read and check the manifest of a package.

        Raises:
            NotFoundError: no such package.
            DataLossError: it is damaged, or is the manifest of another model or version; names the file.
            PermissionDeniedError: it lies outside the root.
        """
        path = self.package_dir(model, version) / "manifest.json"
        self._check_inside(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"model {model!r} version {version}: no package in {self.root}") from error
        return parse_manifest(data, model, version, str(path))

    def open_blob(self, digest: str) -> BinaryIO:
        """Open a blob for reading; nothing is verified.

        Raises:
            NotFoundError: it is not there.
            PermissionDeniedError: it lies outside the root, or may not be read.
        """
        path = self.blob_path(digest)
        self._check_inside(path)
        try:
            return path.open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError(f"{path}: no such file") from error
        except PermissionError as error:
            raise PermissionDeniedError(f"{path}: {error.strerror}") from error

    def verify_blob(self, digest: str, size_bytes: int) -> Path:
        """Read a blob through and return its file. Costs one read of the file and constant memory.

        Raises:
            NotFoundError: it is not there.
            DataLossError: it has another size or another content.
            PermissionDeniedError: it lies outside the root.
        """
        check_integer(size_bytes, "size_bytes", low=0)
        path = self.blob_path(digest)
        self._verify(path, digest, size_bytes)
        return path

    def verify_files(self, manifest: Manifest) -> None:
        """Read the root graph and the assets of a package through.

        Raises:
            NotFoundError, DataLossError, PermissionDeniedError: as `verify_blob`.
        """
        directory = self.package_dir(manifest.model, manifest.version)
        for file in manifest.files:
            self._verify(directory / file.path, file.digest, file.bytes)

    def _verify(self, path: Path, digest: str, size_bytes: int) -> None:
        self._check_inside(path)
        hasher = hashlib.sha256()
        try:
            with path.open("rb") as file:
                found_bytes = os.fstat(file.fileno()).st_size
                if found_bytes != size_bytes:
                    raise DataLossError(f"{path}: has {found_bytes} bytes, expected {size_bytes}")
                while chunk := file.read(_CHUNK_BYTES):
                    hasher.update(chunk)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError(f"{path}: no such file") from error
        if hasher.hexdigest() != digest:
            raise DataLossError(f"{path}: has SHA-256 {hasher.hexdigest()}, expected {digest}")

    def _check_inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self.root):
            raise PermissionDeniedError(f"{path}: leads to {path.resolve()}, outside of the repository {self.root}")

    def _names(self, directory: Path, check: Callable[[str], object]) -> list[str]:
        """Return the names in `directory` that `check` accepts, sorted; none when it does not exist."""
        self._check_inside(directory)
        try:
            names = sorted(entry.name for entry in directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if _accepts(check, name)]


def parse_manifest(data: bytes, model: str, version: int, place: str) -> Manifest:
    """Return the manifest that `data`, found at `place`, holds.

    Raises:
        DataLossError: it is damaged, or is the manifest of another model or version; names `place`.
    """
    try:
        manifest = Manifest.from_bytes(data)
    except TesseraError as error:
        raise DataLossError(f"{place}: {error.message}") from error
    if (manifest.model, manifest.version) != (model, version):
        raise DataLossError(
            f"{place}: is of model {manifest.model!r} version {manifest.version}, expected {model!r} {version}"
        )
    return manifest


def _check_version_name(name: str) -> None:
    if not (name.isascii() and name.isdecimal()) or str(int(name[:20])) != name:
        raise InvalidArgumentError(f"version: got {name!r}, expected a decimal number without leading zeros")
    check_version(int(name))


def _accepts(check: Callable[[str], object], name: str) -> bool:
    try:
        check(name)
    except InvalidArgumentError:
        return False
    return True
