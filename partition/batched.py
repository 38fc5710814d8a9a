"""Batched regions in a SavedModel: finds them in its functional form, and compares the model with and without.

What regions are, and how they are found, is `batching`'s business; this module brings it the graph and the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import dtypes, importer
from tensorflow.python.framework import errors as tf_errors
from tensorflow.python.training import py_checkpoint_reader

from batching.library import load_op_library
from batching.plan import ModelGraph
from batching.search import Batched, search
from partition.bundle import Bundle
from partition.graph import Edge
from partition.samples import Inputs, Limits, make_samples
from partition.saved_model import INIT_SIGNATURE, FlatModel
from partition.variables import Variable, find_variables
from tessera.errors import FailedPreconditionError
from tessera.manifest import TensorSpec

# A model with more weights is not run as a whole to compare it: they would have to fit into memory.
COMPARE_MAX_BYTES = 2 << 30
_SAMPLES = 5


@dataclass(frozen=True)
class BatchOptions:
    """What to batch.

    Attributes:
        scopes: shell patterns of names of ops that may be in a region; none: all.
        gate: False inserts also regions that batching would slow down.
        signatures: only regions of these; None: of all.
    """

    scopes: tuple[str, ...] = ()
    gate: bool = True
    signatures: tuple[str, ...] | None = None


class ModelValues:
    """Reads the variables of a SavedModel, one at a time."""

    def __init__(self, model: FlatModel) -> None:
        """`model` may be in functional form."""
        self._variables: dict[str, Variable] = {
            node: variable for variable in find_variables(model) for node in variable.nodes
        }
        self._prefix = model.variables_prefix
        self._bundle = Bundle(self._prefix) if self._variables else None

    @property
    def total_bytes(self) -> int:
        """Bytes of all variables."""
        keys = {(variable.key, variable.slice_spec) for variable in self._variables.values()}
        return sum(self._bundle.region(*key).bytes for key in keys) if self._bundle is not None else 0

    def read(self, node: str, max_bytes: int | None) -> np.ndarray[Any, Any]:
        """Return the value of the variable with the op `node`; of more than `max_bytes` only the first rows.

        Raises:
            FailedPreconditionError: the SavedModel does not restore it.
            DataLossError, NotFoundError, UnimplementedError: see `Bundle`.
        """
        variable = self._variables.get(node)
        if variable is None or self._bundle is None:
            raise FailedPreconditionError(f"variable {node!r} has no value in the SavedModel")
        region = self._bundle.region(variable.key, variable.slice_spec)
        if not region.extents:
            reader = py_checkpoint_reader.NewCheckpointReader(str(self._prefix))
            return np.asarray(reader.get_tensor(variable.key)).reshape(region.shape)
        row_bytes = region.bytes // region.shape[0] if region.shape else region.bytes
        data = bytearray()
        for chunk in region.chunks(max(row_bytes, 1)):
            data += chunk
            if max_bytes is not None and len(data) >= max_bytes:
                break
        values = np.frombuffer(data, dtypes.as_dtype(region.dtype).as_numpy_dtype)
        return values.reshape((len(data) // row_bytes, *region.shape[1:]) if region.shape else ())


def batch_model(
    model: FlatModel, options: BatchOptions, *, remote: frozenset[str] = frozenset(), limits: Limits | None = None
) -> Batched:
    """Return the model's graph with pairs around what is worth it, and the report.

    Args:
        model: in functional form.
        options: what to batch.
        remote: names of the variables' ops that will be split over shard servers.
        limits: node → rows of the smallest table that it indexes, for the comparison.

    Raises:
        NotFoundError, FailedPreconditionError: see `batching.search.search`; or an answer changes.
    """
    load_op_library()
    values = ModelValues(model)
    graph = model_graph(model)
    result = search(
        graph,
        values.read,
        scopes=options.scopes,
        signatures=options.signatures,
        gate=options.gate,
        remote=remote,
    )
    if any(row.inserted for row in result.regions) and values.total_bytes <= COMPARE_MAX_BYTES:
        compare_graphs(model, graph.graph_def, result.graph_def, limits or {})
    return result


def model_graph(model: FlatModel) -> ModelGraph:
    """Return a model in functional form as `batching` takes it."""
    saver = model.meta.saver_def
    named = (*model.targets(), model.restore_op, Edge.parse(saver.filename_tensor_name).node)
    return ModelGraph(model.graph.to_graph_def(), _tensors(model), [name for name in named if name])


def _tensors(model: FlatModel) -> dict[str, tuple[list[str], list[str]]]:
    """Return signature → (names of tensors fed, names of tensors returned)."""

    def names(infos: Mapping[str, Any]) -> list[str]:
        return [info.name if ":" in info.name else f"{info.name}:0" for info in infos.values()]

    return {
        name: (names(signature.inputs), names(signature.outputs))
        for name, signature in model.meta.signature_def.items()
        if name != INIT_SIGNATURE
    }


def compare_graphs(model: FlatModel, before: GraphDef, after: GraphDef, limits: Limits) -> None:
    """Run every signature in both graphs on made-up inputs; the answers must have the same bits.

    Inputs that both refuse count as equal. Needs memory for all weights, twice for a moment.

    Raises:
        FailedPreconditionError: an answer differs; names the signature and the output.
    """
    samples = {name: _samples(model, name, limits) for name in _tensors(model)}
    expected, found = _answers(model, before, samples), _answers(model, after, samples)
    for name, answers in expected.items():
        for one, other in zip(answers, found[name], strict=True):
            if isinstance(one, str) or isinstance(other, str):
                if isinstance(one, str) != isinstance(other, str):
                    raise FailedPreconditionError(
                        f"signature {name!r}: batched {_outcome(other)}, unbatched {_outcome(one)}"
                    )
                continue
            for key, value in one.items():
                same = value.dtype == other[key].dtype and value.shape == other[key].shape
                if not same or (value.tolist() != other[key].tolist() and value.tobytes() != other[key].tobytes()):
                    raise FailedPreconditionError(f"signature {name!r}: output {key!r} changes with the pairs")


def _outcome(answer: str | Mapping[str, Any]) -> str:
    return f"fails ({answer})" if isinstance(answer, str) else "answers"


def _samples(model: FlatModel, name: str, limits: Limits) -> Sequence[Inputs]:
    specs = {}
    for key, info in model.meta.signature_def[name].inputs.items():
        shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
        specs[key] = TensorSpec(info.name, dtypes.as_dtype(info.dtype).name, shape)
    return make_samples(specs, limits, samples=_SAMPLES, seed=0)


def _answers(
    model: FlatModel, graph_def: GraphDef, samples: Mapping[str, Sequence[Inputs]]
) -> dict[str, list[dict[str, np.ndarray[Any, Any]] | str]]:
    """Return signature → for each sample the outputs, or the message of the error."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True  # it may fuse other ops beside a pair
    result: dict[str, list[dict[str, np.ndarray[Any, Any]] | str]] = {}
    with tf.Graph().as_default() as graph:
        importer.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph, config=config) as session:
            prepare(model, session)
            for name, inputs in samples.items():
                signature = model.meta.signature_def[name]
                fetches = {key: info.name for key, info in signature.outputs.items()}
                result[name] = []
                for sample in inputs:
                    feeds = {signature.inputs[key].name: value for key, value in sample.items()}
                    try:
                        answer = session.run(fetches, feeds)
                        result[name].append({key: np.asarray(value) for key, value in answer.items()})
                    except tf_errors.OpError as error:
                        result[name].append(str(error.message))
    return result


def prepare(model: FlatModel, session: tf.compat.v1.Session) -> None:
    """Restore the variables and fill the tables, as a server does."""
    assets = {
        asset.tensor_info.name: str(Path(model.directory, "assets", asset.filename))
        for asset in model.meta.asset_file_def
    }
    if model.restore_op and model.variables_prefix.with_suffix(".index").is_file():
        session.run(model.restore_op, {model.meta.saver_def.filename_tensor_name: str(model.variables_prefix)})
    if model.init_op:
        session.run(model.init_op, assets)
