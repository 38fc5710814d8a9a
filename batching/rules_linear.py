"""Rules of the ops that do the work: products, convolutions, gathers of rows."""

from __future__ import annotations

from batching.dims import ONE, Dim, Dims, static_dims
from batching.facts import Kind, OpFacts, Refused
from batching.rules import positive, rule, same_rows

_HEAVY = """
    MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv1D Conv2D Conv3D Conv2DBackpropInput
    Conv3DBackpropInputV2 DepthwiseConv2dNative
"""
HEAVY_OPS = frozenset(_HEAVY.split())
GATHER_OPS = frozenset(("Gather", "GatherV2", "ResourceGather", "GatherNd", "ResourceGatherNd"))


@rule("MatMul")
def _matmul(facts: OpFacts) -> list[Dims]:
    if facts.is_rows(1):
        raise Refused("mixes rows: multiplies rows with rows")
    rows, weights = facts.rows(0), facts.shared(1)
    if facts.attr("transpose_a"):
        raise Refused("mixes rows: sums over dimension 0 (transpose_a)")
    columns = weights.dims[0 if facts.attr("transpose_b") else 1] if weights.dims else facts.output(0, rows[0])[1]
    return [(rows[0], columns)]


@rule("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(facts: OpFacts) -> list[Dims]:
    left, right = facts.dims(0), facts.dims(1)
    for position, dims in enumerate((left, right)):
        rank = len(left if position else right)
        if facts.is_rows(position):
            if len(dims) == 2 and (position == 1 or facts.attr("adj_x") or rank > 2):
                raise Refused("mixes rows: sums over dimension 0")
            if len(dims) < rank:
                raise Refused("mixes rows: an input with rows has a lower rank than the other")
        else:
            facts.shared(position)
            if len(dims) > rank or (len(dims) == rank > 2 and dims[0] != ONE):
                raise Refused(f"input {position} has a fixed number of rows")
    if facts.is_rows(0) and facts.is_rows(1):
        first = same_rows(facts, [0, 1])
    else:
        first = left[0] if facts.is_rows(0) else right[0]
    if len(left) == len(right) == 2:
        return [(first, right[0 if facts.attr("adj_y") else 1])]
    inner = facts.op.outputs[0].shape
    longer = left if len(left) >= len(right) else right
    middle = longer[1:-2]
    if len(left) == len(right) and left[1:-2] != right[1:-2]:
        middle = static_dims(inner.as_list(), facts.op.name)[1:-2] if inner.rank else middle
    return [(first, *middle, left[-1 if facts.attr("adj_x") else -2], right[-2 if facts.attr("adj_y") else -1])]


@rule("Einsum")
def _einsum(facts: OpFacts) -> list[Dims]:
    terms, _, result = facts.attr("equation").decode().replace(" ", "").partition("->")
    labels = [_expand(term, len(facts.dims(i))) for i, term in enumerate(terms.split(","))]
    dots = max((sum(label.startswith(".") for label in term) for term in labels), default=0)
    out = _expand(result, len(result.replace("...", "")) + (dots if "..." in result else 0))
    batch = {labels[i][0] for i in range(len(labels)) if facts.is_rows(i)}
    if len(batch) != 1 or not out or out[0] != next(iter(batch)):
        raise Refused(f"mixes rows: {terms}->{result} does not keep dimension 0 in its place")
    label = batch.pop()
    sizes: dict[str, Dim] = {}
    for i, term in enumerate(labels):
        if term.count(label) > (1 if facts.is_rows(i) else 0):
            raise Refused(f"mixes rows: {terms}->{result} uses dimension 0 elsewhere")
        if not facts.is_rows(i):
            facts.shared(i)
        for name, size in zip(term, facts.dims(i), strict=True):
            if sizes.get(name, ONE) == ONE:
                sizes[name] = size
    sizes[label] = same_rows(facts, [i for i in range(len(labels)) if facts.is_rows(i)])
    return [tuple(sizes[name] for name in out)]


def _expand(term: str, rank: int) -> list[str]:
    """Return one label for each dimension; those of an ellipsis are `.1` for the last, `.2` for the one before."""
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after)
    return [*before, *(f".{i}" for i in range(hidden, 0, -1) if dots), *after]


