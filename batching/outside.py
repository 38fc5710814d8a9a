"""Which values of one request a region of a graph uses although they are no input of its `batch`.

Such a value would be one request's for all requests of a batch. Only what a trace shows is found here; the loader
of graphs checks every region again, after functions were inlined.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph

from batching.leaves import Leaf
from tessera.errors import InvalidArgumentError

_WEIGHTS = frozenset({"Const", "VarHandleOp", "ReadVariableOp", "TesseraBlob"})
_ARGUMENTS = frozenset({"Placeholder", "PlaceholderWithDefault", "PlaceholderV2", "_Arg"})
_CALLS = frozenset({"StatefulPartitionedCall", "PartitionedCall", "While", "If", "Case", "ResourceGather"})
"""Ops whose result is the same for all requests if their inputs are, although they are, or may be, stateful."""

_Value = tuple[tf.Operation, int]
"""An op and the position of one of its outputs."""


def check_region(region: str, begin: tf.Operation, outputs: Iterable[Leaf]) -> None:
    """Raise if an output does not come from the region that the op `begin` (TesseraBatch) begins, or bypasses it.

    REQUIRES: called while the region's function is traced, before ops are made that use the outputs.

    Raises:
        InvalidArgumentError: names the output, or the op of the region and the value from outside that it uses.

    Cost: O(ops in the region, and ops that what it uses from outside is made of).
    """
    inside = _downstream(begin)
    outputs = list(outputs)
    for leaf in outputs:
        op = None if isinstance(leaf.tensor, ops.EagerTensor) else leaf.tensor.op
        if op is not begin and op not in inside:
            given = "a constant" if op is None else op.name
            raise InvalidArgumentError(
                f"{leaf.name} ({given}) does not depend on the region's inputs, expected what is computed from what "
                "batch returned"
            )
    cache: dict[_Value, Any] = {}
    for op in _upstream([leaf.tensor.op for leaf in outputs], inside):
        for tensor in op.inputs:
            if tensor.op is begin or tensor.op in inside:
                continue
            source = _source_that_differs(tensor, cache)
            if source is not None:
                via = "" if source is tensor else f", which is made of {source.op.name} ({source.op.type})"
                raise InvalidArgumentError(
                    f"region {region}: op {op.name} ({op.type}) uses {tensor.name} ({tensor.op.type}) from outside of "
                    f"the region{via}; its value differs from request to request, so make it an input of batch"
                )


def _downstream(begin: tf.Operation) -> set[tf.Operation]:
    """Return the ops that data flows to from `begin`."""
    seen: set[tf.Operation] = set()
    waiting = [begin]
    while waiting:
        for output in waiting.pop().outputs:
            for op in output.consumers():
                if op not in seen:
                    seen.add(op)
                    waiting.append(op)
    return seen


def _upstream(ends: list[tf.Operation], inside: set[tf.Operation]) -> set[tf.Operation]:
    """Return the ops of `inside` that data flows from to `ends`."""
    seen = {op for op in ends if op in inside}
    waiting = list(seen)
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op in inside and tensor.op not in seen:
                seen.add(tensor.op)
                waiting.append(tensor.op)
    return seen


def _source_that_differs(tensor: Any, cache: dict[_Value, Any]) -> Any:
    """Return a tensor that `tensor` is made of and that may differ between requests, None if there is none."""
    seen: set[_Value] = set()
    waiting = [tensor]
    found = None
    while waiting and found is None:
        current = waiting.pop()
        if current.dtype == tf.resource or isinstance(current, ops.EagerTensor) or current.op.type in _WEIGHTS:
            continue
        value = (current.op, current.value_index)
        if value in seen:
            continue
        seen.add(value)
        if value in cache:
            found = cache[value]
        elif current.op.type in _ARGUMENTS:
            outer = _captured(current)
            if outer is None:
                found = current
            else:
                waiting.append(outer)
        elif current.op.op_def.is_stateful and current.op.type not in _CALLS:
            found = current
        else:
            waiting.extend(current.op.inputs)
    if not isinstance(tensor, ops.EagerTensor):
        cache[tensor.op, tensor.value_index] = found
    return found


def _captured(argument: tf.Tensor) -> Any:
    """Return the tensor of the outer function that `argument` stands for, None if it is a parameter."""
    graph = argument.graph
    if not isinstance(graph, FuncGraph):
        return None
    return next((outer for outer, inner in graph.captures if inner is argument), None)
