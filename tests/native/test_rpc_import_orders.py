"""TensorFlow, gRPC's Python package and both native modules live in one process, whatever is imported first.

TensorFlow offers the symbols of its own gRPC, protobuf and abseil to the whole process: a native module that picked
some of them up would crash in some orders only, hence all 24.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support import small_models

pytestmark = pytest.mark.native

MODULES = ("tensorflow", "grpc", "cpp_ext._rpc", "cpp_ext._graph")
ORDERS = [",".join(order) for order in itertools.permutations(MODULES)]
AT_ONCE = 2

SCRIPT = """
import importlib, sys
for name in sys.argv[2].split(","):
    importlib.import_module(name)
import grpc, numpy, tensorflow
from cpp_ext import _graph, _rpc
from protos import serving_pb2
from support.rpc_calls import call, connected

graph = _graph.Graph.load(sys.argv[1])
predictor = _graph.Predictor()
predictor.publish({"m": [_graph.Version(version=4, graph=graph)]})
server = _rpc.Server(address="127.0.0.1:0", pollers=1)
server.serve_native("/tensorflow.serving.PredictionService/Predict", predictor.handler())
server.serve_python("/test.Service/Echo", lambda request: request)
request = serving_pb2.PredictRequest()
request.model_spec.name = "m"
request.inputs["x"].dtype = 1
request.inputs["x"].tensor_shape.dim.add(size=2)
request.inputs["x"].float_val.extend([2, 4])
with connected(server.start()) as channel:
    answer = call(channel, "/tensorflow.serving.PredictionService/Predict", request.SerializeToString())
    assert answer.code == 0, answer
    response = serving_pb2.PredictResponse.FromString(answer.response)
    assert response.model_spec.version.value == 4
    assert list(response.outputs["y"].float_val) == [4.0, 5.0]
    assert call(channel, "/test.Service/Echo", b"hello").response == b"hello"
assert graph.run("serving_default", {"x": numpy.float32([2])})["y"].tolist() == [4.0]
assert float(tensorflow.reduce_sum(tensorflow.constant([1.0, 2.0]) * 2)) == 6.0
server.stop()
print("served")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[subprocess.CompletedProcess[str]]]]:
    """Every order in a process of its own, a few at once."""
    model = small_models.half_plus(tmp_path_factory.mktemp("import_orders") / "m", 3.0)
    path = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

    def run(order: str) -> subprocess.CompletedProcess[str]:
        script = f"import sys; sys.path[:0] = {path}\n{SCRIPT}"
        command = [sys.executable, "-c", script, str(model), order]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {order: pool.submit(run, order) for order in ORDERS}


@pytest.mark.parametrize("order", ORDERS)
def test_every_import_order_serves(runs: Mapping[str, Future[subprocess.CompletedProcess[str]]], order: str) -> None:
    done = runs[order].result()
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "served"
