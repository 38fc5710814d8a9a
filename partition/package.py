"""From a plan to a package in a repository."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework import dtypes
from tensorflow.python.training import py_checkpoint_reader

from partition.analysis import PackagePlan, PlannedVariable, signature_edges
from partition.graph import Graph, constant_attrs
from partition.rewrite import SplitTable, rewrite
from partition.saved_model import INIT_COLLECTIONS, INIT_SIGNATURE, FlatModel
from partition.split import write_table, write_weight
from partition.staging import Staging, hash_file, seal, staging, sync_directory, writing
from partition.variables import blob_node
from tessera.errors import AlreadyExistsError, NotFoundError
from tessera.manifest import FileRef, Manifest, Signature, Table, TensorSpec, Weight
from tessera.repository import Repository

# Raised whenever the same SavedModel and plan give another package than before.
PARTITIONER_VERSION = "1"


def write_package(
    plan: PackagePlan,
    repository: Repository,
    *,
    model: str,
    version: int,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write a package and return its manifest; the same package again is no error, and writes nothing new.

    The package appears at once and complete, or not at all. Memory stays below `partition.split.MEMORY_BYTES` plus the
    graph. A run that died is resumed.

    Args:
        plan: from `plan_package`.
        repository: need not exist yet.
        model: name of the model.
        version: int64 ≥ 0.
        progress: called with (bytes done, bytes in all), often, on this thread.

    Raises:
        AlreadyExistsError: (model, version) exists with other content.
        AbortedError: another process writes the same package.
        DataLossError, NotFoundError: the SavedModel's data is damaged or missing; names the file.
        InvalidArgumentError: no possible name or version of a model.
        ResourceExhaustedError, PermissionDeniedError, FailedPreconditionError: the repository cannot be written.
    """
    existing = _existing(repository, model, version)
    if existing is not None and existing.source["fingerprint"] != plan.model.fingerprint:
        raise AlreadyExistsError(
            f"model {model!r} version {version}: exists with other content; choose another version"
        )
    total = sum(planned.region.bytes for planned in plan.variables)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    with writing(repository.root), staging(repository, model, version) as stage:
        graph = _root_graph(plan)
        tables, weights = _write_variables(plan, graph, stage, advance)
        files = _write_root(plan, graph, stage.package)
        manifest = Manifest(
            model=model,
            version=version,
            tables=tuple(tables),
            weights=tuple(weights),
            signatures=_signatures(plan.model),
            files=files,
            source={"fingerprint": plan.model.fingerprint},
            tools={"partition": PARTITIONER_VERSION, "tensorflow": tf.__version__},
        )
        stage.sync_blobs(manifest.blob_sizes())
        if existing is None:
            _publish(stage, manifest)
        elif existing != manifest:
            raise AlreadyExistsError(
                f"model {model!r} version {version}: exists with another partitioning; choose another version"
            )
    return manifest


def _existing(repository: Repository, model: str, version: int) -> Manifest | None:
    try:
        return repository.read_manifest(model, version)
    except NotFoundError:
        return None


def _write_variables(
    plan: PackagePlan, graph: Graph, stage: Staging, advance: Callable[[int], None]
) -> tuple[list[Table], list[Weight]]:
    """Write every blob, and put its digest, or the constant in its place, into `graph`."""
    tables, weights = [], []
    for planned in plan.variables:
        region, buckets = planned.region, planned.decision.buckets
        name, dtype = planned.variable.name, dtypes.as_dtype(planned.variable.dtype).name
        node = blob_node(planned.variable)
        if planned.decision.split:
            blobs = write_table(stage, region, buckets, _work(plan, planned), advance)
            row_bytes = region.bytes // region.shape[0]
            tables.append(Table(name, region.shape[0], region.shape[1:], dtype, row_bytes, buckets, blobs))
        elif node not in graph.nodes:  # only waited for, or only its shape was needed
            advance(region.bytes)
        elif planned.inline:
            value = constant_attrs(_small_value(plan, planned), planned.variable.dtype)
            graph.replace(node, "Const", graph.inputs(node), **value)
            advance(region.bytes)
        else:
            digest = write_weight(stage, region, advance)
            graph.nodes[node].attr["digest"].CopyFrom(attr_value_pb2.AttrValue(s=digest.encode()))
            weights.append(Weight(name, dtype, region.shape, digest, region.bytes))
    return tables, weights


