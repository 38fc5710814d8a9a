"""Estimates of what ops cost and of how large tensors are, for one row; only used to compare."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import tensorflow as tf

from batching.dims import ROWS_SYMBOL, Dim, Dims
from batching.facts import Fact
from batching.rules_linear import GATHER_OPS, HEAVY_OPS

# What a dimension that is not known is taken for.
_TYPICAL_SIZE = 16
# A table below this stays in the caches: its gathers cost no more than other small ops.
LARGE_TABLE_BYTES = 1 << 20
# What gathering a row from a large table is worth in the comparison of regions, in multiplications.
_GATHER_WORTH = 10_000


def _size(dim: Dim) -> int:
    return dim.factor * int(_TYPICAL_SIZE ** sum(symbol != ROWS_SYMBOL for symbol in dim.symbols))


def row_elements(dims: Dims) -> int:
    """Return how many elements one row has; dimension 0 may be several times the rows."""
    return prod(_size(dim) for dim in dims)


def row_bytes(tensor: tf.Tensor, fact: Fact) -> int:
    """Return the bytes of one row of a tensor."""
    if fact.dims is None:
        return 0
    return row_elements(fact.dims) * int(tensor.dtype.base_dtype.size)


def is_heavy(op: tf.Operation, facts: Mapping[str, Fact], remote: frozenset[str]) -> bool:
    """Whether an op is worth a region: it multiplies matrices, or gathers from a large or remote table."""
    if op.type in HEAVY_OPS:
        return True
    return op.type in GATHER_OPS and (gathers_remotely(op, remote) or table_bytes(op, facts) >= LARGE_TABLE_BYTES)


def gathers_remotely(op: tf.Operation, remote: frozenset[str]) -> bool:
    """Whether an op gathers from one of the tables in `remote`, which are names of the variables' ops."""
    if op.type not in GATHER_OPS:
        return False
    source = op.inputs[0].op
    while source.type in ("Identity", "ReadVariableOp", "Cast") and source.inputs:
        source = source.inputs[0].op
    return source.name in remote


def table_bytes(op: tf.Operation, facts: Mapping[str, Fact]) -> int:
    """Return the bytes of the table that a gather reads."""
    dims = facts[op.inputs[0].name].dims
    return 0 if dims is None else prod(_size(dim) for dim in dims) * int(op.outputs[0].dtype.base_dtype.size)


def work(op: tf.Operation, facts: Mapping[str, Fact]) -> int:
    """Return about how many multiplications an op does for one row."""
    shapes = [facts[tensor.name].dims or () for tensor in op.inputs]
    result = facts[op.outputs[0].name].dims if op.outputs else None
    out = row_elements(result) if result is not None else 0
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        transposed = op.type != "MatMul" and op.get_attr("adj_x")
        return out * _size(shapes[0][-2 if transposed else -1]) if shapes[0] else out
    if op.type == "Einsum":
        return max(row_elements(shape) for shape in shapes if shape) * _TYPICAL_SIZE
    if op.type in HEAVY_OPS:
        filters = prod(_size(dim) for dim in shapes[1])
        return out * max(1, filters // _size(shapes[1][-1])) if shapes[1] else out
    if op.type in GATHER_OPS and table_bytes(op, facts) >= LARGE_TABLE_BYTES:
        return _GATHER_WORTH
    return out
