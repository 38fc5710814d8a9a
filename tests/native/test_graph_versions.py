"""A request sees one version, whatever is published while it runs; unloading is safe; imports in any order."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from cpp_ext import _graph
from support import small_models
from support.fake_abi import HandlerClient
from support.small_models import f32

pytestmark = pytest.mark.native


def request() -> bytes:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "m"
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(f32([0] * 50)))
    return bytes(message.SerializeToString())


def test_no_request_mixes_versions_while_many_are_published(tmp_path: Path) -> None:
    paths = {v: str(small_models.half_plus(tmp_path / str(v), float(v))) for v in (1, 2)}
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=1, graph=_graph.Graph.load(paths[1]))]})
    stop = threading.Event()
    problems: list[str] = []
    seen: set[int] = set()

    def load() -> None:
        client = HandlerClient(predictor.handler())
        bytes_ = request()
        while not stop.is_set():
            call = client.call(bytes_)
            if call.code != 0:
                problems.append(call.message)
                return
            response = predict_pb2.PredictResponse.FromString(call.response)
            version = response.model_spec.version.value
            seen.add(version)
            if set(response.outputs["y"].float_val) != {float(version)}:
                problems.append(f"version {version} answered {response.outputs['y'].float_val}")

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(40):
        # A fresh graph each time: the one before is unloaded while requests run on it.
        version = 1 + i % 2
        predictor.publish({"m": [_graph.Version(version=version, graph=_graph.Graph.load(paths[version]))]})
    stop.set()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert seen == {1, 2}
    assert predictor.stats()["in_flight"] == 0


SCRIPT = """
import sys
for name in sys.argv[2].split(","):
    __import__(name if name != "_graph" else "cpp_ext._graph")
import numpy
from cpp_ext import _graph
result = _graph.Graph.load(sys.argv[1]).run("serving_default", {"x": numpy.float32([2])})
assert result["y"].tolist() == [4.0], result
print("tensorflow" in sys.modules)
"""


@pytest.mark.parametrize("order", ["_graph", "tensorflow,_graph", "_graph,tensorflow", "grpc,_graph,tensorflow"])
def test_imports_in_any_order(tmp_path: Path, order: str) -> None:
    path = small_models.half_plus(tmp_path / "m", 3.0)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), order], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str("tensorflow" in order)
