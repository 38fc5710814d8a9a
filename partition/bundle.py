"""Reads tensors out of a TensorBundle (`variables.index`, `variables.data-…`) as streams of bytes.

The index says in which file, at which offset and with which CRC-32C each tensor, or slice of a tensor, is stored. Only
the index is held in memory; data is read in chunks of at most `CHUNK_BYTES`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2
from tensorflow.python.framework import dtypes

from partition.crc32c import crc32c, unmask
from partition.sstable import read_sstable
from tessera.errors import DataLossError, NotFoundError, UnimplementedError
from tessera.manifest_checks import ITEM_BYTES

CHUNK_BYTES = 32 << 20

Box = tuple[tuple[int, int], ...]  # (start, length) of each axis


@dataclass(frozen=True)
class Extent:
    """A run of bytes in one data file; `crc` is its checksum, or None when only more than it has one."""

    path: Path
    offset: int
    bytes: int
    crc: int | None


@dataclass(frozen=True)
class Region:
    """A tensor, or an axis-aligned part of one: the row-major bytes are `extents`, one after the other.

    Attributes:
        key: in the bundle, for messages.
        dtype: DataType number.
        shape: of the region.
        extents: in order; each begins and ends at a row.
    """

    key: str
    dtype: int
    shape: tuple[int, ...]
    extents: tuple[Extent, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all elements; 0 for strings, whose size only reading tells."""
        return sum(extent.bytes for extent in self.extents)

    def chunks(self, unit_bytes: int) -> Iterator[memoryview]:
        """Yield the bytes in pieces of a multiple of `unit_bytes`; a piece is valid until the next is asked for.

        Costs one buffer of at most `CHUNK_BYTES`. `unit_bytes` must divide each extent and be ≤ `CHUNK_BYTES`.

        Raises:
            DataLossError: a file is too short, or its bytes have not the index's checksum; names file and tensor.
            NotFoundError: a file is missing.
        """
        assert 0 < unit_bytes <= CHUNK_BYTES
        largest = max((extent.bytes for extent in self.extents), default=0)
        buffer = memoryview(bytearray(min(CHUNK_BYTES // unit_bytes * unit_bytes, largest)))
        for extent in self.extents:
            yield from self._read(extent, buffer)

    def _read(self, extent: Extent, buffer: memoryview) -> Iterator[memoryview]:
        try:
            descriptor = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(f"{extent.path}: no such file, but the index places {self.key!r} in it") from error
        try:
            position, crc = 0, 0
            while position < extent.bytes:
                piece = buffer[: min(len(buffer), extent.bytes - position)]
                filled = 0
                while filled < len(piece):
                    count = os.preadv(descriptor, [piece[filled:]], extent.offset + position + filled)
                    if count == 0:
                        raise DataLossError(f"{extent.path}: ends inside of {self.key!r}")
                    filled += count
                if extent.crc is not None:
                    crc = crc32c(piece, crc)
                position += len(piece)
                yield piece
            if extent.crc is not None and crc != extent.crc:
                raise DataLossError(f"{extent.path}: {self.key!r} has CRC-32C {crc:#x}, expected {extent.crc:#x}")
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class _Piece:
    box: Box
    extent: Extent


class Bundle:
    """The index of one TensorBundle."""

    def __init__(self, prefix: Path) -> None:
        """Read `<prefix>.index`.

        Raises:
            NotFoundError: there is none.
            DataLossError: it is damaged.
            UnimplementedError: it was written on a big-endian machine.
        """
        self.prefix = prefix
        self._entries = read_sstable(Path(f"{prefix}.index"))
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(self._entries.get(b"", b""))
        if header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
            raise UnimplementedError(f"{prefix}.index: is big-endian, expected little-endian")
        self._shards = header.num_shards

    def region(self, key: str, slice_spec: str = "") -> Region:
        """Return where a tensor is.

        Args:
            key: its name in the bundle.
            slice_spec: which part, as TensorFlow's restore op says it, for example `501 8 0,126:-`; "" for all of it.

        Raises:
            NotFoundError: no such tensor.
            DataLossError: the index contradicts itself or the slice.
            UnimplementedError: the part is cut from stored slices on another axis than the first.
        """
        entry = self._entry(key.encode(), key)
        full = tuple(dim.size for dim in entry.shape.dim)
        wanted = _parse_slice(slice_spec, full, key) if slice_spec else tuple((0, size) for size in full)
        shape = tuple(length for _, length in wanted)
        if dtypes.as_dtype(entry.dtype).name not in ITEM_BYTES:
            if shape != full or entry.slices:
                raise UnimplementedError(f"tensor {key!r}: is text that is stored in slices")
            return Region(key, entry.dtype, shape, ())
        item_bytes = ITEM_BYTES[dtypes.as_dtype(entry.dtype).name]
        extents = _cover(key, wanted, self._pieces(key, entry, full), item_bytes)
        region = Region(key, entry.dtype, shape, extents)
        if region.bytes != math.prod(shape) * item_bytes:
            raise DataLossError(f"{self.prefix}.index: {key!r} {shape} is stored in {region.bytes} bytes")
        return region

    def _entry(self, raw_key: bytes, key: str) -> Any:
        if raw_key not in self._entries or not raw_key:
            raise NotFoundError(f"{self.prefix}.index: has no tensor {key!r}")
        try:
            return tensor_bundle_pb2.BundleEntryProto.FromString(self._entries[raw_key])
        except DecodeError as error:
            raise DataLossError(f"{self.prefix}.index: the entry of {key!r} is damaged: {error}") from error

    def _pieces(self, key: str, entry: Any, full: tuple[int, ...]) -> list[_Piece]:
        if not entry.slices:
            return [_Piece(tuple((0, size) for size in full), self._extent(entry))]
        boxes = sorted(_box(slice_proto, full) for slice_proto in entry.slices)
        # Slices are stored under keys that sort as (name, start, length, …) does.
        start = b"\0" + key.encode().replace(b"\xff", b"\xff\0").replace(b"\0", b"\0\xff") + b"\0\1"
        raw_keys = sorted(raw_key for raw_key in self._entries if raw_key.startswith(start))
        if len(raw_keys) != len(boxes):
            raise DataLossError(f"{self.prefix}.index: {key!r} has {len(boxes)} slices, but {len(raw_keys)} are stored")
        pieces = []
        for box, raw_key in zip(boxes, raw_keys, strict=True):
            part = self._entry(raw_key, key)
            if tuple(dim.size for dim in part.shape.dim) != tuple(length for _, length in box):
                raise DataLossError(f"{self.prefix}.index: a slice of {key!r} has another shape than its place {box}")
            pieces.append(_Piece(box, self._extent(part)))
        return pieces

    def _extent(self, entry: Any) -> Extent:
        path = Path(f"{self.prefix}.data-{entry.shard_id:05d}-of-{self._shards:05d}")
        return Extent(path, entry.offset, entry.size, unmask(entry.crc32c))


def _box(slice_proto: Any, full: tuple[int, ...]) -> Box:
    extents = slice_proto.extent
    return tuple((e.start, e.length if e.HasField("length") else size) for e, size in zip(extents, full, strict=True))


def _parse_slice(spec: str, full: tuple[int, ...], key: str) -> Box:
    *sizes, axes = spec.split(" ")
    try:
        box = []
        for axis, size in zip(axes.split(":"), full, strict=True):
            start, length = (0, size) if axis == "-" else map(int, axis.split(","))
            if start < 0 or length < 0 or start + length > size:
                raise ValueError(f"{start},{length} is outside of {size}")
            box.append((start, length))
        if tuple(map(int, sizes)) != full:
            raise ValueError(f"the index has shape {full}")
    except ValueError as error:
        raise DataLossError(f"tensor {key!r}: slice {spec!r} does not fit: {error}") from error
    return tuple(box)


def _cover(key: str, wanted: Box, pieces: list[_Piece], item_bytes: int) -> tuple[Extent, ...]:
    """Return the bytes of `wanted` from pieces that are cut along axis 0, or from one piece that is all of it."""
    for piece in pieces:
        if piece.box == wanted:
            return (piece.extent,)
    extents = []
    position, end = wanted[0][0], sum(wanted[0])
    row_bytes = math.prod(length for _, length in wanted[1:]) * item_bytes
    for piece in sorted(pieces, key=lambda piece: piece.box[0]):
        if piece.box[1:] != wanted[1:]:
            raise UnimplementedError(f"tensor {key!r}: is stored in slices on another axis than the first: {piece.box}")
        start, length = piece.box[0]
        take = min(end, start + length) - position
        if start <= position and take > 0:
            whole = take == length
            offset = piece.extent.offset + (position - start) * row_bytes
            extents.append(Extent(piece.extent.path, offset, take * row_bytes, piece.extent.crc if whole else None))
            position += take
    if position != end:
        raise DataLossError(f"tensor {key!r}: rows from {position} to {end} are stored nowhere")
    return tuple(extents)
