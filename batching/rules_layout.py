"""Rules of the ops that move, cut and join elements without computing."""

from __future__ import annotations

from batching.dims import ONE, Dim, Dims, product
from batching.facts import OpFacts, Refused
from batching.rules import each_output, not_rows, positive, rule, same_rows

_FIXED = "has a fixed number of rows"


@rule("Reshape")
def _reshape(facts: OpFacts) -> list[Dims]:
    """Rows stay together if each new row is made of the elements of one old row, or is a part of one."""
    rows, shape = facts.rows(0), list(facts.value(1))
    total = product(rows)
    unknown = [i for i, size in enumerate(shape) if size == Dim(-1)]
    opaque = [i for i, size in enumerate(shape) if size is None]
    if opaque or len(unknown) > 1:
        raise Refused("mixes rows: its new shape is not known")
    if not shape:
        raise Refused("its output is a scalar")
    if unknown:
        rest = total.divided(product(size for size in shape if size is not None and size != Dim(-1)))
        if rest is None or rest.factor == 0:
            raise Refused("mixes rows: whether its new shape keeps the rows apart is not known")
        shape[unknown[0]] = rest
    dims = tuple(size for size in shape if size is not None)
    if product(dims) != total or not dims[0].is_rows or any(size.counts_rows for size in dims[1:]):
        raise Refused("mixes rows: its new shape does not begin with the rows")
    return [dims]


