"""Keeps the last good snapshot on disk, so that a router can start, and serve, with the store gone.

The file is one line with the SHA-256 of the rest, then canonical JSON: the raw entries that routing needs (pointers,
their documents, members). It is replaced by renaming a synced file, so that it is always whole; a damaged one is
refused.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from placement.codec import canonical_json, parse_json
from placement.keys import Keys
from placement.snapshot import ClusterSnapshot, apply
from placement.store import Entry, Event
from tessera.errors import DataLossError, UnavailableError

FORMAT_VERSION = 1
MAX_FILE_BYTES = 256 << 20


class DiskCache:
    """The cache of one cluster, in one file. Not for two processes at once.

    Args:
        path: the file; its directory exists.
        keys: of the cluster.
    """

    def __init__(self, path: Path, keys: Keys) -> None:
        self._path, self._keys = path, keys

    def save(self, snapshot: ClusterSnapshot) -> None:
        """Write what routing needs of `snapshot`. Blocks on the disk: call it on a helper thread.

        Raises:
            UnavailableError: the file cannot be written; names it and why. The old one is still there.
        """
        wanted = [self._keys.member(server) for server in snapshot.members]
        for model, view in snapshot.models.items():
            if view.placement is not None:
                wanted += [self._keys.current(model), self._keys.placement(model, view.placement.epoch)]
            elif view.current is not None:
                wanted.append(self._keys.current(model))
        # Of a model that is pinned to an older pointer than the store's, the older one is no longer among the entries:
        # it is written from what is applied.
        entries = {key: snapshot.entries[key] for key in wanted if key in snapshot.entries}
        for model, view in snapshot.models.items():
            if view.placement is not None and view.current is not None:
                for key, value in (
                    (self._keys.current(model), view.current.to_bytes()),
                    (self._keys.placement(model, view.placement.epoch), view.placement.to_bytes()),
                ):
                    old = entries.get(key)
                    if old is None or old.value != value:
                        entries[key] = Entry(key, value, version=0, created=0)
        for server, member in snapshot.members.items():
            key = self._keys.member(server)
            entries.setdefault(key, Entry(key, member.record.to_bytes(), version=0, created=0))
        body = canonical_json(
            {
                "format_version": FORMAT_VERSION,
                "cluster": self._keys.cluster,
                "revision": snapshot.revision,
                "entries": {key: base64.b64encode(entry.value).decode() for key, entry in entries.items()},
            }
        )
        try:
            _replace(self._path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        except OSError as error:
            raise UnavailableError(f"placement cache {self._path}: cannot be written: {error.strerror}") from error

    def load(self) -> ClusterSnapshot | None:
        """Return the saved snapshot, all its members not live; None if there is no file.

        Raises:
            DataLossError: the file is damaged, too large or of another cluster or format; names it. Go on without.
            UnavailableError: it cannot be read.
        """
        try:
            if self._path.stat().st_size > MAX_FILE_BYTES:
                raise DataLossError(f"placement cache {self._path}: larger than {MAX_FILE_BYTES} bytes")
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"placement cache {self._path}: cannot be read: {error.strerror}") from error
        digest, _, body = data.partition(b"\n")
        found = hashlib.sha256(body).hexdigest().encode()
        if digest != found:
            raise DataLossError(f"placement cache {self._path}: damaged: states digest {digest[:64]!r}, has {found!r}")
        raw = parse_json(body, f"placement cache {self._path}")
        if raw["format_version"] != FORMAT_VERSION or raw["cluster"] != self._keys.cluster:
            raise DataLossError(
                f"placement cache {self._path}: got format {raw['format_version']} of cluster {raw['cluster']!r}, "
                f"expected format {FORMAT_VERSION} of cluster {self._keys.cluster!r}"
            )
        return self._restore(raw["entries"])

    def _restore(self, values: dict[str, Any]) -> ClusterSnapshot:
        entries = [Entry(key, base64.b64decode(value), 0, 0) for key, value in sorted(values.items())]
        snapshot = apply(self._keys, ClusterSnapshot(), [Event(entry.key, entry, 0) for entry in entries])
        members = {server: replace(member, live=False) for server, member in snapshot.members.items()}
        return replace(snapshot, members=MappingProxyType(members))


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that after a crash there is the old or the new content, never a part."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
