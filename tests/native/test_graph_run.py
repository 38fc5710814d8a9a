"""Every kind of graph gives TensorFlow's own answers in the native executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cpp_ext import _graph
from support import small_models
from support.small_models import f32, i32
from tessera.errors import InvalidArgumentError

pytestmark = pytest.mark.native
v1 = tf.compat.v1
X = f32([[1, 2], [3, -4]])


def save_function(
    path: Path, function: Callable[..., Any], *spec: tf.TensorSpec, module: tf.Module | None = None
) -> Path:
    module = module if module is not None else tf.Module()
    module.serve = tf.function(function, input_signature=list(spec))
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path


def check(path: Path, mode: str, **inputs: Any) -> dict[str, Any]:
    graph = _graph.Graph.load(str(path))
    assert graph.signatures["serving_default"] == mode
    expected = small_models.answers(path, inputs)
    for _ in range(3):
        actual = graph.run("serving_default", inputs)
        assert actual.keys() == expected.keys()
        for alias, value in expected.items():
            np.testing.assert_array_equal(actual[alias], value, err_msg=alias)
            assert actual[alias].dtype == np.asarray(value).dtype or actual[alias].dtype == object
    return actual


def spec(dtype: Any = tf.float32, shape: Any = (None, None)) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name="x")


def test_dense_layers(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32))

    def serve(x: Any) -> Any:
        return {"y": tf.nn.relu(x @ module.w), "s": tf.nn.softmax(x @ module.w)}

    check(save_function(tmp_path / "m", serve, spec(), module=module), "inline", x=X)


def test_a_variable_that_is_read_in_several_pieces(tmp_path: Path) -> None:
    module = tf.Module()
    module.table = tf.Variable(np.arange(200_001, dtype=np.float32).reshape(-1, 1))  # 3 pieces and a bit

    def serve(x: Any) -> Any:
        return {"y": tf.gather(module.table, tf.cast(x, tf.int32)), "sum": tf.reduce_sum(module.table)}

    rows = f32([[0, 65_535, 65_536], [131_071, 131_072, 200_000]])
    answer = check(save_function(tmp_path / "m", serve, spec(), module=module), "inline", x=rows)
    np.testing.assert_array_equal(answer["y"][..., 0], rows)


@pytest.mark.parametrize("lower", [True, False], ids=["lowered", "functional"])
def test_while_and_if(tmp_path: Path, lower: bool) -> None:
    def serve(x: Any) -> Any:
        steps = tf.constant(5000)  # enough to fill the stack if iterations were nested
        _, total = tf.while_loop(lambda i, t: i < steps, lambda i, t: (i + 1, t + x * 0.001), [0, tf.zeros_like(x)])
        chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)
        return {"total": total, "chosen": chosen}

    path = save_function(tmp_path / "m", serve, spec())
    if not lower:
        keep_functional(path)
    check(path, "inline", x=X)
    check(path, "inline", x=-X)


def keep_functional(path: Path) -> None:
    """Leave While and If as calls of functions."""
    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    count = 0
    for nodes in [graph.node, *(f.node_def for f in graph.library.function)]:
        for node in nodes:
            if node.op in ("While", "If", "StatelessWhile", "StatelessIf"):
                node.attr["_lower_using_switch_merge"].b = False
                count += 1
            if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
                node.attr["_noinline"].b = True
    for function in graph.library.function:
        function.attr["_noinline"].b = True
    assert count >= 2
    (path / "saved_model.pb").write_bytes(model.SerializeToString())


def test_control_flow_of_tf1(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        v1.disable_control_flow_v2()
        try:
            x = v1.placeholder(tf.float32, [None, None])
            y = v1.while_loop(lambda y: tf.reduce_sum(y) < 100, lambda y: y * 2, [tf.abs(x)])
            z = v1.cond(tf.reduce_sum(x) > 0, lambda: x + 1, lambda: x - 1)
            path = small_models.save_v1(tmp_path / "m", {"serving_default": ({"x": x}, {"y": y, "z": z})})
        finally:
            v1.enable_control_flow_v2()
    check(path, "inline", x=X)
    check(path, "inline", x=-X)


def test_reference_variables_of_tf1(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, None])
        w = v1.get_variable("w", initializer=f32([[1, 2], [3, 4]]), use_resource=False)
        path = small_models.save_v1(tmp_path / "m", {"serving_default": ({"x": x}, {"y": x @ w})})
    check(path, "inline", x=X)


def test_tensor_arrays_and_stacks(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, None])
        array = tf.TensorArray(tf.float32, size=0, dynamic_size=True, clear_after_read=False)
        array = array.unstack(x).write(5, x[0] * 2)
        stack = tf.raw_ops.StackV2(max_size=-1, elem_type=tf.float32, stack_name="")
        pushed = tf.raw_ops.StackPushV2(handle=stack, elem=x + 1)
        with tf.control_dependencies([pushed]):
            popped = tf.raw_ops.StackPopV2(handle=stack, elem_type=tf.float32)
        path = small_models.save_v1(
            tmp_path / "m", {"serving_default": ({"x": x}, {"y": array.read(5), "size": array.size(), "z": popped})}
        )
    check(path, "inline", x=X)


def test_hash_tables_strings_and_files(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("zero\none\ntwo\n")
    module = tf.Module()
    module.words = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        ),
        num_oov_buckets=3,
    )

    def serve(x: Any) -> Any:
        tokens = tf.strings.split(x).to_tensor(default_value="")
        return {
            "ids": module.words.lookup(tokens),
            "joined": tf.strings.reduce_join(tf.strings.upper(tokens), 1, separator="-"),
            "hash": tf.strings.to_hash_bucket_fast(x, 1000),
        }

    path = save_function(tmp_path / "m", serve, spec(tf.string, (None,)), module=module)
    check(path, "inline", x=np.array([b"one two", b"zero", b"\xff\x00 what"], dtype=object))


def test_nameless_table_of_tf1_is_shared_with_its_initializer(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.string, [None])
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        init = tf.raw_ops.LookupTableImportV2(
            table_handle=table, keys=tf.constant(["a", "b"]), values=tf.constant([7, 8], tf.int64)
        )
        found = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=x, default_value=tf.constant(-1, tf.int64))
        path = small_models.save_v1(tmp_path / "m", {"serving_default": ({"x": x}, {"y": found})}, init=init)
    result = _graph.Graph.load(str(path)).run("serving_default", {"x": np.array([b"b", b"c"], dtype=object)})
    assert result["y"].tolist() == [8, -1]


def test_passthrough_and_interior_and_repeated_tensors(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [2, 2])
        middle = tf.identity(x * 100, name="middle")
        y = middle + 1
        path = small_models.save_v1(
            tmp_path / "m", {"serving_default": ({"m": middle}, {"y": y, "again": y, "same": middle})}
        )
    graph = _graph.Graph.load(str(path))
    result = graph.run("serving_default", {"m": X})
    np.testing.assert_array_equal(result["y"], X + 1)
    np.testing.assert_array_equal(result["again"], X + 1)
    np.testing.assert_array_equal(result["same"], X)


def test_shape_of_a_feed_is_not_checked_against_the_placeholder(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, 1])
        path = small_models.save_v1(tmp_path / "m", {"serving_default": ({"x": x}, {"y": x * 2})})
    result = _graph.Graph.load(str(path)).run("serving_default", {"x": f32([1, 2, 3])})
    assert result["y"].tolist() == [2, 4, 6]


def test_graph_that_needs_a_session_runs_in_one(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None])
        handle = v1.get_session_handle(x * 2)
        path = small_models.save_v1(tmp_path / "m", {"serving_default": ({"x": x}, {"y": handle})})
    graph = _graph.Graph.load(str(path))
    assert graph.signatures["serving_default"] == "callable"
    assert graph.run("serving_default", {"x": f32([1])})["y"].item().startswith(b"GetSessionHandle;")


def test_sessions_and_executor_agree(tmp_path: Path) -> None:
    path = small_models.half_plus(tmp_path / "m", 2.0)
    session = _graph.Graph.load(str(path), sessions_only=True)
    assert session.signatures["serving_default"] == "callable"
    assert session.run("serving_default", {"x": f32([4])})["y"].tolist() == [4.0]


def test_error_of_a_kernel_keeps_code_and_message(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        return tf.gather(tf.range(10), x)

    graph = _graph.Graph.load(str(save_function(tmp_path / "m", serve, spec(tf.int32, None))))
    with pytest.raises(InvalidArgumentError, match=r"indices\[0,1\] = 12 is not in \[0, 10\)") as caught:
        graph.run("serving_default", {"x": i32([[3, 12]])})
    assert "stack trace" not in caught.value.message
    assert graph.run("serving_default", {"x": i32([3])})["output_0"].tolist() == [3]


def test_several_signatures_share_variables_and_state(tmp_path: Path) -> None:
    module = tf.Module()
    module.count = tf.Variable(0)
    add = tf.function(lambda x: module.count.assign_add(x), input_signature=[tf.TensorSpec([], tf.int32, "x")])
    get = tf.function(lambda: tf.identity(module.count), input_signature=[])
    module.add, module.get = add, get
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"add": add, "get": get})
    graph = _graph.Graph.load(str(tmp_path / "m"))
    graph.run("add", {"x": i32(5)})
    graph.run("add", {"x": i32(2)})
    assert graph.run("get", {})["output_0"] == 7


def test_signature_defs_are_those_of_the_model(tmp_path: Path) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2

    path = small_models.half_plus(tmp_path / "m", 1.0)
    parsed = get_model_metadata_pb2.SignatureDefMap.FromString(_graph.Graph.load(str(path)).signature_defs)
    assert set(parsed.signature_def) == {"serving_default", "__saved_model_init_op"}
    assert list(parsed.signature_def["serving_default"].inputs) == ["x"]
