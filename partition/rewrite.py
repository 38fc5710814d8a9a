"""Replaces the gathers of split tables by as few `TesseraLookup` ops as possible.

Gathers join one op when they are on the same level (the number of lookups before them on the longest path), are
reached by the same signatures, run in the same context, and are in the same batched region or in none. On a path
levels only rise, so joining makes no cycle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tensorflow.core.framework import attr_value_pb2, types_pb2
from tensorflow.python.framework import dtypes

from partition.graph import Edge, Graph, attr_shape, attr_type, constant_attrs
from partition.liveness import Context, contexts
from partition.tables import GatherUse
from partition.variables import after

_NUMPY_OF_INT = {types_pb2.DT_INT32: np.int32, types_pb2.DT_INT64: np.int64}


@dataclass(frozen=True)
class SplitTable:
    """A table to be taken out of the graph.

    Attributes:
        position: in the manifest.
        name: in the manifest.
        node: its TesseraBlob node, which goes away.
        dtype: DataType number.
        shape: of the whole table, [rows, ...].
        gathers: every gather of it.
        shapes: every Shape, Size and Rank of it.
    """

    position: int
    name: str
    node: str
    dtype: int
    shape: tuple[int, ...]
    gathers: tuple[GatherUse, ...]
    shapes: tuple[str, ...]


@dataclass(frozen=True)
class SignatureEdges:
    """What one signature is fed and returns."""

    inputs: frozenset[Edge]
    outputs: frozenset[Edge]


def rewrite(
    graph: Graph, tables: Sequence[SplitTable], signatures: Mapping[str, SignatureEdges], targets: Sequence[str]
) -> None:
    """Take `tables` out of `graph`, in place, and prune it to `targets`.

    Raises:
        InvalidArgumentError: the graph has a cycle that is no loop.
    """
    order = graph.order()
    where = contexts(graph, order)
    inside = batched_regions(graph)
    groups = _groups(graph, order, where, inside, tables, signatures)
    fixed = set(targets)
    for table in tables:
        # Where the table flowed through loops and branches a scalar flows now: the lookups there wait for it.
        scalar = constant_attrs(np.zeros((), dtypes.as_dtype(table.dtype).as_numpy_dtype), table.dtype)
        graph.replace(table.node, "Const", graph.inputs(table.node), **scalar)
        for name in table.shapes:
            _constant_shape(graph, name, table, where)
    for number, group in enumerate(groups):
        _lookup(graph, number, group, where, inside, fixed)
    graph.drop_idle_waits()
    graph.prune(targets)


@dataclass(frozen=True)
class _Gather:
    table: SplitTable
    use: GatherUse


def _groups(
    graph: Graph,
    order: list[str],
    where: dict[str, Context],
    inside: dict[str, str],
    tables: Sequence[SplitTable],
    signatures: Mapping[str, SignatureEdges],
) -> list[list[_Gather]]:
    gathers = {use.node: _Gather(table, use) for table in tables for use in table.gathers}
    levels: dict[str, int] = {}
    for name in order:
        before = max((levels.get(edge.node, 0) for edge in graph.inputs(name)), default=0)
        levels[name] = before + (name in gathers)
    reach = {
        name: graph.upstream({edge.node for edge in edges.outputs - edges.inputs}, fed=edges.inputs)
        for name, edges in signatures.items()
    }
    groups: dict[tuple[int, frozenset[str], Context, str], list[_Gather]] = defaultdict(list)
    for name, gather in gathers.items():
        users = frozenset(signature for signature, nodes in reach.items() if name in nodes)
        groups[levels[name], users, where[name], inside.get(name, "")].append(gather)
    return sorted(groups.values(), key=lambda group: (levels[group[0].use.node], group[0].use.node))


def batched_regions(graph: Graph) -> dict[str, str]:
    """Return node → the TesseraBatch that it comes after, for nodes before the TesseraUnbatch of it."""
    followers: dict[str, list[str]] = defaultdict(list)
    for name in graph.nodes:
        for edge in graph.data_inputs(name):
            followers[edge.node].append(name)
    inside: dict[str, str] = {}
    for batch in [name for name, node in graph.nodes.items() if node.op == "TesseraBatch"]:
        stack = [batch]
        while stack:
            for name in followers[stack.pop()]:
                if graph.nodes[name].op != "TesseraUnbatch" and name not in inside:
                    inside[name] = batch
                    stack.append(name)
    return inside


def _table_edge(graph: Graph, node: str, where: dict[str, Context]) -> list[Edge]:
    """Return a control edge in place of the edge that brought the table, if that decided when or where `node` runs."""
    edge = graph.data_inputs(node)[0]
    switched = graph.op(edge.node) in ("Switch", "_SwitchN")
    return [] if where[edge.node].always and not switched else [after(graph, edge)]


def _constant_shape(graph: Graph, name: str, table: SplitTable, where: dict[str, Context]) -> None:
    out_type = graph.attr(name, "out_type").type or types_pb2.DT_INT32
    shape = np.array(table.shape, _NUMPY_OF_INT[out_type])
    values = {"Shape": shape, "Size": np.array(prod(table.shape), shape.dtype), "Rank": np.array(len(shape), np.int32)}
    op = graph.nodes[name].op
    waits = _table_edge(graph, name, where) + [edge for edge in graph.inputs(name) if edge.output < 0]
    graph.replace(name, "Const", waits, **constant_attrs(values[op], types_pb2.DT_INT32 if op == "Rank" else out_type))


def _lookup(
    graph: Graph,
    number: int,
    group: list[_Gather],
    where: dict[str, Context],
    inside: dict[str, str],
    fixed: set[str],
) -> None:
    inputs: list[Edge] = []
    controls: list[Edge] = []
    attrs = {
        key: attr_value_pb2.AttrValue()
        for key in ("Tids", "dtypes", "tables", "table_names", "table_rows", "row_shapes")
    }
    for gather in group:
        name, table = gather.use.node, gather.table
        inputs.append(graph.data_inputs(name)[1])
        if name not in inside:  # a region runs when its inputs are there, and nothing may come in beside them
            controls += _table_edge(graph, name, where)
        controls += [edge for edge in graph.inputs(name) if edge.output < 0]
        attrs["Tids"].list.type.append(graph.attr(name, "Tindices").type)
        attrs["dtypes"].list.type.append(table.dtype)
        attrs["tables"].list.i.append(table.position)
        attrs["table_names"].list.s.append(table.name.encode())
        attrs["table_rows"].list.i.append(table.shape[0])
        attrs["row_shapes"].list.shape.append(attr_shape(table.shape[1:]).shape)
    lookup = graph.add("TesseraLookup", f"tessera/lookup_{number}", inputs + controls, **attrs)
    replaced = {}
    for output, gather in enumerate(group):
        name, rows = gather.use.node, Edge(lookup.name, output)
        if gather.use.cast != gather.table.dtype:
            types = {"SrcT": attr_type(gather.table.dtype), "DstT": attr_type(gather.use.cast)}
            rows = Edge(graph.add("Cast", f"{name}/cast", [rows], **types).name, 0)
        if name in fixed:  # a signature names it
            graph.replace(name, "Identity", [rows], T=attr_type(gather.use.cast))
        else:
            del graph.nodes[name]
            replaced[name] = rows
    for name in list(graph.nodes):
        edges = graph.inputs(name)
        if any(edge.node in replaced for edge in edges):
            graph.set_inputs(name, [_moved(edge, replaced) for edge in edges])


def _moved(edge: Edge, replaced: dict[str, Edge]) -> Edge:
    if edge.node not in replaced:
        return edge
    return replaced[edge.node] if edge.output == 0 else Edge(replaced[edge.node].node, -1)
