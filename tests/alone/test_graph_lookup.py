"""TesseraLookup and TesseraBlob in the native executor, with lookups answered by the test."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2

import cpp_ext
from cpp_ext import _graph
from support import small_models
from support.fake_abi import HandlerClient
from support.fake_fanout import FakeFanout
from support.small_models import i32, i64, lookup, placeholder
from tessera.errors import (
    Code,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)

pytestmark = pytest.mark.native
FLOAT, INT32, INT64 = 1, 3, 9
T0 = np.arange(30, dtype=np.float32).reshape(10, 3)
T1 = np.arange(100, 140, dtype=np.float32).reshape(20, 2)


@pytest.fixture
def fanout(the_fanout: FakeFanout) -> FakeFanout:
    the_fanout.reset({1: [T0, T1], 2: [T0 + 1000, T1 + 1000]})
    return the_fanout


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One lookup over two tables, then a second that depends on the first."""
    nodes = placeholder("a", "DT_INT64") + placeholder("b", "DT_INT32")
    nodes += lookup("first", [("a", "DT_INT64"), ("b", "DT_INT32")], [(0, "t0", 10, 3), (1, "t1", 20, 2)])
    nodes += lookup("second", [("a", "DT_INT64")], [(0, "t0", 10, 3)], control='input: "^first" ')
    path = small_models.text_model(
        tmp_path_factory.mktemp("lookup") / "m",
        nodes,
        {"a": ("a:0", INT64), "b": ("b:0", INT32)},
        {"rows_a": ("first:0", FLOAT), "rows_b": ("first:1", FLOAT), "rows_c": ("second:0", FLOAT)},
    )
    return _graph.Graph.load(str(path))


A, B = i64([[1, 9], [1, 0]]), i32([19, 3])


def check(result: dict[str, Any]) -> None:
    np.testing.assert_array_equal(result["rows_a"], T0[A])
    np.testing.assert_array_equal(result["rows_b"], T1[B])
    np.testing.assert_array_equal(result["rows_c"], T0[A])


@pytest.mark.parametrize("mode", ["now", "later"])
def test_rows_of_all_tables_come_with_one_lookup_a_level(graph: Any, fanout: FakeFanout, mode: str) -> None:
    fanout.mode = mode
    assert graph.signatures == {"serving_default": "async"}
    assert graph.lookup_tables == 2
    check(graph.run("serving_default", {"a": A, "b": B}, route=fanout.route(1)))
    fanout.join()
    assert fanout.lookups == [[(0, [1, 9, 1, 0]), (1, [19, 3])], [(0, [1, 9, 1, 0])]]
    assert fanout.unreleased == 0
    assert fanout.references[1] == 0


def test_no_ids_need_no_lookup(graph: Any, fanout: FakeFanout) -> None:
    result = graph.run("serving_default", {"a": np.zeros((2, 0), np.int64), "b": i32([])}, route=fanout.route(1))
    assert result["rows_a"].shape == (2, 0, 3)
    assert fanout.lookups == []


