"""From a SavedModel to a plan: what its variables are, how they are used, what becomes of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import dtypes

from batching.search import Batched
from partition.batched import BatchOptions, batch_model
from partition.bundle import CHUNK_BYTES, Bundle, Region
from partition.graph import Edge, Graph
from partition.plan import Candidate, Decision, plan
from partition.rewrite import SignatureEdges
from partition.samples import id_limits
from partition.saved_model import INIT_SIGNATURE, FlatModel, Rewrite, read_saved_model, tidy
from partition.tables import TableUses, trace_uses
from partition.variables import Variable, blob_node, find_variables, to_values
from tessera.errors import DataLossError

# Smaller than a page, a variable costs less inside the graph than as a file of its own.
_INLINE_BYTES = 1024


@dataclass(frozen=True)
class PlanRow:
    """One variable, for people.

    Attributes:
        decision: `split`, `root` (a blob that the router maps), or `graph` (a constant inside the graph).
        bucket_bytes: of the largest bucket; 0 when it is not split.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    decision: str
    buckets: int
    bucket_bytes: int
    reason: str


@dataclass(frozen=True)
class PlannedVariable:
    """A variable with all that is known of it."""

    variable: Variable
    region: Region
    uses: TableUses
    decision: Decision

    @property
    def inline(self) -> bool:
        """Whether it becomes a constant of the graph: text, nothing, or too small for a file."""
        return not self.decision.split and self.region.bytes <= _INLINE_BYTES


@dataclass(frozen=True)
class PackagePlan:
    """What `write_package` will do.

    Attributes:
        model: the flattened SavedModel.
        graph: of signatures and init op, variables as values.
        variables: in the order of the graph; tables of the manifest keep this order.
        max_shard_bytes: the limit that was planned for.
        batched: which regions were put between a pair, and which were not; None if none were looked for.
    """

    model: FlatModel
    graph: Graph
    variables: tuple[PlannedVariable, ...]
    max_shard_bytes: int
    batched: Batched | None = None

    @property
    def rows(self) -> list[PlanRow]:
        """One row for each variable, largest first."""
        result = []
        for planned in self.variables:
            decision, candidate = planned.decision, planned.decision.candidate
            kind = "split" if decision.split else "graph" if planned.inline else "root"
            result.append(
                PlanRow(
                    name=candidate.name,
                    dtype=candidate.dtype,
                    shape=candidate.shape,
                    bytes=candidate.bytes,
                    decision=kind,
                    buckets=decision.buckets,
                    bucket_bytes=decision.bucket_bytes,
                    reason=decision.reason,
                )
            )
        return sorted(result, key=lambda row: (-row.bytes, row.name))

    @property
    def root_bytes(self) -> int:
        """What the router will hold: the graph and the variables that are not split."""
        kept = sum(planned.region.bytes for planned in self.variables if not planned.decision.split)
        return int(self.graph.to_graph_def().ByteSize()) + kept

    @property
    def split_bytes(self) -> int:
        """What all shard servers together will hold, once."""
        return sum(planned.region.bytes for planned in self.variables if planned.decision.split)


def plan_package(
    saved_model_dir: str | os.PathLike[str],
    *,
    max_shard_bytes: int,
    split: Sequence[str] = (),
    keep: Sequence[str] = (),
    signatures: Sequence[str] | None = None,
    batch: BatchOptions | None = None,
) -> PackagePlan:
    """Return what partitioning a SavedModel would do. Reads its graph and the index of its variables, no weights.

    With `batch` it also reads the weights of the regions that it finds, and measures them: seconds for each.

    Args:
        saved_model_dir: never written to.
        max_shard_bytes: what a shard server, and the root, may hold.
        split: shell patterns of variables to split in any case.
        keep: shell patterns of variables to keep in the root in any case.
        signatures: which to keep; None keeps all.
        batch: which regions to batch; None: none.

    Raises:
        NotFoundError, DataLossError, InvalidArgumentError, FailedPreconditionError, UnimplementedError: see
            `read_saved_model`, `find_variables`, `to_values`, `Bundle`, `plan` and `batch_model`.
    """
    directory = Path(saved_model_dir)
    first = _plan(directory, max_shard_bytes, split, keep, signatures, None)
    if batch is None:
        return first
    remote = frozenset(node for p in first.variables if p.decision.split for node in p.variable.nodes)
    limits = id_limits(first.graph)
    batched: list[Batched] = []

    def rewrite(model: FlatModel) -> GraphDef:
        batched.append(batch_model(model, batch, remote=remote, limits=limits))
        return batched[0].graph_def

    second = _plan(directory, max_shard_bytes, split, keep, signatures, rewrite)
    return replace(second, batched=batched[0])


