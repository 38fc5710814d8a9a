"""Small SavedModels for the tests of the native graph. Imports TensorFlow; oneDNN is off, as in Tessera."""

from __future__ import annotations

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

Array = np.ndarray[Any, Any]


def f32(values: Any) -> Array:
    """Return float32 values."""
    return np.array(values, np.float32)


def i32(values: Any) -> Array:
    """Return int32 values."""
    return np.array(values, np.int32)


def i64(values: Any) -> Array:
    """Return int64 values."""
    return np.array(values, np.int64)


def save_v1(
    path: Path, signatures: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], *, init: Any = None
) -> Path:
    """Save the default graph, built by the caller inside `tf.Graph().as_default()`, as TF1 does."""
    builder = tf.compat.v1.saved_model.Builder(str(path))
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        definitions = {
            name: tf.compat.v1.saved_model.predict_signature_def(dict(inputs), dict(outputs))
            for name, (inputs, outputs) in signatures.items()
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=definitions, main_op=init)
    builder.save()
    return path


def half_plus(path: Path, offset: float) -> Path:
    """y = x / 2 + offset; float32 [None]."""

    module = tf.Module()
    module.offset = tf.Variable(offset)
    module.serve = tf.function(
        lambda x: {"y": x * 0.5 + module.offset}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path


Infos = Mapping[str, tuple[str, int]]


def text_model(path: Path, nodes: str, inputs: Infos, outputs: Infos) -> Path:
    """Write a SavedModel from GraphDef text; `inputs` and `outputs` map aliases to (tensor, dtype number)."""
    model = saved_model_pb2.SavedModel()
    model.saved_model_schema_version = 1
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    text_format.Parse(nodes, meta.graph_def)
    meta.graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    signature = meta.signature_def["serving_default"]
    for target, items in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for alias, (tensor, dtype) in items.items():
            target[alias].name = tensor
            target[alias].dtype = dtype
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    return path


def placeholder(name: str, dtype: str) -> str:
    """Return the text of a placeholder of unknown shape."""
    return f'node {{ name: "{name}" op: "Placeholder" attr {{ key: "dtype" value {{ type: {dtype} }} }} }}\n'


def lookup(
    name: str, ids: Sequence[tuple[str, str]], tables: Sequence[tuple[int, str, int, int]], control: str = ""
) -> str:
    """Return the text of a TesseraLookup; `ids`: (tensor, dtype), `tables`: (position, name, rows, dim) of float32."""
    inputs = "".join(f'input: "{tensor}" ' for tensor, _ in ids)
    types = " ".join(f"type: {dtype}" for _, dtype in ids)
    dtypes = " ".join("type: DT_FLOAT" for _ in tables)
    shapes = " ".join(f"shape {{ dim {{ size: {dim} }} }}" for *_, dim in tables)
    return (
        f'node {{ name: "{name}" op: "TesseraLookup" {inputs} {control}'
        f'attr {{ key: "Tids" value {{ list {{ {types} }} }} }} '
        f'attr {{ key: "dtypes" value {{ list {{ {dtypes} }} }} }} '
        f'attr {{ key: "tables" value {{ list {{ {" ".join(f"i: {t[0]}" for t in tables)} }} }} }} '
        f'attr {{ key: "table_names" value {{ list {{ {" ".join(f"""s: "{t[1]}" """ for t in tables)} }} }} }} '
        f'attr {{ key: "table_rows" value {{ list {{ {" ".join(f"i: {t[2]}" for t in tables)} }} }} }} '
        f'attr {{ key: "row_shapes" value {{ list {{ {shapes} }} }} }} }}\n'
    )


def answers(path: Path, inputs: Mapping[str, Array], signature: str = "serving_default") -> dict[str, Any]:
    """Run a signature with plain TensorFlow: what Tessera is compared with."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        definition = meta.signature_def[signature]
        feeds = {definition.inputs[alias].name: value for alias, value in inputs.items()}
        fetches = {alias: info.name for alias, info in definition.outputs.items()}
        result: dict[str, Any] = session.run(fetches, feeds)
        return result
