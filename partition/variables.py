"""Finds the variables of a flat graph, and makes each a plain value.

A restored variable becomes one `TesseraBlob` node, and every edge that carried its handle or reference carries its
value instead, also through Enter, Switch and Merge. After that all kinds of variables (TF2 and TF1, resource and
reference) look alike, and reads, gathers and shapes are ordinary ops.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from tensorflow.core.framework import attr_value_pb2, types_pb2
from tensorflow.python.framework import dtypes, op_def_registry

from partition.graph import PASS_THROUGH, Edge, Graph, Use, attr_shape, attr_type, constant_attrs
from partition.saved_model import FlatModel
from tessera.errors import FailedPreconditionError, UnimplementedError

_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_ASSIGN_OPS = frozenset({"AssignVariableOp", "Assign"})


@dataclass(frozen=True)
class Variable:
    """A variable that the SavedModel restores.

    Attributes:
        name: unique in the model, for people and for the manifest.
        nodes: its nodes in the graph (several may share one variable).
        dtype: DataType number.
        key: name of the tensor in the TensorBundle.
        slice_spec: which part of that tensor, in TensorFlow's notation; "" for all of it.
    """

    name: str
    nodes: tuple[str, ...]
    dtype: int
    key: str
    slice_spec: str


def find_variables(model: FlatModel) -> list[Variable]:
    """Return the restored variables that signatures or the init op use, in the order of the graph.

    Raises:
        FailedPreconditionError: something else than variables is restored and used, or a used variable is assigned to.
    """
    graph = model.graph
    used = graph.upstream(model.targets())
    restored = _restored(model, used) if model.restore_op else {}
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in graph.nodes:
        if name in used and graph.nodes[name].op in _VARIABLE_OPS:
            groups[_identity(graph, name)].append(name)
    variables = []
    for identity, nodes in groups.items():
        if identity in restored:
            key, slice_spec = restored[identity]
            dtype = graph.nodes[nodes[0]].attr["dtype"].type
            variables.append(Variable("/".join(filter(None, identity)), tuple(nodes), dtype, key, slice_spec))
    return variables


def _identity(graph: Graph, name: str) -> tuple[str, str]:
    return graph.attr(name, "container").s.decode(), graph.attr(name, "shared_name").s.decode() or name


def _restored(model: FlatModel, used: set[str]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return variable → (key, slice) from what the restore op does."""
    graph = model.graph
    uses = graph.uses()
    result = {}
    for name in sorted(graph.upstream([model.restore_op])):
        if graph.nodes[name].op != "RestoreV2":
            continue
        keys, slices = (graph.constant(edge) for edge in graph.data_inputs(name)[1:3])
        if keys is None or slices is None:
            raise FailedPreconditionError(f"restore op {name!r}: its tensor names are not constant")
        for position, (key, spec) in enumerate(zip(keys.tolist(), slices.tolist(), strict=True)):
            for use in _through_identities(graph, uses, Edge(name, position)):
                target = _origin(graph, graph.data_inputs(use.node)[0])
                if graph.nodes[use.node].op in _ASSIGN_OPS and graph.nodes[target].op in _VARIABLE_OPS:
                    result[_identity(graph, target)] = (key.decode(), spec.decode())
                elif target in used:
                    raise FailedPreconditionError(
                        f"{graph.nodes[target].op} {target!r} is restored from the checkpoint by "
                        f"{graph.nodes[use.node].op}; only variables can be, so make it an asset or a constant"
                    )
    return result


def _through_identities(graph: Graph, uses: dict[Edge, list[Use]], edge: Edge) -> list[Use]:
    result = []
    for use in uses.get(edge, []):
        if graph.op(use.node) == "Identity":
            result += _through_identities(graph, uses, Edge(use.node, 0))
        else:
            result.append(use)
    return result


def _origin(graph: Graph, edge: Edge) -> str:
    while graph.op(edge.node) == "Identity":
        edge = graph.data_inputs(edge.node)[0]
    return edge.node


def to_values(model: FlatModel, variables: list[Variable], shapes: dict[str, tuple[int, ...]]) -> Graph:
    """Return the graph of signatures and init op with `variables` as values: one TesseraBlob node for each.

    The node has the name of the variable's first node and no `digest` yet.

    Args:
        model: where the variables were found.
        variables: from `find_variables`.
        shapes: shape of each variable, by name.

    Raises:
        FailedPreconditionError: an op changes a variable; names both.
        UnimplementedError: an op uses a variable in a way that is not known; names both.
    """
    graph = model.graph.copy()
    graph.prune(model.targets())
    uses = graph.uses()
    for variable in variables:
        _to_value(graph, uses, variable, shapes[variable.name])
    return graph


def blob_node(variable: Variable) -> str:
    """Return the name of the variable's TesseraBlob node."""
    return variable.nodes[0]


