"""The pair in plain TensorFlow: the same answers, shapes, names, and every misuse told."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import batching
from tessera.errors import FailedPreconditionError, InvalidArgumentError

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def spec(*shape: int | None, dtype: Any = tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


def pairs(function: Any, *args: Any) -> dict[str, Any]:
    """Return region → the NodeDef of its TesseraBatch, in the function and all that it calls."""
    graph = function.get_concrete_function(*args).graph.as_graph_def()
    nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
    return {node.attr["region"].s.decode(): node for node in nodes if node.op == "TesseraBatch"}


def test_the_pair_passes_nested_tensors_through() -> None:
    @tf.function  # type: ignore[untyped-decorator]
    def serve(x: Any, text: Any) -> Any:
        inside, token = batching.batch({"x": x, "more": [text]})
        assert token.region == "serve/batch"
        return batching.unbatch((inside["x"] * 2, {"text": inside["more"][0]}), token)

    doubled, rest = serve(X, np.array([b"a", b"\0b", b"", b"d" * 1000], object))
    np.testing.assert_array_equal(doubled, X * 2)
    assert rest["text"].numpy().tolist() == [b"a", b"\0b", b"", b"d" * 1000]
    assert serve(X[:0], tf.constant([], tf.string))[0].shape == (0, 3)


def test_outside_of_a_function_the_pair_only_checks() -> None:
    inside, token = batching.batch([X, X.astype(np.int64)], name="eager")
    assert token.region == "eager"
    np.testing.assert_array_equal(batching.unbatch(inside[0] + 1, token), X + 1)
    inside, token = batching.batch(tf.constant(X))
    with pytest.raises(FailedPreconditionError, match=r"tensors: has the shape \(1, 3\), expected 4 rows"):
        batching.unbatch(inside[:1], token)
    with pytest.raises(InvalidArgumentError, match=r"tensors\[1\]: has 3 rows, tensors\[0\] has 4"):
        batching.batch([X, X[:3]])


def test_rows_are_unknown_inside_and_as_before_outside() -> None:
    shapes = []

    @tf.function(input_signature=[spec(4, 3), spec(None, None)])  # type: ignore[untyped-decorator]
    def serve(x: Any, y: Any) -> Any:
        (x, y), token = batching.batch((x, y), pad={1: batching.Pad(1, 0.0)})
        shapes.extend([x.shape.as_list(), y.shape.as_list()])
        x, y = batching.unbatch((x, y), token, trim={1: batching.Trim(1, 1)})
        shapes.extend([x.shape.as_list(), y.shape.as_list()])
        return x, y

    serve.get_concrete_function()
    assert shapes == [[None, 3], [None, None], [4, 3], [4, None]]


def test_lengths_that_are_static_are_so_again_after_trim() -> None:
    @tf.function(input_signature=[spec(None, 7, 2)])  # type: ignore[untyped-decorator]
    def serve(x: Any) -> Any:
        inside, token = batching.batch(x, pad=batching.Pad(1, -1.0))
        assert inside.shape.as_list() == [None, None, 2]
        return batching.unbatch(tf.reduce_sum(inside, 2), token, trim=batching.Trim(1, 0))

    assert serve.get_concrete_function().structured_outputs.shape.as_list() == [None, 7]


def test_padding_is_written_into_the_op() -> None:
    pad = {("ids", 0): batching.Pad(1, np.int64(-1), (8, 16)), "text": batching.Pad(2, "-", [8, 16])}

    @tf.function(input_signature=[spec(None, None, dtype=tf.int64), spec(None, 2, None, dtype=tf.string), spec(None)])  # type: ignore[untyped-decorator]
    def serve(ids: Any, text: Any, x: Any) -> Any:
        inside, token = batching.batch({"ids": [ids], "text": text, "x": x}, pad=pad, name="some/name")
        return batching.unbatch(inside, token, trim={"text": batching.Trim(2, ("ids", 0))})

    node = pairs(serve)["some/name"]
    assert list(node.attr["pad_dims"].list.i) == [1, 2, -1]
    values = [tf.make_ndarray(value).tolist() for value in node.attr["pad_values"].list.tensor]
    assert values == [-1, b"-", 0.0]
    assert list(node.attr["length_buckets"].list.i) == [8, 16]
    unbatch = next(n for n in serve.get_concrete_function().graph.as_graph_def().node if n.op == "TesseraUnbatch")
    assert list(unbatch.attr["trim_dims"].list.i) == [-1, 2, -1]
    assert list(unbatch.attr["trim_inputs"].list.i) == [0, 0, 0]


def test_regions_are_named_by_function_and_scope_and_are_unique() -> None:
    def double(x: Any) -> Any:
        inside, token = batching.batch(x)
        return batching.unbatch(inside * 2, token)

    @tf.function(input_signature=[spec(2, 2), spec(dtype=tf.int32)])  # type: ignore[untyped-decorator]
    def serve(x: Any, n: Any) -> Any:
        x = double(double(x))
        with tf.name_scope("decoder"):
            for _ in tf.range(n):
                x = double(x)
            return double(x) if n > 3 else double(double(x))

    names = sorted(pairs(serve))
    assert names == sorted(
        [
            "serve/batch",
            "serve/batch_1",
            "serve/decoder/while/batch",
            *(f"serve/decoder/cond/batch{suffix}" for suffix in ("", "_1", "_2")),
        ]
    )
    np.testing.assert_array_equal(serve(np.ones((2, 2)), 3), np.full((2, 2), 2.0**7))


def test_in_a_loop_the_pair_keeps_loops_stateless_and_shapes_invariant() -> None:
    weight = tf.Variable(np.eye(3, dtype=np.float32) * 2)

    @tf.function  # type: ignore[untyped-decorator]
    def serve(x: Any) -> Any:
        scale = tf.constant(0.5)

        def body(i: Any, state: Any) -> Any:
            inside, token = batching.batch(state)
            return i + 1, batching.unbatch(tf.matmul(inside, weight) * scale, token)

        return tf.while_loop(lambda i, _: i < 5, body, (0, x))[1]

    np.testing.assert_array_equal(serve(tf.constant(X)), X)
    assert list(pairs(serve, tf.constant(X))) == ["serve/while/batch"]


def test_gradients_pass_through() -> None:
    weight = tf.Variable(np.ones((3, 2), np.float32))

    @tf.function  # type: ignore[untyped-decorator]
    def loss(x: Any, *, pair: bool) -> Any:
        for _ in tf.range(2):
            inside, token = batching.batch((x, x)) if pair else ((x, x), None)
            y = tf.nn.tanh(inside[0] @ weight) @ tf.transpose(weight)
            x = batching.unbatch([y, inside[1]], token)[0] if pair else y
        return tf.reduce_sum(x)

    gradients = []
    for pair in (True, False):
        with tf.GradientTape() as tape:
            value = loss(tf.constant(X / 10), pair=pair)
        gradients.append(tape.gradient(value, weight))
    np.testing.assert_array_equal(*gradients)


def test_batched_makes_a_region_of_a_function() -> None:
    @batching.batched(pad={"x": batching.Pad(1, 0.0)}, trim={"twice": batching.Trim(1, "x")})
    def cell(x: Any, *, rest: Any) -> Any:
        if tf.reduce_sum(rest[0]) > 1e6:  # autograph looks into it
            x = x * 0
        return {"twice": x * 2, "sum": rest[0] + rest[1]}

    @tf.function(input_signature=[spec(None, None), spec(None)])  # type: ignore[untyped-decorator]
    def serve(x: Any, y: Any) -> Any:
        return cell(x, rest=(y, y))

    result = serve(X, X[:, 0])
    np.testing.assert_array_equal(result["twice"], X * 2)
    np.testing.assert_array_equal(result["sum"], X[:, 0] * 2)
    assert list(pairs(serve)["serve/batch"].attr["pad_dims"].list.i) == [
        -1,
        -1,
        1,
    ]  # parameters in order of their names
    assert cell.__name__ == "cell"
    np.testing.assert_array_equal(batching.batched(lambda x: x + 1, name="r")(X), X + 1)


def test_constants_survive_the_optimizer_and_answers_are_the_same() -> None:
    @tf.function  # type: ignore[untyped-decorator]
    def serve() -> Any:
        inside, token = batching.batch(tf.constant(X))
        return batching.unbatch(tf.transpose(tf.transpose(inside)) + tf.zeros_like(inside), token)

    np.testing.assert_array_equal(serve(), X)


def test_a_graph_of_tensorflow_1_runs() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3])
        y = tf.compat.v1.placeholder(tf.float32, [None, 3])
        inside, token = batching.batch(x)
        assert token.region == "batch"
        out = batching.unbatch(inside * 2, token)
        np.testing.assert_array_equal(session.run(out, {x: X}), X * 2)
        inside, token = batching.batch(x)
        with pytest.raises(InvalidArgumentError, match=r"uses Placeholder_1:0 \(Placeholder\) from outside"):
            batching.unbatch(inside * y, token)