@rule("ExpandDims")
def _expand_dims(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    axis = positive(int(facts.constant(1).reshape(-1)[0]), len(rows) + 1)
    if axis == 0:
        raise Refused("puts another dimension before the rows")
    return [(*rows[:axis], ONE, *rows[axis:])]


@rule("Squeeze")
def _squeeze(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    axes = {positive(int(axis), len(rows)) for axis in facts.attr("squeeze_dims")}
    if not axes or 0 in axes:
        raise Refused("would take the dimension of the rows away when there is one row")
    return [tuple(size for axis, size in enumerate(rows) if axis not in axes)]


@rule("Transpose")
def _transpose(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    order = [positive(int(axis), len(rows)) for axis in facts.constant(1)]
    if order[0] != 0:
        raise Refused("moves the rows to another dimension")
    return [tuple(rows[axis] for axis in order)]


@rule("StridedSlice")
def _strided_slice(facts: OpFacts) -> list[Dims]:
    """The first entry of the specification must take all rows, and no new dimension may come before them."""
    rows = facts.rows(0)
    begin, end, strides = (facts.value(position) for position in (1, 2, 3))
    first = 1
    whole = facts.attr("begin_mask") & first or begin[0] == Dim(0)
    whole = whole and (facts.attr("end_mask") & first or end[0] == rows[0]) and strides[0] == ONE
    if facts.attr("ellipsis_mask") & first:
        whole = len(begin) - bin(facts.attr("new_axis_mask")).count("1") <= len(rows)
    elif facts.attr("new_axis_mask") & first or facts.attr("shrink_axis_mask") & first:
        whole = False
    if not whole:
        raise Refused("mixes rows: takes a part of dimension 0")
    if facts.op.outputs[0].shape.rank is not None:
        return [facts.output(0, rows[0])]
    if facts.attr("ellipsis_mask") or facts.attr("new_axis_mask"):
        raise Refused("the rank of its output is not known")
    kept = [axis for axis in range(1, len(begin)) if not facts.attr("shrink_axis_mask") >> axis & 1]
    return [(rows[0], *(Dim(1, (f"{facts.op.name}#{axis}",)) for axis in kept), *rows[len(begin) :])]


@rule("Slice")
def _slice(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    begin, size = facts.value(1), facts.value(2)
    if begin[0] != Dim(0) or size[0] not in (Dim(-1), rows[0]):
        raise Refused("mixes rows: takes a part of dimension 0")
    return [facts.output(0, rows[0])]


@rule("Split", "SplitV")
def _split(facts: OpFacts) -> list[Dims]:
    at = 0 if facts.op.type == "Split" else 2
    value = 1 - at if at == 0 else 0
    rows = facts.rows(value)
    not_rows(int(facts.constant(at)), len(rows), "splits")
    if facts.op.type == "SplitV":
        facts.shared(1)
    return [facts.output(position, rows[0]) for position in range(len(facts.op.outputs))]


@rule("Unpack")
def _unpack(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    axis = not_rows(int(facts.attr("axis")), len(rows), "unstacks")
    return each_output(facts, tuple(size for position, size in enumerate(rows) if position != axis))


@rule("ConcatV2", "Concat")
def _concat(facts: OpFacts) -> list[Dims]:
    last = len(facts.inputs) - 1
    at, values = (last, range(last)) if facts.op.type == "ConcatV2" else (0, range(1, last + 1))
    first = same_rows(facts, values)
    dims = facts.dims(values[0])
    axis = not_rows(int(facts.constant(at)), len(dims), "joins")
    sizes = [facts.dims(position)[axis] for position in values]
    size = Dim(sum(s.factor for s in sizes)) if all(s.known for s in sizes) else Dim(1, (f"{facts.op.name}#{axis}",))
    return [(first, *dims[1:axis], size, *dims[axis + 1 :])]


@rule("Pack")
def _pack(facts: OpFacts) -> list[Dims]:
    count = len(facts.inputs)
    first = same_rows(facts, range(count))
    dims = facts.dims(0)
    axis = positive(int(facts.attr("axis")), len(dims) + 1)
    if axis == 0:
        raise Refused("puts another dimension before the rows")
    return [(first, *dims[1:axis], Dim(count), *dims[axis:])]


@rule("Tile")
def _tile(facts: OpFacts) -> list[Dims]:
    rows, multiples = facts.rows(0), facts.value(1)
    if multiples[0] != ONE:
        raise Refused("repeats the rows")
    known = [Dim(1, (f"{facts.op.name}#{i}",)) if m is None else m for i, m in enumerate(multiples)]
    if any(multiple.counts_rows for multiple in known):
        raise Refused("the size of a row would depend on the number of rows")
    return [tuple(size * multiple for size, multiple in zip(rows, known, strict=True))]


@rule("BroadcastTo")
def _broadcast_to(facts: OpFacts) -> list[Dims]:
    rows, shape = facts.rows(0), facts.value(1)
    if len(shape) != len(rows) or shape[0] != rows[0]:
        raise Refused("mixes rows: its new shape does not begin with the rows")
    dims = tuple(Dim(1, (f"{facts.op.name}#{i}",)) if size is None else size for i, size in enumerate(shape))
    if any(size.counts_rows for size in dims[1:]):
        raise Refused("the size of a row would depend on the number of rows")
    return [dims]


@rule("Pad", "PadV2", "MirrorPad")
def _pad(facts: OpFacts) -> list[Dims]:
    rows, paddings = facts.rows(0), facts.constant(1)
    if paddings[0].any():
        raise Refused("adds rows")
    if facts.op.type == "PadV2":
        facts.shared(2)
    return [facts.output(0, rows[0])]


@rule("DepthToSpace", "SpaceToDepth")
def _space_depth(facts: OpFacts) -> list[Dims]:
    return [facts.output(0, facts.rows(0)[0])]


@rule("ReverseV2", "Roll")
def _reverse(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    position = 1 if facts.op.type == "ReverseV2" else 2
    for axis in facts.constant(position).reshape(-1):
        not_rows(int(axis), len(rows), "reorders")
    return [rows]


@rule("ReverseSequence")
def _reverse_sequence(facts: OpFacts) -> list[Dims]:
    same_rows(facts, [0])
    if facts.attr("batch_dim") != 0 or facts.attr("seq_dim") == 0:
        raise Refused("mixes rows: reverses along dimension 0")
    facts.rows(1)
    return [facts.rows(0)]


@rule("MatrixBandPart", "MatrixDiagPartV3", "MatrixDiagV3", "MatrixSetDiagV3")
def _matrix(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    if len(rows) < 3 - (facts.op.type == "MatrixDiagV3"):
        raise Refused("mixes rows: its matrices span dimension 0")
    for position in range(1, len(facts.inputs)):
        facts.shared(position)
    return [facts.output(0, rows[0])]
