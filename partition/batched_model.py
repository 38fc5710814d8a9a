"""A SavedModel with batched regions, beside the one that it was made of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf import saved_model_pb2

from batching.search import Batched
from partition.batched import BatchOptions, batch_model
from partition.bundle import Bundle
from partition.samples import Limits, id_limits
from partition.saved_model import FlatModel, read_saved_model
from partition.staging import seal, sync_directory, writing
from partition.variables import find_variables, to_values
from tessera.errors import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError, TesseraError

_COPIED = ("variables", "assets", "assets.extra")
_FUNCTIONAL_OPS = frozenset({"While", "If", "Case", "StatelessWhile", "StatelessIf", "StatelessCase"})


def plan_batches(saved_model_dir: Path, options: BatchOptions) -> Batched:
    """Return what batching a SavedModel would do; writes nothing.

    Takes about two seconds for each region that it finds, and memory for its weights.

    Raises:
        NotFoundError, DataLossError, InvalidArgumentError, FailedPreconditionError: see `read_saved_model` and
            `batch_model`.
    """
    return _batched(saved_model_dir, options)[1]


def write_batched_model(saved_model_dir: Path, out: Path, options: BatchOptions) -> Batched:
    """Write a SavedModel with pairs around the regions that are worth it, and return what was done.

    It appears at once and complete, or not at all. It has a graph with init and restore ops and no objects, as TF1
    writes them; variables and assets are hard links where the file system allows them.

    Args:
        saved_model_dir: never written to.
        out: must not exist; its parent must.
        options: what to batch.

    Raises:
        AlreadyExistsError: `out` exists.
        InvalidArgumentError: `out` is inside of the SavedModel.
        FailedPreconditionError: no region is worth it; nothing was written.
        NotFoundError, DataLossError, ResourceExhaustedError, PermissionDeniedError: see `plan_batches` and `writing`.
    """
    if out.exists():
        raise AlreadyExistsError(f"{out}: exists; choose another name")
    if saved_model_dir.resolve() in out.resolve().parents:
        raise InvalidArgumentError(f"{out}: is inside of the SavedModel {saved_model_dir}, which is only read")
    model, batched = _batched(saved_model_dir, options)
    if not any(row.inserted for row in batched.regions):
        raise FailedPreconditionError(f"{saved_model_dir}: no region is worth batching, so nothing was written")
    with writing(out.parent):
        partial = out.with_name(f".{out.name}.writing")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in _COPIED:
            if (saved_model_dir / name).is_dir():
                shutil.copytree(saved_model_dir / name, partial / name, copy_function=_link)
        path = partial / "saved_model.pb"
        path.write_bytes(_saved_model(model, batched.graph_def).SerializeToString(deterministic=True))
        seal(path)
        sync_directory(partial)
        partial.rename(out)
        sync_directory(out.parent)
    return batched


def _batched(saved_model_dir: Path, options: BatchOptions) -> tuple[FlatModel, Batched]:
    """Return the model in functional form, and what was found in it."""
    limits = _limits(saved_model_dir)
    found: list[tuple[FlatModel, Batched]] = []

    def rewrite(model: FlatModel) -> GraphDef:
        found.append((model, batch_model(model, options, limits=limits)))
        return found[0][1].graph_def

    read_saved_model(saved_model_dir, rewrite=rewrite)
    return found[0]


def _limits(saved_model_dir: Path) -> Limits:
    """Return which inputs are ids of how many rows; nothing for a model that is no plain function of its weights."""
    model = read_saved_model(saved_model_dir)
    try:
        variables = find_variables(model)
        bundle = Bundle(model.variables_prefix) if variables else None
        shapes = {v.name: bundle.region(v.key, v.slice_spec).shape for v in variables} if bundle is not None else {}
        return id_limits(to_values(model, variables, shapes))
    except TesseraError:
        return {}


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def _saved_model(model: FlatModel, graph_def: GraphDef) -> saved_model_pb2.SavedModel:
    result = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = result.meta_graphs.add()
    meta.CopyFrom(model.meta)
    meta.ClearField("object_graph_def")
    meta.graph_def.CopyFrom(graph_def)
    for nodes in (meta.graph_def.node, *(function.node_def for function in meta.graph_def.library.function)):
        for node in nodes:
            if node.op in _FUNCTIONAL_OPS:  # or sessions would run the loop as one op, on a thread of its own
                node.attr["_lower_using_switch_merge"].b = True
    for name in [name for name, kind in meta.collection_def.items() if kind.HasField("bytes_list")]:
        del meta.collection_def[name]  # descriptions of variables and loops, by names that are gone
    return result