def _work(plan: PackagePlan, planned: PlannedVariable) -> str:
    """Return what identifies the blobs of a table: the model, where it is, and when the data files were written."""
    try:
        stats = [extent.path.stat() for extent in planned.region.extents]
    except FileNotFoundError as error:
        raise NotFoundError(f"variable {planned.variable.name!r}: {error.filename}: no such file") from error
    files = ",".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
    return f"{plan.model.fingerprint} {planned.variable.name} {planned.decision.buckets} {files}"


def _root_graph(plan: PackagePlan) -> Graph:
    """Return the graph of the package: lookups instead of split tables, and TesseraBlobs without digests yet."""
    graph = plan.graph.copy()
    split = [planned for planned in plan.variables if planned.decision.split]
    tables = [
        SplitTable(
            position=position,
            name=planned.variable.name,
            node=blob_node(planned.variable),
            dtype=planned.variable.dtype,
            shape=planned.region.shape,
            gathers=tuple(planned.uses.gathers),
            shapes=tuple(planned.uses.shapes),
        )
        for position, planned in enumerate(split)
    ]
    rewrite(graph, tables, signature_edges(plan.model), plan.model.targets())
    return graph


def _small_value(plan: PackagePlan, planned: PlannedVariable) -> np.ndarray[Any, Any]:
    region = planned.region
    if not region.extents:
        reader = py_checkpoint_reader.NewCheckpointReader(str(plan.model.variables_prefix))
        return np.asarray(reader.get_tensor(planned.variable.key)).reshape(region.shape)
    data = b"".join(bytes(chunk) for chunk in region.chunks(1))
    return np.frombuffer(data, dtypes.as_dtype(region.dtype).as_numpy_dtype).reshape(region.shape)


def _signatures(model: FlatModel) -> dict[str, Signature]:
    def specs(infos: Any) -> dict[str, TensorSpec]:
        return {key: _spec(info) for key, info in infos.items()}

    return {
        name: Signature(signature.method_name, specs(signature.inputs), specs(signature.outputs))
        for name, signature in model.meta.signature_def.items()
        if name != INIT_SIGNATURE
    }


def _spec(info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(info.name, dtypes.as_dtype(info.dtype).name, shape)


def _write_root(plan: PackagePlan, graph: Graph, directory: Path) -> tuple[FileRef, ...]:
    directory.mkdir()
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = saved_model.meta_graphs.add()
    source = plan.model.meta
    meta.meta_info_def.tags.extend(source.meta_info_def.tags)
    meta.meta_info_def.tensorflow_version = source.meta_info_def.tensorflow_version
    meta.graph_def.CopyFrom(graph.to_graph_def())
    for name, signature in source.signature_def.items():
        meta.signature_def[name].CopyFrom(signature)
    meta.asset_file_def.extend(source.asset_file_def)
    for name in INIT_COLLECTIONS:
        if name in source.collection_def:
            meta.collection_def[name].CopyFrom(source.collection_def[name])
    root = directory / "saved_model.pb"
    root.write_bytes(saved_model.SerializeToString(deterministic=True))
    assets = plan.model.directory / "assets"
    if assets.is_dir():
        shutil.copytree(assets, directory / "assets")
    return tuple(
        FileRef(path.relative_to(directory).as_posix(), *hash_file(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    )


def _publish(stage: Staging, manifest: Manifest) -> None:
    """Make the package visible: the one rename that decides."""
    (stage.package / "manifest.json").write_bytes(manifest.to_bytes())
    for path in sorted(stage.package.rglob("*"), reverse=True):
        if path.is_dir():
            sync_directory(path)
        else:
            seal(path)
    sync_directory(stage.package)
    final = stage.repository.package_dir(manifest.model, manifest.version)
    try:
        stage.package.rename(final)
    except OSError as error:
        raise AlreadyExistsError(f"{final}: cannot be put in place: {error}") from error
    sync_directory(final.parent)
    sync_directory(final.parent.parent)
