"""Whole requests share batches: the same answers as without, and one client's mistake stays its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from cpp_ext import _graph
from support.batch_calls import Array, answer, answer_all, good, load, save, spec, together
from support.dense_region import WIDTH, dense, random_rows
from support.serving import predict_request
from tessera.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError

pytestmark = pytest.mark.native

SIGNATURE = "serving_default"
WEIGHTS = np.random.default_rng(3).normal(size=(WIDTH, 5)).astype(np.float32)


def plain(x: Any) -> Any:
    y = tf.nn.relu(tf.matmul(x, WEIGHTS))
    return {"y": y, "best": tf.argmax(y, axis=1), "name": tf.strings.as_string(tf.reduce_sum(y, axis=1))}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("plain") / "m", plain, x=spec(WIDTH))


def batched(path: Path, policy: dict[str, Any] | None = None, **options: Any) -> _graph.Graph:
    return load(path, policy, request_batching=True, **options)


def alike(given: dict[str, Array], expected: dict[str, Array]) -> None:
    # Sums of a larger matrix product may be added in another order.
    np.testing.assert_allclose(given["y"], expected["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(given["best"], expected["best"])
    assert given["name"].shape == expected["name"].shape


def test_requests_that_arrive_together_share_a_batch(path: Path) -> None:
    graph, alone = batched(path, together(6)), load(path)
    assert graph.batch_regions == {SIGNATURE: {"signatures": [SIGNATURE], "in_loop": False, "refused": ""}}
    assert graph.signatures[SIGNATURE] == "async"
    assert alone.batch_regions == {}
    requests = [{"x": random_rows(size, seed=size)} for size in (1, 2, 3)]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        alike(good(got), good(answer(alone, request)))
    stats = graph.batching_stats()[SIGNATURE]
    assert stats["batch_sizes"] == {6: 1}
    assert (stats["tasks"], stats["rows"]) == (3, 6)


@pytest.mark.parametrize("sessions_only", [False, True])
def test_many_clients_get_what_they_would_get_alone(path: Path, sessions_only: bool) -> None:
    policy = {"max_batch_size": 16, "allowed_batch_sizes": [4, 16], "batch_timeout_micros": 500}
    graph, alone = batched(path, policy, sessions_only=sessions_only), load(path)
    requests = [{"x": random_rows(seed % 5 + 1, seed)} for seed in range(48)]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        alike(good(got), good(answer(alone, request)))
    assert graph.batching_stats()[SIGNATURE]["batches"] < 48


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_any_sizes_are_answered_with_their_own_rows(sizes: list[int]) -> None:
    graph = _graph.Graph.foreign(
        {"s": ({"x": ("float32", [-1, 2])}, {"y": ("float32", [-1, 2])})},
        lambda _, inputs, __: {"y": inputs["x"] + 1},
        request_batching=True,
    )
    graph.set_batching({"s": _graph.BatchPolicy(max_batch_size=4, batch_timeout_micros=200)})
    requests = [np.random.default_rng(i).random((size, 2), np.float32) for i, size in enumerate(sizes)]
    with ThreadPoolExecutor(len(sizes)) as pool:
        answers = list(pool.map(lambda x: graph.run("s", {"x": x})["y"], requests))
    for request, got in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(got, request + 1)


def test_requests_of_different_shapes_run_in_different_batches(tmp_path: Path) -> None:
    graph = batched(save(tmp_path / "m", lambda x: {"y": x * 2}, x=spec(None)), together(2))
    requests = [{"x": np.ones((1, width), np.float32)} for width in (3, 3, 4, 4)]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_array_equal(good(got)["y"], request["x"] * 2)
    assert graph.batching_stats()[SIGNATURE]["batch_sizes"] == {2: 2}


def test_one_bad_request_never_fails_its_neighbours(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        return {"y": tf.debugging.check_numerics(x, "bad row") * 2.0}

    graph = batched(save(tmp_path / "m", serve, x=spec(WIDTH)), together(8))
    requests = [{"x": random_rows(1, seed)} for seed in range(8)]
    requests[5]["x"][0, 0] = np.nan
    answers = answer_all(graph, requests)
    for number, (request, got) in enumerate(zip(requests, answers, strict=True)):
        if number == 5:
            assert isinstance(got, InvalidArgumentError)
            assert "bad row" in got.message
        else:
            np.testing.assert_array_equal(good(got)["y"], request["x"] * 2)


def test_refusals_have_tensorflow_servings_texts(tmp_path: Path) -> None:
    inputs = {"x": spec(WIDTH), "z": spec(WIDTH)}
    graph = batched(
        save(tmp_path / "m", lambda x, z: {"y": x + z}, **inputs),
        {"max_batch_size": 64, "split_large_inputs": False},
    )
    unequal = answer(graph, {"x": random_rows(1), "z": random_rows(3)})
    assert isinstance(unequal, InvalidArgumentError)
    assert unequal.message == "Batching Run() input tensors must have equal 0th-dimension size"
    large = answer(graph, {"x": random_rows(65), "z": random_rows(65)})
    assert isinstance(large, InvalidArgumentError)
    assert large.message == "Task size 65 is larger than maximum input batch size 64"
    wrong = answer(graph, {"x": random_rows(1).astype(np.float64), "z": random_rows(1)})
    assert isinstance(wrong, InvalidArgumentError)
    assert wrong.message.startswith("Type mismatch: actual double vs. expect float")
    assert len(good(answer(graph, {"x": random_rows(64), "z": random_rows(64)}))["y"]) == 64


def test_a_large_request_is_split_when_the_policy_says_so(path: Path) -> None:
    graph = batched(path, {"max_batch_size": 8})
    request = {"x": random_rows(30)}
    alike(good(answer(graph, request)), good(answer(load(path), request)))
    assert graph.batching_stats()[SIGNATURE]["batch_sizes"] == {8: 3, 6: 1}


def test_a_request_that_waits_too_long_is_told_as_tensorflow_serving_does() -> None:
    go, begun = threading.Event(), threading.Event()

    def slow(_: str, inputs: dict[str, Array], __: list[str]) -> dict[str, Array]:
        begun.set()
        go.wait(10)
        return {"y": inputs["x"]}

    specs = {"x": ("float32", [-1])}, {"y": ("float32", [-1])}
    graph = _graph.Graph.foreign({SIGNATURE: specs}, slow, request_batching=True)
    graph.set_batching({SIGNATURE: _graph.BatchPolicy(max_in_flight_batches=1)})
    predictor = _graph.Predictor()
    predictor.publish({"m": [_graph.Version(version=1, graph=graph)]})
    request = predict_request("m", {"x": ([1.0], 1)}).SerializeToString()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predictor.call, "Predict", request, timeout_s=10)
        assert begun.wait(10)
        with pytest.raises(ResourceExhaustedError, match=r"^Run\(\) timeout exceeded while waiting in batching queue$"):
            predictor.call("Predict", request, timeout_s=0.1)
        go.set()
        first.result(10)


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    policy = together(64, max_enqueued_rows=2) | {"batch_timeout_micros": 1_000_000}
    graph = batched(save(tmp_path / "m", lambda x: {"y": x * 2}, x=spec(WIDTH)), policy)
    answers = answer_all(graph, [{"x": random_rows(1, seed)} for seed in range(8)])
    refused = [got for got in answers if isinstance(got, UnavailableError)]
    assert len(refused) >= 4
    text = "The batch scheduling queue to which this task was submitted is full; "
    assert all(got.message.startswith(text) for got in refused)
    assert not any(isinstance(got, ResourceExhaustedError) for got in answers)


OUTPUTS_WITHOUT_ROWS = {
    "scalar": (lambda x: {"y": tf.reduce_sum(x)}, "output y is a scalar, expected rows"),
    "fixed": (lambda x: {"y": x, "z": tf.constant([1.0, 2.0])}, "output z has 2 rows always, expected as many as"),
}


@pytest.mark.parametrize("case", OUTPUTS_WITHOUT_ROWS)
def test_a_signature_that_cannot_be_batched_says_why(tmp_path: Path, case: str) -> None:
    function, reason = OUTPUTS_WITHOUT_ROWS[case]
    graph = batched(save(tmp_path / "m", function, x=spec(WIDTH)))
    assert reason in graph.batch_regions[SIGNATURE]["refused"]
    good(answer(graph, {"x": random_rows(3)}))


@pytest.mark.parametrize(
    "policy", [together(6), {"max_batch_size": 2}, {"max_batch_size": 8, "allowed_batch_sizes": [8]}]
)
def test_outputs_without_the_batch_are_found_out_and_everybody_is_answered(tmp_path: Path, policy: Any) -> None:
    """Together, cut into pieces, and padded: whoever was in the batch that showed it gets the model's own answer."""

    def serve(x: Any) -> Any:
        return {"y": tf.boolean_mask(x, x[:, 0] > 0)}  # its rows are not known before

    model = save(tmp_path / "m", serve, x=spec(WIDTH))
    graph, alone = batched(model, policy), load(model)
    requests = [{"x": random_rows(3, seed)} for seed in range(2)]
    requests[0]["x"][:, 0] = [-1, 1, -1]
    requests[1]["x"][:, 0] = -1
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_array_equal(good(got)["y"], good(answer(alone, request))["y"])
    assert graph.batch_regions[SIGNATURE]["refused"] == "an output had not as many rows as the inputs"
    tasks = graph.batching_stats()[SIGNATURE]["tasks"]
    good(answer(graph, requests[0]))
    assert graph.batching_stats()[SIGNATURE]["tasks"] == tasks


def test_a_graph_with_batched_regions_keeps_those(tmp_path: Path) -> None:
    graph = batched(save(tmp_path / "m", dense, x=spec(WIDTH)))
    assert list(graph.batch_regions) == ["dense"]
    assert SIGNATURE not in graph.batching_stats()


def test_graphs_die_while_requests_come_and_go(path: Path) -> None:
    for seed in range(5):
        graph = batched(path, {"max_batch_size": 8})
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(answer, graph, {"x": random_rows(2, seed)}) for _ in range(20)]
            del graph
            assert all(isinstance(future.result(60), dict) for future in futures)
