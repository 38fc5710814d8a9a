"""Classify, Regress and MultiInference of models that are batched, in regions or as whole requests."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from cpp_ext import _graph
from support import example_models as models
from support.batch_calls import load, together
from support.example_models import CLASSIFY, REGRESS
from tessera.errors import InvalidArgumentError

pytestmark = pytest.mark.native

CLIENTS = 8
ROWS = 2
XS = [float(number) for number in range(CLIENTS)]


@pytest.fixture(scope="module", params=["region", "whole requests"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _graph.Graph:
    path = models.heads(tmp_path_factory.mktemp("batched") / "m", region=request.param == "region")
    graph = load(path, request_batching=request.param == "whole requests")
    assert ("head" in graph.batch_regions) == (request.param == "region")
    return graph


@pytest.fixture
def predictor(graph: _graph.Graph) -> _graph.Predictor:
    policy = _graph.BatchPolicy(**together(CLIENTS * ROWS))  # they meet if they come within two seconds
    graph.set_batching(dict.fromkeys(graph.batch_regions, policy))
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    return predictor


def at_once(predictor: _graph.Predictor, method: str, requests: list[bytes]) -> list[bytes]:
    """Make all calls at one moment; return the answers in the order of the requests."""
    barrier = threading.Barrier(len(requests))

    def ask(request: bytes) -> bytes:
        barrier.wait(60)
        return predictor.call(method, request, timeout_s=60)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def rows_of(graph: _graph.Graph, region: str) -> int:
    rows: int = graph.batching_stats()[region]["rows"]
    return rows


def test_classify(graph: _graph.Graph, predictor: _graph.Predictor) -> None:
    region = "head" if "head" in graph.batch_regions else "classify"
    before = rows_of(graph, region)
    requests = [models.classification(x, x + 0.5, signature="classify").SerializeToString() for x in XS]
    for x, answer in zip(XS, at_once(predictor, "Classify", requests), strict=True):
        result = classification_pb2.ClassificationResponse.FromString(answer).result
        found = [[(one.label, one.score) for one in of_row.classes] for of_row in result.classifications]
        assert found == [[("no", row), ("yes", 1.0 - row)] for row in (x, x + 0.5)]
    assert rows_of(graph, region) - before == CLIENTS * ROWS


def test_regress(graph: _graph.Graph, predictor: _graph.Predictor) -> None:
    region = "head" if "head" in graph.batch_regions else "regress"
    before = rows_of(graph, region)
    requests = [models.regression(x, x + 0.5).SerializeToString() for x in XS]
    for x, answer in zip(XS, at_once(predictor, "Regress", requests), strict=True):
        result = regression_pb2.RegressionResponse.FromString(answer).result
        assert [one.value for one in result.regressions] == [2 * x + 1, 2 * x + 2]
    assert rows_of(graph, region) - before == CLIENTS * ROWS


def test_multi_inference(graph: _graph.Graph, predictor: _graph.Predictor) -> None:
    """Its one run for all tasks goes through the region once; whole requests of several signatures are not batched."""
    has_region = "head" in graph.batch_regions
    before = rows_of(graph, "head") if has_region else 0
    tasks = [("regress", REGRESS), ("classify", CLASSIFY)]
    requests = [models.multi_inference(tasks, x, x + 0.5).SerializeToString() for x in XS]
    for x, answer in zip(XS, at_once(predictor, "MultiInference", requests), strict=True):
        first, second = inference_pb2.MultiInferenceResponse.FromString(answer).results
        assert [one.value for one in first.regression_result.regressions] == [2 * x + 1, 2 * x + 2]
        scores = [[c.score for c in one.classes] for one in second.classification_result.classifications]
        assert scores == [[x, 1 - x], [x + 0.5, 0.5 - x]]
    if has_region:
        assert rows_of(graph, "head") - before == CLIENTS * ROWS


def test_a_wrong_example_fails_alone(predictor: _graph.Predictor) -> None:
    wrong = models.regression(input_=models.example_input(models.example(other=1.0))).SerializeToString()
    right = models.regression(1.0).SerializeToString()
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(predictor.call, "Regress", right, timeout_s=60)
        with pytest.raises(InvalidArgumentError, match=r"Feature: x \(data type: float\) is required"):
            predictor.call("Regress", wrong, timeout_s=60)
        result = regression_pb2.RegressionResponse.FromString(asked.result(60)).result
    assert [one.value for one in result.regressions] == [3.0]
