"""Requests that name no version are divided by the split; those that name one are not concerned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from cpp_ext import _graph
from support import small_models
from support.small_models import f32
from tessera.errors import InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native

CLIENTS = [f"client-{i}" for i in range(400)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> _graph.Graph:
    return _graph.Graph.load(str(small_models.half_plus(tmp_path_factory.mktemp("m") / "1", 1.0)))


class Served:
    """Version → labels, all with one graph, and a split."""

    def __init__(
        self, graph: _graph.Graph, versions: Mapping[int, list[str]], split: _graph.TrafficSplit | None = None
    ) -> None:
        self.predictor = _graph.Predictor()
        self.split = split
        self.publish(graph, versions)

    def publish(self, graph: _graph.Graph, versions: Mapping[int, list[str]]) -> None:
        found = [_graph.Version(version=v, graph=graph, labels=labels) for v, labels in versions.items()]
        self.predictor.publish({"m": found}, traffic={"m": self.split} if self.split is not None else {})

    def version(
        self, *, client_id: str = "", options_id: str = "", header: Mapping[str, str] | None = None, **spec: object
    ) -> int:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        if client_id:
            request.client_id = client_id.encode()
        if options_id:
            request.request_options.client_id = options_id.encode()
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(f32([1])))
        answer = self.predictor.call("Predict", request.SerializeToString(), timeout_s=10, metadata=header or {})
        return int(predict_pb2.PredictResponse.FromString(answer).model_spec.version.value)

    def of_clients(self) -> dict[str, int]:
        return {client: self.version(client_id=client) for client in CLIENTS}


def test_a_client_stays_with_its_version_however_it_is_told(graph: _graph.Graph) -> None:
    served = Served(graph, {1: [], 2: []}, _graph.TrafficSplit({1: 50, 2: 50}, sticky_header="x-user"))
    for client in CLIENTS[:50]:
        version = served.version(client_id=client)
        assert served.version(client_id=client) == version
        assert served.version(options_id=client) == version
        assert served.version(header={"x-user": client}) == version
        assert served.version(header={"x-user": client}, client_id="somebody else") == version
        assert served.version(header={"x-user": ""}, client_id=client) == version


def test_without_a_client_chance_decides(graph: _graph.Graph) -> None:
    split = _graph.TrafficSplit({1: 75, 2: 25})
    served = Served(graph, {1: [], 2: []}, split)
    counts = Counter(served.version() for _ in range(2000))
    assert 1350 < counts[1] < 1650  # 7.7 standard deviations
    assert split.counts() == {"1": {"chosen": counts[1], "rerouted": 0}, "2": {"chosen": counts[2], "rerouted": 0}}
    assert served.predictor.stats()["traffic"] == {"m": split.counts()}


def test_requests_that_name_a_version_or_a_label_get_it(graph: _graph.Graph) -> None:
    split = _graph.TrafficSplit({"stable": 100, "canary": 0})
    served = Served(graph, {1: ["stable"], 2: ["canary"], 3: []}, split)
    assert [served.version(version=v) for v in (1, 2, 3)] == [1, 2, 3]
    assert [served.version(label=label) for label in ("stable", "canary")] == [1, 2]
    assert split.counts()["stable"]["chosen"] == 0
    assert {served.version() for _ in range(20)} == {1}


def test_clients_are_where_they_were_in_every_build(graph: _graph.Graph) -> None:
    # Golden: neither another router nor the next release may move clients.
    served = Served(graph, {1: [], 2: ["canary"]}, _graph.TrafficSplit({1: 50, "canary": 50}))
    versions = "".join(str(served.version(client_id=f"client-{i}")) for i in range(32))
    assert versions == "22211212221211222222211112112111"


def test_without_a_split_the_largest_version_answers(graph: _graph.Graph) -> None:
    assert Served(graph, {1: [], 2: []}).version(client_id="a") == 2


def test_the_share_of_a_missing_version_goes_to_the_others_and_comes_back(graph: _graph.Graph) -> None:
    split = _graph.TrafficSplit({1: 20, 2: 30, 3: 50})
    served = Served(graph, {1: [], 2: [], 3: []}, split)
    before = served.of_clients()
    served.publish(graph, {1: [], 2: []})
    without = served.of_clients()
    assert {client: version for client, version in without.items() if before[client] != 3} == {
        client: version for client, version in before.items() if version != 3
    }
    moved = Counter(without[client] for client, version in before.items() if version == 3)
    assert 0.2 < moved[1] / moved.total() < 0.6  # 40 % of about 200
    assert split.counts()["3"]["rerouted"] == moved.total()
    served.publish(graph, {1: [], 2: [], 3: []})
    assert served.of_clients() == before


def test_nothing_of_the_split_is_there(graph: _graph.Graph) -> None:
    split = _graph.TrafficSplit({1: 50, 2: 50, 3: 0})
    served = Served(graph, {3: []}, split)
    with pytest.raises(NotFoundError, match=r"Servable not found for request: Latest\(m\)"):
        served.version()
    assert sum(one["rerouted"] for one in split.counts().values()) == 1


@st.composite
def _percentages(draw: st.DrawFn) -> list[float]:
    weights = draw(st.lists(st.integers(1, 50), min_size=2, max_size=5))
    return [100 * weight / sum(weights) for weight in weights]


@given(_percentages(), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_clients_only_move_to_shares_that_grew_in_relation(
    graph: _graph.Graph, before: list[float], data: st.DataObject
) -> None:
    after = data.draw(_percentages().filter(lambda found: len(found) == len(before)))
    versions: dict[int, list[str]] = {i: [] for i in range(len(before))}
    first = Served(graph, versions, _graph.TrafficSplit(dict(enumerate(before)))).of_clients()
    second = Served(graph, versions, _graph.TrafficSplit(dict(enumerate(after)))).of_clients()
    for client in CLIENTS:
        old, new = first[client], second[client]
        if old != new:
            assert after[new] / before[new] > after[old] / before[old]


@given(st.floats(1, 60), st.floats(1, 39))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_canary_that_grows_only_takes_clients(graph: _graph.Graph, percent: float, more: float) -> None:
    versions: dict[int, list[str]] = {1: [], 2: []}
    first = Served(graph, versions, _graph.TrafficSplit({1: 100 - percent, 2: percent})).of_clients()
    second = Served(graph, versions, _graph.TrafficSplit({1: 100 - percent - more, 2: percent + more})).of_clients()
    assert all(second[client] == 2 for client, version in first.items() if version == 2)
    share = sum(version == 2 for version in second.values()) / len(CLIENTS)
    assert abs(share - (percent + more) / 100) < 0.13  # five standard deviations


@pytest.mark.parametrize(
    ("percent", "message"),
    [
        ({}, "got 0 shares"),
        ({1: 50, 2: 49}, "sum up to 99, expected 100"),
        ({1: 150, 2: -50}, "2: got -50 percent"),
        ({-1: 100}, "got version -1"),
        (dict.fromkeys(range(65), 1.0), "got 65 shares"),
    ],
)
def test_wrong_splits_are_refused(percent: dict[int | str, float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        _graph.TrafficSplit(percent)
