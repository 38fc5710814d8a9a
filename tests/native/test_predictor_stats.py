"""What the predictor counts of requests: by model, method and entry point."""

from __future__ import annotations

import threading

import pytest

from cpp_ext import _graph
from support import example_models as models
from support.example_models import CLASSIFY, REGRESS
from support.fake_abi import HandlerClient
from tessera.errors import InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> _graph.Version:
    path = models.heads(tmp_path_factory.mktemp("stats") / "1")
    return _graph.Version(version=1, graph=_graph.Graph.load(str(path)))


@pytest.fixture
def predictor(version: _graph.Version) -> _graph.Predictor:
    predictor = _graph.Predictor()
    predictor.publish({"m": [version]})
    return predictor


def regress(predictor: _graph.Predictor, *xs: float, model: str = "m", entrypoint: str = "GRPC") -> None:
    request = models.regression(*xs, model=model).SerializeToString()
    predictor.call("Regress", request, timeout_s=30, entrypoint=entrypoint)


def test_the_bounds_are_those_of_tensorflow_serving() -> None:
    bounds = _graph.latency_bounds_micros()
    assert len(bounds) == 33
    assert bounds == pytest.approx([10 * 1.8**i for i in range(33)], rel=1e-3)


def test_requests_are_counted_by_method_and_entry_point(predictor: _graph.Predictor) -> None:
    regress(predictor, 1, 2, 3)
    regress(predictor, 1, entrypoint="REST")
    with pytest.raises(InvalidArgumentError):
        regress(predictor)
    tasks = models.multi_inference([("regress", REGRESS), ("classify", CLASSIFY)], 1, 2)
    predictor.call("MultiInference", tasks.SerializeToString(), timeout_s=30, entrypoint="GRPC")
    of_model = predictor.stats()["methods"]["m"]
    assert set(of_model) == {"Regress", "MultiInference"}
    assert set(of_model["Regress"]) == {"GRPC", "REST"}
    grpc = of_model["Regress"]["GRPC"]
    assert grpc["codes"] == {"OK": 1, "INVALID_ARGUMENT": 1}
    assert (grpc["examples"]["count"], grpc["examples"]["sum"]) == (1, 3)
    assert grpc["examples"]["counts"][2] == 1  # 2 <= 3 < 4
    assert of_model["Regress"]["REST"]["codes"] == {"OK": 1}
    assert of_model["MultiInference"]["GRPC"]["examples"]["sum"] == 2


def test_histograms_hold_the_successes(predictor: _graph.Predictor) -> None:
    for _ in range(5):
        regress(predictor, 1)
    with pytest.raises(InvalidArgumentError):
        regress(predictor)
    counted = predictor.stats()["methods"]["m"]["Regress"]["GRPC"]
    stages = counted["stages_micros"]
    histograms = [counted["latency_micros"], counted["runtime_micros"], *stages.values()]
    for histogram in histograms:
        assert histogram["count"] == sum(histogram["counts"]) == 5
        assert histogram["sum"] > 0
    assert set(stages) == {"decode", "run", "encode"}
    assert sum(stage["sum"] for stage in stages.values()) == pytest.approx(counted["latency_micros"]["sum"])
    assert stages["run"]["sum"] == counted["runtime_micros"]["sum"]
    assert len(counted["latency_micros"]["counts"]) == 34
    assert {len(stage["counts"]) for stage in stages.values()} == {26}
    mean = counted["latency_micros"]["sum"] / 5
    bounds = [0.0, *_graph.latency_bounds_micros(), float("inf")]
    lowest = next(i for i, count in enumerate(counted["latency_micros"]["counts"]) if count)
    highest = max(i for i, count in enumerate(counted["latency_micros"]["counts"]) if count)
    assert bounds[lowest] <= mean <= bounds[highest + 1]


def test_names_that_are_not_served_share_one_entry(predictor: _graph.Predictor) -> None:
    for i in range(100):
        with pytest.raises(NotFoundError):
            regress(predictor, 1, model=f"scan{i}")
    client = HandlerClient(predictor.handler("Classify"))
    assert client.call(b"\x0a\xff").code != 0
    methods = predictor.stats()["methods"]
    assert set(methods) == {"(unknown)"}
    assert methods["(unknown)"]["Regress"]["GRPC"]["codes"] == {"NOT_FOUND": 100}
    assert methods["(unknown)"]["Classify"]["GRPC"]["codes"] == {"INVALID_ARGUMENT": 1}


def test_a_wrong_version_of_a_served_model_counts_as_the_models(predictor: _graph.Predictor) -> None:
    request = models.regression(1)
    request.model_spec.version.value = 9
    with pytest.raises(NotFoundError):
        predictor.call("Regress", request.SerializeToString(), timeout_s=30, entrypoint="GRPC")
    assert predictor.stats()["methods"]["m"]["Regress"]["GRPC"]["codes"] == {"NOT_FOUND": 1}


def test_counts_outlive_snapshots(predictor: _graph.Predictor, version: _graph.Version) -> None:
    regress(predictor, 1)
    predictor.publish({})
    predictor.publish({"other": [version]})
    predictor.publish({"m": [version]})
    regress(predictor, 1)
    assert predictor.stats()["methods"]["m"]["Regress"]["GRPC"]["codes"] == {"OK": 2}


def test_calls_of_the_process_itself_are_not_counted_as_requests_to_the_model(predictor: _graph.Predictor) -> None:
    regress(predictor, 1, entrypoint="INTERNAL")
    stats = predictor.stats()
    assert stats["methods"] == {}
    assert stats["requests"] == 1


def test_a_client_cannot_choose_its_entry_point(predictor: _graph.Predictor) -> None:
    client = HandlerClient(predictor.handler("Regress"))
    names = ("tessera-entrypoint", ":tessera-entrypoint", "entrypoint")
    request = models.regression(1).SerializeToString()
    assert client.call(request, metadata=dict.fromkeys(names, "REST")).code == 0
    assert set(predictor.stats()["methods"]["m"]["Regress"]) == {"GRPC"}


def test_threads_together_lose_no_count(predictor: _graph.Predictor) -> None:
    def work() -> None:
        for _ in range(20):
            regress(predictor, 1, 2)

    threads = [threading.Thread(target=work) for _ in range(20)]  # more than have cells of their own
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counted = predictor.stats()["methods"]["m"]["Regress"]["GRPC"]
    assert counted["codes"] == {"OK": 400}
    assert counted["latency_micros"]["count"] == 400
    assert counted["examples"]["sum"] == 800
