"""Writes the chosen regions of a model into its graph."""

from __future__ import annotations

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import op_def_registry

from batching.insert import Moved, Nodes, insert_in_body, insert_in_graph
from batching.plan import LevelPlan


def with_pairs(graph_def: GraphDef, plan: LevelPlan, chosen: frozenset[str]) -> GraphDef:
    """Return a copy of `graph_def` with pairs around the regions named in `chosen`.

    A loop whose body gets a pair gets a body of its own: other loops and calls of the same function stay as they are.

    Args:
        graph_def: that the plan was made of.
        plan: of the main graph.
        chosen: names of regions.
    """
    result = GraphDef()
    result.CopyFrom(graph_def)
    moved: Moved = {}
    for name, region in plan.regions.items():
        if name in chosen:
            insert_in_graph(result, plan.analysis, region, name, moved)
    nodes = {node.name: node for node in result.node}
    _apply_loops(result, nodes, plan, chosen)
    if chosen:
        _prune(result.node, set(plan.analysis.level.kept))
    return result


def _prune(nodes: Nodes, roots: set[str]) -> None:
    """Remove what `roots` do not need: what was inside a region and is had again there, or nobody ever used."""
    by_name = {node.name: node for node in nodes}
    stack, seen = [name for name in roots if name in by_name], set()
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            inputs = (text.lstrip("^").partition(":")[0] for text in by_name[name].input)
            stack += [before for before in inputs if before in by_name]  # the others are arguments
    for position in reversed(range(len(nodes))):
        if nodes[position].name not in seen:
            del nodes[position]


def _apply_loops(result: GraphDef, nodes: dict[str, NodeDef], plan: LevelPlan, chosen: frozenset[str]) -> None:
    for loop, inner in plan.loops.items():
        if not any(name in chosen for part in inner.walk() for name in part.regions):
            continue
        body = _own_body(result, nodes[loop])
        needed = inner.analysis.level.users
        _apply_loops(result, {node.name: node for node in body.node_def}, inner, chosen)
        moved: Moved = {}
        for name, region in inner.regions.items():
            if name in chosen:
                insert_in_body(body, inner.analysis, region, name, moved)
        effects = {node.name for node in body.node_def if node.name in needed and _is_stateful(node)}
        returned = {text.partition(":")[0] for text in body.ret.values()} | set(body.control_ret.values())
        _prune(body.node_def, effects | returned)


def _own_body(result: GraphDef, loop: NodeDef) -> FunctionDef:
    functions = {function.signature.name: function for function in result.library.function}
    original = functions[loop.attr["body"].func.name]
    name, number = f"{original.signature.name}_batched", 0
    while name in functions:
        number += 1
        name = f"{original.signature.name}_batched_{number}"
    body = result.library.function.add()
    body.CopyFrom(original)
    body.signature.name = name
    loop.attr["body"].func.name = name
    return body


def _is_stateful(node: NodeDef) -> bool:
    definition = op_def_registry.get(node.op)
    return definition is not None and bool(definition.is_stateful)
