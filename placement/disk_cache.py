"""Keeps the last good snapshot on disk, so that a router can start, and serve, with the store gone.

It holds the records that routing needs (`placement.routing_records`). The file is replaced by renaming a synced one, so
that it is always whole; a damaged one is refused.
"""

from __future__ import annotations

import base64
from pathlib import Path

from placement.checked_file import read_checked, write_checked
from placement.keys import Keys
from placement.routing_records import routing_records, snapshot_of
from placement.snapshot import ClusterSnapshot
from tessera.errors import DataLossError

FORMAT_VERSION = 1
_WHAT = "placement cache"


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
        content = {
            "format_version": FORMAT_VERSION,
            "cluster": self._keys.cluster,
            "revision": snapshot.revision,
            "entries": {
                key: base64.b64encode(value).decode() for key, value in routing_records(self._keys, snapshot).items()
            },
        }
        write_checked(self._path, content, _WHAT)

    def load(self) -> ClusterSnapshot | None:
        """Return the saved snapshot, all its members not live; None if there is no file.

        Raises:
            DataLossError: the file is damaged, too large or of another cluster or format; names it. Go on without.
            UnavailableError: it cannot be read.
        """
        raw = read_checked(self._path, _WHAT)
        if raw is None:
            return None
        if raw["format_version"] != FORMAT_VERSION or raw["cluster"] != self._keys.cluster:
            raise DataLossError(
                f"{_WHAT} {self._path}: got format {raw['format_version']} of cluster {raw['cluster']!r}, "
                f"expected format {FORMAT_VERSION} of cluster {self._keys.cluster!r}"
            )
        return snapshot_of(self._keys, {key: base64.b64decode(value) for key, value in raw["entries"].items()})
