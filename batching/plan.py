"""Finds the regions of a model: in its main graph and in the bodies of its loops, nested ones too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from batching.analysis import Analysis, Role, analyse
from batching.facts import Fact, Kind
from batching.insert import pair_names
from batching.level import WHILE_OPS, Level, body_level, main_level
from batching.regions import Region, find_regions
from batching.row_counts import unproven_joins
from tessera.errors import FailedPreconditionError, NotFoundError

_CALLS = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/|functional(_\d+)*/)+")
_ODD = re.compile(r"[^A-Za-z0-9_.\-/]")
_ASSIGNING = re.compile(r"^(Assign|Scatter|ResourceScatter|ResourceApply|ResourceSparseApply|Apply|SparseApply)")


@dataclass
class LevelPlan:
    """A level with what was found in it.

    Attributes:
        analysis: of the level.
        regions: name → region.
        loops: name of the While op → plan of its body.
        caller: the plan of the level around, None for the main graph.
        loop: the While op in the caller.
    """

    analysis: Analysis
    regions: dict[str, Region] = field(default_factory=dict)
    loops: dict[str, LevelPlan] = field(default_factory=dict)
    caller: LevelPlan | None = None
    loop: tf.Operation | None = None

    def walk(self) -> Iterator[LevelPlan]:
        """Yield this level and all inside of it."""
        yield self
        for plan in self.loops.values():
            yield from plan.walk()

    def signatures(self, users: frozenset[str]) -> frozenset[str]:
        """Return the signatures that need a region with these users."""
        if self.caller is None:
            return users
        assert self.loop is not None
        return self.caller.signatures(self.caller.analysis.level.users[self.loop.name])


@dataclass(frozen=True)
class ModelGraph:
    """A model as the search takes it.

    Attributes:
        graph_def: functions inlined, While and If kept.
        signatures: name → (names of the tensors that it is fed, names of the tensors that it returns).
        kept: more ops that must stay under their names.
    """

    graph_def: GraphDef
    signatures: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    kept: Sequence[str] = ()


def find(model: ModelGraph, *, scopes: Sequence[str] = (), remote: frozenset[str] = frozenset()) -> LevelPlan:
    """Return the regions of a model. Costs time in the size of its graph; no weight is read.

    Args:
        model: what to search.
        scopes: shell patterns of names of ops that may be in a region; none: all.
        remote: names of the variables' ops whose rows will be looked up on servers.

    Raises:
        NotFoundError: a scope fits no op.
        FailedPreconditionError: a scope names an op on rows or text that does not act row by row; or the model has
            pairs already; or TensorFlow refuses the graph.
    """
    if there := sorted(set(pair_names(model.graph_def))):
        raise FailedPreconditionError(f"the model has batched regions already: {', '.join(there)}")
    level = main_level(model.graph_def, model.signatures, model.kept)
    plan = LevelPlan(_analyse_main(level, _changed(level, model.graph_def)))
    _add_loops(plan, model.graph_def)
    if scopes:
        _check_scopes(plan, scopes)
    names: set[str] = set()
    several = len(model.signatures) > 1
    for part in plan.walk():
        allowed = _allowed(part, scopes)
        for region in find_regions(part.analysis, remote=remote, allowed=allowed):
            part.regions[_name(part, region, names, several)] = region
    return plan


def _analyse_main(level: Level, changed: frozenset[str]) -> Analysis:
    """Analyse until no op of a region may join different numbers of rows.

    In bodies of loops that is taken for granted: a state that began with one row beside many would have grown.
    """
    refused: frozenset[str] = frozenset()
    while True:
        analysis = analyse(level, {}, changed, refused)
        more = unproven_joins(analysis)
        if not more:
            return analysis
        refused |= more


def short(name: str) -> str:
    """Return the name of an op without the calls that it was inlined from."""
    return _CALLS.sub("", name)


def _name(part: LevelPlan, region: Region, names: set[str], several: bool) -> str:
    signatures = "+".join(sorted(part.signatures(region.users)))
    if part.loop is None:
        base = signatures
    else:
        where = short(part.loop.name)
        base = f"{signatures}/{where}/cell" if several else f"{where}/cell"
    base = _ODD.sub("_", base).lstrip("_-/") or "region"
    name, number = base, 1
    while name in names:
        number += 1
        name = f"{base}_{number}"
    names.add(name)
    return name


def _allowed(part: LevelPlan, scopes: Sequence[str]) -> Callable[[str], bool]:
    def allowed(name: str) -> bool:
        return not scopes or any(fnmatchcase(name, scope) or fnmatchcase(short(name), scope) for scope in scopes)

    return allowed


def _check_scopes(plan: LevelPlan, scopes: Sequence[str]) -> None:
    """Refuse a scope that names nothing, or an op that computes and does not act row by row."""
    for scope in scopes:
        allowed = _allowed(plan, [scope])
        found = [(part, op) for part in plan.walk() for op in part.analysis.order if allowed(op.name)]
        if not found:
            raise NotFoundError(f"batch scope {scope!r}: fits the name of no op")
        for part, op in found:
            if part.analysis.roles[op.name] is Role.OUTSIDE and _computes_on_rows(part.analysis, op):
                raise FailedPreconditionError(
                    f"batch scope {scope!r}: {op.type} {op.name!r} cannot be batched: {part.analysis.reasons[op.name]}"
                )


def _computes_on_rows(analysis: Analysis, op: tf.Operation) -> bool:
    """Whether an op would matter inside: loop counters, lists and what carries them are beside the point."""
    kinds = [tensor.dtype.base_dtype for tensor in [*op.inputs, *op.outputs]]
    rows = any(analysis.facts[tensor.name].kind is Kind.ROWS for tensor in op.inputs)
    return tf.variant not in kinds and tf.resource not in kinds and (rows or tf.string in kinds)


def _add_loops(plan: LevelPlan, library: GraphDef) -> None:
    functions = {function.signature.name: function for function in library.library.function}
    analysis = plan.analysis
    for op in analysis.order:
        if op.type not in WHILE_OPS:
            continue
        shapes = [tf.TensorShape(shape) for shape in op.get_attr("output_shapes")] or [t.shape for t in op.inputs]
        body = body_level(functions[op.get_attr("body").name], library, shapes, list(op.inputs))
        inner = LevelPlan(analyse(body, _loop_arguments(body, analysis, op)), caller=plan, loop=op)
        plan.loops[op.name] = inner
        _add_loops(inner, library)


def _loop_arguments(body: Level, caller: Analysis, loop: tf.Operation) -> dict[str, Fact]:
    """Return the facts of arguments that are the same for every request: given so, and handed on unchanged."""
    facts = {}
    for argument, result, given in zip(body.arguments, body.results, loop.inputs, strict=True):
        source = body.graph.get_tensor_by_name(result)
        while source.op.type == "Identity":
            source = source.op.inputs[0]
        if source.name == argument and caller.facts[given.name].kind is Kind.INVARIANT:
            facts[argument] = caller.facts[given.name]
    return facts


def _changed(level: Level, library: GraphDef) -> frozenset[str]:
    """Return the ops of variables that a signature writes to; what a writing function is given counts as written."""
    writers = {
        function.signature.name
        for function in library.library.function
        if any(_ASSIGNING.match(node.op) for node in function.node_def)
    }
    changed = set()
    for op in level.graph.get_operations():
        if op.name not in level.users:
            continue
        functions = {value.func.name for value in op.node_def.attr.values() if value.func.name}
        if _ASSIGNING.match(op.type) or functions & writers:
            for tensor in op.inputs:
                source = tensor.op
                while source.type == "Identity":
                    source = source.inputs[0].op
                changed.add(source.name)
    return frozenset(changed)
