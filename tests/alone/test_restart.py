"""Requests whose placement is outdated while they run: they wait for a newer one, and run again as a whole."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from cpp_ext import _graph
from support import small_models
from support.fake_abi import Call, HandlerClient
from support.fake_fanout import FakeFanout
from support.small_models import i64, lookup, placeholder
from tessera.errors import Code

pytestmark = pytest.mark.native
FLOAT, INT64 = 1, 9
OLD, NEW, NEWEST = 1, 2, 3
TABLES = {route: np.arange(30, dtype=np.float32).reshape(10, 3) + 1000 * route for route in (OLD, NEW, NEWEST)}
IDS = i64([1, 9, 0])


@pytest.fixture
def fanout(the_fanout: FakeFanout) -> FakeFanout:
    """A fan-out in which servers have moved on from the route OLD: what is looked up over it fails."""
    the_fanout.reset({route: [table] for route, table in TABLES.items()})
    the_fanout.failing = {OLD}
    the_fanout.newer_epochs = {OLD: 5}
    return the_fanout


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two lookups, one after the other."""
    nodes = placeholder("ids", "DT_INT64")
    nodes += lookup("first", [("ids", "DT_INT64")], [(0, "t", 10, 3)])
    nodes += lookup("second", [("ids", "DT_INT64")], [(0, "t", 10, 3)], control='input: "^first" ')
    outputs = {"first": ("first:0", FLOAT), "second": ("second:0", FLOAT)}
    path = small_models.text_model(tmp_path_factory.mktemp("restart") / "m", nodes, {"ids": ("ids:0", INT64)}, outputs)
    return _graph.Graph.load(str(path))


class Model:
    """A predictor with one model, and a client of it."""

    def __init__(self, graph: Any, fanout: FakeFanout) -> None:
        self._graph, self._fanout = graph, fanout
        self.predictor = _graph.Predictor()
        self.client = HandlerClient(self.predictor.handler())

    def publish(self, route: int, version: int = 1) -> None:
        served = _graph.Version(version=version, graph=self._graph, route=self._fanout.route(route))
        self.predictor.publish({"m": [served]})

    def start(self, *, timeout_s: float | None = 30, version: int | None = None) -> Call:
        message = predict_pb2.PredictRequest()
        message.model_spec.name = "m"
        if version is not None:
            message.model_spec.version.value = version
        message.inputs["ids"].CopyFrom(tf.make_tensor_proto(IDS))
        return self.client.start(message.SerializeToString(), timeout_s=timeout_s)

    @property
    def awaiting(self) -> int:
        return int(self.predictor.stats()["awaiting_newer"])

    @property
    def run_again(self) -> int:
        return int(self.predictor.stats()["run_again"])


@pytest.fixture
def model(graph: Any, fanout: FakeFanout) -> Model:
    return Model(graph, fanout)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def check(call: Call, route: int, version: int = 1) -> None:
    """Check that all of the answer is of one route."""
    assert call.ended.wait(30)
    assert call.code == Code.OK, call.message
    response = predict_pb2.PredictResponse.FromString(call.response)
    assert response.model_spec.version.value == version
    for output in ("first", "second"):
        np.testing.assert_array_equal(tf.make_ndarray(response.outputs[output]), TABLES[route][IDS])


def test_a_request_waits_for_the_newer_placement_and_runs_again(model: Model, fanout: FakeFanout) -> None:
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    assert not call.ended.is_set()
    model.publish(NEW)
    check(call, NEW)
    wait_until(lambda: fanout.references[OLD] == 0 and fanout.unreleased == 0)
    assert (model.run_again, model.awaiting) == (1, 0)
    stats = model.predictor.stats()
    assert stats["models"] == {"m": {1: 1}}, "counted once, for what served it"
    assert stats["methods"]["m"]["Predict"]["GRPC"]["codes"] == {"OK": 1}


def test_what_waits_does_not_hold_the_old_placement(model: Model, fanout: FakeFanout) -> None:
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    model.predictor.publish({})
    wait_until(lambda: fanout.references[OLD] == 0)
    # The model is gone: that is the answer.
    assert call.ended.wait(30)
    assert call.code == Code.NOT_FOUND


def test_a_part_that_was_answered_by_the_old_placement_is_asked_for_again(model: Model, fanout: FakeFanout) -> None:
    fanout.failing = set()
    fanout.mode = "hang"
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: len(fanout.lookups) == 1)
    fanout.mode = "now"
    fanout.failing = {OLD}
    model.publish(NEW)
    # The first lookup fails now, late: everything begins anew over the placement that is current by now.
    fanout.fail_hanging()
    check(call, NEW)
    assert model.run_again == 1


def test_the_second_lookup_of_a_request_may_be_the_one_that_is_refused(model: Model, fanout: FakeFanout) -> None:
    fanout.failing = set()
    fanout.before_lookup = lambda: fanout.failing.update({OLD} if len(fanout.lookups) == 1 else ())
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    model.publish(NEW, version=2)
    check(call, NEW, version=2)


