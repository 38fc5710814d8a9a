"""Models of other platforms behind the native server: no poller waits for them, and they are counted as any other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cpp_ext import _graph
from router.platforms import LoadOptions
from router.platforms.onnx import OnnxPlatform
from support import example_models
from support.onnx_models import save_linear
from support.rpc_calls import MakeServer
from support.serving import predict, predict_request
from support.small_models import half_plus
from tessera.errors import DeadlineExceededError, InvalidArgumentError

pytestmark = pytest.mark.native

WEIGHTS = np.array([[1, 0], [0, 2]], np.float32)
PREDICT = "/tensorflow.serving.PredictionService/Predict"
FLOAT = 1


class SlowModel:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go, self.begun, self.calls = threading.Event(), threading.Semaphore(0), 0
        specs = {"x": ("float32", [-1])}, {"y": ("float32", [-1])}
        self.graph = _graph.Graph.foreign({"serving_default": specs}, self._run, name="slow:1", workers=1)

    def _run(self, _: str, inputs: dict[str, Any], __: list[str]) -> dict[str, Any]:
        self.calls += 1
        self.begun.release()
        assert self.go.wait(20)
        return {"y": inputs["x"]}


@pytest.fixture
def slow() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.go.set()


@pytest.fixture
def predictor(tmp_path: Path, slow: SlowModel) -> _graph.Predictor:
    onnx = OnnxPlatform().load(
        save_linear(tmp_path / "onnx" / "3", WEIGHTS), LoadOptions(model="onnx", request_batching=True)
    )
    plain = _graph.Graph.load(str(half_plus(tmp_path / "plain", 2.0)), name="plain:1")
    predictor = _graph.Predictor()
    versions = {"onnx": (3, onnx), "plain": (1, plain), "slow": (1, slow.graph)}
    predictor.publish(
        {name: [_graph.Version(version=version, graph=graph)] for name, (version, graph) in versions.items()}
    )
    return predictor


@pytest.fixture
def channel(predictor: _graph.Predictor, make_server: MakeServer) -> Iterator[grpc.Channel]:
    server = make_server()
    server.serve_native(PREDICT, predictor.handler())
    with grpc.insecure_channel(f"127.0.0.1:{server.start()}") as channel:
        yield channel


def test_an_onnx_model_answers_many_clients_at_once(channel: grpc.Channel, predictor: _graph.Predictor) -> None:
    def ask(value: int) -> tuple[dict[str, Any], int]:
        return predict(channel, predict_request("onnx", {"x": ([[value, 1.0]], FLOAT)}))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(64)))
    for value, (answer, version) in enumerate(answers):
        assert version == 3
        np.testing.assert_array_equal(answer["y"], [[value, 2]])
        np.testing.assert_array_equal(answer["mean"], [(value + 2) / 2])
    counted = predictor.stats()
    assert counted["models"]["onnx"] == {3: 64}
    assert counted["methods"]["onnx"]["Predict"]["GRPC"]["codes"] == {"OK": 64}


def test_a_slow_model_holds_no_poller(channel: grpc.Channel, slow: SlowModel) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(predict, channel, predict_request("slow", {"x": ([1.0], FLOAT)}))
        assert slow.begun.acquire(timeout=10)
        for _ in range(5):  # the server has one poller
            answer, _ = predict(channel, predict_request("plain", {"x": ([2.0], FLOAT)}))
            np.testing.assert_array_equal(answer["y"], [3.0])
        assert not waiting.done()
        slow.go.set()
        np.testing.assert_array_equal(waiting.result(10)[0]["y"], [1.0])


def test_a_client_that_has_gone_away_is_not_computed_for(
    channel: grpc.Channel, slow: SlowModel, predictor: _graph.Predictor
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(predict, channel, predict_request("slow", {"x": ([1.0], FLOAT)}))
        assert slow.begun.acquire(timeout=10)
        with pytest.raises(DeadlineExceededError):
            predict(channel, predict_request("slow", {"x": ([2.0], FLOAT)}), timeout_s=0.2)
        slow.go.set()
        waiting.result(10)
    answer, _ = predict(channel, predict_request("slow", {"x": ([3.0], FLOAT)}))  # behind whatever was left
    np.testing.assert_array_equal(answer["y"], [3.0])
    assert slow.calls == 2
    assert predictor.stats()["in_flight"] == 0


@pytest.mark.parametrize(
    ("request_", "method", "message"),
    [
        (example_models.classification, "Classify", "No classification inputs found in SignatureDef"),
        (example_models.regression, "Regress", "No signature was found with the name: regress"),
    ],
)
@pytest.mark.parametrize("model", ["onnx", "slow"])
def test_what_only_examples_can_ask_is_refused(
    predictor: _graph.Predictor, model: str, request_: Callable[..., Any], method: str, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        predictor.call(method, request_(0.5, model=model).SerializeToString(), timeout_s=10)
