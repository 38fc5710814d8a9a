"""A cluster's records in one file, and back: a copy to restore from when the store was lost."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from placement.checked_file import read_checked, write_checked
from placement.keys import Keys, Kind
from placement.records import FIRST_GENERATION, CurrentRecord, MetaRecord, OperationRecord, Placement
from placement.store import NO_LEASE, Listing
from tessera.errors import DataLossError, NotFoundError

FORMAT_VERSION = 1
_KIND = "tessera backup"


@dataclass(frozen=True)
class Backup:
    """What is kept: every record that lives under no lease, as it was at `revision`."""

    cluster: str
    revision: int
    entries: Mapping[str, bytes]

    @property
    def generation(self) -> int:
        """The highest generation that is named.

        Raises:
            DataLossError: a record is damaged; names it.
        """
        keys = Keys(self.cluster)
        numbers = [FIRST_GENERATION]
        for key, value in self.entries.items():
            parsed = keys.parse(key)
            if parsed is not None and parsed.kind is Kind.META:
                numbers.append(MetaRecord.from_bytes(value, key).generation)
            elif parsed is not None and parsed.kind is Kind.CURRENT:
                numbers.append(CurrentRecord.from_bytes(value, key).generation)
        return max(numbers)

    def placements(self) -> dict[str, tuple[CurrentRecord, Placement | None]]:
        """Return model → its pointer and the placement that it names; None for a model that was unloaded.

        Raises:
            DataLossError: a record is damaged, or a pointer's document is missing or another one; names it.
        """
        keys = Keys(self.cluster)
        result: dict[str, tuple[CurrentRecord, Placement | None]] = {}
        for key, value in sorted(self.entries.items()):
            parsed = keys.parse(key)
            if parsed is None or parsed.kind is not Kind.CURRENT:
                continue
            current = CurrentRecord.from_bytes(value, key)
            if current.unloaded:
                result[parsed.model] = current, None
                continue
            document_key = keys.placement(parsed.model, current.epoch)
            if document_key not in self.entries:
                raise DataLossError(f"{document_key}: the backup lacks the document that {key} names")
            placement = Placement.from_bytes(self.entries[document_key], document_key)
            if placement.digest != current.digest:
                raise DataLossError(f"{document_key}: has digest {placement.digest}, {key} names {current.digest}")
            result[parsed.model] = current, placement
        return result

    def operations(self) -> dict[str, OperationRecord]:
        """Return model → its operation.

        Raises:
            DataLossError: a record is damaged; names it.
        """
        keys = Keys(self.cluster)
        parsed = {key: keys.parse(key) for key in self.entries}
        return {
            one.model: OperationRecord.from_bytes(self.entries[key], key)
            for key, one in sorted(parsed.items())
            if one is not None and one.kind is Kind.OPERATION
        }


def backup_of(keys: Keys, listing: Listing) -> Backup:
    """Return what of a cluster is worth keeping; what lives under a lease is written again by its owner."""
    kept = {entry.key: entry.value for entry in listing.entries if entry.lease == NO_LEASE}
    return Backup(keys.cluster, listing.revision, kept)


def write_backup(path: Path, backup: Backup) -> None:
    """Write the file as a whole. Blocks.

    Raises:
        UnavailableError: it cannot be written.
    """
    content = {
        "kind": _KIND,
        "format_version": FORMAT_VERSION,
        "cluster": backup.cluster,
        "revision": backup.revision,
        "entries": {key: base64.b64encode(value).decode() for key, value in backup.entries.items()},
    }
    write_checked(path, content, "backup")


def read_backup(path: Path, keys: Keys) -> Backup:
    """Read what `write_backup` wrote. Blocks.

    Raises:
        NotFoundError: there is no such file.
        DataLossError: it is damaged, no backup, or of another cluster or format.
        UnavailableError: it cannot be read.
    """
    raw = read_checked(path, "backup")
    if raw is None:
        raise NotFoundError(f"backup {path}: no such file")
    if not isinstance(raw, dict) or raw.get("kind") != _KIND:
        raise DataLossError(f"backup {path}: is no backup of a cluster")
    if raw["format_version"] != FORMAT_VERSION or raw["cluster"] != keys.cluster:
        raise DataLossError(
            f"backup {path}: got format {raw['format_version']} of cluster {raw['cluster']!r}, expected format "
            f"{FORMAT_VERSION} of cluster {keys.cluster!r}"
        )
    entries = {key: base64.b64decode(value) for key, value in raw["entries"].items()}
    return Backup(raw["cluster"], raw["revision"], entries)