def _plan(
    directory: Path,
    max_shard_bytes: int,
    split: Sequence[str],
    keep: Sequence[str],
    signatures: Sequence[str] | None,
    rewrite: Rewrite | None,
) -> PackagePlan:
    model = read_saved_model(directory, signatures=signatures, rewrite=rewrite)
    variables = find_variables(model)
    regions = {}
    if variables:
        bundle = Bundle(model.variables_prefix)
        regions = {variable.name: bundle.region(variable.key, variable.slice_spec) for variable in variables}
    for variable in variables:
        if regions[variable.name].dtype != variable.dtype:
            raise DataLossError(
                f"variable {variable.name!r}: is {dtypes.as_dtype(variable.dtype).name} in the graph, but "
                f"{dtypes.as_dtype(regions[variable.name].dtype).name} in {model.variables_prefix}.index"
            )
    graph = to_values(model, variables, {name: region.shape for name, region in regions.items()})
    graph = tidy(graph, model.targets(), "TesseraBlob")
    traced = _trace(model, graph, variables, regions)
    candidates = [_candidate(variable, regions[variable.name], traced[variable.name]) for variable in variables]
    decisions = plan(
        candidates,
        max_shard_bytes=max_shard_bytes,
        other_root_bytes=graph.to_graph_def().ByteSize(),
        split=split,
        keep=keep,
    )
    planned = tuple(
        PlannedVariable(variable, regions[variable.name], traced[variable.name], decision)
        for variable, decision in zip(variables, decisions, strict=True)
    )
    return PackagePlan(model, graph, planned, max_shard_bytes)


def _trace(
    model: FlatModel, graph: Graph, variables: Sequence[Variable], regions: Mapping[str, Region]
) -> dict[str, TableUses]:
    uses = graph.uses()
    edges = {edge for signature in signature_edges(model).values() for edge in signature.inputs | signature.outputs}
    in_init = graph.upstream([model.init_op]) if model.init_op else set()
    result = {}
    for variable in variables:
        node = blob_node(variable)
        result[variable.name] = trace_uses(graph, uses, node, variable.dtype, len(regions[variable.name].shape), edges)
        if node in in_init:
            result[variable.name].obstacles.append("the init op needs it")
    return result


def signature_edges(model: FlatModel) -> dict[str, SignatureEdges]:
    """Return signature → the edges that it is fed and returns."""
    return {
        name: SignatureEdges(
            inputs=frozenset(Edge.parse(info.name) for info in signature.inputs.values()),
            outputs=frozenset(Edge.parse(info.name) for info in signature.outputs.values()),
        )
        for name, signature in model.meta.signature_def.items()
        if name != INIT_SIGNATURE
    }


def _candidate(variable: Variable, region: Region, uses: TableUses) -> Candidate:
    obstacles = list(uses.obstacles)
    if not region.extents:
        obstacles.append("is text or empty")
    elif not region.shape:
        obstacles.append("is a scalar")
    elif region.bytes // region.shape[0] > CHUNK_BYTES:
        obstacles.append(f"has rows above {CHUNK_BYTES} bytes")
    if not uses.gathers and not obstacles:
        obstacles.append("nothing gathers from it")
    return Candidate(
        name=variable.name,
        dtype=dtypes.as_dtype(variable.dtype).name,
        shape=region.shape,
        bytes=region.bytes,
        gathers=len(uses.gathers),
        obstacles=tuple(dict.fromkeys(obstacles)),
    )
