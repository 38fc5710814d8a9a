"""Classify, Regress and MultiInference of a model whose tables live on shard servers, played by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from cpp_ext import _graph
from support import example_models as models
from support import small_models
from support.example_models import CLASSIFY, REGRESS
from support.fake_abi import HandlerClient
from support.fake_fanout import FakeFanout
from support.small_models import lookup
from tessera.errors import Code

pytestmark = pytest.mark.native

SCORES = np.arange(20, dtype=np.float32).reshape(10, 2)
VALUES = np.arange(100, 110, dtype=np.float32).reshape(10, 1)
TASKS = [("regress", REGRESS), ("", CLASSIFY)]


@pytest.fixture(params=["now", "later"])
def fanout(the_fanout: FakeFanout, request: pytest.FixtureRequest) -> FakeFanout:
    the_fanout.reset({1: [SCORES, VALUES]}, mode=request.param)
    return the_fanout


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Feature id → a row of table 0 as scores, a row of table 1 as regression, each with a lookup of its own."""
    path = tmp_path_factory.mktemp("inference_lookup") / "m"
    with tf.Graph().as_default():
        examples = tf.compat.v1.placeholder(tf.string, [None], name="examples")
        ids = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        tf.cast(ids, tf.int64, name="ids")
        small_models.save_v1(path, {"serving_default": ({"inputs": examples}, {"scores": ids})})
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    meta = model.meta_graphs[0]
    nodes = lookup("scores", [("ids", "DT_INT64")], [(0, "t0", 10, 2)])
    nodes += lookup("values", [("ids", "DT_INT64")], [(1, "t1", 10, 1)])
    text_format.Merge(nodes, meta.graph_def)
    classify = meta.signature_def["serving_default"]
    meta.signature_def["regress"].CopyFrom(classify)
    regress = meta.signature_def["regress"]
    classify.outputs["scores"].name = "scores:0"
    del regress.outputs["scores"]
    regress.outputs["outputs"].name = "values:0"
    file.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def predictor(path: Path, fanout: FakeFanout) -> _graph.Predictor:
    graph = _graph.Graph.load(str(path))
    assert set(graph.signatures.values()) == {"async"}
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=1, graph=graph, route=fanout.route(1))]})
    return predictor


def call(predictor: _graph.Predictor, method: str, request: Any) -> bytes:
    return predictor.call(method, request.SerializeToString(), timeout_s=30)


def test_classify_and_regress(predictor: _graph.Predictor, fanout: FakeFanout) -> None:
    classified = classification_pb2.ClassificationResponse.FromString(
        call(predictor, "Classify", models.classification(3, 1))
    )
    assert [[c.score for c in one.classes] for one in classified.result.classifications] == SCORES[[3, 1]].tolist()
    regressed = regression_pb2.RegressionResponse.FromString(call(predictor, "Regress", models.regression(3, 1)))
    assert [r.value for r in regressed.result.regressions] == VALUES[[3, 1], 0].tolist()
    assert fanout.lookups == [[(0, [3, 1])], [(1, [3, 1])]]
    fanout.join()


def test_multi_inference_is_one_run_with_the_lookups_of_all_tasks(
    predictor: _graph.Predictor, fanout: FakeFanout
) -> None:
    request = models.multi_inference(TASKS, 3, 1)
    response = inference_pb2.MultiInferenceResponse.FromString(call(predictor, "MultiInference", request))
    regressed, classified = response.results
    assert [r.value for r in regressed.regression_result.regressions] == VALUES[[3, 1], 0].tolist()
    scores = [[c.score for c in one.classes] for one in classified.classification_result.classifications]
    assert scores == SCORES[[3, 1]].tolist()
    assert sorted(fanout.lookups) == [[(0, [3, 1])], [(1, [3, 1])]]
    fanout.join()


@pytest.mark.parametrize("method", ["Classify", "Regress", "MultiInference"])
def test_a_cancelled_request_ends_at_once(predictor: _graph.Predictor, fanout: FakeFanout, method: str) -> None:
    fanout.mode = "hang"
    requests = {"Classify": models.classification(1), "Regress": models.regression(1)}
    request = requests.get(method) or models.multi_inference(TASKS, 1)
    started = HandlerClient(predictor.handler(method)).start(request.SerializeToString())
    assert started.on_cancel is not None
    started.on_cancel()
    assert started.ended.wait(10)
    assert started.code == Code.CANCELLED
    assert predictor.stats()["in_flight"] == 0


@pytest.mark.parametrize("method", ["Classify", "MultiInference"])
def test_a_failed_lookup_is_the_answer(predictor: _graph.Predictor, fanout: FakeFanout, method: str) -> None:
    fanout.mode = "fail"
    request = models.classification(1) if method == "Classify" else models.multi_inference(TASKS, 1)
    failed = HandlerClient(predictor.handler(method)).call(request.SerializeToString())
    assert (failed.code, failed.message) == (Code.UNAVAILABLE, "table t: no live server")