def test_a_request_runs_three_times_at_most(model: Model, fanout: FakeFanout) -> None:
    fanout.failing = {OLD, NEW, NEWEST}
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    # Each is up to date when it is published, and outdated when it was asked.
    fanout.before_lookup = lambda: fanout.newer_epochs.update({NEW: 9, NEWEST: 9})
    model.publish(NEW)
    wait_until(lambda: model.run_again == 1 and model.awaiting == 1)
    fanout.newer_epochs.pop(NEWEST)
    model.publish(NEWEST)
    assert call.ended.wait(30)
    assert (call.code, call.message) == (Code.UNAVAILABLE, "table t: no live server")
    assert model.run_again == 2


def test_a_publication_that_is_not_newer_is_waited_past(model: Model, fanout: FakeFanout) -> None:
    fanout.newer_epochs = {OLD: 5, NEW: 5}
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    for _ in range(20):
        model.publish(NEW)
    assert not call.ended.is_set()
    model.publish(NEWEST)
    check(call, NEWEST)
    assert model.run_again == 1


def test_other_failures_and_up_to_date_routes_are_answered_at_once(model: Model, fanout: FakeFanout) -> None:
    model.publish(OLD)
    fanout.newer_epochs = {}
    call = model.start()
    assert call.ended.wait(30)
    assert call.code == Code.UNAVAILABLE
    fanout.newer_epochs = {OLD: 5}
    fanout.code, fanout.message = int(Code.INTERNAL), "broken"
    call = model.start()
    assert call.ended.wait(30)
    assert (call.code, call.message) == (Code.INTERNAL, "broken")
    assert model.run_again == 0


def test_a_request_waits_no_longer_than_its_deadline(model: Model) -> None:
    model.publish(OLD)
    call = model.start(timeout_s=0.3)
    assert call.ended.wait(30)
    assert call.code == Code.DEADLINE_EXCEEDED
    assert "no live server" in call.message
    assert model.awaiting == 0


def test_a_request_that_waits_can_be_cancelled(model: Model, fanout: FakeFanout) -> None:
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    assert call.on_cancel is not None
    call.on_cancel()
    assert call.ended.wait(30)
    assert call.code == Code.CANCELLED
    wait_until(lambda: fanout.references[OLD] == 1)  # that of what is published
    assert model.predictor.stats()["in_flight"] == 0


def test_a_request_that_runs_again_can_be_cancelled(model: Model, fanout: FakeFanout) -> None:
    model.publish(OLD)
    call = model.start()
    wait_until(lambda: model.awaiting == 1)
    fanout.mode = "hang"
    model.publish(NEW)
    wait_until(lambda: len(fanout.hanging) == 1)
    assert call.on_cancel is not None
    call.on_cancel()
    assert call.ended.wait(30)
    assert call.code == Code.CANCELLED


def test_a_predictor_that_goes_while_a_request_ends_leaves_the_interpreter_to_it(
    graph: Any, fanout: FakeFanout
) -> None:
    fanout.mode = "hang"
    model = Model(graph, fanout)
    model.publish(NEW)
    call = model.start()
    (handle,) = fanout.hanging
    end, going = fanout.hanging[handle], threading.Event()

    def end_late() -> None:
        going.wait(30)
        end()

    fanout.hanging[handle] = end_late
    assert call.on_cancel is not None
    call.on_cancel()
    wait_until(lambda: not fanout.hanging)
    timer = threading.Timer(0.05, going.set)
    timer.start()
    del model
    gc.collect()  # frees the predictor, which waits for the request, which waits for the timer's thread
    timer.join(30)
    assert call.ended.wait(30)
    assert call.code == Code.CANCELLED


def test_a_version_that_was_asked_for_and_is_gone_is_not_found(model: Model) -> None:
    model.publish(OLD, version=1)
    call = model.start(version=1)
    wait_until(lambda: model.awaiting == 1)
    model.publish(NEW, version=2)
    assert call.ended.wait(30)
    assert call.code == Code.NOT_FOUND


def test_many_requests_at_once_while_placements_come_and_go(model: Model, fanout: FakeFanout) -> None:
    model.publish(OLD)
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            model.publish(OLD)
            model.publish(NEW)

    publisher = threading.Thread(target=publish)
    publisher.start()
    calls = [model.start() for _ in range(300)]
    stop.set()
    publisher.join(30)
    model.publish(NEW)
    for call in calls:
        check(call, NEW)
    wait_until(lambda: model.predictor.stats()["in_flight"] == 0 and fanout.references[OLD] == 0)


def test_who_is_refused_for_load_is_told_when_to_come_again(graph: Any, fanout: FakeFanout) -> None:
    model = Model(graph, fanout)
    model.predictor = _graph.Predictor(max_in_flight=1)
    model.client = HandlerClient(model.predictor.handler())
    model.publish(NEW)
    fanout.mode = "hang"
    first = model.start()
    refused = model.start()
    assert refused.ended.wait(30)
    assert (refused.code, refused.push_back_ms) == (Code.RESOURCE_EXHAUSTED, 100)
    assert first.push_back_ms is None
    fanout.fail_hanging()
    assert first.ended.wait(30)
    fanout.mode, fanout.failing, fanout.code = "now", {NEW}, int(Code.RESOURCE_EXHAUSTED)
    overloaded = model.start()
    assert overloaded.ended.wait(30)
    assert (overloaded.code, overloaded.push_back_ms) == (Code.RESOURCE_EXHAUSTED, 100)
