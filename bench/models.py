"""The models that are measured, as plain TensorFlow makes them, with the requests that are sent to them."""

# mypy: disable-error-code="misc, untyped-decorator"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

TABLES, TABLE_ROWS, DIM, DENSE_FEATURES = 26, 100_000, 32, 13
_SEED = 7


@dataclass(frozen=True)
class Request:
    """A Predict request in wire format, and what plain TensorFlow answers: output alias → values."""

    wire: bytes
    expected: dict[str, np.ndarray]


class HalfPlusTwo(tf.Module):
    """y = x / 2 + 2: nearly nothing, so that what is measured is the server."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return y [n] for x [n]."""
        return {"y": x * 0.5 + 2.0}


class Recommender(tf.Module):
    """A DLRM: 26 tables of 100,000 × 32, 13 dense features, layers 64-32, pairwise dots, layers 256-64-1."""

    def __init__(self) -> None:
        super().__init__(name="recommender")
        random = tf.random.Generator.from_seed(_SEED)
        self.tables = [
            tf.Variable(random.uniform((TABLE_ROWS, DIM), -0.1, 0.1), name=f"table_{i:02d}") for i in range(TABLES)
        ]
        vectors = TABLES + 1
        self._pairs = np.ravel_multi_index(np.tril_indices(vectors, -1), (vectors, vectors)).astype(np.int32)
        sizes = {"bottom": [DENSE_FEATURES, 64, DIM], "top": [len(self._pairs) + DIM, 256, 64, 1]}
        self.layers = {
            name: [
                (
                    tf.Variable(random.normal((rows, columns), stddev=rows**-0.5), name=f"{name}_{i}_kernel"),
                    tf.Variable(random.uniform((columns,), -0.1, 0.1), name=f"{name}_{i}_bias"),
                )
                for i, (rows, columns) in enumerate(itertools.pairwise(widths))
            ]
            for name, widths in sizes.items()
        }

    def _mlp(self, name: str, value: tf.Tensor, *, last_activation: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        *inner, last = self.layers[name]
        for kernel, bias in inner:
            value = tf.nn.relu(tf.matmul(value, kernel) + bias)
        return last_activation(tf.matmul(value, last[0]) + last[1])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, DENSE_FEATURES], tf.float32, name="dense"),
            tf.TensorSpec([None, TABLES], tf.int64, name="ids"),
        ]
    )
    def serve(self, dense: tf.Tensor, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return score [batch, 1] for dense [batch, 13] and one id per table, ids [batch, 26]."""
        bottom = self._mlp("bottom", dense, last_activation=tf.nn.relu)
        columns = tf.unstack(ids, num=TABLES, axis=1)
        rows = [tf.gather(table, column) for table, column in zip(self.tables, columns, strict=True)]
        vectors = tf.stack([bottom, *rows], axis=1)
        dots = tf.matmul(vectors, vectors, transpose_b=True)
        pairs = tf.gather(tf.reshape(dots, [-1, (TABLES + 1) ** 2]), self._pairs, axis=1)
        return {"score": self._mlp("top", tf.concat([bottom, pairs], axis=1), last_activation=tf.sigmoid)}


def save(make: Callable[[], tf.Module], folder: Path) -> Path:
    """Write the model as a SavedModel in `folder`, unless it is there: its weights are the same every time."""
    if not folder.is_dir():
        module = make()
        partial = folder.with_name(folder.name + ".partial")
        tf.saved_model.save(module, str(partial), signatures={"serving_default": module.serve})
        partial.rename(folder)
    return folder


def source_key() -> str:
    """Return a name for what decides the bytes of the models: this file and TensorFlow's version."""
    return hashlib.sha256(Path(__file__).read_bytes() + tf.__version__.encode()).hexdigest()[:12]


def request(folder: Path, model_name: str, inputs: dict[str, np.ndarray]) -> Request:
    """Return the request for `inputs` and plain TensorFlow's answer from the SavedModel in `folder`."""
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model_name
    for alias, value in inputs.items():
        message.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    loaded = tf.saved_model.load(str(folder))
    outputs = loaded.signatures["serving_default"](**{alias: tf.constant(value) for alias, value in inputs.items()})
    return Request(message.SerializeToString(), {alias: value.numpy() for alias, value in outputs.items()})


def tiny_inputs() -> dict[str, np.ndarray]:
    """Return three numbers for `HalfPlusTwo`."""
    return {"x": np.array([1.0, 2.0, 5.0], np.float32)}


def recommender_inputs(batch: int) -> dict[str, np.ndarray]:
    """Return `batch` samples for `Recommender`, the same every time."""
    random = np.random.default_rng(_SEED)
    dense = random.normal(size=(batch, DENSE_FEATURES)).astype(np.float32)
    return {"dense": dense, "ids": random.integers(0, TABLE_ROWS, (batch, TABLES), dtype=np.int64)}


def check_response(wire: bytes, expected: dict[str, np.ndarray]) -> str:
    """Return what is wrong with a PredictResponse; empty if it holds the expected values within 1e-5."""
    response = predict_pb2.PredictResponse.FromString(wire)
    if set(response.outputs) != set(expected):
        return f"got outputs {sorted(response.outputs)}, expected {sorted(expected)}"
    for alias, values in expected.items():
        got = tf.make_ndarray(response.outputs[alias])
        if got.shape != values.shape or not np.allclose(got, values, atol=1e-5):
            return f"output {alias}: got {got!r}, expected {values!r}"
    return ""
