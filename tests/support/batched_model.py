"""A SavedModel with one batched region, `dense`: y = relu(x · w) + 1, float32 [n, 4] → [n, 4]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import batching

REGION = "dense"
WIDTH = 4


class _Model(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(np.eye(WIDTH, dtype=np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, WIDTH), tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> dict[str, Any]:
        x, token = batching.batch(x, name=REGION)
        return {"y": batching.unbatch(tf.nn.relu(x @ self.weights), token) + 1.0}


def save_batched_model(path: Path) -> Path:
    """Write the model to `path` and return it."""
    model = _Model()
    tf.saved_model.save(model, str(path), signatures=model.serve)
    return path
