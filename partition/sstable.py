"""Reads the sorted string table that holds a TensorBundle's index. Small, whole in memory, checksums verified.

The format is LevelDB's: blocks of key–value entries whose keys share prefixes, an index block of blocks, a footer.
"""

from __future__ import annotations

from pathlib import Path

from partition.crc32c import crc32c, unmask
from tessera.errors import DataLossError, NotFoundError

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
_MAX_INDEX_BYTES = 1 << 30


def read_sstable(path: Path) -> dict[bytes, bytes]:
    """Return every entry of a table, in the order of keys.

    Raises:
        NotFoundError: no such file.
        DataLossError: not such a table, compressed, damaged, or above 1 GiB; names the file.
    """
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise DataLossError(f"{path}: has {path.stat().st_size} bytes, expected at most {_MAX_INDEX_BYTES}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file") from error
    if len(data) < _FOOTER_BYTES or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise DataLossError(f"{path}: is not the index of a TensorBundle: wrong magic number")
    try:
        footer = data[-_FOOTER_BYTES:]
        position = _skip_handle(footer, 0)  # of the metaindex, which is empty
        entries: dict[bytes, bytes] = {}
        for handle in _block(data, *_handle(footer, position)).values():
            entries.update(_block(data, *_handle(handle, 0)))
    except (IndexError, ValueError) as error:
        raise DataLossError(f"{path}: is damaged: {error}") from error
    return entries


def _block(data: bytes, offset: int, size_bytes: int) -> dict[bytes, bytes]:
    end = offset + size_bytes
    if end + _TRAILER_BYTES > len(data) - _FOOTER_BYTES or size_bytes < 4:
        raise ValueError(f"a block at {offset} of {size_bytes} bytes is out of range")
    if data[end] != 0:
        raise ValueError(f"the block at {offset} is compressed (type {data[end]}), expected none")
    if crc32c(data[offset : end + 1]) != unmask(int.from_bytes(data[end + 1 : end + 5], "little")):
        raise ValueError(f"the block at {offset} has a wrong checksum")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    end -= 4 * (restarts + 1)
    entries = {}
    key = b""
    while offset < end:
        shared, offset = _varint(data, offset)
        own, offset = _varint(data, offset)
        value_bytes, offset = _varint(data, offset)
        if shared > len(key) or offset + own + value_bytes > end:
            raise ValueError(f"an entry at {offset} is out of range")
        key = key[:shared] + data[offset : offset + own]
        offset += own
        entries[key] = data[offset : offset + value_bytes]
        offset += value_bytes
    return entries


def _handle(data: bytes, position: int) -> tuple[int, int]:
    offset, position = _varint(data, position)
    size_bytes, _ = _varint(data, position)
    return offset, size_bytes


def _skip_handle(data: bytes, position: int) -> int:
    _, position = _varint(data, position)
    _, position = _varint(data, position)
    return position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at {position} is longer than 64 bits")
