# mypy: disable-error-code="misc,untyped-decorator"
# (TensorFlow has no types: its base classes and decorators are Any.)
"""Small SavedModels of every kind that the partitioner must understand.

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

v1 = tf.compat.v1


def table_values(rows: int, dim: int, seed: int = 0, dtype: str = "float32") -> np.ndarray[Any, Any]:
    """Return distinct values, shape [rows, dim]."""
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(dtype)


def keras_functional(path: Path) -> None:
    """Two Embedding layers of Keras 3, ids of int64 and int32, a dense head."""
    tf.keras.utils.set_random_seed(1)
    user = tf.keras.Input((), dtype="int64", name="user")
    items = tf.keras.Input((5,), dtype="int32", name="items")
    a = tf.keras.layers.Embedding(1000, 16, name="user_table")(user)
    b = tf.keras.layers.Embedding(3001, 8, name="item_table")(items)
    pooled = tf.keras.layers.GlobalAveragePooling1D()(b)
    score = tf.keras.layers.Dense(4, activation="relu")(tf.keras.layers.Concatenate()([a, pooled]))
    tf.keras.Model([user, items], {"score": tf.keras.layers.Dense(1)(score)}).export(str(path), verbose=False)


def keras_mixed_precision(path: Path) -> None:
    """An Embedding that Keras casts to bfloat16 as a whole before it gathers."""
    tf.keras.utils.set_random_seed(2)
    ids = tf.keras.Input((3,), dtype="int32", name="ids")
    rows = tf.keras.layers.Embedding(500, 8, name="table", dtype="mixed_bfloat16")(ids)
    tf.keras.Model([ids], {"rows": rows}).export(str(path), verbose=False)


def keras_string_lookup(path: Path) -> None:
    """StringLookup with a vocabulary, then an Embedding."""
    tf.keras.utils.set_random_seed(3)
    words = tf.keras.Input((4,), dtype="string", name="words")
    ids = tf.keras.layers.StringLookup(vocabulary=[f"word{i}" for i in range(200)], num_oov_indices=3)(words)
    rows = tf.keras.layers.Embedding(203, 8)(ids)
    tf.keras.Model([words], {"rows": rows}).export(str(path), verbose=False)


class _Ranks(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(table_values(777, 6), name="table")
        self.cube = tf.Variable(table_values(300, 12).reshape(300, 3, 4), name="cube")
        self.vector = tf.Variable(table_values(400, 1)[:, 0], name="vector")

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.int32, "scalar"),
            tf.TensorSpec([None], tf.int64, "flat"),
            tf.TensorSpec([None, 2], tf.int32, "square"),
            tf.TensorSpec([None, 2, 3], tf.int64, "deep"),
        ]
    )
    def serve(self, scalar: Any, flat: Any, square: Any, deep: Any) -> dict[str, Any]:
        return {
            "scalar": tf.gather(self.table, scalar),
            "flat": tf.gather(self.cube, flat),
            "square": tf.nn.embedding_lookup(self.table, square),
            "deep": tf.gather(self.vector, deep),
            "negative_axis": tf.gather(self.cube, flat, axis=-3),
        }


def module_ranks(path: Path) -> None:
    """ResourceGather with ids of rank 0 to 3, rows of rank 0 to 2, one table used twice."""
    module = _Ranks()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _TwoSignatures(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(table_values(600, 4), name="table")
        self.other = tf.Variable(table_values(500, 4, seed=1), name="other")
        self.scale = tf.Variable(2.5, name="scale")
        self.label = tf.Variable(["a", "bc", ""], name="label")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids")])
    def one(self, ids: Any) -> dict[str, Any]:
        return {"y": tf.gather(self.table, ids) * self.scale}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids"), tf.TensorSpec([None], tf.int64, "more")])
    def two(self, ids: Any, more: Any) -> dict[str, Any]:
        first = tf.gather(self.table, ids)
        hops = tf.gather(self.other, tf.cast(tf.abs(first[:, 0]) * 50.0, tf.int64))  # depends on a row: a second level
        return {"y": tf.concat([first, hops], 1), "z": tf.gather(self.other, more), "label": tf.identity(self.label)}


def two_signatures(path: Path) -> None:
    """Two signatures over one table, a lookup that depends on another, a string variable, a scalar."""
    module = _TwoSignatures()
    tf.saved_model.save(module, str(path), signatures={"one": module.one, "two": module.two})


class _Vocabulary(tf.Module):
    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.words = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=7,
        )
        self.table = tf.Variable(table_values(57, 8), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serve(self, text: Any) -> dict[str, Any]:
        words = tf.strings.split(text).to_tensor("")
        hashed = tf.strings.to_hash_bucket_fast(words, 57)
        return {"known": tf.gather(self.table, self.words.lookup(words)), "hashed": tf.gather(self.table, hashed)}


def vocabulary_asset(path: Path) -> None:
    """A hash table filled from an asset file, string splitting and hashing."""
    vocabulary = path.parent / f"{path.name}-vocabulary.txt"
    vocabulary.write_text("".join(f"word{i}\n" for i in range(50)))
    module = _Vocabulary(vocabulary)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    vocabulary.unlink()  # the SavedModel has its own copy


class _ControlFlow(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(table_values(120, 4), name="table")
        self.branch = tf.Variable(table_values(130, 4, seed=1), name="branch")
        self.weight = tf.Variable(table_values(4, 4, seed=2), name="weight")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids"), tf.TensorSpec([], tf.int32, "steps")])
    def serve(self, ids: Any, steps: Any) -> dict[str, Any]:
        total = tf.zeros([tf.size(ids), 4])
        step = tf.constant(0)
        while step < steps:  # autograph: tf.while_loop
            rows = tf.gather(self.table, (ids + tf.cast(step, tf.int64)) % 120)
            total = tf.matmul(total, self.weight) + rows + tf.gather(self.branch, ids)
            step += 1
        if steps > 2:  # noqa: SIM108 (autograph: tf.cond)
            picked = tf.gather(self.branch, ids)
        else:
            picked = tf.gather(self.table, ids) * 2.0
        return {"total": total, "picked": picked, "after": tf.gather(self.table, ids[:1])}


def control_flow(path: Path) -> None:
    """Gathers inside a While, inside both branches of an If, and after them."""
    module = _ControlFlow()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _Unsplittable(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = tf.Variable(table_values(64, 64), name="dense")
        self.tied = tf.Variable(table_values(512, 8), name="tied")
        self.columns = tf.Variable(table_values(64, 700), name="columns")
        self.table = tf.Variable(table_values(2000, 64), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids")])
    def serve(self, ids: Any) -> dict[str, Any]:
        x = tf.matmul(tf.gather(self.table, ids), self.dense)
        logits = tf.matmul(tf.gather(self.tied, ids % 512), self.tied, transpose_b=True)  # used whole as well
        return {"x": x, "logits": logits, "columns": tf.gather(self.columns, ids % 700, axis=1)}


def unsplittable(path: Path) -> None:
    """One table beside variables that are multiplied, tied, or gathered on another axis."""
    module = _Unsplittable()
    tf.saved_model.save(module, str(path), signatures=module.serve)


def _save_v1(path: Path, build: Callable[[], tuple[dict[str, Any], dict[str, Any]]], main_op: bool = False) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(4)
        inputs, outputs = build()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.build_signature_def(
            {key: v1.saved_model.build_tensor_info(value) for key, value in inputs.items()},
            {key: v1.saved_model.build_tensor_info(value) for key, value in outputs.items()},
            "tensorflow/serving/predict",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer() if main_op else None,
        )
        builder.save()


def _v1_graph(*, use_resource: bool, partitions: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    ids = v1.placeholder(tf.int64, [None, 3], "ids")
    with v1.variable_scope("model", use_resource=use_resource):
        table = v1.get_variable(
            "table",
            [501, 8],
            initializer=v1.random_normal_initializer(),
            partitioner=v1.fixed_size_partitioner(partitions) if partitions else None,
        )
        dense = v1.get_variable("dense", [8, 300], initializer=v1.random_normal_initializer())
        first = v1.get_variable("first", [100, 2], initializer=v1.random_normal_initializer())
    rows = tf.reduce_sum(v1.nn.embedding_lookup(table, ids, partition_strategy="div"), 1)
    words = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2, 3], tf.int64), tf.constant([10, 20, 30], tf.int64)), -1
    )
    old = v1.gather(first, tf.abs(words.lookup(ids[:, 0])))
    return {"ids": ids}, {"y": tf.matmul(rows, dense), "old": old}


def v1_ref_variables(path: Path) -> None:
    """TF1: VariableV2 → Identity → GatherV2, a hash table filled by the init op."""
    _save_v1(path, lambda: _v1_graph(use_resource=False, partitions=None), main_op=True)


def v1_resource_variables(path: Path) -> None:
    """TF1 with resource variables."""
    _save_v1(path, lambda: _v1_graph(use_resource=True, partitions=None), main_op=True)


def v1_partitioned(path: Path) -> None:
    """TF1: a table saved as four slices of one tensor."""
    _save_v1(path, lambda: _v1_graph(use_resource=False, partitions=4), main_op=True)


def v1_asset(path: Path) -> None:
    """TF1: a hash table filled from an asset file, and a variable that only its shape is taken of."""
    vocabulary = path.parent / f"{path.name}-words.txt"
    vocabulary.write_text("".join(f"word{i}\n" for i in range(40)))

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        text = v1.placeholder(tf.string, [None], "text")
        table = v1.get_variable("table", [41, 8], initializer=v1.random_normal_initializer(), use_resource=True)
        shaped = v1.get_variable("shaped", [33, 16], initializer=v1.zeros_initializer(), use_resource=True)
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        ids = tf.lookup.StaticHashTable(initializer, 40).lookup(text)
        with tf.control_dependencies([shaped.handle]):
            rows = tf.gather(table, ids)
        return {"text": text}, {"rows": rows, "shape": tf.raw_ops.VariableShape(input=shaped.handle)}

    _save_v1(path, build, main_op=True)
    vocabulary.unlink()  # the SavedModel has its own copy


class _Assigning(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(table_values(100, 4), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids")])
    def serve(self, ids: Any) -> dict[str, Any]:
        self.table.assign_add(tf.ones([100, 4]))
        return {"y": tf.gather(self.table, ids)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids")])
    def read(self, ids: Any) -> dict[str, Any]:
        return {"y": tf.gather(self.table, ids)}


def assigning(path: Path) -> None:
    """One signature that changes a variable, and one that does not."""
    module = _Assigning()
    tf.saved_model.save(module, str(path), signatures={"train": module.serve, "read": module.read})


class _Joined(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable(table_values(100, 4), name="a")
        self.b = tf.Variable(table_values(100, 4, seed=1), name="b")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids"), tf.TensorSpec([], tf.bool, "first")])
    def serve(self, ids: Any, first: Any) -> dict[str, Any]:
        return {"y": tf.gather(tf.cond(first, lambda: tf.identity(self.a), lambda: tf.identity(self.b)), ids)}


def joined(path: Path) -> None:
    """A gather from one of two variables, as an If decides."""
    module = _Joined()
    tf.saved_model.save(module, str(path), signatures=module.serve)


class _NoVariables(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": 0.5 * x + 2.0}


def no_variables(path: Path) -> None:
    """Half plus two."""
    module = _NoVariables()
    tf.saved_model.save(module, str(path), signatures=module.serve)


SPLITTABLE: dict[str, Callable[[Path], None]] = {
    builder.__name__: builder
    for builder in (
        keras_functional,
        keras_mixed_precision,
        keras_string_lookup,
        module_ranks,
        two_signatures,
        vocabulary_asset,
        control_flow,
        unsplittable,
        v1_ref_variables,
        v1_resource_variables,
        v1_partitioned,
        v1_asset,
    )
}
OTHERS: dict[str, Callable[[Path], None]] = {"assigning": assigning, "joined": joined, "no_variables": no_variables}

_DIRECTORY = tempfile.TemporaryDirectory(prefix="tessera-models-")


@cache
def saved_model(name: str) -> Path:
    """Return the directory of a model, built once in this process. Read-only for its users."""
    path = Path(_DIRECTORY.name) / name
    (SPLITTABLE | OTHERS)[name](path)
    return path
