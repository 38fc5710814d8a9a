"""The model that integration tests serve: made, partitioned and answered by plain TensorFlow once per session."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # read when TensorFlow is imported: answers must be bit-equal

import numpy as np
import tensorflow as tf

import partition
from protos import serving_pb2
from support.serving import FLOAT32, INT64, predict_request
from tessera.repository import Repository

MODEL = "ranker"
ROWS, DIM = 5000, 8


class _Ranker(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """Adds gathered rows of two tables and `version`, so that an answer shows which version it came from."""

    def __init__(self, version: int) -> None:
        super().__init__()
        rng = np.random.default_rng(7)
        self.users = tf.Variable(rng.standard_normal((ROWS, DIM)).astype(np.float32), name="users")
        self.items = tf.Variable(rng.standard_normal((ROWS, DIM)).astype(np.float32) + version, name="items")
        self.version = tf.constant(float(version))

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="user"),
            tf.TensorSpec([None, 3], tf.int64, name="items"),
            tf.TensorSpec([None], tf.float32, name="bias"),
        ]
    )
    def serve(self, user: Any, items: Any, bias: Any) -> dict[str, Any]:
        rows = tf.gather(self.users, user) + tf.reduce_sum(tf.gather(self.items, items), 1)
        return {"rows": rows + bias[:, None], "version": tf.fill(tf.shape(user), self.version)}


@dataclass(frozen=True)
class SmallModel:
    """A repository with versions 1 and 2 of `ranker`, and what plain TensorFlow answers to `request`."""

    repository: Path
    saved_models: dict[int, Path]
    expected: dict[int, dict[str, Any]]
    inputs: dict[str, Any]

    def request(self, version: int | None = None) -> serving_pb2.PredictRequest:
        """Return the request that `expected` answers."""
        dtypes = {"user": INT64, "items": INT64, "bias": FLOAT32}
        return predict_request(
            MODEL, {alias: (value, dtypes[alias]) for alias, value in self.inputs.items()}, version=version
        )


def make_small_model(directory: Path) -> SmallModel:
    """Write SavedModels and packages below `directory`; every table is split into some dozens of buckets."""
    rng = np.random.default_rng(3)
    inputs = {
        "user": rng.integers(0, ROWS, 16).tolist(),
        "items": rng.integers(0, ROWS, (16, 3)).tolist(),
        "bias": rng.standard_normal(16).astype(np.float32).tolist(),
    }
    repository = Repository(directory / "repository")
    saved_models, expected = {}, {}
    for version in (1, 2):
        module = _Ranker(version)
        path = directory / f"saved_model_{version}"
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
        plan = partition.plan_package(path, max_shard_bytes=64 << 10)
        partition.write_package(plan, repository, model=MODEL, version=version)
        answer = module.serve(
            tf.constant(inputs["user"], tf.int64), tf.constant(inputs["items"], tf.int64), tf.constant(inputs["bias"])
        )
        saved_models[version] = path
        expected[version] = {alias: value.numpy().tolist() for alias, value in answer.items()}
    return SmallModel(repository.root, saved_models, expected, inputs)
