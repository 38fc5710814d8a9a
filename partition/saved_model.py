"""Reads a SavedModel's `serve` graph and flattens it into one graph without functions, loading no weights.

Grappler's function inlining alone does it: every call is inlined, and `While` and `If` become `Switch`, `Merge`,
`Enter`, so that a variable can be followed to everything that uses it along plain edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2, saved_model_pb2
from tensorflow.python.framework import errors as tf_errors
from tensorflow.python.grappler import tf_optimizer

from batching.library import load_op_library
from partition.graph import Edge, Graph
from tessera.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, NotFoundError

INIT_SIGNATURE = "__saved_model_init_op"
INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_ASSETS_COLLECTION = "saved_model_assets"
_SERVE = "serve"
_FUNCTIONAL_OPS = frozenset({"While", "If", "Case"})


@dataclass(frozen=True)
class FlatModel:
    """A SavedModel as one flat graph.

    Attributes:
        directory: the SavedModel; only ever read.
        meta: its `serve` meta graph, with the signatures that were asked for.
        graph: what those signatures, the init op and the restore op need.
        init_op: name of the node that fills hash tables and so on, or "".
        restore_op: name of the node that restores the variables, or "".
        fingerprint: SHA-256 (hex) over `saved_model.pb` and the index of the variables.
    """

    directory: Path
    meta: meta_graph_pb2.MetaGraphDef
    graph: Graph
    init_op: str
    restore_op: str
    fingerprint: str

    def targets(self) -> list[str]:
        """Return the nodes that must stay: outputs and inputs of signatures, init op, asset file names."""
        names = [Edge.parse(name).node for name in _tensor_names(self.meta)]
        return names + ([self.init_op] if self.init_op else [])

    @property
    def variables_prefix(self) -> Path:
        """The TensorBundle's prefix."""
        return self.directory / "variables" / "variables"


# Takes a model in functional form (calls inlined, `While` and `If` still ops) and returns its graph, changed.
Rewrite = Callable[[FlatModel], GraphDef]


def read_saved_model(
    directory: Path, *, signatures: Sequence[str] | None = None, rewrite: Rewrite | None = None
) -> FlatModel:
    """Read and flatten a SavedModel. Costs time and memory of its graph, not of its weights.

    Args:
        directory: holds `saved_model.pb`.
        signatures: which to keep; None keeps all.
        rewrite: what is done to the functional form before loops and branches are flattened.

    Raises:
        NotFoundError: no SavedModel there, or no such signature; names it.
        DataLossError: `saved_model.pb` cannot be parsed.
        InvalidArgumentError: no graph with exactly the tag `serve`, or an input or output is no plain tensor.
        FailedPreconditionError: TensorFlow cannot flatten the graph.
    """
    path = directory / "saved_model.pb"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{path}: no such file; expected the directory of a SavedModel") from error
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(data)
    except DecodeError as error:
        raise DataLossError(f"{path}: not a SavedModel: {error}") from error
    found = [meta for meta in saved_model.meta_graphs if set(meta.meta_info_def.tags) == {_SERVE}]
    if len(found) != 1:
        tags = [sorted(meta.meta_info_def.tags) for meta in saved_model.meta_graphs]
        raise InvalidArgumentError(f"{path}: has graphs with tags {tags}, expected exactly one with ['{_SERVE}']")
    meta = found[0]
    if _has_pair(meta):
        load_op_library()  # a pair that the model's author put in
    _adopt_old_assets(meta)
    init_op = _init_op(meta)
    _select_signatures(meta, signatures, path)
    restore_op = Edge.parse(meta.saver_def.restore_op_name).node
    fetches = list(_tensor_names(meta))
    fetches += [name for name in (init_op, restore_op, meta.saver_def.filename_tensor_name) if name]
    index = directory / "variables" / "variables.index"
    fingerprint = hashlib.sha256(data)
    fingerprint.update(index.read_bytes() if index.is_file() else b"")
    model = FlatModel(
        directory=directory,
        meta=meta,
        graph=_inlined(meta, fetches, path, lower=rewrite is None),
        init_op=init_op,
        restore_op=restore_op,
        fingerprint=fingerprint.hexdigest(),
    )
    if rewrite is None:
        return model
    meta.graph_def.CopyFrom(rewrite(model))
    return replace(model, graph=_inlined(meta, fetches, path, lower=True))


def _has_pair(meta: meta_graph_pb2.MetaGraphDef) -> bool:
    graph = meta.graph_def
    every = (graph.node, *(function.node_def for function in graph.library.function))
    return any(node.op == "TesseraBatch" for nodes in every for node in nodes)


