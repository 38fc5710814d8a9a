"""Whether a TensorFlow Lite model is cut off, from where its flatbuffer keeps things."""

from __future__ import annotations

import struct
from pathlib import Path

from router.platforms import wire

_IDENTIFIER = b"TFL3"
_TABLES = (1, 2, 4, 6, 7)  # fields of Model: operator codes, subgraphs, buffers, metadata, signatures
_BUFFERS = 4
_DATA, _OFFSET, _SIZE = 0, 1, 2  # fields of Buffer


def is_whole(file: Path) -> bool:
    """Return whether `file` is a model, and not cut off."""
    try:
        with wire.mapped(file) as data:
            check_model(data)
    except (OSError, ValueError):
        return False
    return True


def check_model(data: bytes | memoryview) -> None:
    """Raise ValueError if `data` is no model, or one whose end is missing: a table, or the bytes of a tensor."""
    try:
        if bytes(data[4:8]) != _IDENTIFIER:
            raise ValueError("is no TensorFlow Lite model")
        root = _number(data, "<I", 0)
        for index in _TABLES:
            for table in _tables(data, root, index):
                vtable = table - _number(data, "<i", table)
                end = max(vtable + _number(data, "<H", vtable), table + _number(data, "<H", vtable + 2))
                if end > len(data):
                    raise ValueError(f"is cut off: a table ends at byte {end}, the file at {len(data)}")
                if index == _BUFFERS:
                    _check_buffer(data, table)
    except struct.error as error:
        raise ValueError(f"is cut off: {error}") from None


def _check_buffer(data: bytes | memoryview, table: int) -> None:
    end = 0
    if (field := _field(data, table, _DATA)) is not None:
        vector = field + _number(data, "<I", field)
        end = vector + 4 + _number(data, "<I", vector)
    offset, size = (_field(data, table, index) for index in (_OFFSET, _SIZE))
    if offset is not None and size is not None:  # of models above 2 GB, whose weights lie behind the flatbuffer
        end = max(end, _number(data, "<Q", offset) + _number(data, "<Q", size))
    if end > len(data):
        raise ValueError(f"is cut off: a buffer ends at byte {end}, the file at {len(data)}")


def _tables(data: bytes | memoryview, table: int, index: int) -> list[int]:
    field = _field(data, table, index)
    if field is None:
        return []
    vector = field + _number(data, "<I", field)
    count = _number(data, "<I", vector)
    if vector + 4 + 4 * count > len(data):
        raise ValueError(f"is cut off: it has {count} tables from byte {vector} on")
    places = range(vector + 4, vector + 4 + 4 * count, 4)
    return [place + _number(data, "<I", place) for place in places]


def _field(data: bytes | memoryview, table: int, index: int) -> int | None:
    """Return where a field of a table is, None when it has its default."""
    vtable = table - _number(data, "<i", table)
    slot = 4 + 2 * index
    if slot + 2 > _number(data, "<H", vtable):
        return None
    offset = _number(data, "<H", vtable + slot)
    return table + offset if offset else None


def _number(data: bytes | memoryview, kind: str, position: int) -> int:
    if position < 0:
        raise ValueError(f"is damaged: it refers to byte {position}")
    (value,) = struct.unpack_from(kind, data, position)
    return int(value)
