"""REST requests through the native engine: models, versions, errors, threads, ends."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cpp_ext import _graph
from support.example_models import heads
from support.half_plus import half_plus
from tessera.errors import Code, InvalidArgumentError

pytestmark = pytest.mark.native

MakeEngine = Callable[..., _graph.Rest]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _graph.Graph]:
    root = tmp_path_factory.mktemp("rest")
    paths = {"half": half_plus(root / "1", 2.0), "three": half_plus(root / "2", 3.0), "heads": heads(root / "3")}
    return {name: _graph.Graph.load(str(path)) for name, path in paths.items()}


@pytest.fixture
def predictor(graphs: dict[str, _graph.Graph]) -> _graph.Predictor:
    predictor = _graph.Predictor()
    publish(predictor, graphs)
    return predictor


def publish(predictor: _graph.Predictor, graphs: dict[str, _graph.Graph], **traffic: _graph.TrafficSplit) -> None:
    half = [
        _graph.Version(version=1, graph=graphs["half"], labels=["stable"]),
        _graph.Version(version=2, graph=graphs["three"], labels=["new"]),
    ]
    predictor.publish({"half": half, "heads": [_graph.Version(version=1, graph=graphs["heads"])]}, traffic=traffic)


@pytest.fixture
def make_engine(predictor: _graph.Predictor) -> Iterator[MakeEngine]:
    engines: list[_graph.Rest] = []

    def make(**options: Any) -> _graph.Rest:
        engines.append(_graph.Rest(predictor, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop()


def wait_for(engine: _graph.Rest, tokens: set[int]) -> dict[int, tuple[int, Any]]:
    """Return token → (code, JSON) of these requests."""
    answers: dict[int, tuple[int, Any]] = {}
    while set(answers) != tokens:
        assert select.select([engine.fileno()], [], [], 20.0)[0], "no answer came"
        answers |= {token: (code, json.loads(body)) for token, code, body in engine.take()}
    return answers


def ask(
    engine: _graph.Rest,
    body: Any,
    method: str = "predict",
    model: str = "half",
    version: int | None = None,
    label: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, Any]:
    started = engine.start(method, model, version, label, json.dumps(body).encode(), headers, 20.0)
    if not isinstance(started, int):
        return started[0], json.loads(started[1])
    return wait_for(engine, {started})[started]


ROW, ANSWER_1, ANSWER_2 = {"instances": [[2.0]]}, {"predictions": [[3.0]]}, {"predictions": [[4.0]]}


def test_predict_by_all_names(make_engine: MakeEngine) -> None:
    engine = make_engine()
    assert ask(engine, ROW) == (0, ANSWER_2)
    assert ask(engine, ROW, version=1) == (0, ANSWER_1)
    assert ask(engine, ROW, label="stable") == (0, ANSWER_1)
    assert ask(engine, {"inputs": {"x": [[2.0]]}}) == (0, {"outputs": [[4.0]]})
    assert ask(engine, {"signature_name": "two_outputs", **ROW}, version=1) == (
        0,
        {"predictions": [{"y": [3.0], "y2": [4.0]}]},
    )
    assert ask(engine, {"signature_name": "two_inputs", "instances": [{"x": [1], "z": [2]}]})[1] == {
        "predictions": [[3.0]]
    }


@pytest.mark.parametrize(
    ("body", "names", "code", "message"),
    [
        (ROW, {"model": "none"}, Code.NOT_FOUND, "Servable not found for request: Latest(none)"),
        (ROW, {"version": 7}, Code.NOT_FOUND, "Servable not found for request: Specific(half, 7)"),
        (ROW, {"label": "x"}, Code.INVALID_ARGUMENT, "Unrecognized servable version label: x"),
        (5, {"model": "none"}, Code.INVALID_ARGUMENT, "JSON Value: 5 Is not object"),
        (
            {"signature_name": "none", **ROW},
            {},
            Code.INVALID_ARGUMENT,
            'Serving signature name: "none" not found in signature def',
        ),
        (
            {"signature_name": "halves", "inputs": [1.0]},
            {},
            Code.UNIMPLEMENTED,
            "Conversion of JSON Value: 1.0 to type: half",
        ),
        ({"examples": []}, {"method": "classify"}, Code.INVALID_ARGUMENT, None),
        (
            {"signature_name": "none", "examples": [{"x": 1.0}]},
            {"method": "regress"},
            Code.INVALID_ARGUMENT,
            "No signature was found with the name: none",
        ),
        (
            {"signature_name": "regress", "examples": [{"other": 1.0}]},
            {"method": "regress", "model": "heads"},
            Code.INVALID_ARGUMENT,
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found.",
        ),
    ],
)
def test_refusals(make_engine: MakeEngine, body: Any, names: Any, code: Code, message: str | None) -> None:
    engine = make_engine()
    got, content = ask(engine, body, **names)
    assert (got, list(content)) == (code, ["error"])
    assert message is None or message in content["error"]


def test_classify_and_regress(make_engine: MakeEngine) -> None:
    engine = make_engine()
    body = {"examples": [{"x": 0.25}, {"x": [0.5]}]}
    assert ask(engine, body, "classify", "heads") == (
        0,
        {"results": [[["no", 0.25], ["yes", 0.75]], [["no", 0.5], ["yes", 0.5]]]},
    )
    regress = {"signature_name": "regress", "context": {"x": 2.0}, "examples": [{}, {"x": 1.0}]}
    assert ask(engine, regress, "regress", "heads", version=1) == (0, {"results": [5.0, 3.0]})


def test_cheap_requests_end_where_they_start_and_others_on_threads(make_engine: MakeEngine) -> None:
    engine = make_engine(inline_budget_micros=2_000_000)  # this machine may be busy
    body = json.dumps(ROW).encode()
    kinds = []
    for _ in range(20):
        started = engine.start("predict", "half", None, None, body, [], 20.0)
        kinds.append(isinstance(started, int))
        if isinstance(started, int):
            wait_for(engine, {started})
    assert kinds[0]
    assert not kinds[-1]
    large = json.dumps({"instances": [[1.0]] * 20_000}).encode()
    started = engine.start("predict", "half", None, None, large, [], 20.0)
    assert isinstance(started, int)
    code, content = wait_for(engine, {started})[started]
    assert (code, len(content["predictions"])) == (0, 20_000)
    never = make_engine(inline_budget_micros=0)
    assert all(isinstance(never.start("predict", "half", None, None, body, [], 20.0), int) for _ in range(20))


def test_many_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine(threads=4, inline_budget_micros=0)
    sent = {}
    for i in range(300):
        token = engine.start("predict", "half", 1, None, json.dumps({"instances": [[i]]}).encode(), [], 20.0)
        assert isinstance(token, int)
        sent[token] = i
    for token, answer in wait_for(engine, set(sent)).items():
        assert answer == (0, {"predictions": [[sent[token] / 2 + 2]]})
    assert engine.in_flight == 0


def test_what_is_in_flight_is_bounded(make_engine: MakeEngine) -> None:
    engine = make_engine(threads=1, max_in_flight=1, inline_budget_micros=0)
    large = json.dumps({"instances": [[1.0]] * 200_000}).encode()
    first = engine.start("predict", "half", None, None, large, [], 20.0)
    refused = engine.start("predict", "half", None, None, b"{}", [], 20.0)
    assert isinstance(refused, tuple)
    assert (refused[0], json.loads(refused[1])["error"]) == (
        Code.RESOURCE_EXHAUSTED,
        "rest: 1 requests are in flight, which is the limit; retry later",
    )
    assert isinstance(first, int)
    wait_for(engine, {first})
    assert ask(engine, ROW) == (0, ANSWER_2)


def test_cancel_and_stop(make_engine: MakeEngine) -> None:
    engine = make_engine(threads=1, inline_budget_micros=0)
    large = json.dumps({"instances": [[1.0]] * 200_000}).encode()
    tokens = [engine.start("predict", "half", None, None, large, [], 20.0) for _ in range(4)]
    assert isinstance(tokens[3], int)
    engine.cancel(tokens[3])
    engine.cancel(12345)
    assert wait_for(engine, {token for token in tokens if isinstance(token, int)})[tokens[3]][0] == Code.CANCELLED
    waiting = [engine.start("predict", "half", None, None, large, [], 20.0) for _ in range(3)]
    engine.stop()
    codes = {code for code, _ in wait_for(engine, {token for token in waiting if isinstance(token, int)}).values()}
    assert codes <= {Code.OK, Code.CANCELLED}
    assert ask(engine, ROW) == (Code.UNAVAILABLE, {"error": "rest: the server is stopping"})


def test_a_deadline_that_has_passed(make_engine: MakeEngine) -> None:
    engine = make_engine(inline_budget_micros=0)
    token = engine.start("predict", "half", None, None, json.dumps(ROW).encode(), [], 1e-9)
    assert isinstance(token, int)
    assert wait_for(engine, {token})[token][0] == Code.DEADLINE_EXCEEDED


def test_traffic_is_divided_and_sticks_to_a_header(
    make_engine: MakeEngine, predictor: _graph.Predictor, graphs: dict[str, _graph.Graph]
) -> None:
    engine = make_engine()
    publish(predictor, graphs, half=_graph.TrafficSplit({1: 50.0, "new": 50.0}, sticky_header="x-user"))
    answers = {}
    for user in range(40):
        header = [(b"X-User", str(user).encode()), (b"host", b"a")]
        first = ask(engine, ROW, headers=header)
        assert [ask(engine, ROW, headers=header) for _ in range(3)] == [first] * 3
        answers[user] = json.dumps(first)
    assert len(set(answers.values())) == 2
    assert ask(engine, ROW, version=1) == (0, ANSWER_1)


def test_no_request_fails_while_versions_come_and_go(
    make_engine: MakeEngine, predictor: _graph.Predictor, graphs: dict[str, _graph.Graph]
) -> None:
    engine = make_engine(threads=2, inline_budget_micros=0)
    body = json.dumps(ROW).encode()
    end = time.monotonic() + 1.0
    version = 1
    while time.monotonic() < end:
        tokens = {engine.start("predict", "half", None, None, body, [], 20.0) for _ in range(20)}
        version += 1
        predictor.publish({"half": [_graph.Version(version=version, graph=graphs["half"])]})
        answers = wait_for(engine, {token for token in tokens if isinstance(token, int)})
        assert {code for code, _ in answers.values()} == {0}


def test_metrics_count_rest_apart(make_engine: MakeEngine, predictor: _graph.Predictor) -> None:
    engine = make_engine()
    ask(engine, ROW)
    ask(engine, {"inputs": "x"})
    ask(engine, ROW, model="none")
    methods = predictor.stats()["methods"]
    assert methods["half"]["Predict"]["REST"]["codes"] == {"OK": 1, "INVALID_ARGUMENT": 1}
    assert methods["(unknown)"]["Predict"]["REST"]["codes"] == {"NOT_FOUND": 1}


def test_wrong_arguments(make_engine: MakeEngine) -> None:
    with pytest.raises(InvalidArgumentError, match="got 0, 1, 5, expected 1, 1, 0 or more"):
        make_engine(threads=0, max_in_flight=1, inline_budget_micros=5)
    with pytest.raises(InvalidArgumentError, match="method: got explain, expected predict, classify or regress"):
        make_engine().start("explain", "half", None, None, b"", [], 1.0)
