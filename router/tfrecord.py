"""TFRecord, TensorFlow's format of request logs and warm-up files.

A record is its length, a checksum of that, its bytes, and a checksum of those.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from tessera.errors import DataLossError

MAX_RECORD_BYTES = 1 << 31
"""A protobuf cannot be larger; a length above it is damage, whatever its checksum says."""

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of `data` as TFRecord stores it: rotated and shifted."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """Return `record` as it is in a file."""
    length = _LENGTH.pack(len(record))
    checksums = (_CHECKSUM.pack(masked_crc32c(part)) for part in (length, record))
    return b"".join((length, next(checksums), record, next(checksums)))


def read_records(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the records of `file`, opened in binary mode; `name` is for messages. One record is in memory at a time.

    Raises:
        DataLossError: a checksum is wrong, or the file ends within a record; names the file and the record's offset.
    """
    offset_bytes = 0
    while header := file.read(_LENGTH.size + _CHECKSUM.size):
        if len(header) < _LENGTH.size + _CHECKSUM.size:
            raise DataLossError(f"{name}: truncated record at {offset_bytes}")
        (size_bytes,) = _LENGTH.unpack_from(header)
        (checksum,) = _CHECKSUM.unpack_from(header, _LENGTH.size)
        if checksum != masked_crc32c(header[: _LENGTH.size]) or size_bytes > MAX_RECORD_BYTES:
            raise DataLossError(f"{name}: corrupted record at {offset_bytes}: its length has a wrong checksum")
        record, footer = file.read(size_bytes), file.read(_CHECKSUM.size)
        if len(record) < size_bytes or len(footer) < _CHECKSUM.size:
            raise DataLossError(f"{name}: truncated record at {offset_bytes}")
        if _CHECKSUM.unpack(footer)[0] != masked_crc32c(record):
            raise DataLossError(f"{name}: corrupted record at {offset_bytes}: its bytes have a wrong checksum")
        yield record
        offset_bytes += len(header) + size_bytes + len(footer)
