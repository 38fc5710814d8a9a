"""Whether the checkpoint of a SavedModel is all there, and what it weighs: from its index, without reading a tensor."""

from __future__ import annotations

from pathlib import Path

from partition.sstable import read_sstable
from router.platforms import wire

_HEADER_SHARDS = 1  # BundleHeaderProto.num_shards
_ENTRY_SHARD, _ENTRY_OFFSET, _ENTRY_BYTES = 3, 4, 5  # of BundleEntryProto


def data_files(prefix: Path) -> dict[Path, int]:
    """Return the data files that `<prefix>.index` names, with the bytes that each must have at least.

    Raises:
        NotFoundError, DataLossError: there is no index, or it is damaged.
        ValueError: an entry of it cannot be read.
    """
    entries = read_sstable(Path(f"{prefix}.index"))
    shards = _numbers(entries.pop(b"", b""), (_HEADER_SHARDS,))[0]
    needed = {Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}"): 0 for shard in range(shards)}
    for entry in entries.values():
        shard, offset, size_bytes = _numbers(entry, (_ENTRY_SHARD, _ENTRY_OFFSET, _ENTRY_BYTES))
        path = Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")
        needed[path] = max(needed.get(path, 0), offset + size_bytes)
    return needed


def missing(prefix: Path) -> bool:
    """Return whether a data file is not there or too short. Errors as `data_files`."""
    return any(not path.is_file() or path.stat().st_size < size for path, size in data_files(prefix).items())


def _numbers(message: bytes, fields: tuple[int, ...]) -> list[int]:
    """Return the values of fields that are varints, 0 for those that are not there."""
    values = dict.fromkeys(fields, 0)
    for field, first, last in wire.spans(message, 0, len(message)):
        if field in values:
            values[field], _ = wire.read_varint(message, first, last)
    return list(values.values())
