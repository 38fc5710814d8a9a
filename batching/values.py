"""Small integer tensors made of dimensions: what `Shape(x)[0]`, `Pack`, `Prod` and so on come to.

Every function returns the elements of the output in order, None for an element that is not known, or None when nothing
is known of the output.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from batching.dims import ONE, Dim, Dims, product
from batching.facts import MAX_VALUE_ELEMENTS, Fact

Value = tuple[Dim | None, ...] | None
_Rule = Callable[[tf.Operation, list[Fact]], Value]


def constant_value(tensor: tf.Tensor) -> Value:
    """Return the elements of a small constant of integers."""
    if not tensor.dtype.is_integer or tensor.shape.rank is None or tensor.shape.rank > 1:
        return None
    if (tensor.shape.num_elements() or 0) > MAX_VALUE_ELEMENTS:
        return None
    value = tensor_util.constant_value(tensor)
    return None if value is None else tuple(Dim(int(element)) for element in np.asarray(value).reshape(-1))


def computed_value(op: tf.Operation, inputs: list[Fact]) -> Value:
    """Return the elements of output 0 of an op whose inputs depend on dimensions only."""
    rule = _RULES.get(op.type)
    return None if rule is None else rule(op, inputs)


def shape_value(op: tf.Operation, dims: Dims) -> Value:
    """Return the value of a Shape, Size or Rank op over a tensor of shape `dims`."""
    if op.type == "Shape":
        return dims
    return (product(dims),) if op.type == "Size" else (Dim(len(dims)),)


def _indices(op: tf.Operation, inputs: list[Fact]) -> list[int] | None:
    """Return the positions that a StridedSlice or Slice of a vector takes."""
    bounds = [[d.factor if d is not None and d.known else None for d in f.value or (None,)] for f in inputs[1:]]
    source = inputs[0].value
    if source is None or any(len(bound) != 1 or bound[0] is None for bound in bounds):
        return None
    first, second = bounds[0][0], bounds[1][0]
    assert first is not None
    assert second is not None
    if op.type == "Slice":
        return list(range(len(source)))[first : None if second == -1 else first + second]
    if op.get_attr("new_axis_mask") or op.get_attr("ellipsis_mask"):
        return None
    if op.get_attr("shrink_axis_mask"):
        return [first + len(source) if first < 0 else first]
    start = None if op.get_attr("begin_mask") else first
    stop = None if op.get_attr("end_mask") else second
    return list(range(len(source)))[slice(start, stop, bounds[2][0])]


def _cut(op: tf.Operation, inputs: list[Fact]) -> Value:
    indices, source = _indices(op, inputs), inputs[0].value
    if indices is None or source is None or not all(0 <= i < len(source) for i in indices):
        return None
    return tuple(source[i] for i in indices)


def _gather(op: tf.Operation, inputs: list[Fact]) -> Value:
    source, ids = inputs[0].value, inputs[1].value
    if source is None or ids is None or any(i is None or not i.known for i in ids):
        return None
    if inputs[0].dims is None or len(inputs[0].dims) != 1:
        return None
    positions = [i.factor + len(source) if i.factor < 0 else i.factor for i in ids if i is not None]
    return tuple(source[i] for i in positions) if all(0 <= i < len(source) for i in positions) else None


def _concat(op: tf.Operation, inputs: list[Fact]) -> Value:
    parts = inputs[:-1] if op.type == "ConcatV2" else inputs[1:] if op.type == "Concat" else inputs
    result: list[Dim | None] = []
    for part in parts:
        if part.value is not None:
            result += part.value
        elif part.dims is not None and len(part.dims) <= 1 and all(size.known for size in part.dims):
            result += [None] * product(part.dims).factor
        else:
            return None
    return tuple(result)


def _range(op: tf.Operation, inputs: list[Fact]) -> Value:
    bounds = [fact.value[0] if fact.value else None for fact in inputs]
    numbers = [size.factor for size in bounds if size is not None and size.known]
    if len(numbers) != len(inputs) or numbers[2] == 0:
        return None
    values = range(*numbers)
    return tuple(Dim(value) for value in values) if len(values) <= MAX_VALUE_ELEMENTS else None


def _keep(op: tf.Operation, inputs: list[Fact]) -> Value:
    return inputs[0].value


def _product(op: tf.Operation, inputs: list[Fact]) -> Value:
    known = [] if inputs[0].value is None else [size for size in inputs[0].value if size is not None]
    return (product(known),) if inputs[0].value is not None and len(known) == len(inputs[0].value) else None


def _elementwise(combine: Callable[[Dim, Dim], Dim | None]) -> _Rule:
    def apply(op: tf.Operation, inputs: list[Fact]) -> Value:
        left, right = inputs[0].value, inputs[1].value
        if left is None or right is None:
            return None
        count = max(len(left), len(right))
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            return None
        pairs = zip(left * count if len(left) == 1 else left, right * count if len(right) == 1 else right, strict=False)
        return tuple(None if one is None or other is None else combine(one, other) for one, other in pairs)

    return apply


def _numbers(compute: Callable[[int, int], int]) -> Callable[[Dim, Dim], Dim | None]:
    return lambda one, other: Dim(compute(one.factor, other.factor)) if one.known and other.known else None


def _same_or(compute: Callable[[int, int], int]) -> Callable[[Dim, Dim], Dim | None]:
    return lambda one, other: one if one == other else _numbers(compute)(one, other)


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("StridedSlice", "Slice"), _cut),
    **dict.fromkeys(("Gather", "GatherV2"), _gather),
    **dict.fromkeys(("ConcatV2", "Concat", "Pack"), _concat),
    **dict.fromkeys(("Identity", "Cast", "ExpandDims", "Squeeze", "Reshape", "StopGradient", "Snapshot"), _keep),
    "Range": _range,
    "Prod": _product,
    "Mul": _elementwise(lambda one, other: one * other),
    **dict.fromkeys(("FloorDiv", "TruncateDiv"), _elementwise(lambda one, other: one.divided(other))),
    **dict.fromkeys(("Add", "AddV2"), _elementwise(_numbers(lambda one, other: one + other))),
    "Sub": _elementwise(_numbers(lambda one, other: one - other)),
    "Maximum": _elementwise(_same_or(max)),
    "Minimum": _elementwise(_same_or(min)),
    "BroadcastArgs": _elementwise(lambda one, other: one if other in (one, ONE) else other if one == ONE else None),
}
