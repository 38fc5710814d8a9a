"""The ops themselves check what makers of graphs may get wrong, and requests."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from batching.library import batch_op, load_op_library, unbatch_op

load_op_library()
X = np.arange(12, dtype=np.float32).reshape(4, 3)
NO_PADDING: dict[str, Any] = {"pad_dims": [], "pad_values": [], "length_buckets": []}
ZERO = tf.make_tensor_proto(0.0)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"region": ""}, "region is empty, expected a name"),
        ({"pad_dims": [1]}, r"pad_dims has 1 entries, expected none or one per tensor \(2\)"),
        ({"pad_dims": [0, 1], "pad_values": [ZERO, ZERO]}, r"pad_dims\[0\] is 0, expected -1 \(none\) or"),
        ({"pad_dims": [-2, 1], "pad_values": [ZERO, ZERO]}, r"pad_dims\[0\] is -2"),
        ({"pad_dims": [1, 2], "pad_values": [ZERO, ZERO]}, r"pad_dims\[1\] is 2, expected less than the rank of .* 2"),
        ({"pad_dims": [1, 1], "pad_values": [ZERO]}, r"pad_values has 1 entries, expected as many as pad_dims \(2\)"),
        ({"pad_values": [ZERO]}, r"pad_values has 1 entries, expected as many as pad_dims \(0\)"),
        (
            {"pad_dims": [1, 1], "pad_values": [ZERO, tf.make_tensor_proto(1)]},
            r"pad_values\[1\] is int32 of shape \[\], expected a scalar of float",
        ),
        (
            {"pad_dims": [1, 1], "pad_values": [ZERO, tf.make_tensor_proto([0.0])]},
            r"pad_values\[1\] is float of shape \[1\], expected a scalar of float",
        ),
        ({"length_buckets": [8]}, "length_buckets has 1 entries, expected none without pad_dims"),
        (
            {"pad_dims": [1, 1], "pad_values": [ZERO, ZERO], "length_buckets": [8, 8]},
            r"length_buckets\[1\] is 8, expected more than 8",
        ),
    ],
)
def test_attributes_of_the_batch_op_are_checked(attributes: dict[str, Any], message: str) -> None:
    every = {"region": "r"} | NO_PADDING | attributes
    with tf.Graph().as_default(), pytest.raises(ValueError, match=f"TesseraBatch: {message}|{message}"):
        batch_op([tf.constant(X), tf.constant(X)], every.pop("region"), every)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"trim_dims": [1]}, r"trim_dims has 1 entries, expected none or one per tensor \(2\)"),
        ({"trim_dims": [0, 1], "trim_inputs": [0, 0]}, r"trim_dims\[0\] is 0"),
        ({"trim_dims": [1, 1], "trim_inputs": [0]}, "trim_inputs has 1 entries, expected as many as trim_dims"),
        ({"trim_dims": [1, 1], "trim_inputs": [0, -1]}, r"trim_inputs\[1\] is -1, expected the position of an input"),
        ({"trim_dims": [1, 2], "trim_inputs": [0, 0]}, r"trim_dims\[1\] is 2, expected less than the rank"),
    ],
)
def test_attributes_of_the_unbatch_op_are_checked(attributes: dict[str, Any], message: str) -> None:
    with tf.Graph().as_default():
        tensors, token = batch_op([tf.constant(X), tf.constant(X)], "r", NO_PADDING)
        with pytest.raises(ValueError, match=message):
            unbatch_op(tensors, token, {"trim_dims": [], "trim_inputs": []} | attributes)


def unknown(*dtypes: Any) -> list[Any]:
    return [tf.compat.v1.placeholder(dtype, None) for dtype in dtypes]


@pytest.mark.parametrize(
    ("values", "pad_dims", "message"),
    [
        ([X, X[:3]], [], "region r: input 1 has 3 rows, input 0 4, expected equally many"),
        ([X, X[0, 0]], [], "region r: input 1 is a scalar, expected rows in dimension 0"),
        ([X, X[:, 0]], [-1, 1], "region r: input 1 has 1 dimensions, expected a dimension 1 of variable length"),
    ],
)
def test_the_batch_kernel_checks_what_the_trace_could_not(values: Any, pad_dims: list[int], message: str) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = unknown(tf.float32, tf.float32)
        padding = NO_PADDING | {"pad_dims": pad_dims, "pad_values": [ZERO] * len(pad_dims)}
        batched, _ = batch_op(inputs, "r", padding)
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            session.run(batched, dict(zip(inputs, values, strict=True)))


def test_the_unbatch_kernel_checks_what_the_trace_could_not() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x, y = unknown(tf.float32, tf.float32)
        _, token = batch_op([x], "r", NO_PADDING)
        (plain,) = unbatch_op([y], token, {"trim_dims": [], "trim_inputs": []})
        with pytest.raises(tf.errors.FailedPreconditionError, match=r"tensor 0 has the shape \[3,3\], expected 4 rows"):
            session.run(plain, {x: X, y: X[:3]})
        (trimmed,) = unbatch_op([y], token, {"trim_dims": [2], "trim_inputs": [0]})
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="tensor 0 has 2 dimensions, expected a dimension 2 to"
        ):
            session.run(trimmed, {x: X, y: X})
        (forged,) = unbatch_op(
            [y],
            tf.raw_ops.EmptyTensorList(element_shape=[1], max_num_elements=1, element_dtype=1),
            {"trim_dims": [], "trim_inputs": []},
        )
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected that of a TesseraBatch"):
            session.run(forged, {y: X})


def test_the_ops_refuse_what_is_no_dense_tensor() -> None:
    with tf.Graph().as_default(), pytest.raises(ValueError, match=r"T\[0\] is variant, expected the type of a dense"):
        batch_op(unknown(tf.variant), "r", NO_PADDING)
