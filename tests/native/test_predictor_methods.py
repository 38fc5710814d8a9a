"""Classify, Regress and MultiInference from the wire bytes to the wire bytes, without a server."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, regression_pb2

from cpp_ext import _graph
from support import example_models as models
from support.example_models import CLASSIFY, REGRESS, example, example_input
from tessera.errors import DeadlineExceededError, InvalidArgumentError

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.heads(tmp_path_factory.mktemp("heads") / "1")


@pytest.fixture(scope="module")
def graph(path: Path) -> _graph.Graph:
    return _graph.Graph.load(str(path))


@pytest.fixture
def predictor(graph: _graph.Graph) -> _graph.Predictor:
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=3, graph=graph, labels=["stable"])]})
    return predictor


def classify(predictor: _graph.Predictor, request: Any) -> classification_pb2.ClassificationResponse:
    answer = predictor.call("Classify", request.SerializeToString(), timeout_s=30)
    return classification_pb2.ClassificationResponse.FromString(answer)


def regress(predictor: _graph.Predictor, request: Any) -> regression_pb2.RegressionResponse:
    answer = predictor.call("Regress", request.SerializeToString(), timeout_s=30)
    return regression_pb2.RegressionResponse.FromString(answer)


def infer(predictor: _graph.Predictor, request: Any) -> inference_pb2.MultiInferenceResponse:
    answer = predictor.call("MultiInference", request.SerializeToString(), timeout_s=30)
    return inference_pb2.MultiInferenceResponse.FromString(answer)


def runs(predictor: _graph.Predictor) -> int:
    """Return how often the model has parsed examples."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.model_spec.signature_name = "count"
    request.inputs["inputs"].dtype = 7
    answer = predictor.call("Predict", request.SerializeToString(), timeout_s=30)
    return int(predict_pb2.PredictResponse.FromString(answer).outputs["runs"].int64_val[0])


def pairs(result: Any) -> list[list[tuple[str, float]]]:
    return [[(c.label, c.score) for c in one.classes] for one in result.classifications]


def test_classify_pairs_labels_with_scores(predictor: _graph.Predictor) -> None:
    response = classify(predictor, models.classification(0.25, 1.0))
    assert pairs(response.result) == [[("no", 0.25), ("yes", 0.75)], [("no", 1.0), ("yes", 0.0)]]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 3, "serving_default")


def test_classify_gives_what_the_signature_has(predictor: _graph.Predictor, tmp_path: Path) -> None:
    graph = _graph.Graph.load(str(models.heads(tmp_path / "1", more=True)))
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    labels = classify(predictor, models.classification(0.25, signature="classes_only"))
    assert pairs(labels.result) == [[("no", 0.0), ("yes", 0.0)]]
    scores = classify(predictor, models.classification(0.25, signature="scores_only"))
    assert pairs(scores.result) == [[("", 0.25), ("", 0.75)]]
    assert scores.model_spec.signature_name == "scores_only"


@pytest.mark.parametrize("signature", ["regress", "regress_column"])
def test_regress(predictor: _graph.Predictor, signature: str) -> None:
    response = regress(predictor, models.regression(0.25, -0.5, 3, signature=signature))
    assert [r.value for r in response.result.regressions] == [1.5, 0.0, 7.0]
    assert response.model_spec.version.value == 3


def test_version_and_label_are_honoured(predictor: _graph.Predictor) -> None:
    request = models.regression(1)
    request.model_spec.version_label = "stable"
    assert regress(predictor, request).result.regressions[0].value == 3.0


def test_context_goes_before_every_example(predictor: _graph.Predictor) -> None:
    empty = example()
    with_context = example_input(empty, example(x=0.5), empty, context=example(x=0.25))
    response = regress(predictor, models.regression(input_=with_context))
    # An example overrides the feature of the context, as the last entry of a map does.
    assert [r.value for r in response.result.regressions] == [1.5, 2.0, 1.5]


def test_context_that_would_be_copied_too_often_is_refused(predictor: _graph.Predictor) -> None:
    huge = example_input(*[example()] * 600, context=example(x=[0.0] * (1 << 17)))
    with pytest.raises(InvalidArgumentError, match=r"context: got \d+ bytes, in front of each of 600 examples"):
        regress(predictor, models.regression(input_=huge))


def test_predict_serves_signatures_that_classify(predictor: _graph.Predictor) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["inputs"].dtype = 7
    request.inputs["inputs"].tensor_shape.dim.add(size=1)
    request.inputs["inputs"].string_val.append(example(x=0.25).SerializeToString())
    answer = predictor.call("Predict", request.SerializeToString(), timeout_s=30)
    outputs = predict_pb2.PredictResponse.FromString(answer).outputs
    assert list(outputs["classes"].string_val) == [b"no", b"yes"]
    assert list(outputs["scores"].float_val) == [0.25, 0.75]


