"""Row analysis: which tensors of a graph are rows along dimension 0, and which ops act on them row by row.

What is shown is local: if all inputs of a set of such ops are joined along dimension 0, so are all of their outputs,
whatever the inputs mean. So any tensor whose number of rows is not fixed may begin a region, also behind an op that
does not act row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import op_def_registry

import batching.rules_layout
import batching.rules_linear
import batching.rules_reduce  # noqa: F401 (these modules fill the table of rules)
from batching.dims import Dims, N, static_dims
from batching.facts import Fact, Kind, OpFacts, Refused
from batching.level import Level
from batching.rules import RULES
from batching.values import computed_value, constant_value, shape_value

_NO_NUMBERS = frozenset({types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT})
_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_SHAPE_OPS = frozenset({"Shape", "Size", "Rank"})
_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"})
# Pure by name, but they fail or print on purpose, or are somebody else's mark.
_NEVER = frozenset({"Assert", "Print", "PrintV2", "CheckNumerics", "CheckNumericsV2", "TesseraBatch", "TesseraUnbatch"})
_LOOP_OPS = frozenset({"Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond", "_SwitchN"})
_TABLE_LOOKUPS = frozenset({"LookupTableFind", "LookupTableFindV2"})
_FUNCTIONAL = frozenset({"While", "If", "Case"})


class Role(Enum):
    """What an op may do for a region."""

    ROWS = "acts row by row: may be inside"
    LIGHT = "depends on weights, constants and shapes only: is had again inside where it is needed"
    OUTSIDE = "stays outside"


@dataclass(frozen=True)
class Analysis:
    """What is known of every needed op and tensor of one level.

    Attributes:
        level: what was looked at.
        order: its ops, inputs first.
        facts: tensor name → fact.
        roles: op name → role.
        reasons: op name → why it stays outside, for those that do.
    """

    level: Level
    order: list[tf.Operation]
    facts: dict[str, Fact]
    roles: dict[str, Role]
    reasons: dict[str, str]


def analyse(
    level: Level,
    arguments: Mapping[str, Fact],
    changed: frozenset[str] = frozenset(),
    unequal: frozenset[str] = frozenset(),
) -> Analysis:
    """Look at every op of a level once, as if all tensors of rows had the same number of them.

    Args:
        level: main graph or body.
        arguments: facts of a function's arguments that are more than what their shapes say.
        changed: names of variables' ops that some op writes to.
        unequal: names of ops that join rows of different numbers, see `batching.row_counts`.
    """
    analysis = Analysis(level, level.order(), {}, {}, {})
    for op in analysis.order:
        inputs = [analysis.facts.get(tensor.name, Fact(Kind.OTHER, None)) for tensor in op.inputs]
        facts: list[Fact] | None = None
        try:
            if level.fed and any(tensor.name in level.fed for tensor in op.outputs):
                raise Refused("is an input of a signature")
            if op.name in unequal:
                raise Refused("may join different numbers of rows")
            facts = [arguments[op.outputs[0].name]] if op.outputs and op.outputs[0].name in arguments else None
            facts = facts or _facts(op, inputs, changed)
        except Refused as refused:
            analysis.roles[op.name] = Role.OUTSIDE
            analysis.reasons[op.name] = str(refused)
        else:
            rows = any(fact.kind is Kind.ROWS for fact in facts) and op.name not in _names(arguments)
            analysis.roles[op.name] = Role.ROWS if rows else Role.LIGHT
            if any(fact.kind is Kind.OTHER for fact in facts) or op.name in _names(arguments):
                analysis.roles[op.name] = Role.OUTSIDE
                analysis.reasons[op.name] = "is an argument"
        for position, tensor in enumerate(op.outputs):
            known = facts is not None and position < len(facts)
            analysis.facts[tensor.name] = facts[position] if facts is not None and known else seed(tensor, inputs)
    return analysis


def _names(arguments: Mapping[str, Fact]) -> set[str]:
    return {name.partition(":")[0] for name in arguments}


def seed(tensor: tf.Tensor, inputs: list[Fact]) -> Fact:
    """Return what the shape of a tensor alone says: rows, if the size of dimension 0 is not fixed.

    Args:
        tensor: output of an op that stays outside.
        inputs: facts of that op's inputs.
    """
    dims = _outside_dims(tensor, inputs)
    if dims is None or not dims or dims[0].known:
        return Fact(Kind.OTHER, dims)
    kind = Kind.OTHER if tensor.dtype.base_dtype.as_datatype_enum in _NO_NUMBERS else Kind.ROWS
    return Fact(kind, (N, *dims[1:]))


def _outside_dims(tensor: tf.Tensor, inputs: list[Fact]) -> Dims | None:
    """Return the shape of a tensor; of some, TensorFlow infers less than the op's inputs tell."""
    if tensor.shape.rank is not None:
        return static_dims(tensor.shape.as_list(), tensor.name)
    if tensor.op.type == "TensorListGetItem":
        value = constant_value(tensor.op.inputs[2])
        sizes = [None if size is None or size.factor < 0 else size.factor for size in value or ()]
        return None if value is None else static_dims(sizes, tensor.name)
    return inputs[1].dims if tensor.op.type in _TABLE_LOOKUPS else None


