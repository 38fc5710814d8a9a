# mypy: disable-error-code="misc,untyped-decorator"
# (TensorFlow has no types: its base classes and decorators are Any.)
"""Small SavedModels in which regions to batch are to be found, or not.

Each builder writes a SavedModel to `path` and is deterministic. Importing this module imports TensorFlow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from support.batch_recurrent import RECURRENT, export, weights

v1 = tf.compat.v1
layers = tf.keras.layers


def mlp(path: Path) -> None:
    """Keras functional: two inputs, joined, two dense layers."""
    tf.keras.utils.set_random_seed(1)
    a, b = tf.keras.Input((16,), name="a"), tf.keras.Input((8,), name="b")
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()([a, b]))
    export(path, [a, b], {"p": layers.Dense(4, activation="softmax")(hidden)})


def attention(path: Path) -> None:
    """Dense over rank 3 (Tensordot: shapes are computed), LayerNormalization, attention, variable length."""
    tf.keras.utils.set_random_seed(2)
    x = tf.keras.Input((None, 12), name="x")
    y = layers.LayerNormalization()(layers.Dense(16, activation="gelu")(x))
    y = layers.MultiHeadAttention(2, 8)(y, y) + y
    export(path, x, {"y": layers.Dense(3)(layers.GlobalAveragePooling1D()(y))})


def cnn_jpeg(path: Path) -> None:
    """JPEG decoding in the graph, then a small convolutional network."""
    tf.keras.utils.set_random_seed(3)
    image = tf.keras.Input((16, 16, 3))
    y = layers.MaxPooling2D()(layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(image)))
    net = tf.keras.Model(image, layers.Dense(5, activation="softmax")(layers.Flatten()(y)))

    def decode(data: Any) -> Any:
        pixels = tf.cast(tf.io.decode_jpeg(data, channels=3), tf.float32) / 255.0
        return tf.image.resize(pixels, [16, 16])

    def serve(jpeg: Any) -> dict[str, Any]:
        images = tf.map_fn(decode, jpeg, fn_output_signature=tf.TensorSpec([16, 16, 3], tf.float32))
        return {"p": net(images, training=False)}

    archive = tf.keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint("serving_default", serve, [tf.TensorSpec([None], tf.string, "jpeg")])
    archive.write_out(str(path), verbose=False)


class _Recommender(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = [weights(500, 8, seed=i) for i in range(3)]
        self.bottom, self.top = weights(5, 8, seed=7), weights(14, 4, seed=8)
        self.pairs = np.array([1, 2, 3, 6, 7, 11], np.int32)

    @tf.function(
        input_signature=[tf.TensorSpec([None, 5], tf.float32, "dense"), tf.TensorSpec([None, 3], tf.int64, "ids")]
    )
    def serve(self, dense: Any, ids: Any) -> dict[str, Any]:
        bottom = tf.nn.relu(tf.matmul(dense, self.bottom))
        rows = [tf.gather(t, c) for t, c in zip(self.tables, tf.unstack(ids, num=3, axis=1), strict=True)]
        vectors = tf.stack([bottom, *rows], axis=1)
        dots = tf.reshape(tf.matmul(vectors, vectors, transpose_b=True), [-1, 16])
        pairs = tf.gather(dots, self.pairs, axis=1)
        return {"score": tf.sigmoid(tf.matmul(tf.concat([bottom, pairs], 1), self.top))}


def recommender(path: Path) -> None:
    """A small DLRM: tables, dense layers, dots of all pairs."""
    module = _Recommender()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _Mixing(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = weights(6, 6), weights(6, 6, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, "x")])
    def serve(self, x: Any) -> dict[str, Any]:
        x = tf.nn.softmax(tf.matmul(x, self.first), axis=0)
        x = tf.matmul(x - tf.reduce_mean(x, 0), self.second)
        return {"y": x / tf.cast(tf.shape(x)[0], tf.float32)}


def mixing(path: Path) -> None:
    """Softmax along dimension 0, the mean of the batch, and the number of rows."""
    module = _Mixing()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _One(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = weights(12, 4)

    @tf.function(input_signature=[tf.TensorSpec([1, 3, 4], tf.float32, "x")])
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(tf.reshape(x, [1, -1]), self.weight)}

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 4], tf.float32, "x")])
    def reshaped(self, x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(tf.reshape(x, [1, -1])[:, :12], self.weight)}


def one_row(path: Path) -> None:
    """A batch size of 1 in the signature, and one in a Reshape."""
    module = _One()
    tf.saved_model.save(module, str(path), signatures={"fixed": module.serve, "reshaped": module.reshaped})


class _Text(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        words = tf.constant([f"word{i}" for i in range(20)])
        self.ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(words, tf.range(20)), 0)
        self.table, self.weight = weights(20, 8), weights(8, 4, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.string, "words")])
    def serve(self, words: Any) -> dict[str, Any]:
        rows = tf.gather(self.table, self.ids.lookup(tf.strings.lower(words)))
        label = tf.argmax(tf.matmul(tf.reduce_mean(rows, 1), self.weight), 1)
        return {"label": tf.strings.as_string(label)}


def text(path: Path) -> None:
    """Strings and a hash table before, strings after."""
    module = _Text()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _Branch(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = weights(6, 6), weights(6, 6, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, "x"), tf.TensorSpec([], tf.bool, "twice")])
    def serve(self, x: Any, twice: Any) -> dict[str, Any]:
        x = tf.nn.relu(tf.matmul(x, self.first))
        x = tf.cond(twice, lambda: x * 2.0, lambda: x - 1.0)
        return {"y": tf.matmul(x, self.second)}


def branch(path: Path) -> None:
    """An If between two dense layers."""
    module = _Branch()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _Broadcast(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = weights(6, 8), weights(5, 8, seed=1)

    @tf.function(
        input_signature=[tf.TensorSpec([None, 6], tf.float32, "user"), tf.TensorSpec([None, 5], tf.float32, "item")]
    )
    def serve(self, user: Any, item: Any) -> dict[str, Any]:
        return {"score": tf.reduce_sum(tf.matmul(user, self.users) * tf.matmul(item, self.items), 1)}


def broadcast(path: Path) -> None:
    """Two inputs whose numbers of rows need not be the same: one user for many items."""
    module = _Broadcast()
    tf.saved_model.save(module, str(path), signatures=module.serve)


def tf1(path: Path) -> None:
    """TF1: reference variables, the output is the MatMul's own neighbour, a tf.layers-like stack."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(4)
        x = v1.placeholder(tf.float32, [None, 6], "x")
        with v1.variable_scope("net", use_resource=False):
            a = v1.get_variable("a", [6, 12], initializer=v1.random_normal_initializer())
            b = v1.get_variable("b", [12, 3], initializer=v1.random_normal_initializer())
        y = tf.matmul(tf.nn.relu(tf.matmul(x, a)), b, name="y")
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.build_signature_def(
            {"x": v1.saved_model.build_tensor_info(x)},
            {"y": v1.saved_model.build_tensor_info(y)},
            "tensorflow/serving/predict",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


BUILDERS: dict[str, Callable[[Path], None]] = RECURRENT | {
    builder.__name__: builder
    for builder in (mlp, attention, cnn_jpeg, recommender, mixing, one_row, text, branch, broadcast, tf1)
}

_DIRECTORY = tempfile.TemporaryDirectory(prefix="tessera-batch-models-")


@cache
def batch_model_dir(name: str) -> Path:
    """Return the directory of a model, built once in this process. Read-only for its users."""
    path = Path(_DIRECTORY.name) / name
    BUILDERS[name](path)
    return path