@pytest.mark.parametrize(
    ("a", "text"),
    [
        (i64([[0, 10]]), r"indices\[0,1\] = 10 is not in \[0, 10\)"),
        (i64([-1]), r"indices\[0\] = -1 is not in \[0, 10\)"),
        (i64(1 << 40), r"indices = 1099511627776 is not in \[0, 10\)"),
    ],
)
def test_ids_out_of_range_get_tensorflows_text(graph: Any, fanout: FakeFanout, a: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        graph.run("serving_default", {"a": a, "b": B}, route=fanout.route(1))
    assert fanout.lookups == []


def test_code_and_text_of_a_failed_lookup_reach_the_caller(graph: Any, fanout: FakeFanout) -> None:
    fanout.mode = "fail"
    with pytest.raises(UnavailableError) as caught:
        graph.run("serving_default", {"a": A, "b": B}, route=fanout.route(1))
    assert caught.value.message == "table t: no live server"
    fanout.mode = "now"
    check(graph.run("serving_default", {"a": A, "b": B}, route=fanout.route(1)))


def test_route_of_another_shape_is_refused(graph: Any, fanout: FakeFanout) -> None:
    fanout.routes[1] = [T0, T1[:, :1]]
    with pytest.raises(FailedPreconditionError, match="table t1: the graph expects 20 rows of 8 bytes"):
        graph.run("serving_default", {"a": A, "b": B}, route=fanout.route(1))
    fanout.routes[1] = [T0]
    with pytest.raises(FailedPreconditionError, match="looks up 2 tables, the route has 1"):
        graph.run("serving_default", {"a": A, "b": B}, route=fanout.route(1))


def test_graph_with_lookups_needs_a_route(graph: Any, fanout: FakeFanout) -> None:
    with pytest.raises(FailedPreconditionError, match="needs a route"):
        _graph.Version(version=1, graph=graph)


def test_timeout_cancels_the_lookup(graph: Any, fanout: FakeFanout) -> None:
    fanout.mode = "hang"
    with pytest.raises(DeadlineExceededError, match="no answer within"):
        graph.run("serving_default", {"a": A, "b": B}, route=fanout.route(1), timeout_s=0.05)
    assert fanout.hanging == {}
    assert fanout.unreleased == 0


def request() -> bytes:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "m"
    message.inputs["a"].CopyFrom(tf.make_tensor_proto(A))
    message.inputs["b"].CopyFrom(tf.make_tensor_proto(B))
    return bytes(message.SerializeToString())


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_cancelled_request_cancels_its_lookup_and_keeps_its_graph_until_then(graph: Any, fanout: FakeFanout) -> None:
    predictor = _graph.Predictor(max_in_flight=2)
    predictor.publish({"m": [_graph.Version(version=1, graph=graph, route=fanout.route(1))]})
    client = HandlerClient(predictor.handler())
    fanout.mode = "hang"
    calls = [client.start(request()) for _ in range(2)]
    refused = client.call(request())
    assert refused.code == Code.RESOURCE_EXHAUSTED
    counted = predictor.stats()["methods"]["(unknown)"]["Predict"]["GRPC"]
    assert counted["codes"] == {"RESOURCE_EXHAUSTED": 1}
    predictor.publish({})  # unloaded while requests are in flight
    assert fanout.references[1] == 1
    for call in calls:
        assert call.on_cancel is not None
        call.on_cancel()
        assert call.ended.wait(10)
        assert call.code == Code.CANCELLED
    wait_until(lambda: fanout.references[1] == 0 and fanout.unreleased == 0)
    assert predictor.stats()["in_flight"] == 0


def test_deadline_of_the_request_goes_with_the_lookup(graph: Any, fanout: FakeFanout) -> None:
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=1, graph=graph, route=fanout.route(1))]})
    call = HandlerClient(predictor.handler()).call(request(), timeout_s=20)
    assert call.code == 0, call.message
    assert fanout.deadlines == [call.deadline_ns] * 2


def node(name: str, op: str, inputs: str, attrs: str, kind: str = "node_def") -> str:
    names = " ".join(f'input: "{tensor}"' for tensor in inputs.split())
    return f'{kind} {{ name: "{name}" op: "{op}" {names} {attrs} }}\n'


def constant(name: str, value: int, kind: str = "node_def") -> str:
    tensor = f"tensor {{ dtype: DT_INT32 tensor_shape {{}} int_val: {value} }}"
    attrs = f'attr {{ key: "dtype" value {{ type: DT_INT32 }} }} attr {{ key: "value" value {{ {tensor} }} }}'
    return node(name, "Const", "", attrs, kind)


def function(name: str, results: dict[str, tuple[str, str]], nodes: str) -> str:
    """Take (i, n, total) and return `results`: name → (dtype, tensor)."""
    arguments = " ".join(
        f'input_arg {{ name: "{arg}" type: {dtype} }}'
        for arg, dtype in (("i", "DT_INT32"), ("n", "DT_INT32"), ("total", "DT_FLOAT"))
    )
    outputs = " ".join(f'output_arg {{ name: "{out}" type: {dtype} }}' for out, (dtype, _) in results.items())
    returns = " ".join(f'ret {{ key: "{out}" value: "{tensor}" }}' for out, (_, tensor) in results.items())
    return f'function {{ signature {{ name: "{name}" {arguments} {outputs} is_stateful: true }} {nodes} {returns} }}\n'


def loop_model(path: Path, functional: bool) -> Path:
    """Sum the rows of table 0 at ids 0, 1, … 9, 0, … n-1 in a While loop, one lookup an iteration."""
    int32, float32 = (f'attr {{ key: "T" value {{ type: {dtype} }} }}' for dtype in ("DT_INT32", "DT_FLOAT"))
    more = function("more", {"z": ("DT_BOOL", "less:z:0")}, node("less", "Less", "i n", int32))
    add = function(
        "add",
        {"j": ("DT_INT32", "next:z:0"), "m": ("DT_INT32", "n"), "sum": ("DT_FLOAT", "plus:z:0")},
        constant("one", 1)
        + constant("ten", 10)
        + node("id", "FloorMod", "i ten:output:0", int32)
        + lookup("rows", [("id:z:0", "DT_INT32")], [(0, "t0", 10, 3)]).replace("node {", "node_def {")
        + node("next", "AddV2", "i one:output:0", int32)
        + node("plus", "AddV2", "total rows:rows:0", float32),
    )
    attrs = (
        'attr { key: "T" value { list { type: DT_INT32 type: DT_INT32 type: DT_FLOAT } } } '
        'attr { key: "cond" value { func { name: "more" } } } attr { key: "body" value { func { name: "add" } } } '
        f'attr {{ key: "_lower_using_switch_merge" value {{ b: {"false" if functional else "true"} }} }}'
    )
    text = (
        placeholder("n", "DT_INT32")
        + placeholder("start", "DT_FLOAT")
        + constant("zero", 0, "node")
        + node("loop", "While", "zero n start", attrs, "node")
        + f"library {{ {more} {add} }}"
    )
    inputs = {"n": ("n:0", INT32), "start": ("start:0", FLOAT)}
    return small_models.text_model(path, text, inputs, {"sum": ("loop:2", FLOAT)})


