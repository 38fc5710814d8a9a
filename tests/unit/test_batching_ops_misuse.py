"""Misuse of the pair that is told when it is traced, with the region and the tensor or op."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import batching
from tessera.errors import FailedPreconditionError, InvalidArgumentError

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def spec(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)


def trace(function: Callable[..., Any], *specs: Any) -> None:
    tf.function(function).get_concrete_function(*specs or (spec(None, 3), spec(None, 3)))


def refused(message: str, function: Callable[..., Any], *specs: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        trace(function, *specs)


def test_a_value_of_one_request_from_outside_is_named() -> None:
    def direct(x: Any, y: Any) -> Any:
        inside, token = batching.batch(x, name="r")
        return batching.unbatch(inside + y, token)

    refused(r"region r: op \w+ \(AddV2\) uses y:0 \(Placeholder\) from outside of the region; its value", direct)

    def derived(x: Any, y: Any) -> Any:
        rows = tf.shape(y, name="rows")[0]
        inside, token = batching.batch(x, name="r")
        return batching.unbatch(tf.reshape(inside, [rows, 3], name="back"), token)

    refused(r"op back \(Reshape\) uses \S+ \(Pack\) from outside of the region, which is made of y", derived)

    def in_a_branch(x: Any, y: Any) -> Any:
        inside, token = batching.batch(x, name="r")
        inside = inside + y if tf.reduce_sum(inside) > 0 else inside
        return batching.unbatch(inside, token)

    refused(r"op cond \((Stateless)?If\) uses y:0", in_a_branch)

    def random(x: Any, y: Any) -> Any:
        noise = tf.random.uniform([3])
        inside, token = batching.batch(x, name="r")
        return batching.unbatch(inside + noise, token)

    refused(r"uses random_uniform/RandomUniform:0 \(RandomUniform\)|made of random_uniform/RandomUniform", random)


def test_a_loop_counter_from_outside_is_named_but_what_is_the_same_in_all_loops_is_not() -> None:
    def counter(x: Any, y: Any) -> Any:
        for i in tf.range(3):
            inside, token = batching.batch(x, name="r")
            x = batching.unbatch(inside * tf.cast(i, tf.float32), token)
        return x

    refused(r"op while/\w+ \(Mul\) uses while/Cast:0 \(Cast\) from outside", counter)

    def captured(x: Any, y: Any) -> Any:
        for _ in tf.range(3):
            inside, token = batching.batch(x, name="r")
            x = batching.unbatch(inside + y, token)
        return x

    refused(
        r"op while/\w+ \(AddV2\) uses while/\S+ \(Placeholder\) from outside of the region, which is made of y",
        captured,
    )

    table = tf.Variable(np.ones(3, np.float32))
    eager = tf.constant(2.0)

    def fine(x: Any, y: Any) -> Any:
        read = tf.cast(table, tf.float32) * eager + tf.constant([1.0, 2.0, 3.0])
        for _ in tf.range(3):
            inside, token = batching.batch(x, name="r")
            x = batching.unbatch(inside + read + table * eager, token)
        return x

    trace(fine)


def test_an_output_that_is_not_of_the_region_is_named() -> None:
    def argument(x: Any, y: Any) -> Any:
        inside, token = batching.batch(x, name="r")
        return batching.unbatch({"a": inside, "b": y}, token)

    refused(r"region r: tensors\['b'\] \(y\) does not depend on the region's", argument)
    eager = tf.constant(X)

    def constant(x: Any, y: Any) -> Any:
        return batching.unbatch(eager, batching.batch(x, name="r")[1])

    refused(r"region r: tensors \(a constant\) does not depend", constant)


def test_begin_and_end_belong_to_one_function_and_end_once() -> None:
    def across(x: Any, y: Any) -> Any:
        inside, token = batching.batch(x, name="r")
        return batching.unbatch(inside, token) if tf.reduce_sum(x) > 0 else x

    with pytest.raises(FailedPreconditionError, match="region r: began in another function"):
        trace(across)

    def twice(x: Any, y: Any) -> Any:
        inside, token = batching.batch(x, name="r")
        return batching.unbatch(inside, token) + batching.unbatch(inside, token)

    with pytest.raises(FailedPreconditionError, match="region r: has ended, expected one unbatch"):
        trace(twice)
    _, eager = batching.batch(X, name="r")
    with pytest.raises(FailedPreconditionError, match="region r: began in another function"):
        trace(lambda x, y: batching.unbatch(x, eager))
    with pytest.raises(InvalidArgumentError, match="token: is a str, expected what"):
        batching.unbatch(X, "token")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "tensors: got none"),
        ({"a": X, "b": tf.constant(1.0)}, r"tensors\['b'\]: is a scalar, expected rows"),
        ([X, X[:2]], r"tensors\[1\]: has 2 rows, tensors\[0\] has 4"),
        ({"a": (X, 1.0)}, r"tensors\['a'\]\[1\]: is a float, expected a dense tensor"),
        (tf.ragged.constant([[1], [2, 3]]), "tensors: is a RaggedTensor, expected a dense tensor"),
        ([tf.sparse.from_dense(X)], r"tensors\[0\]: is a SparseTensor"),
        (tf.raw_ops.EmptyTensorList(element_shape=[1], max_num_elements=1, element_dtype=1), "is of type variant"),
        ([tf.Variable(X)], r"tensors\[0\]: is a ResourceVariable"),
        ([tf.Variable(X).handle], r"tensors\[0\]: is of type resource"),
        (tf.keras.Input([3]), r"is a KerasTensor, .*; use it inside of the layer's call"),
    ],
    ids=["none", "scalar", "rows", "float", "ragged", "sparse", "variant", "variable", "resource", "keras"],
)
def test_what_cannot_be_batched_is_named(tensors: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        batching.batch(tensors)
    refused(message, lambda x, y: batching.batch(tensors)[0])


P = batching.Pad
ROWS = {"x": X, "ids": X.astype(np.int32), "u": X.astype(np.uint8)}


@pytest.mark.parametrize(
    ("pad", "message"),
    [
        (P(1, 0), "pad: is one Pad for 3 tensors, expected a mapping"),
        ([P(1, 0)], "pad: is a list, expected a mapping"),
        ({"y": P(1, 0)}, "pad: got the key 'y', expected one of 'ids', 'u', 'x'"),
        ({"x": 1}, r"pad\['x'\]: is 1, expected a Pad"),
        ({"x": P(1, 0), ("x",): P(1, 0)}, r"pad\[\('x',\)\]: tensors\['x'\] is named twice"),
        ({"x": P(0, 0)}, r"pad: tensors\['x'\]: dim is 0, expected a dimension from 1 on \(0 is the rows\), below 2"),
        ({"x": P(2, 0)}, "dim is 2"),
        ({"x": P(True, 0)}, "dim is True"),
        ({"ids": P(1, 0.5)}, r"pad: tensors\['ids'\]: value is 0.5, expected a scalar of int32"),
        ({"ids": P(1, np.float32(0.5))}, "expected a scalar of int32"),
        ({"u": P(1, -1)}, "value is -1, expected a scalar of uint8"),
        ({"x": P(1, "a")}, "value is 'a', expected a scalar of float32"),
        ({"x": P(1, [0.0])}, "expected a scalar of float32"),
        ({"x": P(1, None)}, "expected a scalar of float32"),
        ({"x": P(1, 0, (8, 8))}, r"length_buckets\[1\] is 8, expected a whole number from 9 on"),
        ({"x": P(1, 0, (0,))}, r"length_buckets\[0\] is 0"),
        ({"x": P(1, 0, (1.5,))}, r"length_buckets\[0\] is 1.5"),  # type: ignore[arg-type]
        ({"ids": P(1, 0, (8,)), "x": P(1, 0)}, r"length_buckets is \(\), expected \(8,\) as for tensors\['ids'\]"),
    ],
)
def test_padding_that_does_not_fit_is_told(pad: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        batching.batch(ROWS, pad=pad)


@pytest.mark.parametrize(
    ("trim", "message"),
    [
        ({"a": batching.Trim(0, "x")}, r"trim: region batch: tensors\['a'\]: dim is 0"),
        ({"a": batching.Trim(1, "y")}, r"like: got the key 'y', expected one of 'ids', 'u', 'x'"),
        ({"a": batching.Trim(1, "ids")}, "like is 'ids', expected an input that is padded"),
        ({"x": batching.Trim(1, "x")}, "region batch: trim: got the key 'x', expected one of 'a'"),
        ({"a": P(1, 0)}, "expected a Trim"),
    ],
)
def test_trimming_that_does_not_fit_is_told(trim: Any, message: str) -> None:
    inside, token = batching.batch(ROWS, pad={"x": P(1, 0)})
    with pytest.raises(InvalidArgumentError, match=message):
        batching.unbatch({"a": inside["x"]}, token, trim=trim)


@pytest.mark.parametrize("name", ["", "a b", "a*", "[a]", 1])
def test_a_name_that_a_policy_cannot_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"name: is .*, expected None or letters"):
        batching.batch(X, name=name)
