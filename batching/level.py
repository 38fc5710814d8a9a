"""A graph to be looked at as a whole: the main graph of a SavedModel, or the body of a loop.

Both become a `tf.Graph`, so that TensorFlow infers the shapes. Functions are inlined; While and If are single ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import errors as tf_errors
from tensorflow.python.framework import function_def_to_graph, importer
from tensorflow.python.ops import handle_data_util

from tessera.errors import FailedPreconditionError

WHILE_OPS = frozenset({"While", "StatelessWhile"})


@dataclass(frozen=True)
class Level:
    """A graph with names of tensors that are unique in it.

    Attributes:
        function: its function's name; "" for the main graph.
        graph: the ops, with shapes.
        arguments: names of the tensors that are the function's arguments, in order; empty for the main graph.
        results: names of the tensors that the function returns, in order; empty for the main graph.
        users: op → which signatures need it, for ops that any needs.
        fed: names of tensors that a signature is fed.
        kept: names of ops that are named from outside (inputs and outputs of signatures, and so on).
    """

    function: str
    graph: tf.Graph
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fed: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()

    def order(self) -> list[tf.Operation]:
        """Return the ops that somebody needs, inputs first; loops of TF1 are cut at NextIteration."""
        result: list[tf.Operation] = []
        state: dict[str, bool] = {}
        for start in self.graph.get_operations():
            stack = [(start, False)]
            while stack:
                op, inputs_done = stack.pop()
                if inputs_done:
                    result.append(op)
                    continue
                if op.name in state or op.name not in self.users:
                    continue
                state[op.name] = True
                stack.append((op, True))
                if op.type != "NextIteration":
                    stack += [(before, False) for before in predecessors(op)]
        return result


def predecessors(op: tf.Operation) -> list[tf.Operation]:
    """Return the ops that must run before `op`."""
    return [tensor.op for tensor in op.inputs] + list(op.control_inputs)


def main_level(
    graph_def: GraphDef, signatures: Mapping[str, tuple[Sequence[str], Sequence[str]]], kept: Sequence[str]
) -> Level:
    """Return the main graph.

    Args:
        graph_def: functions inlined, While and If kept.
        signatures: name → (names of the tensors that it is fed, names of the tensors that it returns).
        kept: more ops that must stay under their names.

    Raises:
        FailedPreconditionError: TensorFlow refuses the graph.
    """
    graph = _imported(graph_def)
    users: dict[str, frozenset[str]] = {}
    for name, (fed, fetched) in signatures.items():
        given = set(fed)
        stack = [graph.get_tensor_by_name(tensor).op for tensor in fetched if tensor not in given]
        seen = {graph.get_tensor_by_name(tensor).op.name for tensor in fed}
        for op in seen:
            users[op] = users.get(op, frozenset()) | {name}
        while stack:
            op = stack.pop()
            if op.name in seen:
                continue
            seen.add(op.name)
            users[op.name] = users.get(op.name, frozenset()) | {name}
            stack += [tensor.op for tensor in op.inputs if tensor.name not in given] + list(op.control_inputs)
    names = {graph.get_tensor_by_name(t).op.name for fed, fetched in signatures.values() for t in (*fed, *fetched)}
    all_fed = frozenset(name for fed, _ in signatures.values() for name in fed)
    return Level("", graph, users=users, fed=all_fed, kept=frozenset(names | set(kept)))


def body_level(
    function: FunctionDef, library: GraphDef, shapes: Sequence[tf.TensorShape], handles: Sequence[tf.Tensor]
) -> Level:
    """Return the body of a loop.

    Args:
        function: the body.
        library: a graph with the functions that it uses.
        shapes: of the arguments.
        handles: the tensors of the caller that start each argument; a resource has its variable's shape from there.

    Raises:
        FailedPreconditionError: TensorFlow refuses the graph.
    """
    with tf.Graph().as_default():
        importer.import_graph_def(GraphDef(library=library.library, versions=library.versions), name="")
        graph_def, flat_names = function_def_to_graph.function_def_to_graph_def(function, shapes)
    arguments = [argument.name for argument in function.signature.input_arg]
    for node in graph_def.node[: len(arguments)]:
        handle = handles[arguments.index(node.name)]
        data = handle_data_util.get_resource_handle_data(handle) if handle.dtype == tf.resource else None
        if data is not None and data.is_set and len(data.shape_and_type) == 1:
            _become_variable(node, data.shape_and_type[0])
    graph_def.library.CopyFrom(library.library)
    graph = _imported(graph_def)
    results = [_flat(function.ret[output.name], flat_names) for output in function.signature.output_arg]
    roots = {name.partition(":")[0] for name in results} | set(function.control_ret.values())
    return Level(
        function=function.signature.name,
        graph=graph,
        arguments=tuple(f"{name}:0" for name in arguments),
        results=tuple(results),
        users={name: frozenset({"body"}) for name in _needed(graph, roots)},
    )


def _needed(graph: tf.Graph, roots: set[str]) -> set[str]:
    """Return the ops that `roots` and the ops with effects need."""
    stack = [op for op in graph.get_operations() if op.name in roots or (op.op_def.is_stateful and op.outputs == [])]
    seen: set[str] = set()
    while stack:
        op = stack.pop()
        if op.name not in seen:
            seen.add(op.name)
            stack += predecessors(op)
    return seen


def _flat(name: str, flat_names: Mapping[str, str]) -> str:
    flat = flat_names.get(name, name)
    return flat if ":" in flat else f"{flat}:0"


def _become_variable(node: NodeDef, shape_and_type: object) -> None:
    """Make an argument look like the variable that it is, for shape inference."""
    node.op = "VarHandleOp"
    node.attr.clear()
    node.attr["dtype"].type = shape_and_type.dtype  # type: ignore[attr-defined]
    node.attr["shape"].shape.CopyFrom(shape_and_type.shape)  # type: ignore[attr-defined]


def _imported(graph_def: GraphDef) -> tf.Graph:
    with tf.Graph().as_default() as graph:
        try:
            importer.import_graph_def(graph_def, name="")
        except (ValueError, tf_errors.OpError) as error:
            raise FailedPreconditionError(f"TensorFlow refuses the graph: {error}") from error
    return graph