@rule("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Dilation2D")
def _convolution(facts: OpFacts) -> list[Dims]:
    facts.shared(1)
    return [facts.output(0, facts.rows(0)[0])]


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _transposed_convolution(facts: OpFacts) -> list[Dims]:
    facts.shared(1)
    rows = facts.rows(2)
    sizes = facts.value(0)
    if sizes[0] != rows[0] or facts.inputs[0].kind is not Kind.COUNT:
        raise Refused("the size of its output has a fixed number of rows")
    known = facts.op.outputs[0].shape
    inferred = static_dims(known.as_list() if known.rank else [None] * len(sizes), facts.op.name)
    return [(rows[0], *(size or other for size, other in zip(sizes[1:], inferred[1:], strict=True)))]


@rule("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D")
def _pool(facts: OpFacts) -> list[Dims]:
    if facts.attr("ksize")[0] != 1 or facts.attr("strides")[0] != 1:
        raise Refused("mixes rows: pools along dimension 0")
    return [facts.output(0, facts.rows(0)[0])]


@rule("MaxPoolV2")
def _pool_v2(facts: OpFacts) -> list[Dims]:
    if facts.constant(1)[0] != 1 or facts.constant(2)[0] != 1:
        raise Refused("mixes rows: pools along dimension 0")
    return [facts.output(0, facts.rows(0)[0])]


@rule("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea")
def _resize(facts: OpFacts) -> list[Dims]:
    facts.shared(1)
    return [facts.output(0, facts.rows(0)[0])]


@rule("Gather", "GatherV2", "ResourceGather")
def _gather(facts: OpFacts) -> list[Dims]:
    batch_dims = 0 if facts.op.type == "Gather" else int(facts.attr("batch_dims"))
    ids = facts.dims(1)
    batch_dims = positive(batch_dims, len(ids)) if batch_dims else 0
    axis = int(facts.constant(2)) if facts.op.type == "GatherV2" else batch_dims
    if not facts.is_rows(0):
        table = facts.shared(0)
        if axis != 0 or batch_dims:
            raise Refused("gathers with rows of ids from a table along another dimension than 0")
        if table.dims is None:
            raise Refused("the shape of its table is not known")
        return [(*facts.rows(1), *table.dims[1:])]
    params = facts.rows(0)
    axis = positive(axis, len(params))
    if batch_dims == 0:
        facts.shared(1)
        if axis == 0:
            raise Refused("mixes rows: gathers along dimension 0")
    else:
        same_rows(facts, [0, 1])
        if axis == 0:
            raise Refused("mixes rows: gathers along dimension 0")
    return [(*params[:axis], *ids[batch_dims:], *params[axis + 1 :])]


@rule("GatherNd", "ResourceGatherNd")
def _gather_nd(facts: OpFacts) -> list[Dims]:
    if facts.is_rows(0):
        raise Refused("mixes rows: gathers along dimension 0")
    facts.shared(0)
    if len(facts.rows(1)) < 2:
        raise Refused("its ids are one vector")
    return [facts.output(0, facts.rows(1)[0])]


@rule("OneHot")
def _one_hot(facts: OpFacts) -> list[Dims]:
    ids = facts.rows(0)
    for position in range(1, 4):
        facts.shared(position)
    axis = positive(int(facts.attr("axis")), len(ids) + 1)
    if axis == 0:
        raise Refused("puts another dimension before the rows")
    depth = facts.inputs[1].value
    size = depth[0] if depth and depth[0] is not None else Dim(1, (f"{facts.op.name}#depth",))
    return [(*ids[:axis], size, *ids[axis:])]
