"""When nodes run: graphs of one decision, one loop, and both, made by TensorFlow or by hand."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from partition.graph import Edge, Graph, attr_shape, attr_type
from partition.liveness import Context, contexts
from partition.rewrite import SignatureEdges, SplitTable, rewrite
from partition.tables import GatherUse
from tessera.errors import InvalidArgumentError

v1 = tf.compat.v1


@pytest.fixture
def control_flow() -> Any:
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [], "x")
            choice = v1.placeholder(tf.bool, [], "choice")

            def body(i: Any) -> Any:
                inner = tf.cond(i > 3.0, lambda: tf.add(i, 2.0, "inner_then"), lambda: tf.add(i, 3.0, "inner_else"))
                return tf.add(inner, 1.0, "body")

            picked = tf.cond(choice, lambda: tf.add(x, 1.0, "then"), lambda: tf.add(x, 2.0, "else"))
            tf.add(picked, 1.0, "after_cond")
            looped = tf.while_loop(lambda i: i < 10.0, body, [x])[0]
            tf.add(looped, 1.0, "after_loop")
            partly = tf.cond(
                choice, lambda: tf.while_loop(lambda i: i < 5.0, lambda i: tf.add(i, 1.0, "deep"), [x])[0], lambda: x
            )
            tf.add(partly, 1.0, "after_both")
        yield Graph(graph.as_graph_def())
    finally:
        v1.enable_control_flow_v2()


def by_suffix(graph: Graph, where: dict[str, Context], suffix: str) -> Context:
    [name] = [name for name in graph.nodes if name.split("/")[-1] == suffix]
    return where[name]


def test_what_follows_a_decision_or_a_loop_always_runs(control_flow: Graph) -> None:
    where = contexts(control_flow, control_flow.order())
    for name in ("x", "after_cond", "after_loop", "after_both"):
        assert by_suffix(control_flow, where, name).always, name


def test_branches_and_bodies_are_told_apart(control_flow: Graph) -> None:
    where = contexts(control_flow, control_flow.order())
    inside = [
        by_suffix(control_flow, where, name) for name in ("then", "else", "body", "inner_then", "inner_else", "deep")
    ]
    assert len(set(inside)) == len(inside)
    assert not any(context.always for context in inside)
    body, inner = inside[2], inside[3]
    assert body.frames == inner.frames
    assert body.conditions < inner.conditions
    assert [len(context.frames) for context in inside] == [0, 0, 1, 1, 1, 1]
    assert len(inside[5].conditions) == 2  # the branch, and that the loop goes on


def gather_in_branch() -> Graph:
    """A gather whose table, but not whose ids, goes through a Switch."""
    graph = Graph(tf.compat.v1.GraphDef())
    real, integer, truth = (attr_type(t) for t in (types_pb2.DT_FLOAT, types_pb2.DT_INT64, types_pb2.DT_BOOL))
    graph.add("TesseraBlob", "table", [], dtype=real, shape=attr_shape([9, 2]))
    graph.add("Placeholder", "choice", [], dtype=truth)
    graph.add("Placeholder", "ids", [], dtype=integer)
    graph.add("Switch", "switch", [Edge("table", 0), Edge("choice", 0)], T=real)
    graph.add("Gather", "gather", [Edge("switch", 1), Edge("ids", 0)], Tparams=real, Tindices=integer)
    graph.add("Shape", "shape", [Edge("switch", 0)], T=real, out_type=integer)
    graph.add("Identity", "y", [Edge("gather", 0)], T=real)
    return graph


def test_a_lookup_runs_only_where_its_table_came_by() -> None:
    graph = gather_in_branch()
    table = SplitTable(
        0, "t", "table", types_pb2.DT_FLOAT, (9, 2), (GatherUse("gather", types_pb2.DT_FLOAT),), ("shape",)
    )
    signature = SignatureEdges(
        frozenset({Edge("ids", 0), Edge("choice", 0)}), frozenset({Edge("y", 0), Edge("shape", 0)})
    )
    rewrite(graph, [table], {"s": signature}, ["y", "shape", "ids", "choice"])
    for name, branch in (("tessera/lookup_0", 1), ("shape", 0)):
        [wait] = [edge for edge in graph.inputs(name) if edge.output < 0]
        assert graph.op(wait.node) == "Identity"
        assert graph.inputs(wait.node) == [Edge("switch", branch)]
    assert graph.data_inputs("y") == [Edge("tessera/lookup_0", 0)]
    assert graph.nodes["table"].op == "Const"
    assert graph.constant(Edge("shape", 0)).tolist() == [9, 2]  # type: ignore[union-attr]


def test_a_cycle_that_is_no_loop_is_refused() -> None:
    graph = gather_in_branch()
    graph.set_inputs("ids", [Edge("y", -1)])
    with pytest.raises(InvalidArgumentError, match="lies on or behind a cycle"):
        graph.order()