@pytest.mark.parametrize("functional", [False, True], ids=["lowered", "functional"])
@pytest.mark.parametrize("mode", ["now", "later"])
def test_lookups_in_a_loop_neither_block_nor_fill_the_stack(
    tmp_path: Path, fanout: FakeFanout, functional: bool, mode: str
) -> None:
    fanout.mode = mode
    graph = _graph.Graph.load(str(loop_model(tmp_path / "m", functional)))
    assert graph.signatures == {"serving_default": "async"}
    steps = 3000 if mode == "now" else 200
    result = graph.run("serving_default", {"n": i32(steps), "start": np.zeros(3, np.float32)}, route=fanout.route(1))
    np.testing.assert_allclose(result["sum"], T0.sum(0) * (steps // 10))
    fanout.join()


def op_library() -> str:
    folders = [Path(folder) for folder in cpp_ext.__path__]
    return str(next(f / "libtessera_ops.so" for f in folders if (f / "libtessera_ops.so").exists()))


def test_lookup_outside_of_tessera_says_so_and_has_a_shape(graph: Any) -> None:
    tf.load_op_library(op_library())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = tf.compat.v1.GraphDef()
        text_format.Parse(lookup("l", [("a", "DT_INT64")], [(0, "t", 10, 3)]), definition)
        ids = tf.compat.v1.placeholder(tf.int64, [None, 2])
        (rows,) = tf.import_graph_def(definition, {"a": ids}, ["l:0"], name="")
        assert rows.shape.as_list() == [None, 2, 3]
        with pytest.raises(tf.errors.FailedPreconditionError, match="runs only in Tessera's own executor"):
            session.run(rows, {ids: i64([[1, 1]])})


def blob_model(path: Path, digest: str, shape: tuple[int, int]) -> Path:
    text = (
        f'node {{ name: "w" op: "TesseraBlob" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} '
        f'attr {{ key: "shape" value {{ shape {{ dim {{ size: {shape[0]} }} dim {{ size: {shape[1]} }} }} }} }} '
        f'attr {{ key: "digest" value {{ s: "{digest}" }} }} '
        'attr { key: "weight" value { s: "dense/kernel" } } }\n'
        + placeholder("x", "DT_FLOAT")
        + 'node { name: "y" op: "MatMul" input: "x" input: "w" attr { key: "T" value { type: DT_FLOAT } } }\n'
    )
    return small_models.text_model(path, text, {"x": ("x:0", FLOAT)}, {"y": ("y:0", FLOAT), "w": ("w:0", FLOAT)})


@pytest.mark.parametrize("shape", [(3, 5), (300, 200)], ids=["copied", "mapped"])
def test_blob_is_a_weight(tmp_path: Path, shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    digest = hashlib.sha256(weight.tobytes()).hexdigest()
    file = tmp_path / digest
    file.write_bytes(weight.tobytes())
    path = blob_model(tmp_path / "m", digest, shape)
    graph = _graph.Graph.load(str(path), blobs={digest: str(file)})
    file.unlink()  # the mapping stays
    x = np.eye(shape[0], dtype=np.float32)
    for _ in range(2):
        result = graph.run("serving_default", {"x": x})
        np.testing.assert_array_equal(result["w"], weight)
        np.testing.assert_allclose(result["y"], weight, rtol=1e-6)


def test_blob_that_is_missing_or_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    path = blob_model(tmp_path / "m", "d1", (2, 2))
    file = tmp_path / "d1"
    with pytest.raises(NotFoundError, match="weight dense/kernel: blob d1 is not in `blobs`"):
        _graph.Graph.load(str(path))
    with pytest.raises(NotFoundError, match=r"weight dense/kernel: blob .*d1: No such file"):
        _graph.Graph.load(str(path), blobs={"d1": str(file)})
    file.write_bytes(b"123")
    with pytest.raises(DataLossError, match=r"weight dense/kernel: blob .*d1: has 3 bytes, expected 16"):
        _graph.Graph.load(str(path), blobs={"d1": str(file)})
