"""The rules: what is called row by row is row by row in fact, and what should be is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from batching.analysis import Analysis, Role, analyse
from batching.dims import ONE, Dim, N, product, static_dims, text
from batching.facts import Kind
from batching.level import main_level

Build = Callable[[Any], Any]

W = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
FILTER = np.random.default_rng(1).standard_normal((2, 2, 6, 3)).astype(np.float32)
TABLE = np.random.default_rng(2).standard_normal((10, 5)).astype(np.float32)


def rows(x: Any) -> Any:
    return tf.shape(x)[0]


def ids(x: Any) -> Any:
    return tf.cast(tf.abs(x), tf.int32) % 10


# x is [n, 4, 6]; each entry is made of x alone and acts row by row.
ROW_WISE: dict[str, Build] = {
    "unary": lambda x: tf.nn.relu(tf.math.rsqrt(tf.exp(-tf.abs(x))) + 1.0),
    "add constant": lambda x: x + W[:4],
    "add rows": lambda x: x + tf.reduce_sum(x, [1, 2], keepdims=True),
    "leading one": lambda x: x * W[None, :4],
    "select": lambda x: tf.where(x > 0, x, tf.zeros_like(x)),
    "cast": lambda x: tf.cast(x * 3, tf.int32),
    "clip": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "matmul": lambda x: tf.matmul(tf.reshape(x, [-1, 24])[:, :6], W),
    "matmul transposed": lambda x: tf.matmul(x[:, 0], W, transpose_b=True),
    "batch matmul": lambda x: tf.matmul(x, W),
    "batch matmul of rows": lambda x: tf.matmul(x, x, transpose_b=True),
    "weights first": lambda x: tf.matmul(W[:4, :4], x),
    "tensordot": lambda x: tf.tensordot(x, W, 1),
    "einsum": lambda x: tf.einsum("bij,jk->bik", x, W),
    "einsum with dots": lambda x: tf.einsum("...j,jk->...k", x, W),
    "einsum of rows": lambda x: tf.einsum("bij,bkj->bik", x, x),
    "bias": lambda x: tf.nn.bias_add(x, W[0]),
    "convolution": lambda x: tf.nn.conv2d(tf.reshape(x, [-1, 2, 2, 6]), FILTER, 1, "SAME"),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(tf.reshape(x, [-1, 2, 2, 6]), FILTER, [1, 1, 1, 1], "SAME"),
    "transposed convolution": lambda x: tf.nn.conv2d_transpose(
        tf.reshape(x, [-1, 2, 2, 6])[..., :3], FILTER, [rows(x), 4, 4, 6], 2
    ),
    "pool": lambda x: tf.nn.max_pool2d(x[..., None], 2, 2, "SAME"),
    "batch norm": lambda x: tf.compat.v1.nn.fused_batch_norm(
        x[:, None], W[0], W[1], mean=W[2], variance=W[3] ** 2, is_training=False
    )[0],
    "resize": lambda x: tf.image.resize(x[..., None], [8, 8]),
    "softmax": lambda x: tf.nn.softmax(x),
    "softmax on axis 1": lambda x: tf.nn.softmax(x, axis=1),
    "layer norm": lambda x: (x - tf.reduce_mean(x, -1, keepdims=True)) / tf.math.reduce_std(x, -1, keepdims=True),
    "reduce": lambda x: tf.reduce_max(x, [1, 2]) + tf.reduce_prod(x, [-1, -2]),
    "any": lambda x: tf.reduce_any(x > 1, 1),
    "argmax": lambda x: tf.argmax(x, -1),
    "top k": lambda x: tf.nn.top_k(x, 2).values,
    "cumsum": lambda x: tf.cumsum(x, 1),
    "one hot": lambda x: tf.one_hot(ids(x), 10),
    "gather": lambda x: tf.gather(TABLE, ids(x)),
    "GatherNd": lambda x: tf.gather_nd(TABLE, ids(x)[..., :1]),
    "gather columns": lambda x: tf.gather(x, [2, 0], axis=1),
    "gather by rows": lambda x: tf.gather(x, ids(x)[:, :, 0] % 4, axis=1, batch_dims=1),
    "split": lambda x: tf.split(x, 2, axis=2)[1],
    "split by sizes": lambda x: tf.split(x, [1, 3], axis=1)[0],
    "concat": lambda x: tf.concat([x, -x], 2),
    "stack": lambda x: tf.stack([x, -x], axis=1),
    "unstack": lambda x: tf.unstack(x, axis=1)[2],
    "slice": lambda x: x[:, 1:, ::2],
    "slice with dots": lambda x: x[..., 0],
    "slice with a new axis": lambda x: x[:, tf.newaxis, :, 1],
    "raw slice": lambda x: tf.slice(x, [0, 1, 1], [-1, 2, 3]),
    "expand": lambda x: tf.expand_dims(x, 1),
    "squeeze": lambda x: tf.squeeze(x[:, :1], 1),
    "transpose": lambda x: tf.transpose(x, [0, 2, 1]),
    "flatten": lambda x: tf.reshape(x, [rows(x), -1]),
    "flatten by shape": lambda x: tf.reshape(x, [rows(x), tf.reduce_prod(tf.shape(x)[1:])]),
    "reshape to constant": lambda x: tf.reshape(x, [-1, 8, 3]),
    "fold and unfold": lambda x: tf.reshape(tf.matmul(tf.reshape(x, [-1, 6]), W), tf.shape(x)),
    "tile": lambda x: tf.tile(x, [1, 2, 1]),
    "broadcast": lambda x: tf.broadcast_to(x[:, :1], tf.shape(x)),
    "fill": lambda x: x + tf.fill([rows(x), 4, 6], 2.0),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 2]]),
    "reverse": lambda x: tf.reverse(x, [1]),
    "roll": lambda x: tf.roll(x, 1, 2),
    "band": lambda x: tf.linalg.band_part(x, 1, 0),
    "positions": lambda x: x + tf.gather(TABLE, tf.range(tf.shape(x)[1]))[:, :1],
    "scaled by a width": lambda x: x / tf.sqrt(tf.cast(tf.shape(x)[-1], tf.float32)),
}

# Each of these lets one row see another, or depends on how many there are.
MIXING: dict[str, Build] = {
    "mean of the batch": lambda x: x - tf.reduce_mean(x, 0),
    "softmax": lambda x: tf.nn.softmax(x, axis=0),
    "sum of all": lambda x: x / tf.reduce_sum(x),
    "cumsum": lambda x: tf.cumsum(x),
    "argmax": lambda x: x + tf.cast(tf.argmax(x, 0), tf.float32),
    "transpose": lambda x: tf.transpose(tf.cumsum(tf.transpose(x, [1, 0, 2]), 1), [1, 0, 2]),
    "gram": lambda x: tf.matmul(x[:, 0], x[:, 0], transpose_b=True),
    "transpose_a": lambda x: x + tf.reduce_sum(tf.matmul(x[:, 0], x[:, 0], transpose_a=True)),
    "einsum": lambda x: tf.einsum("bij,cij->bc", x, x),
    "number of rows": lambda x: x / tf.cast(rows(x), tf.float32),
    "shift": lambda x: tf.roll(x, 1, 0),
    "reverse": lambda x: x[::-1],
    "first row": lambda x: x - x[:1],
    "last row": lambda x: x - x[-1],
    "spread": lambda x: x + tf.reduce_sum(x, [1, 2])[:, None][:6, 0],
    "reshape across rows": lambda x: tf.reshape(tf.cumsum(tf.reshape(x, [4, -1, 6]), 1), [-1, 4, 6]),
    "gather rows": lambda x: tf.gather(x, [0, 0, 0, 0, 0, 0]),
    "row numbers": lambda x: x + tf.cast(tf.range(rows(x)), tf.float32)[:, None, None],
    "training norm": lambda x: tf.compat.v1.nn.fused_batch_norm(x[:, None], W[0], W[1], is_training=True)[0],
    "double": lambda x: tf.concat([x, x], 0)[: rows(x)] + x[:1],
    "sort": lambda x: tf.sort(x, axis=0),
    "pool": lambda x: tf.nn.pool(x[None], [2, 1], "MAX", padding="SAME")[0],
    "pad": lambda x: tf.pad(x, [[1, 0], [0, 0], [0, 0]])[:-1],
}

# Acts row by row, but must not be inside for another reason.
NEVER: dict[str, tuple[Build, str]] = {
    "random": (lambda x: x + tf.random.uniform([6]), "is stateful or random"),
    "random of a shape": (lambda x: x + tf.random.uniform(tf.shape(x)), "is stateful or random"),
    "text": (lambda x: tf.strings.to_number(tf.strings.as_string(x)), "works on text"),
    "assert": (lambda x: tf.debugging.check_numerics(x, "bad"), "is not for a region"),
    "function": (lambda x: tf.map_fn(lambda row: row * 2, x), "opaque"),
    "Python": (lambda x: tf.numpy_function(lambda v: v, [x], tf.float32), "stateful"),
    "fixed number of rows": (lambda x: x + np.ones((3, 4, 6), np.float32), "fixed number of rows"),
}


def analysed(build: Build) -> Analysis:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4, 6], "x")
        tf.identity(build(x), "y")
    return analyse(main_level(graph.as_graph_def(), {"s": (["x:0"], ["y:0"])}, []), {})


def outside(analysis: Analysis) -> dict[str, str]:
    return {name: reason for name, reason in analysis.reasons.items() if name != "x"}


def acts_row_by_row(build: Build) -> bool:
    values = np.random.default_rng(3).standard_normal((6, 4, 6)).astype(np.float32)
    together = build(tf.constant(values)).numpy()
    if together.shape[:1] != (6,):
        return False
    try:
        alone = [build(tf.constant(values[i : i + 1])).numpy() for i in range(6)]
    except tf.errors.InvalidArgumentError:
        return False
    return all(one.shape[:1] == (1,) for one in alone) and bool(
        np.allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-4)
    )


@pytest.mark.parametrize("name", ROW_WISE)
def test_what_acts_row_by_row_is_found(name: str) -> None:
    analysis = analysed(ROW_WISE[name])
    assert outside(analysis) == {}
    assert analysis.facts["y:0"].kind is Kind.ROWS
    assert acts_row_by_row(ROW_WISE[name])


@pytest.mark.parametrize("name", ROW_WISE)
def test_shapes_are_what_tensorflow_makes(name: str) -> None:
    analysis = analysed(ROW_WISE[name])
    found = ROW_WISE[name](tf.zeros([7, 4, 6])).shape
    dims = analysis.facts["y:0"].dims
    assert dims is not None
    assert dims[0] == N
    assert len(dims) == len(found)
    for size, real in zip(dims[1:], found[1:], strict=True):
        assert not size.known or size.factor == real


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_rows_is_refused(name: str) -> None:
    assert outside(analysed(MIXING[name]))
    assert not acts_row_by_row(MIXING[name])


@pytest.mark.parametrize("name", NEVER)
def test_what_must_not_be_inside_has_its_reason(name: str) -> None:
    build, reason = NEVER[name]
    assert any(reason in found for found in outside(analysed(build)).values())


def test_rows_begin_again_behind_an_op_that_stays_outside() -> None:
    analysis = analysed(lambda x: tf.nn.relu(tf.cumsum(x)))
    relu = next(op for op in analysis.order if op.type == "Relu")
    assert analysis.roles[relu.name] is Role.ROWS


def test_dimensions_multiply_and_divide() -> None:
    t = Dim(1, ("t",))
    assert product([N, t, Dim(4)]) == Dim(4, ("n", "t"))
    assert product([N, t, Dim(4)]).divided(t * Dim(2)) == N * Dim(2)
    assert Dim(4).divided(Dim(3)) is None
    assert N.divided(t) is None
    assert product([]) == ONE
    assert text(static_dims([None, 3], "x")) == "[?, 3]"
    assert (N * t).is_rows
    assert not (N * N).is_rows
