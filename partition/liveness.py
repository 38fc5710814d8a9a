"""When each node of a flat graph runs: in which loop, and under which conditions.

Two nodes with the same `Context` run together or not at all, so one op may stand for both. A lookup that joined nodes
of different contexts would be skipped when only one of them is dead, or join two iterations of a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from partition.graph import Edge, Graph


@dataclass(frozen=True)
class Condition:
    """One outcome of a decision: output `branch` of the Switches on `predicate`, `depth` loops deep."""

    depth: int
    predicate: str
    branch: int


@dataclass(frozen=True)
class Context:
    """Where a node runs.

    Attributes:
        frames: the loops around it, outermost first.
        conditions: all of which must hold for it to run.
    """

    frames: tuple[str, ...] = ()
    conditions: frozenset[Condition] = frozenset()

    def joined(self, other: Context) -> Context:
        """Return the context of a node that needs nodes of both."""
        frames = max(self.frames, other.frames, key=len)
        return Context(frames, self.conditions | other.conditions)

    @property
    def always(self) -> bool:
        """Whether it runs exactly once in every run that asks for it."""
        return not self.frames and not self.conditions


def contexts(graph: Graph, order: list[str]) -> dict[str, Context]:
    """Return the context of every node. Conservative: contexts that cannot be compared come out different.

    Args:
        graph: flat.
        order: from `graph.order()`.
    """
    result: dict[str, Context] = {}
    for name in order:
        result[name] = _context(graph, name, result)
    return result


def _context(graph: Graph, name: str, known: dict[str, Context]) -> Context:
    op = graph.op(name)
    if op == "Merge":
        return _merged(graph, name, known)
    context = Context()
    for edge in graph.inputs(name):
        context = context.joined(_of_edge(graph, edge, known))
    if op == "Enter":
        return Context((*context.frames, graph.attr(name, "frame_name").s.decode()), context.conditions)
    if op == "Exit":
        depth = len(context.frames)
        kept = frozenset(condition for condition in context.conditions if condition.depth < depth)
        return Context(context.frames[:-1], kept)
    return context


def _of_edge(graph: Graph, edge: Edge, known: dict[str, Context]) -> Context:
    context = known[edge.node]
    if edge.output < 0 or graph.op(edge.node) not in ("Switch", "_SwitchN"):
        return context
    predicate = graph.data_inputs(edge.node)[1]
    while graph.op(predicate.node) == "Identity":
        predicate = graph.data_inputs(predicate.node)[0]
    condition = Condition(len(context.frames), str(predicate), edge.output)
    return Context(context.frames, context.conditions | {condition})


def _merged(graph: Graph, name: str, known: dict[str, Context]) -> Context:
    inputs = graph.data_inputs(name)
    entering = [edge for edge in inputs if graph.op(edge.node) != "NextIteration"]
    given = [_of_edge(graph, edge, known) for edge in entering]
    joined = given[0]
    common = given[0].conditions
    for context in given[1:]:
        joined = joined.joined(context)
        common &= context.conditions
    if len(entering) < len(inputs):  # the head of a loop: runs whenever the loop is entered
        return joined
    own = [context.conditions - common for context in given]
    if all(len(conditions) == 1 for conditions in own):
        decided = [next(iter(conditions)) for conditions in own]
        one_decision = len({(condition.depth, condition.predicate) for condition in decided}) == 1
        if one_decision and {condition.branch for condition in decided} == set(range(len(inputs))):
            return Context(joined.frames, common)
    marker = Condition(len(joined.frames), f"merge {name}", 0)
    return Context(joined.frames, common | {marker})
