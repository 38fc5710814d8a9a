"""Decides which values of a flat graph are only gathered from, so that their rows may live elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorflow.core.framework import types_pb2

from partition.graph import PASS_THROUGH, Edge, Graph, Use
from partition.variables import outputs_of

_SHAPE_OPS = frozenset({"Shape", "Size", "Rank"})
_ID_TYPES = frozenset({types_pb2.DT_INT32, types_pb2.DT_INT64})


@dataclass(frozen=True)
class GatherUse:
    """A gather of rows.

    Attributes:
        node: the Gather or GatherV2.
        cast: DataType that the rows have after the gather; differs from the table's when the graph casts it first.
    """

    node: str
    cast: int


@dataclass
class TableUses:
    """How a value is used.

    Attributes:
        gathers: on axis 0, in the order of the graph.
        shapes: Shape, Size and Rank ops on it.
        obstacles: why it cannot be split, one sentence each; empty if it can.
    """

    gathers: list[GatherUse] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)


def trace_uses(
    graph: Graph, uses: dict[Edge, list[Use]], node: str, dtype: int, rank: int, outputs: set[Edge]
) -> TableUses:
    """Follow the value of `node` to everything that uses it.

    Args:
        graph: flat, variables as values.
        uses: `graph.uses()`.
        node: a TesseraBlob.
        dtype: its DataType.
        rank: of the value.
        outputs: edges that signatures return or are fed.
    """
    result = TableUses()
    casts: dict[Edge, int] = {}
    stack = [(Edge(node, 0), dtype)]
    while stack:
        edge, cast = stack.pop()
        if edge in casts:
            if casts[edge] != cast:
                result.obstacles.append(
                    f"{graph.nodes[edge.node].op} {edge.node!r} joins it with another dtype of itself"
                )
            continue
        casts[edge] = cast
        if edge in outputs:
            result.obstacles.append(f"{str(edge)!r} is an input or output of a signature")
        for use in uses.get(edge, []):
            stack += _follow(graph, use, cast, rank, result)
    for edge in casts:
        if graph.op(edge.node) == "Merge" and any(source not in casts for source in graph.data_inputs(edge.node)):
            result.obstacles.append(f"Merge {edge.node!r} joins it with another value")
    order = {name: position for position, name in enumerate(graph.nodes)}
    result.gathers.sort(key=lambda gather: order[gather.node])
    return result


def _follow(graph: Graph, use: Use, cast: int, rank: int, result: TableUses) -> list[tuple[Edge, int]]:
    op = graph.op(use.node)
    if op in PASS_THROUGH and (edges := outputs_of(graph, use)):
        return [(edge, cast) for edge in edges]
    if op == "Cast" and not graph.attr(use.node, "Truncate").b:
        return [(Edge(use.node, 0), graph.attr(use.node, "DstT").type)]
    if op in _SHAPE_OPS:
        result.shapes.append(use.node)
        return []
    obstacle = _gather_obstacle(graph, use, op, rank)
    if obstacle:
        result.obstacles.append(f"{op} {use.node!r} {obstacle}")
    else:
        result.gathers.append(GatherUse(use.node, cast))
    return []


def _gather_obstacle(graph: Graph, use: Use, op: str, rank: int) -> str:
    """Return why a use is no gather of rows, or ""."""
    if op not in ("Gather", "GatherV2") or use.position != 0:
        return "needs all of it"
    if graph.attr(use.node, "Tindices").type not in _ID_TYPES:
        return "has ids that are neither int32 nor int64"
    if op == "Gather":
        return ""
    axis = graph.constant(graph.data_inputs(use.node)[2])
    if axis is None or int(axis) not in (0, -rank):
        return "gathers on another axis than 0" if axis is not None else "gathers on an axis that is not constant"
    return "has batch dimensions" if graph.attr(use.node, "batch_dims").i else ""
