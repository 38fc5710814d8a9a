"""Puts the pair of ops around a region, in a GraphDef or in the FunctionDef of a loop's body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import op_def_registry

from batching.analysis import Analysis, Role
from batching.facts import MAX_VALUE_ELEMENTS
from batching.regions import Region

Nodes = RepeatedCompositeFieldContainer[NodeDef]


# Edge as the analysis saw it → where regions that were inserted before have moved it; insertions add to it.
Moved = dict[str, str]


def insert_in_graph(graph_def: GraphDef, analysis: Analysis, region: Region, name: str, moved: Moved) -> None:
    """Put the pair around a region of the main graph, in place.

    Args:
        graph_def: what the analysis looked at.
        analysis: of the main graph.
        region: found there.
        name: of the region, unique in the model.
        moved: the same for all regions of the graph; empty at first.
    """
    for node in graph_def.node:
        for position, edge in enumerate(node.input):
            if edge.endswith(":0"):
                node.input[position] = edge.removesuffix(":0")
    _Inserter(graph_def.node, analysis, region, name, moved, _graph_edge).insert()


def insert_in_body(function: FunctionDef, analysis: Analysis, region: Region, name: str, moved: Moved) -> None:
    """Put the pair around a region of a loop's body, in place; arguments as of `insert_in_graph`."""
    edges = _FunctionEdges(function)
    _Inserter(function.node_def, analysis, region, name, moved, edges.text, in_function=True).insert()
    for key in list(function.ret):
        function.ret[key] = moved.get(function.ret[key], function.ret[key])


def _graph_edge(tensor: str) -> str:
    return tensor.removesuffix(":0")


class _FunctionEdges:
    """Converts `node:2` to the `node:output:1` of functions."""

    def __init__(self, function: FunctionDef) -> None:
        self._arguments = {argument.name for argument in function.signature.input_arg}
        self._nodes = {node.name: node for node in function.node_def}

    def text(self, tensor: str) -> str:
        name, _, position = tensor.rpartition(":")
        if name in self._arguments:
            return name
        return f"{name}:{_output_text(self._nodes[name], int(position))}"


def _output_text(node: NodeDef, position: int) -> str:
    for argument in op_def_registry.get(node.op).output_arg:
        count = 1
        if argument.number_attr:
            count = node.attr[argument.number_attr].i
        elif argument.type_list_attr:
            count = len(node.attr[argument.type_list_attr].list.type)
        if position < count:
            return f"{argument.name}:{position}"
        position -= count
    raise AssertionError(f"{node.name} has no output {position}")