def _adopt_old_assets(meta: meta_graph_pb2.MetaGraphDef) -> None:
    """TF1 lists its asset files in a collection instead of the field."""
    if not meta.asset_file_def and _ASSETS_COLLECTION in meta.collection_def:
        for packed in meta.collection_def[_ASSETS_COLLECTION].any_list.value:
            packed.Unpack(meta.asset_file_def.add())


def _init_op(meta: meta_graph_pb2.MetaGraphDef) -> str:
    if INIT_SIGNATURE in meta.signature_def:
        return Edge.parse(meta.signature_def[INIT_SIGNATURE].outputs[INIT_SIGNATURE].name).node
    for collection in INIT_COLLECTIONS:
        names = meta.collection_def[collection].node_list.value if collection in meta.collection_def else []
        if names:
            return Edge.parse(names[0]).node
    return ""


def _select_signatures(meta: meta_graph_pb2.MetaGraphDef, wanted: Sequence[str] | None, path: Path) -> None:
    known = sorted(name for name in meta.signature_def if name != INIT_SIGNATURE)
    if wanted is None:
        wanted = known
    if not wanted:
        raise InvalidArgumentError(f"{path}: signatures: got none, expected at least one of {known}")
    for name in wanted:
        if name not in known:
            raise NotFoundError(f"{path}: signature {name!r} is not there, expected some of {known}")
    for name in list(meta.signature_def):
        if name != INIT_SIGNATURE and name not in wanted:
            del meta.signature_def[name]
    for name in wanted:
        signature = meta.signature_def[name]
        for key, info in (*signature.inputs.items(), *signature.outputs.items()):
            if info.WhichOneof("encoding") != "name":
                raise InvalidArgumentError(
                    f"{path}: signature {name!r}: {key!r} is {info.WhichOneof('encoding')}, expected a dense tensor; "
                    "leave the signature out by naming those to keep"
                )


def _tensor_names(meta: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    for name, signature in meta.signature_def.items():
        if name != INIT_SIGNATURE:
            yield from (info.name for info in (*signature.outputs.values(), *signature.inputs.values()))
    yield from (asset.tensor_info.name for asset in meta.asset_file_def)


def tidy(graph: Graph, fetches: Sequence[str], opaque_op: str) -> Graph:
    """Return `graph` without the Identities and NoOps that inlining left; what is computed stays the same.

    Args:
        graph: flat.
        fetches: nodes that must stay under their names.
        opaque_op: an op without inputs that TensorFlow does not know, with attributes `dtype` and `shape`.

    Raises:
        FailedPreconditionError: TensorFlow refuses the graph.
    """
    disguised = graph.to_graph_def()
    originals = {}
    for node in disguised.node:
        if node.op == opaque_op:
            originals[node.name] = graph.nodes[node.name]
            node.op = "Placeholder"
            for key in set(node.attr) - {"dtype", "shape"}:
                del node.attr[key]
    tidied = Graph(_grappler(disguised, [*fetches, *originals], "dependency_optimization"))
    for name, original in originals.items():
        tidied.replace(name, opaque_op, tidied.inputs(name), **original.attr)
    return tidied


def _inlined(meta: meta_graph_pb2.MetaGraphDef, fetches: Sequence[str], path: Path, *, lower: bool) -> Graph:
    """Inline every call; `lower` says whether `While` and `If` become `Switch`, `Merge`, `Enter` too."""
    graph_def = GraphDef()
    graph_def.CopyFrom(meta.graph_def)
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            if node.op.removeprefix("Stateless") in _FUNCTIONAL_OPS:
                node.attr["_lower_using_switch_merge"].b = lower
    try:
        return Graph(_grappler(graph_def, fetches, "function_optimization"))
    except FailedPreconditionError as error:
        raise FailedPreconditionError(f"{path}: {error.message}") from error


def _grappler(graph_def: GraphDef, fetches: Sequence[str], only: str) -> GraphDef:
    """Run one of TensorFlow's graph optimizers, and no other."""
    item = meta_graph_pb2.MetaGraphDef(graph_def=graph_def)
    item.collection_def["train_op"].node_list.value.extend(sorted(set(fetches)))  # what grappler takes for fetches
    config = config_pb2.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    for option in rewrites.DESCRIPTOR.fields:
        if option.enum_type is not None and option.enum_type.name == "Toggle":
            setattr(rewrites, option.name, rewriter_config_pb2.RewriterConfig.OFF)
    setattr(rewrites, only, rewriter_config_pb2.RewriterConfig.ON)
    rewrites.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    rewrites.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    rewrites.min_graph_nodes = -1
    rewrites.fail_on_optimizer_errors = True
    try:
        return tf_optimizer.OptimizeGraph(config, item, verbose=False)
    except (tf_errors.OpError, ValueError) as error:
        raise FailedPreconditionError(f"TensorFlow cannot do {only} on the graph: {error}") from error
