"""The table of rules: op → when it acts row by row along dimension 0, and what shape comes out.

A rule is asked only for ops with at least one input that is rows. It returns the shapes of all outputs, which then are
rows, or raises `Refused`. An op without a rule never enters a region.
"""

from __future__ import annotations

from collections.abc import Callable

from batching.dims import ONE, Dim, Dims
from batching.facts import Kind, OpFacts, Refused

Rule = Callable[[OpFacts], list[Dims]]

RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of `ops`."""

    def register(function: Rule) -> Rule:
        for op in ops:
            assert op not in RULES
            RULES[op] = function
        return function

    return register


def positive(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    return axis + rank if axis < 0 else axis


def not_rows(axis: int, rank: int, what: str) -> int:
    """Return an axis counted from the front; it must not be the one of the rows."""
    axis = positive(axis, rank)
    if axis == 0:
        raise Refused(f"mixes rows: {what} along dimension 0")
    return axis


def same_rows(facts: OpFacts, positions: range | list[int]) -> Dim:
    """Return dimension 0 of inputs that are all rows, which must be the same for all."""
    first = {facts.rows(position)[0] for position in positions}
    if len(first) != 1:
        raise Refused("its inputs have different numbers of rows")
    return first.pop()


def broadcast(facts: OpFacts, positions: range) -> Dims:
    """Return the shape of an element-wise op over inputs that are rows or the same for all rows."""
    rank = max(len(facts.dims(position)) for position in positions)
    first = {facts.rows(position)[0] for position in positions if facts.is_rows(position)}
    if len(first) != 1:
        raise Refused("its inputs have different numbers of rows")
    for position in positions:
        dims = facts.dims(position)
        if facts.is_rows(position):
            if len(dims) != rank:
                raise Refused(f"mixes rows: input {position} has rank {len(dims)}, and is spread over rank {rank}")
            continue
        facts.shared(position)
        if len(dims) == rank and dims[0] != ONE:
            raise Refused(f"input {position} has a fixed number of rows")
    axes = [_joined([facts.dims(position) for position in positions], axis) for axis in range(1 - rank, 0)]
    guessed = facts.op.outputs[0].shape
    result = [first.pop()]
    for axis, size in zip(range(1, rank), axes, strict=True):
        static = guessed.as_list()[axis] if guessed.rank == rank else None
        result.append(Dim(static) if static is not None else size or Dim(1, (f"{facts.op.name}#{axis}",)))
    return tuple(result)


def _joined(shapes: list[Dims], axis: int) -> Dim | None:
    """Return the size of one dimension (counted from the end) after broadcasting; None if it is not certain."""
    sizes = {dims[axis] for dims in shapes if -axis <= len(dims) and dims[axis] != ONE}
    if len(sizes) > 1:
        return None
    return sizes.pop() if sizes else ONE


def each_output(facts: OpFacts, dims: Dims) -> list[Dims]:
    """Return the same shape for every output."""
    return [dims] * len(facts.op.outputs)


_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BesselI0e BesselI1e Bitcast Cast Ceil ComplexAbs Conj Cos Cosh Digamma
    Elu Erf Erfc Erfinv Exp Expm1 Floor Identity Imag Inv Invert IsFinite IsInf IsNan LeakyRelu Lgamma Log Log1p
    LogicalNot Ndtri Neg OnesLike PlaceholderWithDefault PreventGradient Real Reciprocal Relu Relu6 Rint Round
    Rsqrt Selu Sigmoid Sign Sin Sinh Snapshot Softplus Softsign Sqrt Square StopGradient Tan Tanh ZerosLike
    Bucketize
"""
_BROADCASTING = """
    Add AddV2 ApproximateEqual Atan2 BitwiseAnd BitwiseOr BitwiseXor Complex Div DivNoNan Equal FloorDiv FloorMod
    Greater GreaterEqual LeftShift Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Mul MulNoNan NextAfter
    NotEqual Pow RealDiv RightShift SelectV2 SquaredDifference Sub TruncateDiv TruncateMod Xdivy Xlog1py Xlogy
"""


@rule(*_UNARY.split())
def _unary(facts: OpFacts) -> list[Dims]:
    dims = facts.rows(0)
    if facts.op.type == "Bitcast" and facts.op.inputs[0].dtype.size != facts.op.outputs[0].dtype.size:
        raise Refused("changes the size of elements")
    return [dims]


@rule(*_BROADCASTING.split())
def _broadcasting(facts: OpFacts) -> list[Dims]:
    if facts.op.type in ("Equal", "NotEqual") and not facts.attr("incompatible_shape_error"):
        raise Refused("answers False, not row by row, when shapes differ")
    return [broadcast(facts, range(len(facts.inputs)))]


@rule("AddN", "AccumulateNV2")
def _add_n(facts: OpFacts) -> list[Dims]:
    return [(same_rows(facts, range(len(facts.inputs))), *facts.dims(0)[1:])]


@rule("IdentityN")
def _identity_n(facts: OpFacts) -> list[Dims]:
    return [facts.rows(position) for position in range(len(facts.inputs))]


@rule("Select")
def _select(facts: OpFacts) -> list[Dims]:
    """The old Select takes whole rows when its condition is a vector."""
    if facts.inputs[0].kind is not Kind.ROWS:
        if facts.shared(0).dims != ():
            raise Refused("its condition has a fixed number of rows")
        same_rows(facts, [1, 2])
    else:
        same_rows(facts, [0, 1, 2])
    return [facts.dims(1)]


@rule("ClipByValue")
def _clip(facts: OpFacts) -> list[Dims]:
    return [broadcast(facts, range(3))]


@rule("BiasAdd", "BiasAddV1")
def _bias_add(facts: OpFacts) -> list[Dims]:
    facts.shared(1)
    dims = facts.rows(0)
    if len(dims) < 2:
        raise Refused("its input has no dimension besides the rows")
    return [dims]


@rule("Softmax", "LogSoftmax")
def _softmax(facts: OpFacts) -> list[Dims]:
    dims = facts.rows(0)
    not_rows(-1, len(dims), "a softmax")
    return [dims]


@rule("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(facts: OpFacts) -> list[Dims]:
    if facts.attr("is_training"):
        raise Refused("mixes rows: normalises with the mean of the batch (is_training)")
    for position in range(1, 5):
        facts.shared(position)
    return [facts.rows(0)]  # the other outputs repeat the statistics, and nobody needs them


@rule("LRN")
def _lrn(facts: OpFacts) -> list[Dims]:
    return [facts.rows(0)]