class _Inserter:
    """One insertion."""

    def __init__(
        self,
        nodes: Nodes,
        analysis: Analysis,
        region: Region,
        name: str,
        moved: Moved,
        original_edge: Callable[[str], str],
        *,
        in_function: bool = False,
    ) -> None:
        self._nodes = nodes
        self._by_name = {node.name: node for node in nodes}
        self._analysis = analysis
        self._region = region
        self._name = name
        self._already_moved = moved
        self._original_edge = original_edge
        self._in_function = in_function

    def _edge(self, tensor: str) -> str:
        """Return a tensor as the nodes name it now."""
        edge = self._original_edge(tensor)
        return self._already_moved.get(edge, edge)

    def insert(self) -> None:
        """Insert the pair, and note where the outputs come from now."""
        border, inside = self._region.border, set(self._region.ops)
        batch, unbatch = self._unique(f"{self._name}/batch"), self._unique(f"{self._name}/unbatch")
        into = {self._edge(t): self._pair_edge(batch, "batched", i) for i, t in enumerate(border.inputs)}
        out = {self._edge(t): self._pair_edge(unbatch, "unbatched", i) for i, t in enumerate(border.outputs)}
        added = [self._batch_node(batch), self._unbatch_node(unbatch, len(border.inputs), batch)]
        repeated = self._repeat_light(into)
        added += [node for _, node in repeated]
        copies = {name: node.name for name, node in repeated}
        controls = self._rewire_members(inside, into, copies)
        added[0].input.extend(f"^{name}" for name in controls)
        self._rewire_others(inside, out, unbatch)
        self._rename_kept(inside, out, added)
        self._nodes.extend(added)
        self._already_moved.update(out)

    def _unique(self, name: str) -> str:
        unique, number = name, 0
        while unique in self._by_name:
            number += 1
            unique = f"{name}_{number}"
        self._by_name[unique] = NodeDef()
        return unique

    def _pair_edge(self, node: str, output: str, position: int) -> str:
        if self._in_function:
            return f"{node}:{output}:{position}"
        return node if position == 0 else f"{node}:{position}"

    def _types(self, tensors: Iterable[str]) -> list[int]:
        graph = self._analysis.level.graph
        return [graph.get_tensor_by_name(tensor).dtype.base_dtype.as_datatype_enum for tensor in tensors]

    def _batch_node(self, name: str) -> NodeDef:
        node = NodeDef(name=name, op="TesseraBatch")
        node.input.extend(self._edge(tensor) for tensor in self._region.border.inputs)
        node.attr["T"].list.type.extend(self._types(self._region.border.inputs))
        node.attr["region"].s = self._name.encode()
        for key in ("pad_dims", "pad_values", "length_buckets"):
            node.attr[key].list.SetInParent()
        return node

    def _unbatch_node(self, name: str, tokens_position: int, batch: str) -> NodeDef:
        node = NodeDef(name=name, op="TesseraUnbatch")
        node.input.extend(self._edge(tensor) for tensor in self._region.border.outputs)
        node.input.append(f"{batch}:token:0" if self._in_function else f"{batch}:{tokens_position}")
        node.attr["T"].list.type.extend(self._types(self._region.border.outputs))
        for key in ("trim_dims", "trim_inputs"):
            node.attr[key].list.SetInParent()
        return node

    def _repeat_light(self, into: dict[str, str]) -> list[tuple[str, NodeDef]]:
        """Return copies of the light ops that are needed inside, by the names of the originals."""
        border, graph = self._region.border, self._analysis.level.graph
        repeated: list[tuple[str, NodeDef]] = []
        copies: dict[str, str] = {}
        for name in border.light:
            op = graph.get_operation_by_name(name)
            copy = NodeDef()
            copy.CopyFrom(self._by_name[name])
            copy.name = self._unique(f"{self._name}/{name.rpartition('/')[2]}")
            copy.attr.pop("_class", None)
            inputs = [text for text in copy.input if not text.startswith("^")]
            del copy.input[:]
            constant = self._known_shape(op)
            if constant is not None:
                copy.op = "Const"
                copy.attr.clear()
                copy.attr["dtype"].type = op.outputs[0].dtype.as_datatype_enum
                copy.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(constant, op.outputs[0].dtype))
            elif name in border.shapes:
                source = self._edge(border.shapes[name])
                copy.input.append(into.get(source, source))
                copy.attr["T"].type = self._types([border.shapes[name]])[0]
            else:
                copy.input.extend(_moved(text, into, copies) for text in inputs)
            copies[name] = copy.name
            repeated.append((name, copy))
        return repeated

    def _known_shape(self, op: tf.Operation) -> object:
        """Return the value of a Shape, Size or Rank op, if it is known without its tensor."""
        if op.type not in ("Shape", "Size", "Rank"):
            return None
        value = self._analysis.facts[op.outputs[0].name].value
        if value is None or len(value) > MAX_VALUE_ELEMENTS or any(size is None or not size.known for size in value):
            return None
        numbers = [size.factor for size in value if size is not None]
        return numbers if op.type == "Shape" else numbers[0]

    def _rewire_members(self, inside: set[str], into: dict[str, str], copies: dict[str, str]) -> list[str]:
        """Make the region read from the pair; return what it waited for outside."""
        waits: dict[str, None] = {}
        for name in self._region.ops:
            node = self._by_name[name]
            for text in list(node.input):
                if text.startswith("^") and text[1:] not in inside:
                    if not self._idle(text[1:]):
                        waits[text[1:]] = None
                    node.input.remove(text)
            for position, text in enumerate(node.input):
                if not text.startswith("^"):
                    node.input[position] = _moved(text, into, copies)
        return list(waits)

    def _idle(self, name: str) -> bool:
        """Whether waiting for an op means nothing: it does nothing, or only reads weights and shapes."""
        op = self._analysis.level.graph.get_operation_by_name(name)
        light = self._analysis.roles.get(name) is Role.LIGHT
        return light or (op.type == "NoOp" and all(self._idle(before.name) for before in op.control_inputs))

    def _rewire_others(self, inside: set[str], out: dict[str, str], unbatch: str) -> None:
        for node in self._nodes:
            if node.name in inside:
                continue
            for position, text in enumerate(node.input):
                if text.startswith("^") and text[1:] in inside:
                    node.input[position] = f"^{unbatch}"
                elif text in out:
                    node.input[position] = out[text]
            _once(node)

    def _rename_kept(self, inside: set[str], out: dict[str, str], added: list[NodeDef]) -> None:
        """Give an op that a signature names another name, and its name to what comes out of the region."""
        for name in sorted(inside & self._analysis.level.kept):
            node = self._by_name[name]
            op = self._analysis.level.graph.get_operation_by_name(name)
            named = NodeDef(name=name, op="IdentityN")
            named.input.extend(out[self._edge(tensor.name)] for tensor in op.outputs)
            named.attr["T"].list.type.extend(self._types(tensor.name for tensor in op.outputs))
            node.name = self._unique(f"{name}/batched")
            # Outside of the region nobody reads the op itself any more.
            for other in [self._by_name[member] for member in self._region.ops] + added:
                for position, text in enumerate(other.input):
                    if text.lstrip("^").partition(":")[0] == name:
                        other.input[position] = text.replace(name, node.name, 1)
            added.append(named)


def _moved(text: str, into: dict[str, str], copies: dict[str, str]) -> str:
    if text in into:
        return into[text]
    name, colon, rest = text.partition(":")
    return f"{copies[name]}{colon}{rest}" if name in copies else text


def _once(node: NodeDef) -> None:
    """Write repeated control inputs once, after the data inputs."""
    data = [text for text in node.input if not text.startswith("^")]
    controls = dict.fromkeys(text for text in node.input if text.startswith("^"))
    if len(data) + len(controls) != len(node.input) or list(node.input[len(data) :]) != list(controls):
        del node.input[:]
        node.input.extend([*data, *controls])


def pair_names(graph_def: GraphDef) -> Iterator[str]:
    """Yield the regions that a graph has already, in its functions too."""
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            if node.op == "TesseraBatch":
                yield node.attr["region"].s.decode()