def _to_value(graph: Graph, uses: dict[Edge, list[Use]], variable: Variable, shape: tuple[int, ...]) -> None:
    first = blob_node(variable)
    for node in variable.nodes:
        if node == first:
            weight = attr_value_pb2.AttrValue(s=variable.name.encode())
            inputs = graph.inputs(node)
            graph.replace(
                node, "TesseraBlob", inputs, dtype=attr_type(variable.dtype), shape=attr_shape(shape), weight=weight
            )
        else:
            graph.replace(node, "Identity", [Edge(first, 0), *graph.inputs(node)], T=attr_type(variable.dtype))
    stack = [Edge(node, 0) for node in variable.nodes]
    seen: set[Edge] = set()
    while stack:
        edge = stack.pop()
        if edge in seen:
            continue
        seen.add(edge)
        for use in uses.get(edge, []):
            if graph.op(use.node) in PASS_THROUGH:
                stack += _retype(graph, use, variable)
            else:
                _convert(graph, use, variable)


def outputs_of(graph: Graph, use: Use) -> list[Edge]:
    """Return the outputs on which a pass-through op hands on its input `use.position`; none for a predicate."""
    op = graph.op(use.node)
    if op == "IdentityN":
        return [Edge(use.node, use.position)]
    if op in ("Switch", "_SwitchN"):
        count = graph.nodes[use.node].attr["num_outs"].i if op == "_SwitchN" else 2
        return [Edge(use.node, output) for output in range(count)] if use.position == 0 else []
    return [Edge(use.node, 0)]


def _retype(graph: Graph, use: Use, variable: Variable) -> list[Edge]:
    node = graph.nodes[use.node]
    node.op = graph.op(use.node)
    if node.op == "IdentityN":
        node.attr["T"].list.type[use.position] = variable.dtype
    else:
        if node.attr["T"].type not in (types_pb2.DT_RESOURCE, variable.dtype):
            raise UnimplementedError(
                f"variable {variable.name!r}: {node.op} {node.name!r} joins it with another variable of dtype "
                f"{dtypes.as_dtype(node.attr['T'].type).name}"
            )
        node.attr["T"].type = variable.dtype
    return outputs_of(graph, use)


def _convert(graph: Graph, use: Use, variable: Variable) -> None:
    """Make an op on a variable's handle the op on its value; leave an op on its value as it is."""
    name, op = use.node, graph.nodes[use.node].op
    inputs, value = graph.inputs(name), attr_type(variable.dtype)
    batch_dims, indices_type = graph.attr(name, "batch_dims"), graph.attr(name, "Tindices")
    if op == "ReadVariableOp":
        graph.replace(name, "Identity", inputs, T=value)
    elif op == "ResourceGather" and batch_dims.i == 0:
        graph.replace(name, "Gather", inputs, Tparams=value, Tindices=indices_type)
    elif op == "ResourceGather":
        # The axis must be in the frame of the ids, so it waits for them.
        zero = constant_attrs(np.zeros((), np.int32), types_pb2.DT_INT32)
        axis = graph.add("Const", f"{name}/axis", [after(graph, inputs[1])], **zero)
        types = {"Tparams": value, "Tindices": indices_type, "Taxis": attr_type(types_pb2.DT_INT32)}
        graph.replace(name, "GatherV2", [*inputs[:2], Edge(axis.name, 0), *inputs[2:]], batch_dims=batch_dims, **types)
    elif op == "ResourceGatherNd":
        graph.replace(name, "GatherNd", inputs, Tparams=value, Tindices=indices_type)
    elif op == "VariableShape":
        out_type = attr_type(graph.attr(name, "out_type").type or types_pb2.DT_INT32)
        graph.replace(name, "Shape", inputs, T=value, out_type=out_type)
    elif op in ("VarIsInitializedOp", "IsVariableInitialized"):
        true = constant_attrs(np.ones((), np.bool_), types_pb2.DT_BOOL)
        graph.replace(name, "Const", [after(graph, edge) for edge in inputs], **true)
    elif _takes_handle(graph, use):
        raise FailedPreconditionError(
            f"variable {variable.name!r}: {op} {name!r} changes it, or uses its handle in a way that is not known; "
            "weights that are served never change: leave the signature out by naming those to keep"
        )


def _takes_handle(graph: Graph, use: Use) -> bool:
    """Whether an op wants a resource or a reference there, not a value."""
    op_def = op_def_registry.get(graph.nodes[use.node].op)
    if op_def is None:
        return True  # a call of a function by its name
    position = use.position
    for arg in op_def.input_arg:
        types = list(graph.attr(use.node, arg.type_list_attr).list.type) if arg.type_list_attr else [arg.type]
        if arg.number_attr:
            types *= graph.attr(use.node, arg.number_attr).i
        if position < len(types):
            given = graph.attr(use.node, arg.type_attr).type if arg.type_attr else types[position]
            return bool(arg.is_ref) or given == types_pb2.DT_RESOURCE
        position -= len(types)
    return False


def after(graph: Graph, edge: Edge) -> Edge:
    """Return a control edge that is alive exactly when `edge` is: behind a Switch that takes an Identity of its own."""
    if edge.output < 0 or graph.op(edge.node) not in ("Switch", "_SwitchN"):
        return Edge(edge.node, -1)
    dtype = graph.nodes[edge.node].attr["T"]
    return Edge(graph.add("Identity", f"{edge.node}/alive", [edge], T=dtype).name, -1)
