# mypy: disable-error-code="misc,untyped-decorator,name-defined"
# (TensorFlow has no types: its base classes and decorators are Any.)
"""Small SavedModels with loops, as `support.batch_models` has them without; and what both are built with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def weights(*shape: int, seed: int = 0) -> tf.Variable:
    return tf.Variable(np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / shape[0] ** 0.5)


def export(path: Path, inputs: Any, outputs: Any) -> None:
    """One signature, serving_default."""
    model = tf.keras.Model(inputs, outputs)
    archive = tf.keras.export.ExportArchive()
    archive.track(model)
    given = inputs if isinstance(inputs, list) else [inputs]
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in given]
    archive.add_endpoint("serving_default", lambda *args: model(list(args) if len(args) > 1 else args[0]), specs)
    archive.write_out(str(path), verbose=False)


def _recurrent(path: Path, layer: Any) -> None:
    x = tf.keras.Input((None, 6), name="x")
    export(path, x, {"y": layers.Dense(3)(layer(x))})


def lstm(path: Path) -> None:
    """Keras LSTM."""
    tf.keras.utils.set_random_seed(4)
    _recurrent(path, layers.LSTM(24))


def gru(path: Path) -> None:
    """Keras GRU that returns every step."""
    tf.keras.utils.set_random_seed(5)
    _recurrent(path, layers.GRU(24, return_sequences=True))


def lstm_masked(path: Path) -> None:
    """Embedding with mask, then LSTM: the body selects between old and new state."""
    tf.keras.utils.set_random_seed(6)
    ids = tf.keras.Input((None,), dtype="int32", name="ids")
    y = layers.LSTM(24)(layers.Embedding(40, 8, mask_zero=True)(ids))
    export(path, ids, {"y": layers.Dense(3)(y)})


class _Cell(tf.keras.layers.Layer):
    state_size = 20

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 20), name="kernel")
        self.recurrent = self.add_weight(shape=(20, 20), name="recurrent")

    def call(self, inputs: Any, states: Any) -> Any:
        new = tf.tanh(tf.matmul(inputs, self.kernel) + tf.matmul(states[0], self.recurrent))
        halves = tf.reshape(new, [tf.shape(inputs)[0], 2, -1])  # a shape is needed inside of the region
        new = tf.reshape(halves / (1.0 + tf.norm(halves, axis=-1, keepdims=True)), tf.shape(new))
        return new, [new]


def rnn_custom(path: Path) -> None:
    """Keras RNN with a cell of its own."""
    tf.keras.utils.set_random_seed(7)
    _recurrent(path, layers.RNN(_Cell()))


class _Decoder(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.step, self.out = weights(50, 8), weights(24, 16, seed=1), weights(16, 50, seed=2)

    @tf.function(input_signature=[tf.TensorSpec([None, 16], tf.float32, "h"), tf.TensorSpec([], tf.int32, "steps")])
    def serve(self, h: Any, steps: Any) -> dict[str, Any]:
        steps = tf.minimum(steps, 6)
        tokens = tf.TensorArray(tf.int32, size=steps, element_shape=[None])
        token = tf.zeros([tf.shape(h)[0]], tf.int32)

        def body(i: Any, token: Any, h: Any, tokens: Any) -> Any:
            h = tf.tanh(tf.matmul(tf.concat([tf.gather(self.words, token), h], 1), self.step))
            token = tf.argmax(tf.matmul(h, self.out), -1, output_type=tf.int32)
            return i + 1, token, h, tokens.write(i, token)

        _, _, h, tokens = tf.while_loop(
            lambda i, *_: i < steps,
            body,
            (0, token, h, tokens),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None, 16]), None),
        )
        return {"tokens": tf.transpose(tokens.stack()), "h": h}


def decoder(path: Path) -> None:
    """A greedy decoder written as tf.while_loop: an embedding in the loop, the next token from the last."""
    module = _Decoder()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _Nested(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = weights(12, 12), weights(12, 12, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 12], tf.float32, "x")])
    def serve(self, x: Any) -> dict[str, Any]:
        for _ in tf.range(2):
            for _ in tf.range(3):
                x = tf.tanh(tf.matmul(x, self.inner))
            x = tf.tanh(tf.matmul(x, self.outer))
        return {"y": x}


def nested_loops(path: Path) -> None:
    """A matrix product in a loop in a loop, and one in the outer loop."""
    module = _Nested()
    tf.saved_model.save(module, str(path), signatures=module.serve)


RECURRENT: dict[str, Callable[[Path], None]] = {
    builder.__name__: builder for builder in (lstm, gru, lstm_masked, rnn_custom, decoder, nested_loops)
}
