"""Packages of known tables without a graph: what shard servers need, made without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from support.blobs import digest_of, put
from tessera.manifest import FileRef, Manifest, Table


def write_package(
    repository: Path, model: str, version: int, tables: Mapping[str, Sequence[bytes]], *, row_bytes: int = 64
) -> Manifest:
    """Write a package whose tables have the given buckets, all of one size that `row_bytes` divides."""
    graph = b"no graph"
    manifest = Manifest(
        model=model,
        version=version,
        tables=tuple(_table(name, buckets, row_bytes) for name, buckets in tables.items()),
        weights=(),
        signatures={},
        files=(FileRef("saved_model.pb", digest_of(graph), len(graph)),),
    )
    put(repository, {digest_of(bucket): bucket for buckets in tables.values() for bucket in buckets})
    package = repository / "packages" / model / str(version)
    package.mkdir(parents=True)
    (package / "saved_model.pb").write_bytes(graph)
    (package / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest


def _table(name: str, buckets: Sequence[bytes], row_bytes: int) -> Table:
    sizes = {len(bucket) for bucket in buckets}
    assert len(sizes) == 1
    return Table(
        name=name,
        rows=sizes.pop() // row_bytes * len(buckets),
        row_shape=(row_bytes // 4,),
        dtype="float32",
        row_bytes=row_bytes,
        buckets=len(buckets),
        blobs=tuple(digest_of(bucket) for bucket in buckets),
    )
