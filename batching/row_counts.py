"""Which tensors surely have the same number of rows.

Two inputs of a signature may have different numbers of rows, and ops that broadcast accept one row beside many. A
region's inputs must agree, so ops that would join rows of different counts are found here, unless some other op that
accepts no difference (a Concat, say) shows that the counts are the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from batching.analysis import Analysis, Role
from batching.facts import Kind

# These fail when their inputs have different numbers of rows.
_STRICT = frozenset(
    ("AddN", "AccumulateNV2", "BatchMatMul", "Concat", "ConcatV2", "InTopKV2", "Pack", "ReverseSequence", "Select")
)


class _Classes:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        """Return what stands for the set of `name`."""
        parent = self._parent
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, names: Iterable[str]) -> bool:
        """Make one set of the sets of all; return whether that was new."""
        roots = {self.root(name) for name in names}
        first = min(roots, default="")
        for other in roots - {first}:
            self._parent[other] = first
        return len(roots) > 1


def unproven_joins(analysis: Analysis) -> frozenset[str]:
    """Return the ops inside of possible regions whose inputs may have different numbers of rows.

    Args:
        analysis: made as if all numbers of rows were the same.
    """
    classes = _Classes()
    joins: list[tuple[tf.Operation, list[str]]] = []
    for op in analysis.order:
        if analysis.roles[op.name] is Role.OUTSIDE:
            continue
        counted = [tensor.name for tensor in op.inputs if _counts_rows(analysis, tensor)]
        outputs = [tensor.name for tensor in op.outputs if _counts_rows(analysis, tensor)]
        if op.type == "IdentityN":
            for given, made in zip(op.inputs, op.outputs, strict=True):
                classes.join([given.name, made.name])
        elif op.type in _STRICT or _is_strict(op) or len(counted) < 2:
            classes.join([*counted, *outputs])
        else:
            joins.append((op, [*counted, *outputs]))
    changed = True
    while changed:  # a join whose inputs agree has an output that agrees too, and that may show more
        changed = False
        for op, names in joins:
            inputs = {tensor.name for tensor in op.inputs}
            if len({classes.root(name) for name in names if name in inputs}) == 1:
                changed |= classes.join(names)
    return frozenset(op.name for op, names in joins if len({classes.root(name) for name in names}) > 1)


def _counts_rows(analysis: Analysis, tensor: tf.Tensor) -> bool:
    return analysis.facts[tensor.name].kind in (Kind.ROWS, Kind.COUNT)


def _is_strict(op: tf.Operation) -> bool:
    if op.type == "Einsum":
        return b"..." not in op.get_attr("equation")
    return op.type in ("GatherV2", "ResourceGather") and bool(op.get_attr("batch_dims"))
