"""Inputs to try a package on: random, but in the range of the tables that they index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import dtypes

from partition.graph import Edge, Graph
from tessera.manifest import Manifest, TensorSpec

Inputs = Mapping[str, np.ndarray[Any, Any]]
# Node → rows of the smallest table that its value indexes.
Limits = Mapping[str, int]

# Ids keep their value through these (in the input that is followed), so the tables behind them bound the input.
_KEEP_VALUE = {
    **dict.fromkeys(
        ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StridedSlice", "Unique", "Transpose"), (0,)
    ),
    **dict.fromkeys(("Enter", "Switch", "Merge", "ConcatV2", "Pack", "IdentityN"), None),
    "SelectV2": (1, 2),
    "Select": (1, 2),
}
_UNBOUNDED = 128
_WORDS = ("alpha", "beta", "import os", "", "x", "größe", "word1", "word2 word3", "return self._value")


def sample_inputs(manifest: Manifest, package: Path, signature: str, *, samples: int, seed: int) -> list[Inputs]:
    """Return inputs for a signature; the first two hold the first and the last row of each table.

    Args:
        manifest: of the package.
        package: its directory.
        signature: name.
        samples: how many, ≥ 1.
        seed: the same seed gives the same inputs.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((package / "saved_model.pb").read_bytes())
    limits = id_limits(Graph(saved_model.meta_graphs[0].graph_def))
    return make_samples(manifest.signatures[signature].inputs, limits, samples=samples, seed=seed)


def make_samples(specs: Mapping[str, TensorSpec], limits: Limits, *, samples: int, seed: int) -> list[Inputs]:
    """Return inputs of these shapes; see `sample_inputs`."""
    random = np.random.default_rng(seed)
    result: list[Inputs] = []
    for number in range(samples):
        batch = (1, 3, 2, 7, 32)[number % 5]
        inputs = {}
        for key, spec in sorted(specs.items()):
            limit = limits.get(Edge.parse(spec.name).node, _UNBOUNDED)
            inputs[key] = _sample(random, spec, batch, limit, edge=number if number < 2 else None)
        result.append(inputs)
    return result


def id_limits(graph: Graph) -> dict[str, int]:
    """Return node → rows of the smallest table that the node's value indexes, for every node that indexes one."""
    limits: dict[str, int] = {}
    for name, node in graph.nodes.items():
        edges = graph.data_inputs(name)
        if node.op == "TesseraLookup":
            for edge, rows in zip(edges, node.attr["table_rows"].list.i, strict=True):
                _limit(graph, edge, rows, limits)
        elif node.op in ("Gather", "GatherV2") and (rows := _known_rows(graph, edges[0])):
            _limit(graph, edges[1], rows, limits)
    return limits


def _known_rows(graph: Graph, edge: Edge) -> int:
    while graph.op(edge.node) in ("Identity", "Enter", "Switch", "Merge"):
        edge = graph.data_inputs(edge.node)[0]
    if graph.nodes[edge.node].op == "TesseraBlob":
        dims = graph.attr(edge.node, "shape").shape.dim
    else:
        dims = graph.attr(edge.node, "value").tensor.tensor_shape.dim
    return dims[0].size if dims else 0


def _limit(graph: Graph, edge: Edge, rows: int, limits: dict[str, int]) -> None:
    stack = [edge]
    while stack:
        edge = stack.pop()
        name = edge.node
        if limits.get(name, rows + 1) <= rows:
            continue
        limits[name] = rows
        op = graph.op(name)
        if op in _KEEP_VALUE:
            inputs, positions = graph.data_inputs(name), _KEEP_VALUE[op]
            stack += [inputs[i] for i in (range(len(inputs)) if positions is None else positions)]
        elif op == "TesseraBatch":
            stack.append(graph.data_inputs(name)[edge.output])


def _sample(
    random: np.random.Generator, spec: TensorSpec, batch: int, limit: int, *, edge: int | None
) -> np.ndarray[Any, Any]:
    shape = tuple(batch if size < 0 else size for size in spec.shape) if spec.shape is not None else (batch,)
    if spec.dtype == "string":
        words = [_WORDS[i].encode() for i in random.integers(0, len(_WORDS), int(np.prod(shape)))]
        return np.array(words, object).reshape(shape)
    dtype = dtypes.as_dtype(spec.dtype).as_numpy_dtype
    if spec.dtype == "bool":
        return random.integers(0, 2, shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        high = min(limit, int(np.iinfo(dtype).max) + 1)
        values = random.integers(0, high, shape)
        if edge is not None and values.size:
            values.flat[0] = 0 if edge == 0 else high - 1
        return np.asarray(values).astype(dtype)
    return np.asarray(random.standard_normal(shape)).astype(dtype)
