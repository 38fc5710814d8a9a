"""Runs packages in plain TensorFlow: every op of Tessera is replaced by ops that mean the same.

A lookup becomes one IdentityN over all of its ids, so that ids of different loops or branches in one lookup fail here
as they would in the real op, and a Gather from the table put together again from its buckets.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import dtypes

from partition.graph import Edge, Graph, attr_type, constant_attrs
from partition.samples import Inputs
from tessera.manifest import Manifest, Table
from tessera.repository import Repository


def read_table(repository: Repository, table: Table) -> np.ndarray[Any, Any]:
    """Return the whole table, shape [rows, ...]."""
    dtype = dtypes.as_dtype(table.dtype).as_numpy_dtype
    values = np.zeros((table.rows, *table.row_shape), dtype)
    for bucket, digest in enumerate(table.blobs):
        data = repository.blob_path(digest).read_bytes()
        assert len(data) == table.bucket_bytes(bucket)
        values[bucket :: table.buckets] = np.frombuffer(data, dtype).reshape(-1, *table.row_shape)
    return values


def package_graph(repository: Repository, manifest: Manifest) -> Graph:
    """Return the root graph of a package."""
    return Graph(_saved_model(repository, manifest).meta_graphs[0].graph_def)


def to_plain_saved_model(repository: Repository, manifest: Manifest, directory: Path) -> None:
    """Write a SavedModel that plain TensorFlow can load and that answers as the package does."""
    saved_model = _saved_model(repository, manifest)
    graph = Graph(saved_model.meta_graphs[0].graph_def)
    for name in list(graph.nodes):
        node = graph.nodes[name]
        if node.op == "TesseraBlob":
            dtype = node.attr["dtype"].type
            shape = [dim.size for dim in node.attr["shape"].shape.dim]
            data = repository.blob_path(node.attr["digest"].s.decode()).read_bytes()
            value = np.frombuffer(data, dtypes.as_dtype(dtype).as_numpy_dtype).reshape(shape)
            graph.replace(name, "Const", graph.inputs(name), **constant_attrs(value, dtype))
        elif node.op == "TesseraLookup":
            _replace_lookup(repository, manifest, graph, name)
    saved_model.meta_graphs[0].graph_def.CopyFrom(graph.to_graph_def())
    package = repository.package_dir(manifest.model, manifest.version)
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    if (package / "assets").is_dir():
        shutil.copytree(package / "assets", directory / "assets")


def _saved_model(repository: Repository, manifest: Manifest) -> saved_model_pb2.SavedModel:
    path = repository.package_dir(manifest.model, manifest.version) / "saved_model.pb"
    return saved_model_pb2.SavedModel.FromString(path.read_bytes())


def _replace_lookup(repository: Repository, manifest: Manifest, graph: Graph, name: str) -> None:
    node = graph.nodes[name]
    attrs = {
        key: node.attr[key].list for key in ("Tids", "dtypes", "tables", "table_names", "table_rows", "row_shapes")
    }
    ids = graph.replace(name, "IdentityN", graph.inputs(name), T=attr_value_pb2.AttrValue(list=attrs["Tids"]))
    outputs = {}
    for i, position in enumerate(attrs["tables"].i):
        table = manifest.tables[position]
        assert table.name.encode() == attrs["table_names"].s[i]
        assert table.rows == attrs["table_rows"].i[i]
        assert table.row_shape == tuple(dim.size for dim in attrs["row_shapes"].shape[i].dim)
        dtype = attrs["dtypes"].type[i]
        values = constant_attrs(read_table(repository, table), dtype)
        constant = graph.add("Const", f"{name}/table_{i}", [Edge(ids.name, -1)], **values)
        types = {"Tparams": attr_type(dtype), "Tindices": attr_type(attrs["Tids"].type[i])}
        gather = graph.add("Gather", f"{name}/gather_{i}", [Edge(constant.name, 0), Edge(ids.name, i)], **types)
        outputs[Edge(name, i)] = Edge(gather.name, 0)
    own = {edge.node for edge in outputs.values()}
    for other in graph.nodes:
        if other not in own:
            graph.set_inputs(other, [outputs.get(edge, edge) for edge in graph.inputs(other)])


def run_saved_model(
    directory: Path, signature: str, samples: Sequence[Inputs]
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Return the answers of plain TensorFlow, one for each sample."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
        definition = meta.signature_def[signature]
        fetches = {key: info.name for key, info in definition.outputs.items()}
        answers = []
        for sample in samples:
            feeds = {definition.inputs[key].name: value for key, value in sample.items()}
            answers.append({key: np.asarray(value) for key, value in session.run(fetches, feeds).items()})
        return answers
