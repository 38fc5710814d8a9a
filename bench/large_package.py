"""A package of several GB, made in seconds: the graph of a small model, and a table written bucket by bucket.

TensorFlow makes and partitions the model with a small table; then lookup and manifest are told of the large one.
"""

# mypy: disable-error-code="misc, untyped-decorator"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import partition
from bench.models import Request
from protos import serving_pb2
from tessera.errors import InternalError
from tessera.manifest import FileRef, Manifest, Table
from tessera.repository import Repository

MODEL, DIM, BUCKETS = "large_table", 64, 2047
CHANGED_BUCKETS = 20
"""Those that version 2 has otherwise: 1 %."""
_SMALL_ROWS = 4096
_IDS = 64


class LargeTable(tf.Module):
    """Rows of one table for ids, and nothing else."""

    def __init__(self) -> None:
        super().__init__(name=MODEL)
        self.table = tf.Variable(tf.zeros((_SMALL_ROWS, DIM)), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="ids")])
    def serve(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return rows [n, 64] for ids [n]."""
        return {"rows": tf.gather(self.table, ids)}


def make(directory: Path, table_bytes: int) -> Path:
    """Return a repository with versions 1 and 2 of the model; made once for each size.

    Cost: writing and hashing `table_bytes`; memory of one bucket.
    """
    root = directory / f"{MODEL}-{table_bytes >> 20}"
    if (root / "done").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    saved_model = root / "saved_model"
    module = LargeTable()
    tf.saved_model.save(module, str(saved_model), signatures={"serving_default": module.serve})
    small = Repository(root / "small")
    partition.write_package(
        partition.plan_package(saved_model, max_shard_bytes=64 << 10), small, model=MODEL, version=1
    )
    rows = table_bytes // (DIM * 4)
    for version in (1, 2):
        _write(small.read_manifest(MODEL, 1), small.package_dir(MODEL, 1), Repository(root), version, rows)
    (root / "done").touch()
    return root


def _write(small: Manifest, package: Path, repository: Repository, version: int, rows: int) -> None:
    graph = saved_model_pb2.SavedModel.FromString((package / "saved_model.pb").read_bytes())
    lookups = [node for node in graph.meta_graphs[0].graph_def.node if node.op == "TesseraLookup"]
    if len(lookups) != 1 or len(small.tables) != 1:
        raise InternalError(f"{MODEL}: got {len(lookups)} lookups of {len(small.tables)} tables, expected one of one")
    lookups[0].attr["table_rows"].list.i[0] = rows
    data = graph.SerializeToString(deterministic=True)
    blobs = tuple(_put(repository, values(np.arange(b, rows, BUCKETS), version).tobytes()) for b in range(BUCKETS))
    (table,) = small.tables
    manifest = dataclasses.replace(
        small,
        version=version,
        tables=(
            Table(
                name=table.name, rows=rows, row_shape=(DIM,), dtype="float32", row_bytes=DIM * 4, buckets=BUCKETS,
                blobs=blobs,
            ),
        ),
        files=(FileRef("saved_model.pb", hashlib.sha256(data).hexdigest(), len(data)),),
    )  # fmt: skip
    target = repository.package_dir(MODEL, version)
    target.mkdir(parents=True)
    (target / "saved_model.pb").write_bytes(data)
    (target / "manifest.json").write_bytes(manifest.to_bytes())


def values(ids: np.ndarray, version: int) -> np.ndarray:
    """Return the rows of `ids` in a version: the row's number, and in version 2 half of one more in some buckets."""
    rows = np.empty((len(ids), DIM), np.float32)
    rows[:] = ids[:, None] % (1 << 23)
    rows += ((ids % BUCKETS < CHANGED_BUCKETS) & (version == 2))[:, None] * np.float32(0.5)
    rows[:, 1::2] = np.arange(DIM // 2, dtype=np.float32)
    return rows


def _put(repository: Repository, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    path = repository.blob_path(digest)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return digest


def request(table_bytes: int) -> Request:
    """Return a request for rows of many buckets that both versions have alike."""
    ids = np.random.default_rng(3).integers(0, table_bytes // (DIM * 4), 4 * _IDS)
    ids = ids[ids % BUCKETS >= CHANGED_BUCKETS][:_IDS]
    message = serving_pb2.PredictRequest()
    message.model_spec.name = MODEL
    message.inputs["ids"].dtype = 9
    message.inputs["ids"].tensor_shape.dim.add(size=len(ids))
    message.inputs["ids"].int64_val.extend(ids.tolist())
    return Request(message.SerializeToString(), {"rows": values(ids, 1)})
