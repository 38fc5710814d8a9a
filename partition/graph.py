"""A flat GraphDef that can be walked and changed: nodes by name, edges in both directions, pruning.

Knows TensorFlow's textual edges (`node`, `node:1`, `^node`) and nothing of variables or tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import dtypes, tensor_util

from tessera.errors import InvalidArgumentError

# Control flow, without the `Ref` that the same ops on reference edges carry in front.
PASS_THROUGH = frozenset({"Identity", "IdentityN", "Enter", "Exit", "NextIteration", "Switch", "_SwitchN", "Merge"})
_IDLE_OPS = frozenset({"NoOp", "Const", "Placeholder", "TesseraBlob"})
# Attributes that name other nodes or repeat what TensorFlow infers: wrong once the graph is changed.
_STALE_ATTRS = ("_class", "_output_shapes", "_handle_dtypes", "_handle_shapes")


class Edge(NamedTuple):
    """Output `output` of node `node`; -1 is the control output."""

    node: str
    output: int

    @classmethod
    def parse(cls, text: str) -> Edge:
        """Read an entry of `NodeDef.input` or the name of a tensor."""
        if text.startswith("^"):
            return cls(text[1:], -1)
        node, _, output = text.partition(":")
        return cls(node, int(output or 0))

    def __str__(self) -> str:
        if self.output < 0:
            return f"^{self.node}"
        return self.node if self.output == 0 else f"{self.node}:{self.output}"


class Use(NamedTuple):
    """Input `position` of node `node`."""

    node: str
    position: int


class Graph:
    """A mutable graph. Not thread-safe."""

    def __init__(self, graph_def: GraphDef) -> None:
        """Take a copy of `graph_def`, without the attributes that would go stale."""
        self.versions = graph_def.versions
        self.library = graph_def.library
        self.nodes: dict[str, NodeDef] = {}
        for node in graph_def.node:
            copy = NodeDef()
            copy.CopyFrom(node)
            for name in _STALE_ATTRS:
                copy.attr.pop(name, None)
            self.nodes[node.name] = copy

    def copy(self) -> Graph:
        """Return an independent copy."""
        return Graph(self.to_graph_def())

    def op(self, name: str) -> str:
        """Return the op of a node without its `Ref` prefix."""
        op: str = self.nodes[name].op
        return op.removeprefix("Ref")

    def attr(self, name: str, key: str) -> attr_value_pb2.AttrValue:
        """Return an attribute, or an empty one, without adding it to the node as protobuf's own access would."""
        node = self.nodes[name]
        return node.attr[key] if key in node.attr else attr_value_pb2.AttrValue()

    def inputs(self, name: str) -> list[Edge]:
        """Return the inputs of a node, control inputs last."""
        return [Edge.parse(text) for text in self.nodes[name].input]

    def data_inputs(self, name: str) -> list[Edge]:
        """Return the inputs of a node that carry tensors."""
        return [edge for edge in self.inputs(name) if edge.output >= 0]

    def set_inputs(self, name: str, inputs: Iterable[Edge]) -> None:
        """Replace the inputs of a node; repeated control inputs are written once, after the data inputs."""
        edges = list(inputs)
        texts = [str(edge) for edge in edges if edge.output >= 0]
        texts += dict.fromkeys(str(edge) for edge in edges if edge.output < 0)
        node = self.nodes[name]
        del node.input[:]
        node.input.extend(texts)

    def uses(self) -> dict[Edge, list[Use]]:
        """Return who consumes each edge, in the order of the graph. A snapshot: later changes are not seen."""
        result: dict[Edge, list[Use]] = defaultdict(list)
        for name in self.nodes:
            for position, edge in enumerate(self.inputs(name)):
                result[edge].append(Use(name, position))
        return result

    def add(self, op: str, name: str, inputs: Iterable[Edge], **attrs: Any) -> NodeDef:
        """Add a node under a name that is not taken yet, or `name` with a number behind it."""
        unique, number = name, 0
        while unique in self.nodes:
            number += 1
            unique = f"{name}_{number}"
        node = NodeDef(name=unique, op=op)
        self.nodes[unique] = node
        for key, value in attrs.items():
            node.attr[key].CopyFrom(value)
        self.set_inputs(unique, inputs)
        return node

    def replace(self, name: str, op: str, inputs: Iterable[Edge], **attrs: Any) -> NodeDef:
        """Make a node another op under the same name, on the same device."""
        device = self.nodes.pop(name).device
        node = self.add(op, name, inputs, **attrs)
        node.device = device
        return node

    def constant(self, edge: Edge) -> np.ndarray[Any, Any] | None:
        """Return the value of an edge that is a Const behind Identities and Enters, else None."""
        name = edge.node
        while self.op(name) in ("Identity", "Enter"):
            name = self.data_inputs(name)[0].node
        node = self.nodes[name]
        if node.op != "Const":
            return None
        value: np.ndarray[Any, Any] = tensor_util.MakeNdarray(node.attr["value"].tensor)
        return value

    def upstream(self, targets: Iterable[str], *, fed: Iterable[Edge] = ()) -> set[str]:
        """Return the nodes that `targets` need; edges in `fed` are given and not followed.

        Raises:
            InvalidArgumentError: an edge leads to a node that is not there; names both.
        """
        given = set(fed)
        seen: set[str] = set()
        stack = list(targets)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            if name not in self.nodes:
                raise InvalidArgumentError(f"graph: node {name!r} is used but not defined")
            seen.add(name)
            stack.extend(edge.node for edge in self.inputs(name) if edge not in given)
        return seen

    def prune(self, targets: Iterable[str]) -> None:
        """Keep only what `targets` need."""
        keep = self.upstream(targets)
        self.nodes = {name: node for name, node in self.nodes.items() if name in keep}

    def drop_idle_waits(self) -> None:
        """Remove control edges from nodes that wait for nothing and do nothing: they are always ready."""
        idle = {name for name, node in self.nodes.items() if node.op in _IDLE_OPS and not node.input}
        for name in self.nodes:
            self.set_inputs(name, [edge for edge in self.inputs(name) if edge.output >= 0 or edge.node not in idle])

    def order(self) -> list[str]:
        """Return the nodes so that inputs come first; the edges that close loops (NextIteration → Merge) are left out.

        Raises:
            InvalidArgumentError: there is another cycle; names a node on it.
        """
        pending = {name: len(list(self._ordering_inputs(name))) for name in self.nodes}
        followers: dict[str, list[str]] = defaultdict(list)
        for name in self.nodes:
            for edge in self._ordering_inputs(name):
                followers[edge.node].append(name)
        ready = [name for name, count in pending.items() if count == 0]
        result = []
        while ready:
            name = ready.pop()
            result.append(name)
            for follower in followers[name]:
                pending[follower] -= 1
                if pending[follower] == 0:
                    ready.append(follower)
        if len(result) != len(self.nodes):
            stuck = next(name for name, count in pending.items() if count)
            raise InvalidArgumentError(f"graph: node {stuck!r} lies on or behind a cycle")
        return result

    def _ordering_inputs(self, name: str) -> Iterator[Edge]:
        merge = self.op(name) == "Merge"
        for edge in self.inputs(name):
            if not (merge and self.op(edge.node) == "NextIteration"):
                yield edge

    def to_graph_def(self) -> GraphDef:
        """Return the graph with the functions that its nodes still name."""
        result = GraphDef(node=self.nodes.values(), versions=self.versions)
        functions = {function.signature.name: function for function in self.library.function}
        wanted: dict[str, None] = {}
        stack = [name for node in self.nodes.values() for name in _functions(node.attr)]
        while stack:
            name = stack.pop()
            if name in functions and name not in wanted:
                wanted[name] = None
                stack += [inner for node in functions[name].node_def for inner in _functions(node.attr)]
        result.library.function.extend(function for name, function in functions.items() if name in wanted)
        result.library.gradient.extend(g for g in self.library.gradient if g.function_name in wanted)
        return result


def _functions(attrs: Mapping[str, attr_value_pb2.AttrValue]) -> Iterator[str]:
    for value in attrs.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
                yield from _functions(function.attr)


def attr_type(dtype: int) -> attr_value_pb2.AttrValue:
    """Return an attribute of kind `type`; `dtype` is a DataType number."""
    return attr_value_pb2.AttrValue(type=dtype)


def attr_tensor(value: np.ndarray[Any, Any], dtype: int) -> attr_value_pb2.AttrValue:
    """Return an attribute of kind `tensor`."""
    proto = tensor_util.make_tensor_proto(value, dtype=dtypes.as_dtype(dtype), shape=value.shape)
    return attr_value_pb2.AttrValue(tensor=proto)


def attr_shape(shape: Iterable[int]) -> attr_value_pb2.AttrValue:
    """Return an attribute of kind `shape`."""
    result = attr_value_pb2.AttrValue()
    result.shape.SetInParent()
    for size in shape:
        result.shape.dim.add(size=size)
    return result


def constant_attrs(value: np.ndarray[Any, Any], dtype: int) -> dict[str, attr_value_pb2.AttrValue]:
    """Return the attributes of a Const."""
    return {"dtype": attr_type(dtype), "value": attr_tensor(value, dtype)}
