# mypy: disable-error-code="misc"
# (TensorFlow has no types: its base classes are Any.)
"""Random small models: tables of many dtypes and shapes, gathered plainly, in chains, branches and loops.

The same seed gives the same SavedModel. Every id is in range for every input.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64", "uint8")
SIGNATURES = ("first", "second")


class _Random(tf.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.choose = random.Random(seed)
        values = np.random.default_rng(seed)
        self.tables = []
        for position in range(self.choose.randint(1, 4)):
            rows = self.choose.choice((1, 2, 3, 17, 64))
            shape = [self.choose.randint(1, 4) for _ in range(self.choose.randint(0, 2))]
            content = values.integers(-100, 100, [rows, *shape]) / self.choose.choice((1, 3))
            dtype = self.choose.choice(DTYPES)
            self.tables.append(tf.Variable(tf.cast(np.abs(content), dtype), name=f"table_{position}"))

    def body(self, ids: Any, flag: Any) -> dict[str, Any]:
        outputs = {}
        base = ids
        for position in range(self.choose.randint(1, 6)):
            rows = self._step(base, flag)
            outputs[f"out_{position}"] = rows
            if self.choose.random() < 0.4:  # what follows depends on these rows
                flat = tf.reshape(tf.cast(rows, tf.float32), [tf.size(ids), -1])
                base = tf.cast(tf.reduce_sum(flat, 1) * 7.0, tf.int64)
        return outputs

    def _step(self, base: Any, flag: Any) -> Any:
        kind = self.choose.choice(("plain", "plain", "branch", "loop", "branch in loop"))
        table = self.choose.choice(self.tables)
        if kind == "plain":
            return self._gather(table, base)
        shift = self.choose.randint(1, 9)
        if kind == "branch":
            return self._branch(table, base, flag, shift)
        rows = self._gather(table, base)

        def step(count: Any, total: Any) -> Any:
            ids = base + tf.cast(count, tf.int64)
            more = self._gather(table, ids) if kind == "loop" else self._branch(table, ids, count, shift)
            return count + 1, total + more

        return tf.while_loop(lambda count, _: count < flag, step, (tf.constant(0), rows))[1]

    def _branch(self, table: Any, base: Any, flag: Any, shift: int) -> Any:
        return tf.cond(
            flag % 2 == 0,
            lambda: self._gather(table, base + shift),
            lambda: self._gather(table, base) + self._gather(table, base + 2 * shift),
        )

    def _gather(self, table: Any, base: Any) -> Any:
        ids = tf.math.floormod(base, table.shape[0])
        return tf.gather(table, tf.cast(ids, tf.int32) if table.shape[0] % 2 else ids)


def random_model(seed: int, path: Path) -> None:
    """Save the model of `seed` to `path`: `SIGNATURES` of the inputs ids (int64, [None]) and flag (int32, [])."""
    module = _Random(seed)
    signature = [tf.TensorSpec([None], tf.int64, "ids"), tf.TensorSpec([], tf.int32, "flag")]
    functions = {name: tf.function(module.body, input_signature=signature) for name in SIGNATURES}
    tf.saved_model.save(module, str(path), signatures=functions)


def random_inputs(seed: int) -> list[dict[str, Any]]:
    """Return inputs that every random model accepts."""
    values = np.random.default_rng(seed)
    return [
        {"ids": values.integers(-(10**6), 10**6, size), "flag": np.array(flag, np.int32)}
        for size, flag in ((1, 0), (3, 1), (5, 2), (2, 3))
    ]
