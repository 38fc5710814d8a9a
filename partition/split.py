"""Streams variables into blobs: a table's rows are dealt to its buckets in one pass over the table.

Memory is bounded by `MEMORY_BYTES` however large the table: one chunk of rows, the rows of one bucket in that chunk,
and the state of a SHA-256 for each bucket.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from partition.bundle import CHUNK_BYTES, Region
from partition.staging import Staging
from tessera.errors import DataLossError, NotFoundError

MEMORY_BYTES = 2 * CHUNK_BYTES

Progress = Callable[[int], None]


def write_table(staging: Staging, region: Region, buckets: int, work: str, progress: Progress) -> tuple[str, ...]:
    """Write every bucket of a table and return their digests in the order of buckets.

    Args:
        staging: of the package.
        region: the table, rank ≥ 1, rows ≥ buckets.
        buckets: bucket of row r is r % buckets.
        work: identifies this content; if an earlier run finished the same, its blobs are verified and kept.
        progress: called with the bytes done since the last call.

    Raises:
        DataLossError, NotFoundError: see `Region.chunks`.
        OSError: the repository cannot be written, for example because it is full.
    """
    rows = region.shape[0]
    row_bytes = region.bytes // rows
    sizes = [(rows - bucket + buckets - 1) // buckets * row_bytes for bucket in range(buckets)]
    if (known := _resume(staging, work, sizes)) is not None:
        progress(region.bytes)
        return known
    hashers = [hashlib.sha256() for _ in range(buckets)]
    files = [staging.new_file() for _ in range(buckets)]
    first_row = 0
    for chunk in region.chunks(row_bytes):
        values = np.frombuffer(chunk, np.uint8).reshape(-1, row_bytes)
        for start in range(min(buckets, len(values))):
            bucket = (first_row + start) % buckets
            part = np.ascontiguousarray(values[start::buckets]).reshape(-1).data
            hashers[bucket].update(part)
            _append(files[bucket], part)
        first_row += len(values)
        progress(len(chunk))
    digests = [hasher.hexdigest() for hasher in hashers]
    for path, digest, size_bytes in zip(files, digests, sizes, strict=True):
        staging.publish_blob(path, digest, size_bytes)
    staging.finish(work, digests)
    return tuple(digests)


def write_weight(staging: Staging, region: Region, progress: Progress) -> str:
    """Write a whole variable as one blob and return its digest; durable after `Staging.sync_blobs`.

    Raises:
        DataLossError, NotFoundError, OSError: as `write_table`.
    """
    hasher = hashlib.sha256()
    path = staging.new_file()
    for chunk in region.chunks(1):
        hasher.update(chunk)
        _append(path, chunk)
        progress(len(chunk))
    staging.publish_blob(path, hasher.hexdigest(), region.bytes)
    return hasher.hexdigest()


def _resume(staging: Staging, work: str, sizes: list[int]) -> tuple[str, ...] | None:
    digests = staging.finished(work)
    if digests is None or len(digests) != len(sizes):
        return None
    try:
        for digest, size_bytes in zip(digests, sizes, strict=True):
            staging.repository.verify_blob(digest, size_bytes)
    except (NotFoundError, DataLossError):
        return None  # somebody removed or damaged what was finished: do it again
    return tuple(digests)


def _append(path: Path, data: memoryview) -> None:
    """Append to a file. It is opened each time: a table may have more buckets than a process may have files open."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
