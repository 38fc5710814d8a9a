# mypy: disable-error-code="misc"
# (TensorFlow has no types: its base classes are Any.)
"""Random graphs over rows: most ops act row by row, some mix rows, some belong to one request, some are in loops.

The same seed gives the same SavedModel, with the inputs x (float32, [None, 6]), ids (int64, [None, 2]) and one
(float32, []).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

WIDTH = 6


class _Random(tf.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.choose = random.Random(seed)
        values = np.random.default_rng(seed)
        shapes = [(WIDTH, WIDTH), (WIDTH, WIDTH), (9, WIDTH), (WIDTH, 2 * WIDTH)]
        self.weights = [tf.Variable(values.standard_normal(shape).astype(np.float32) / 3) for shape in shapes]

    def body(self, x: Any, ids: Any, one: Any) -> dict[str, Any]:
        pool = [x, tf.reduce_mean(tf.gather(self.weights[2], ids), 1)]
        for _ in range(self.choose.randint(3, 12)):
            pool.append(self._step(pool, one))
        outputs = {"last": pool[-1]}
        for position in range(self.choose.randint(0, 2)):
            outputs[f"out_{position}"] = self.choose.choice(pool)
        return outputs

    def _step(self, pool: list[Any], one: Any) -> Any:
        """Return another [n, 6]."""
        a, b = self.choose.choice(pool[-3:]), self.choose.choice(pool)
        first, second, _, wide = self.weights
        n = tf.shape(a)[0]
        steps = [
            lambda: tf.matmul(a, first),
            lambda: tf.nn.relu(tf.matmul(a, second) + first[0]),
            lambda: tf.matmul(tf.concat([a, b], 1), wide, transpose_b=True),
            lambda: tf.tanh(a) + b,
            lambda: tf.where(a > b, a, b * 0.5),
            lambda: tf.nn.softmax(a),
            lambda: a - tf.reduce_mean(a, 1, keepdims=True),
            lambda: tf.reshape(tf.matmul(tf.reshape(a, [-1, 2, 3]), tf.reshape(b, [n, 3, 2])), [n, 4])[:, :1] + a,
            lambda: tf.reshape(tf.transpose(tf.reshape(a, [-1, 2, 3]), [0, 2, 1]), tf.shape(a)),
            lambda: tf.stack([a, b], 1)[:, 1] * a,
            lambda: tf.add_n(tf.split(tf.matmul(a, wide), 2, axis=1)),
            lambda: tf.one_hot(tf.argmax(a, 1), WIDTH) + b,
            lambda: tf.gather(a, [5, 4, 3, 2, 1, 0], axis=1),
            lambda: tf.gather(a, tf.argsort(b, 1), batch_dims=1),
            lambda: a + tf.fill([n, 1], 0.5),
            lambda: tf.einsum("bi,ij->bj", a, first) * b,
            lambda: tf.reshape(tf.tensordot(tf.reshape(a, [n, 2, 3]), tf.reshape(first, [3, 12])[:, :3], 1), [n, 6]),
        ]
        others = [
            lambda: a - tf.reduce_mean(a, 0),
            lambda: tf.cumsum(a) / tf.cast(n + 1, tf.float32),
            lambda: a * one,
            lambda: tf.reverse(a, [0]),
            lambda: tf.strings.to_number(tf.strings.as_string(a, precision=2)),
            lambda: self._loop(a, one),
            lambda: tf.cond(one > 0.0, lambda: a * 2.0, lambda: tf.matmul(a, first)),
        ]
        return self.choose.choice(steps if self.choose.random() < 0.75 else others)()

    def _loop(self, a: Any, one: Any) -> Any:
        weight, scale = self.choose.sample(self.weights[:2], 2)
        mixes = self.choose.random() < 0.3

        def step(i: Any, state: Any, memory: Any) -> Any:
            new = tf.tanh(tf.matmul(state, weight) + memory) * scale[1]
            return i + 1, new - tf.reduce_max(new, 0) if mixes else new, memory

        limit = tf.cast(tf.abs(one) * 3.0, tf.int32) % 4
        return tf.while_loop(lambda i, *_: i < limit, step, (0, a, a * 0.1))[1]


def random_rows_model(seed: int, path: Path) -> None:
    """Save the model of `seed` to `path`; its signature is serving_default."""
    module = _Random(seed)
    serve = tf.function(
        module.body,
        input_signature=[
            tf.TensorSpec([None, WIDTH], tf.float32, "x"),
            tf.TensorSpec([None, 2], tf.int64, "ids"),
            tf.TensorSpec([], tf.float32, "one"),
        ],
    )
    tf.saved_model.save(module, str(path), signatures=serve)


def random_rows_inputs(seed: int) -> list[dict[str, Any]]:
    """Return inputs that every such model accepts."""
    values = np.random.default_rng(seed)
    return [
        {
            "x": values.standard_normal((rows, WIDTH)).astype(np.float32),
            "ids": values.integers(0, 9, (rows, 2)),
            "one": np.float32(one),
        }
        for rows, one in ((1, 0.9), (4, -0.5), (3, 0.0))
    ]
