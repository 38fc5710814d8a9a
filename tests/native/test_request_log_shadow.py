"""What sees answers: the request log, whose files warm a model up, and copies to another version, compared."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from cpp_ext import _graph
from router.lifecycle.config import ModelConfig, RequestLogging
from router.traffic import Traffic
from support import example_models, small_models
from support.small_models import f32
from tessera.errors import InvalidArgumentError, TesseraError

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """y = x / 2 + 1, nearly the same, y = x / 2 + 2, and a model of another kind."""
    directory = tmp_path_factory.mktemp("models")
    found = {
        name: small_models.half_plus(directory / name, y) for name, y in (("a", 1.0), ("near", 1.00001), ("b", 2.0))
    }
    return {name: str(path) for name, path in found.items()} | {"heads": str(example_models.heads(directory / "heads"))}


def request(*values: float, version: int | None = None) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "m"
    if version is not None:
        message.model_spec.version.value = version
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(f32(list(values))))
    return message


def ask(predictor: _graph.Predictor, message: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    answer = predictor.call("Predict", message.SerializeToString(), timeout_s=10, entrypoint="GRPC")
    return predict_pb2.PredictResponse.FromString(answer)


def publish(predictor: _graph.Predictor, versions: dict[int, str], *hooks: _graph.AnswerHook) -> None:
    predictor.publish(
        {"m": [_graph.Version(version=v, graph=_graph.Graph.load(path), hooks=hooks) for v, path in versions.items()]}
    )


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, "did not become true in time"
        time.sleep(0.005)


# --- the log --------------------------------------------------------------------------------------------------------


def test_a_record_holds_the_messages_and_what_served_them(paths: dict[str, str]) -> None:
    predictor, log = _graph.Predictor(), _graph.RequestLog(model="m", sampling_rate=1.0)
    publish(predictor, {7: paths["a"]}, log)
    sent = request(1, 2)
    answer = ask(predictor, sent)
    with pytest.raises(TesseraError):
        ask(predictor, predict_pb2.PredictRequest(model_spec=sent.model_spec))  # failures are not logged
    (record,) = log.take(timeout_s=1)
    parsed = prediction_log_pb2.PredictionLog.FromString(record)
    assert parsed.predict_log.request == sent
    assert parsed.predict_log.response == answer
    metadata = parsed.log_metadata
    assert (metadata.model_spec.name, metadata.model_spec.version.value) == ("m", 7)
    assert metadata.sampling_config.sampling_rate == 1.0
    assert abs(metadata.timestamp_secs - time.time()) < 60
    assert log.counts() == {"sampled": 1, "dropped": 0}


def test_all_methods_are_logged_as_what_they_are(paths: dict[str, str]) -> None:
    predictor, log = _graph.Predictor(), _graph.RequestLog(model="m", sampling_rate=1.0)
    publish(predictor, {1: paths["heads"]}, log)
    requests = method_requests()
    for method, message in requests.items():
        predictor.call(method, message, timeout_s=10, entrypoint="REST")
    predictor.call("Classify", requests["Classify"], timeout_s=10)  # made by the process itself: not logged
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in log.take(timeout_s=1)]
    assert [one.WhichOneof("log_type") for one in logs] == ["classify_log", "regress_log", "multi_inference_log"]
    assert logs[0].classify_log.request.SerializeToString() == requests["Classify"]
    assert len(logs[0].classify_log.response.result.classifications) == 2
    assert logs[2].multi_inference_log.response.results[1].regression_result.regressions[0].value == 2.0


def method_requests(version: int = 1) -> dict[str, bytes]:
    """Requests of x = 0.5 and 0.25 that name a version, by method."""
    tasks = [("classify", example_models.CLASSIFY), ("regress", example_models.REGRESS)]
    multi = example_models.multi_inference(tasks, 0.5, 0.25)
    classify, regress = example_models.classification(0.5, 0.25), example_models.regression(0.5, 0.25)
    for spec in (classify.model_spec, regress.model_spec, *(task.model_spec for task in multi.tasks)):
        spec.version.value = version
    found = {"Classify": classify, "Regress": regress, "MultiInference": multi}
    return {method: bytes(message.SerializeToString()) for method, message in found.items()}


def test_a_part_is_sampled(paths: dict[str, str]) -> None:
    predictor, log = _graph.Predictor(), _graph.RequestLog(model="m", sampling_rate=0.25, max_records=5000)
    publish(predictor, {1: paths["a"]}, log)
    for _ in range(2000):
        ask(predictor, request(1))
    assert 380 < log.counts()["sampled"] < 620  # more than six standard deviations
    assert len(log.take(timeout_s=0)) == log.counts()["sampled"]


def test_more_than_the_bounds_is_dropped_and_the_answers_come(paths: dict[str, str]) -> None:
    predictor = _graph.Predictor()
    few = _graph.RequestLog(model="m", sampling_rate=1.0, max_records=3)
    small = _graph.RequestLog(model="m", sampling_rate=1.0, max_bytes=300)
    publish(predictor, {1: paths["a"]}, few, small)
    for _ in range(10):
        ask(predictor, request(1))
    assert few.counts() == {"sampled": 3, "dropped": 7}
    kept = small.counts()["sampled"]
    assert 0 < kept < 5
    assert len(few.take(timeout_s=0)) == 3
    assert len(small.take(timeout_s=0)) == kept
    ask(predictor, request(1))
    assert (few.counts()["sampled"], small.counts()["sampled"]) == (4, kept + 1)
    few.close()
    ask(predictor, request(1))
    assert len(few.take(timeout_s=60)) == 1  # closed: does not wait
    assert few.take(timeout_s=60) == []


def test_every_record_is_taken_once_with_many_threads(paths: dict[str, str]) -> None:
    predictor, log = _graph.Predictor(), _graph.RequestLog(model="m", sampling_rate=1.0, max_records=16)
    publish(predictor, {1: paths["a"]}, log)
    taken: list[bytes] = []

    def write() -> None:
        while records := log.take(timeout_s=10):
            assert len(records) <= 16
            taken.extend(records)

    def send() -> None:
        for i in range(500):
            ask(predictor, request(i))

    writer, senders = threading.Thread(target=write), [threading.Thread(target=send) for _ in range(4)]
    for thread in (writer, *senders):
        thread.start()
    for thread in senders:
        thread.join(30)
    log.close()
    writer.join(30)
    counts = log.counts()
    assert counts["sampled"] + counts["dropped"] == 2000
    assert len(taken) == counts["sampled"] > 0
    for record in taken:
        prediction_log_pb2.PredictionLog.FromString(record)


def test_the_files_are_those_that_tensorflow_reads(paths: dict[str, str], tmp_path: Path) -> None:
    predictor = _graph.Predictor()
    traffic = Traffic(predictor)
    traffic.configure([ModelConfig("m", tmp_path, logging=RequestLogging(str(tmp_path / "log" / "m"), 1.0))])
    publish(predictor, {1: paths["a"]}, *traffic.hooks("m"))
    sent = [request(i, i + 1) for i in range(20)]
    answers = [ask(predictor, message) for message in sent]
    traffic.stop()
    (file,) = (tmp_path / "log").iterdir()
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset([str(file)])]
    assert [one.predict_log.request for one in logs] == sent
    assert [one.predict_log.response for one in logs] == answers
    for one in logs:  # what a warm-up does
        again = ask(predictor, one.predict_log.request)
        assert again.outputs == one.predict_log.response.outputs


# --- copies to another version ---------------------------------------------------------------------------------------


def shadowed(paths: dict[str, str], one: str, two: str, **settings: Any) -> tuple[_graph.Predictor, _graph.Shadow]:
    predictor = _graph.Predictor()
    shadow = _graph.Shadow(predictor, model="m", version=2, **settings)
    publish(predictor, {1: paths[one], 2: paths[two]}, shadow)
    return predictor, shadow


def results(shadow: _graph.Shadow, count: int) -> dict[str, int]:
    def done() -> bool:
        return sum(shadow.counts().values()) == count and shadow.counts()["in_flight"] == 0

    until(done)
    return {name: n for name, n in shadow.counts().items() if n}


@pytest.mark.parametrize(
    ("two", "tolerance", "expected"),
    [
        ("a", 0.0, {"equal": 5}),
        ("near", 0.0, {"different": 5}),
        ("near", 1e-4, {"equal": 5}),
        ("b", 1e-4, {"different": 5}),
        ("heads", 0.0, {"failed": 5}),
    ],
)
def test_answers_are_compared(paths: dict[str, str], two: str, tolerance: float, expected: dict[str, int]) -> None:
    predictor, shadow = shadowed(paths, "a", two, tolerance=tolerance)
    for _ in range(5):
        assert ask(predictor, request(1, 2, version=1)).outputs["y"].float_val == [1.5, 2.0]
    assert results(shadow, 5) == expected
    methods = predictor.stats()["methods"]["m"]["Predict"]
    assert methods["GRPC"]["codes"] == {"OK": 5}  # the copies are no requests of clients
    assert set(methods) == {"GRPC"}


def test_what_the_version_answers_itself_is_not_copied(paths: dict[str, str]) -> None:
    predictor, shadow = shadowed(paths, "a", "b")
    assert ask(predictor, request(1)).model_spec.version.value == 2
    assert ask(predictor, request(1, version=1)).model_spec.version.value == 1
    assert results(shadow, 1) == {"different": 1}


def test_a_label_may_be_the_target(paths: dict[str, str]) -> None:
    predictor = _graph.Predictor()
    shadow = _graph.Shadow(predictor, model="m", version="canary")
    graphs = {v: _graph.Graph.load(paths[name]) for v, name in ((1, "a"), (2, "b"))}
    labels = {1: ["stable"], 2: ["canary"]}
    predictor.publish(
        {"m": [_graph.Version(version=v, graph=g, labels=labels[v], hooks=[shadow]) for v, g in graphs.items()]}
    )
    ask(predictor, request(1))  # the canary itself
    stable = request(1)
    stable.model_spec.version_label = "stable"
    ask(predictor, stable)
    assert results(shadow, 1) == {"different": 1}


def test_a_version_that_is_not_there_fails_the_copy_only(paths: dict[str, str]) -> None:
    predictor = _graph.Predictor()
    shadow = _graph.Shadow(predictor, model="m", version=9)
    publish(predictor, {1: paths["a"]}, shadow)
    assert list(ask(predictor, request(4)).outputs["y"].float_val) == [3.0]
    assert results(shadow, 1) == {"failed": 1}


def test_all_methods_are_compared(paths: dict[str, str]) -> None:
    predictor, shadow = shadowed(paths, "heads", "heads", tolerance=0.0)
    for method, message in method_requests().items():
        predictor.call(method, message, timeout_s=10, entrypoint="GRPC")
    assert results(shadow, 3) == {"equal": 3}


def test_copies_are_bounded(paths: dict[str, str]) -> None:
    predictor, shadow = shadowed(paths, "a", "a", max_in_flight=1)
    big = request(*range(100_000), version=1)
    for _ in range(20):
        ask(predictor, big)
    found = results(shadow, 20)
    assert found["equal"] >= 1
    assert found["dropped"] >= 1  # a copy takes longer than the request: it is compared too


def test_no_percent_is_no_copy(paths: dict[str, str]) -> None:
    predictor, shadow = shadowed(paths, "a", "b", percent=0.0)
    for _ in range(50):
        ask(predictor, request(1, version=1))
    assert sum(shadow.counts().values()) == 0


def test_a_predictor_may_end_while_copies_are_in_flight(paths: dict[str, str]) -> None:
    for _ in range(5):
        predictor, shadow = shadowed(paths, "a", "b")
        for _ in range(10):
            ask(predictor, request(*range(1000), version=1))
        del predictor
        until(lambda: shadow.counts()["in_flight"] == 0)  # noqa: B023 - used at once


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"percent": 101.0}, "percent: got 101"),
        ({"version": -1}, "version: got -1"),
        ({"max_in_flight": 0}, "max_in_flight: got 0"),
        ({"tolerance": -1.0}, "tolerance: got -1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        _graph.Shadow(_graph.Predictor(), **({"model": "m", "version": 1} | settings))  # type: ignore[arg-type]