ALL_TASKS = [("regress", REGRESS), ("", CLASSIFY), ("scores_only", CLASSIFY), ("regress_column", REGRESS)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_multi_inference_answers_in_task_order_with_one_run(predictor: _graph.Predictor, count: int) -> None:
    before = runs(predictor)
    response = infer(predictor, models.multi_inference(ALL_TASKS[:count], 0.25, 2.0))
    assert runs(predictor) == before + 1
    assert [r.model_spec.signature_name for r in response.results] == [
        "regress",
        "serving_default",
        "scores_only",
        "regress_column",
    ][:count]
    assert {(r.model_spec.name, r.model_spec.version.value) for r in response.results} == {("m", 3)}
    for result, (_, method) in zip(response.results, ALL_TASKS, strict=False):
        if method == REGRESS:
            assert [r.value for r in result.regression_result.regressions] == [1.5, 5.0]
        else:
            labels = ["", ""] if result.model_spec.signature_name == "scores_only" else ["no", "yes"]
            values = [[0.25, 0.75], [2.0, -1.0]]
            expected = [list(zip(labels, row, strict=True)) for row in values]
            assert pairs(result.classification_result) == expected


def test_multi_inference_of_signatures_with_the_same_tensors(predictor: _graph.Predictor) -> None:
    before = runs(predictor)
    response = infer(predictor, models.multi_inference([("classify", CLASSIFY), ("", CLASSIFY)], 0.25))
    assert [pairs(r.classification_result)[0] for r in response.results] == [[("no", 0.25), ("yes", 0.75)]] * 2
    assert [r.model_spec.signature_name for r in response.results] == ["classify", "serving_default"]
    assert runs(predictor) == before + 1


def test_sets_of_many_heads_are_merged_when_they_have_been_asked_for(
    predictor: _graph.Predictor, tmp_path: Path
) -> None:
    graph = _graph.Graph.load(str(models.heads(tmp_path / "1", more=True)))
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    tasks = [("regress", REGRESS), ("classify", CLASSIFY), ("classes_only", CLASSIFY)]
    request = models.multi_inference(tasks, 0.25)
    first = infer(predictor, request)
    deadline = time.monotonic() + 30
    while True:
        before = runs(predictor)
        assert infer(predictor, request) == first
        taken = runs(predictor) - before
        if taken == 1:
            break
        assert taken == len(tasks)  # one after the other until the executor for this set has been built
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert first.results[0].regression_result.regressions[0].value == 1.5
    assert pairs(first.results[1].classification_result) == [[("no", 0.25), ("yes", 0.75)]]
    assert pairs(first.results[2].classification_result) == [[("no", 0.0), ("yes", 0.0)]]


def test_more_sets_than_are_merged_are_answered_all_the_same(predictor: _graph.Predictor, tmp_path: Path) -> None:
    graph = _graph.Graph.load(str(models.heads(tmp_path / "1", more=True)))
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    good = [("regress", REGRESS), ("regress_column", REGRESS), ("classify", CLASSIFY), ("scores_only", CLASSIFY)]
    good.append(("classes_only", CLASSIFY))
    for size in range(1, len(good) + 1):
        for tasks in itertools.combinations(good, size):
            response = infer(predictor, models.multi_inference(tasks, 0.25))
            assert [r.model_spec.signature_name for r in response.results] == [name for name, _ in tasks]


def test_multi_inference_on_a_session(path: Path) -> None:
    predictor = _graph.Predictor()
    graph = _graph.Graph.load(str(path), sessions_only=True)
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    response = infer(predictor, models.multi_inference(ALL_TASKS[:2], 0.25))
    assert response.results[0].regression_result.regressions[0].value == 1.5
    assert pairs(response.results[1].classification_result) == [[("no", 0.25), ("yes", 0.75)]]


def test_method_names_are_checked_when_asked_for(graph: _graph.Graph) -> None:
    predictor = _graph.Predictor(check_method_names=True)
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    assert regress(predictor, models.regression(0.25)).result.regressions[0].value == 1.5
    with pytest.raises(
        InvalidArgumentError,
        match=r"signature method_name to be tensorflow/serving/regress\. Was: tensorflow/serving/classify",
    ):
        regress(predictor, models.regression(0.25, signature="scores_only"))


def test_call_raises_what_a_client_would_get(predictor: _graph.Predictor) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Input is empty\.$"):
        regress(predictor, models.regression())
    with pytest.raises(DeadlineExceededError):
        predictor.call("Regress", models.regression(1).SerializeToString(), timeout_s=0)
    with pytest.raises(InvalidArgumentError, match='method: got "Explain", expected one of Predict, Classify'):
        predictor.call("Explain", b"", timeout_s=1)
    with pytest.raises(InvalidArgumentError, match='method: got "Explain"'):
        predictor.handler("Explain")
