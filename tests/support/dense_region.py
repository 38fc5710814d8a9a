"""A model with one batched region, a dense layer, and its rows. Imports TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import batching
from cpp_ext import _graph
from support.batch_calls import Array

WIDTH = 4
WEIGHTS = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)


def dense(x: Any) -> Any:
    """Return y = relu(x · WEIGHTS) + 1, the layer in the region "dense"; x is float32 [rows, WIDTH]."""
    (x,), token = batching.batch([x], name="dense")
    (y,) = batching.unbatch([tf.nn.relu(x @ WEIGHTS)], token)
    return {"y": y + 1.0}


def random_rows(count: int, seed: int = 0) -> Array:
    """Return float32 [count, WIDTH]."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def unbatched(path: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    """Return what the model answers with its regions left as they are."""
    return dict(_graph.Graph.load(str(path), batching=False).run("serving_default", inputs))
