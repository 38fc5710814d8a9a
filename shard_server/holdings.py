"""What a shard server holds: verified, mapped blobs, published to the native table store.

Loading runs on a helper thread, one placement change at a time; reads never wait for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cpp_ext import _rpc
from placement.records import Placement
from shard_server.desired import DesiredPackage, PackageKey
from tessera.errors import DataLossError, ResourceExhaustedError
from tessera.manifest import Manifest
from tessera.repository import Repository
from tessera.settings import format_bytes

_log = logging.getLogger("shard_server.holdings")

_VERIFY_THREADS = 4
_NO_THREAD = "start new thread"
"""What Python's RuntimeError says when there is no memory, or number, for one more."""


class Files(Protocol):
    """Where manifests and blobs are read from."""

    def read_manifest(self, model: str, version: int) -> Manifest:
        """Return the manifest of a package; see `Repository.read_manifest`."""

    def blob_file(self, digest: str, size_bytes: int) -> Path:
        """Return the file of a blob, as far verified as it is to be before it serves; see `Repository.verify_blob`."""


@dataclass(frozen=True)
class MountedFiles:
    """A repository whose files are mapped where they are; `verify_content`: check SHA-256, not only sizes."""

    repository: Repository
    verify_content: bool

    def read_manifest(self, model: str, version: int) -> Manifest:
        """See `Files.read_manifest`."""
        return self.repository.read_manifest(model, version)

    def blob_file(self, digest: str, size_bytes: int) -> Path:
        """See `Files.blob_file`."""
        if self.verify_content:
            return self.repository.verify_blob(digest, size_bytes)
        return self.repository.blob_path(digest)


@dataclass
class Holdings:
    """The blobs of one server.

    Args:
        files: where packages and blobs are.
        store: the native table store that answers lookups.
        populate: read blobs into memory when they are mapped.
    """

    files: Files
    store: _rpc.TableStore
    populate: bool = False
    _blobs: dict[str, _rpc.Blob] = field(default_factory=dict)
    _manifests: dict[str, Manifest] = field(default_factory=dict)
    _published: Mapping[PackageKey, DesiredPackage] = field(default_factory=dict)

    @property
    def bytes_mapped(self) -> int:
        """Bytes of all blobs that are mapped, each once."""
        return sum(blob.size_bytes for blob in self._blobs.values())

    def path_of(self, digest: str) -> Path | None:
        """Return the file of a blob that is mapped, or None. On any thread."""
        blob = self._blobs.get(digest)
        return Path(blob.path) if blob is not None else None

    @property
    def blob_sizes(self) -> Mapping[str, int]:
        """The bytes of each blob that is mapped, by digest. On any thread."""
        return {digest: blob.size_bytes for digest, blob in self._blobs.items()}

    @property
    def packages(self) -> Mapping[PackageKey, DesiredPackage]:
        """What is being served."""
        return self._published

    def bytes_of(self, placement: Placement) -> int:
        """Return the bytes of the distinct blobs that are held for the versions of `placement`."""
        blobs: dict[str, int] = {}
        for reference in placement.versions:
            package = self._published.get(PackageKey(placement.model, reference.version, reference.digest))
            if package is not None:
                blobs |= package.blobs()
        return sum(blobs.values())

    def manifest(self, model: str, version: int, digest: str) -> Manifest:
        """Return a package's manifest, read at most once.

        Raises:
            NotFoundError: the repository has no such package.
            DataLossError: it is damaged, or another one than `digest` names.
        """
        if digest not in self._manifests:
            manifest = self.files.read_manifest(model, version)
            if manifest.digest != digest:
                raise DataLossError(
                    f"manifest of model {model} version {version}: has digest {manifest.digest}, "
                    f"the placement expects {digest}"
                )
            self._manifests[digest] = manifest
        return self._manifests[digest]

    def apply(self, desired: Mapping[PackageKey, DesiredPackage]) -> None:
        """Serve exactly `desired`: map what is new, publish, then drop what is no longer wanted.

        What is served now stays whole until everything new is mapped and checked. Blocks for as long as reading takes.

        Raises:
            NotFoundError, DataLossError: a blob is missing or damaged; names its file. Nothing has changed then.
            ResourceExhaustedError: the mappings do not fit into the memory limit. Nothing has changed then.
        """
        wanted = {digest: size for package in desired.values() for digest, size in package.blobs().items()}
        new = {digest: size for digest, size in wanted.items() if digest not in self._blobs}
        if new:
            _log.info("mapping %d blobs, %s", len(new), format_bytes(sum(new.values())))
        mapped = dict(zip(new, self._map_all(new), strict=True))
        blobs = self._blobs | mapped
        for key, package in desired.items():
            if self._published.get(key) != package:
                self.store.publish(
                    package_digest=bytes.fromhex(key.digest),
                    model=key.model,
                    version=key.version,
                    tables=_held_tables(package, blobs),
                )
        for key in self._published.keys() - desired.keys():
            self.store.retire(bytes.fromhex(key.digest))
        self._published = dict(desired)
        self._blobs = {digest: blobs[digest] for digest in wanted}
        kept = {key.digest for key in desired}
        self._manifests = {digest: manifest for digest, manifest in self._manifests.items() if digest in kept}

    def give_up(self, digest: str) -> None:
        """Serve no package any more that has this blob; `apply` maps what it is given anew."""
        for key, package in self._published.items():
            if digest in package.blobs():
                self.store.retire(bytes.fromhex(key.digest))
        self._published = {key: one for key, one in self._published.items() if digest not in one.blobs()}
        self._blobs = {name: blob for name, blob in self._blobs.items() if name != digest}

    def _map_all(self, sizes: Mapping[str, int]) -> list[_rpc.Blob]:
        try:
            with ThreadPoolExecutor(_VERIFY_THREADS, "verify") as pool:  # hashing releases the GIL
                return list(pool.map(self._map, sizes.keys(), sizes.values()))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and _NO_THREAD not in str(error):
                raise
            raise ResourceExhaustedError(
                f"memory: there is none for mapping {len(sizes)} blobs, {format_bytes(sum(sizes.values()))}: "
                f"{str(error) or 'MemoryError'}"
            ) from error

    def _map(self, digest: str, size_bytes: int) -> _rpc.Blob:
        path = self.files.blob_file(digest, size_bytes)
        return _rpc.Blob.map(str(path), size_bytes, populate=self.populate)


def _held_tables(package: DesiredPackage, blobs: Mapping[str, _rpc.Blob]) -> list[_rpc.HeldTable]:
    return [
        _rpc.HeldTable(
            name=table.name,
            rows=table.rows,
            row_bytes=table.row_bytes,
            buckets=table.buckets,
            blobs={bucket: blobs[table.blobs[bucket]] for bucket in buckets},
        )
        for table, buckets in zip(package.manifest.tables, package.buckets, strict=True)
    ]


def content_digest(packages: Mapping[PackageKey, DesiredPackage]) -> str:
    """Return the SHA-256 over what is held (package, table, bucket, blob), for the ready record."""
    hasher = hashlib.sha256()
    for key, package in sorted(packages.items(), key=lambda item: item[0].digest):
        for position, (table, buckets) in enumerate(zip(package.manifest.tables, package.buckets, strict=True)):
            for bucket in sorted(buckets):
                hasher.update(f"{key.digest} {position} {bucket} {table.blobs[bucket]}\n".encode())
    return hasher.hexdigest()