def _facts(op: tf.Operation, inputs: list[Fact], changed: frozenset[str]) -> list[Fact]:
    """Return the facts of the outputs.

    Raises:
        Refused: the op must stay outside, or does not act row by row.
    """
    if op.type == "Const" or op.type in _VARIABLES:
        if op.name in changed:
            raise Refused("is a variable that the graph changes")
        if op.outputs[0].dtype.base_dtype == tf.string:
            raise Refused("is text")
        return [_invariant(tensor) for tensor in op.outputs]
    _check_allowed(op)
    if op.type in _SHAPE_OPS:
        return [_shape_fact(op, inputs[0])]
    if all(fact.light for fact in inputs):
        return _from_light(op, inputs)
    if any(fact.kind is Kind.OTHER for fact in inputs):
        raise Refused("needs a value that belongs to one request and has no rows")
    rule = RULES.get(op.type)
    if rule is None:
        raise Refused("is not known to act row by row")
    return [Fact(Kind.ROWS, dims) for dims in rule(OpFacts(op, inputs))]


def _check_allowed(op: tf.Operation) -> None:
    if op.type in _LOOP_OPS:
        raise Refused("is part of a loop or a branch of TF1")
    if op.type.removeprefix("Stateless") in _FUNCTIONAL:
        raise Refused("is a loop or a branch as a whole")
    if op.type in _NEVER or op.type.startswith("Placeholder"):
        raise Refused("is not for a region")
    tensors = [*op.inputs, *op.outputs]
    if any(tensor.dtype.base_dtype == tf.string for tensor in tensors):
        raise Refused("works on text")
    if any(tensor.dtype.base_dtype == tf.variant for tensor in tensors):
        raise Refused("works on lists or other opaque values")
    definition = op_def_registry.get(op.type)
    if definition is None or any(attr.type in ("func", "list(func)") for attr in definition.attr):
        raise Refused("calls functions")
    if definition.is_stateful and op.type not in _READS:
        raise Refused("is stateful or random")
    if not op.outputs:
        raise Refused("has no outputs")
    if any(tensor.dtype.base_dtype == tf.resource for tensor in op.outputs) and op.type != "Identity":
        raise Refused("makes a resource")


def _invariant(tensor: tf.Tensor) -> Fact:
    dims = None if tensor.shape.rank is None else static_dims(tensor.shape.as_list(), tensor.name)
    if tensor.dtype.base_dtype == tf.resource and tensor.op.type == "VarHandleOp":
        shape = tf.TensorShape(tensor.op.get_attr("shape"))
        dims = None if shape.rank is None else static_dims(shape.as_list(), tensor.name)
    return Fact(Kind.INVARIANT, dims, constant_value(tensor))


def _is_small_integer(tensor: tf.Tensor) -> bool:
    return bool(tensor.dtype.is_integer) and tensor.shape.rank in (0, 1)


def _shape_fact(op: tf.Operation, source: Fact) -> Fact:
    if source.dims is None:
        raise Refused("takes the shape of a tensor of unknown rank")
    value = shape_value(op, source.dims)
    assert value is not None
    dims = static_dims(op.outputs[0].shape.as_list(), op.name)
    counted = any(size is not None and size.counts_rows for size in value)
    if source.kind is Kind.INVARIANT:
        return Fact(Kind.INVARIANT, dims, value)
    if source.kind is Kind.OTHER and not all(size is not None and size.known for size in value):
        raise Refused("takes the shape of a tensor that belongs to one request and has no rows")
    return Fact(Kind.COUNT if counted else Kind.DIMS, dims, value)


def _from_light(op: tf.Operation, inputs: list[Fact]) -> list[Fact]:
    """Weights, constants and shapes in: the same out, or rows where a shape says so."""
    if op.type == "ReadVariableOp":
        return [Fact(Kind.INVARIANT, inputs[0].dims)]
    if op.type == "Identity":
        return [inputs[0]]
    if all(fact.kind is Kind.INVARIANT for fact in inputs):
        facts = [_invariant(tensor) for tensor in op.outputs]
        if facts[0].value is None and _is_small_integer(op.outputs[0]):
            facts[0] = replace(facts[0], value=computed_value(op, inputs))
        return facts
    if op.type in ("Fill", "BroadcastTo") and _shape_input(op, inputs).kind is Kind.COUNT:
        return _filled(op, inputs)
    value = computed_value(op, inputs)
    counted = any(fact.kind is Kind.COUNT for fact in inputs)
    if counted and (value is None or any(size is None for size in value)):
        raise Refused("computes with the number of rows")
    if counted and value is not None and any(size is not None and size.counts_rows for size in value):
        return each_output_fact(op, Kind.COUNT, value)
    return each_output_fact(op, Kind.DIMS, value)


def each_output_fact(op: tf.Operation, kind: Kind, value: tuple[object, ...] | None) -> list[Fact]:
    """Return facts of the outputs of an op that depends on shapes; only one output has a value."""
    facts = []
    for position, tensor in enumerate(op.outputs):
        dims = None if tensor.shape.rank is None else static_dims(tensor.shape.as_list(), tensor.name)
        facts.append(Fact(kind, dims, value if position == 0 else None))  # type: ignore[arg-type]
    return facts


def _shape_input(op: tf.Operation, inputs: list[Fact]) -> Fact:
    return inputs[0 if op.type == "Fill" else 1]


def _filled(op: tf.Operation, inputs: list[Fact]) -> list[Fact]:
    """Return rows that are all the same: their number comes from a shape."""
    shape = _shape_input(op, inputs).value
    if shape is None or None in shape or not shape:
        raise Refused("makes a tensor of a shape that is not known")
    dims = tuple(size for size in shape if size is not None)
    if not dims[0].is_rows or any(size.counts_rows for size in dims[1:]):
        raise Refused("makes a tensor whose dimension 0 is not the rows")
    if op.type == "BroadcastTo":
        source = inputs[0].dims
        if source is None or (len(source) == len(dims) and source[0].factor != 1):
            raise Refused("makes a tensor whose rows differ by their position")
    return [Fact(Kind.ROWS, dims)]
