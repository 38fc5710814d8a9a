"""Small tables whose rows are known, on disk, in a `TableStore`, and behind a server; and hand-made lookup messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cpp_ext import _rpc
from protos import data_plane_pb2 as pb

LOOKUP = "/tessera.data.v1.TableService/Lookup"
MODEL, VERSION, EPOCH = "ranker", 3, 7
DIGEST = bytes(range(32))

Array = np.ndarray[Any, Any]


@dataclass
class KnownTable:
    """A float32 table and its bucket files; row `r` column `c` is `first + r + c / 1024`.

    Args:
        directory: where the files of the buckets are.
        dim: columns, at most 1024.
    """

    directory: Path
    name: str
    rows: int
    dim: int
    buckets: int
    first: float = 0.0
    values: Array = field(init=False)

    def __post_init__(self) -> None:
        self.values = (
            np.arange(self.rows, dtype=np.float32)[:, None]
            + np.arange(self.dim, dtype=np.float32)[None, :] / 1024
            + np.float32(self.first)
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        for bucket in range(self.buckets):
            self.path(bucket).write_bytes(self.values[bucket :: self.buckets].tobytes())

    @property
    def row_bytes(self) -> int:
        return self.dim * 4

    def path(self, bucket: int) -> Path:
        return self.directory / f"{self.name}-{self.first}-{bucket}"

    def blob(self, bucket: int) -> _rpc.Blob:
        path = self.path(bucket)
        return _rpc.Blob.map(str(path), path.stat().st_size)

    def held(self, buckets: Iterable[int] | None = None) -> _rpc.HeldTable:
        """Return the table with `buckets` mapped; None: all."""
        chosen = range(self.buckets) if buckets is None else buckets
        return _rpc.HeldTable(
            name=self.name,
            rows=self.rows,
            row_bytes=self.row_bytes,
            buckets=self.buckets,
            blobs={bucket: self.blob(bucket) for bucket in chosen},
        )

    def routed(self) -> _rpc.RoutedTable:
        return _rpc.RoutedTable(name=self.name, rows=self.rows, row_bytes=self.row_bytes, buckets=self.buckets)


def publish(store: _rpc.TableStore, tables: Sequence[_rpc.HeldTable], **changes: Any) -> None:
    """Publish under the identity that `request` names unless told otherwise."""
    identity: dict[str, Any] = {"package_digest": DIGEST, "model": MODEL, "version": VERSION} | changes
    store.publish(tables=tables, **identity)


def request(*blocks: tuple[int, Sequence[int]], wide: bool = False, **changes: Any) -> bytes:
    """Return a LookupRequest; a block is (table, rows); `wide` sends rows as 64 bits."""
    identity: dict[str, Any] = {"package_digest": DIGEST, "model": MODEL, "version": VERSION, "epoch": EPOCH} | changes
    message = pb.LookupRequest(**identity)
    for table, rows in blocks:
        block = message.blocks.add(table=table)
        (block.rows_u64 if wide else block.rows_u32).extend(rows)
    return bytes(message.SerializeToString())


def response(message: bytes) -> pb.LookupResponse:
    return pb.LookupResponse.FromString(message)


def rows_of(message: bytes, dim: int) -> Array:
    """Return the rows of a response as float32 [n, dim]; a refusal fails the test."""
    answer = response(message)
    assert answer.WhichOneof("result") == "rows", answer
    return np.frombuffer(answer.rows, np.float32).reshape(-1, dim)
