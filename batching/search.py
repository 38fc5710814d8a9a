"""From a model to the regions that are worth it: found, verified, measured, and a report of all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tensorflow.core.framework.graph_pb2 import GraphDef

from batching.analysis import Role
from batching.apply import with_pairs
from batching.cost import decide, measure
from batching.dims import text
from batching.plan import LevelPlan, ModelGraph, find, short
from batching.probe import Probe, Values
from batching.regions import Region
from batching.verify import check_rows
from batching.weight import gathers_remotely
from tessera.errors import FailedPreconditionError, NotFoundError

# Ops that only carry others: not worth a line in the report.
_PLUMBING = """
    NoOp Identity IdentityN Const Placeholder VarHandleOp ReadVariableOp Shape Merge Switch Enter Exit
    NextIteration LoopCond
"""


@dataclass(frozen=True)
class TensorRow:
    """A tensor on a region's border: what its shape is, `n` being the rows."""

    name: str
    dtype: str
    shape: str


@dataclass(frozen=True)
class RegionRow:
    """What was found out about one region.

    Attributes:
        signatures: that need it.
        in_loop: whether it is in the body of a loop.
        ops: op → how many.
        heavy: names of the ops that are worth it.
        cost_micros: rows → measured time; empty if it was not measured.
        inserted: the decision.
        reason: of the decision.
    """

    name: str
    signatures: tuple[str, ...]
    in_loop: bool
    ops: dict[str, int]
    heavy: tuple[str, ...]
    inputs: tuple[TensorRow, ...]
    outputs: tuple[TensorRow, ...]
    cost_micros: dict[int, float]
    inserted: bool
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """Ops that stay outside for one reason.

    Attributes:
        where: the loop they are in, "" for the main graph.
        ops: "type name" of each.
    """

    where: str
    reason: str
    ops: tuple[str, ...]


@dataclass(frozen=True)
class Batched:
    """The result.

    Attributes:
        graph_def: with the pairs.
        regions: every region that was found, inserted or not.
        left_out: why the rest was left out.
        refused: signature → why it cannot have a region at all.
    """

    graph_def: GraphDef
    regions: tuple[RegionRow, ...]
    left_out: tuple[LeftOut, ...]
    refused: dict[str, str]


def search(
    model: ModelGraph,
    values: Values,
    *,
    scopes: Sequence[str] = (),
    signatures: Sequence[str] | None = None,
    gate: bool = True,
    remote: frozenset[str] = frozenset(),
) -> Batched:
    """Find, verify and measure the regions of a model, and insert those that are worth it.

    Takes about two seconds for each region, and memory for its weights.

    Args:
        model: functions inlined, While and If kept.
        values: of variables.
        scopes: shell patterns of names of ops that may be in a region; none: all.
        signatures: only regions of these; None: of all.
        gate: False inserts also what is not worth it.
        remote: names of the variables' ops whose rows will be looked up on servers.

    Raises:
        NotFoundError: no such signature; or see `batching.plan.find`.
        FailedPreconditionError: see `batching.plan.find`.
    """
    for name in signatures or ():
        if name not in model.signatures:
            raise NotFoundError(f"signature {name!r} is not there, expected some of {sorted(model.signatures)}")
    plan = find(model, scopes=scopes, remote=remote)
    wanted = frozenset(signatures if signatures is not None else model.signatures)
    rows: list[RegionRow] = []
    for part in plan.walk():
        for name, region in part.regions.items():
            if part.signatures(region.users) & wanted:
                rows.append(_look_at(part, name, region, values, gate, remote))
    chosen = frozenset(row.name for row in rows if row.inserted)
    graph_def = with_pairs(model.graph_def, plan, chosen)
    return Batched(graph_def, tuple(rows), tuple(_left_out(plan, wanted)), _refused(model, plan, wanted))


def _look_at(
    part: LevelPlan, name: str, region: Region, values: Values, gate: bool, remote: frozenset[str]
) -> RegionRow:
    graph = part.analysis.level.graph
    ops = [graph.get_operation_by_name(op) for op in region.ops]
    cost: dict[int, float] = {}
    try:
        with Probe(part, region, values) as probe:
            problem = check_rows(probe)
            if problem:
                inserted, reason = False, f"failed the check on numbers: {problem}"
            else:
                measured = measure(probe)
                cost = {rows: round(seconds * 1e6, 1) for rows, seconds in measured.seconds.items()}
                lookups = sum(gathers_remotely(op, remote) for op in ops)
                verdict = decide(measured, in_loop=part.caller is not None, remote_lookups=lookups)
                inserted, reason = verdict.insert, verdict.reason
                if not gate and not inserted:
                    inserted, reason = True, f"the cost gate is off ({reason})"
    except FailedPreconditionError as error:
        inserted, reason = False, error.message
    return RegionRow(
        name=name,
        signatures=tuple(sorted(part.signatures(region.users))),
        in_loop=part.caller is not None,
        ops=dict(sorted(Counter(op.type for op in ops).items())),
        heavy=tuple(short(op) for op in region.heavy),
        inputs=_tensors(part, region.border.inputs),
        outputs=_tensors(part, region.border.outputs),
        cost_micros=cost,
        inserted=inserted,
        reason=reason,
    )


def _tensors(part: LevelPlan, names: Sequence[str]) -> tuple[TensorRow, ...]:
    graph, facts = part.analysis.level.graph, part.analysis.facts
    return tuple(
        TensorRow(short(name), graph.get_tensor_by_name(name).dtype.base_dtype.name, text(facts[name].dims))
        for name in names
    )


def _refused(model: ModelGraph, plan: LevelPlan, wanted: frozenset[str]) -> dict[str, str]:
    """Return why signatures without a region have none, where their inputs tell."""
    found = {name for part in plan.walk() for r in part.regions.values() for name in part.signatures(r.users)}
    refused = {}
    for name, (fed, _) in model.signatures.items():
        if name not in wanted:
            continue
        tensors = [plan.analysis.level.graph.get_tensor_by_name(tensor) for tensor in fed]
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        if name not in found and all(s.rank is not None and (s.rank == 0 or s[0] is not None) for s in shapes.values()):
            texts = ", ".join(f"{short(tensor)} {shape.as_list()}" for tensor, shape in shapes.items())
            refused[name] = f"no input has a number of rows that may differ: {texts or 'it has no inputs'}"
    return refused


def _left_out(plan: LevelPlan, wanted: frozenset[str]) -> list[LeftOut]:
    """Return the reasons; the same op in two signatures, or two copies of a loop, is named once."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for part in plan.walk():
        where = "" if part.loop is None else short(part.loop.name)
        regions = {op for region in part.regions.values() for op in region.ops}
        for op in part.analysis.order:
            skip = op.type in _PLUMBING.split() or op.name in regions
            if skip or not part.signatures(part.analysis.level.users[op.name]) & wanted:
                continue
            role = part.analysis.roles[op.name]
            if role is Role.OUTSIDE:
                reason = part.analysis.reasons[op.name]
            elif role is Role.ROWS:
                reason = "acts row by row, but nothing near it is worth batching"
            else:
                continue
            groups.setdefault((where, reason), {})[f"{op.type} {short(op.name)}"] = None
    return [LeftOut(where, reason, tuple(ops)) for (where, reason), ops in groups.items()]
