"""Walks the fields of a protobuf message without its definition, touching only what is asked for.

Models are messages of gigabytes whose insides do not matter when all that is to be known is whether the file is whole.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Buffer = bytes | memoryview
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Map a file; the view must not be used afterwards.

    Raises:
        OSError, ValueError: it cannot be read, or is empty.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
        view = memoryview(bytes_)
        try:
            yield view
        finally:
            view.release()


def spans(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, first, last + 1) of the value of each field between `start` and `end`.

    Raises:
        ValueError: the bytes are no message, or one that is cut off.
    """
    position = start
    while position < end:
        tag, position = read_varint(data, position, end)
        first, kind = position, tag & 7
        if kind == _VARINT:
            _, position = read_varint(data, position, end)
        elif kind == _DELIMITED:
            size, first = read_varint(data, position, end)
            position = first + size
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"byte {first} begins a field of kind {kind}, expected a protobuf message")
        if position > end or tag >> 3 == 0:
            raise ValueError(f"field {tag >> 3} ends at byte {position}, the message at byte {end}")
        yield tag >> 3, first, position


def read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Return (value, position after it).

    Raises:
        ValueError: it is cut off, or longer than 64 bits.
    """
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"the number that ends at byte {position} is cut off")


def text(data: Buffer, first: int, last: int) -> str:
    """Return a string field's value.

    Raises:
        ValueError: it is not UTF-8.
    """
    return bytes(data[first:last]).decode()
