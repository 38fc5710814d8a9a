"""Batched regions in the native executor: loops, policies, and many callers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import batching
from cpp_ext import _graph
from support.batch_calls import answer, answer_all, good, load, save, spec
from support.dense_region import WEIGHTS, WIDTH, dense, random_rows, unbatched
from support.small_models import i32, i64
from tessera.errors import InvalidArgumentError, NotFoundError, TesseraError, UnavailableError

pytestmark = pytest.mark.native


def loop_model(path: Path) -> Path:
    def serve(x: Any, steps: Any) -> Any:
        def body(step: Any, state: Any) -> Any:
            (state,), token = batching.batch([state], name="cell")
            (state,) = batching.unbatch([tf.tanh(state @ WEIGHTS)], token)
            return step + 1, state

        _, state = tf.while_loop(lambda step, _state: step < steps[0], body, [tf.constant(0), x])
        return {"y": state}

    return save(path, serve, x=spec(WIDTH), steps=spec(dtype=tf.int32))


def test_requests_at_different_steps_of_a_loop_share_a_batch(tmp_path: Path) -> None:
    path = loop_model(tmp_path / "m")
    graph = load(path)
    assert graph.batch_regions == {"cell": {"signatures": ["serving_default"], "in_loop": True, "refused": ""}}
    requests = [{"x": random_rows(1, seed), "steps": i32([50 + 10 * seed])} for seed in range(8)]
    for request, answered in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_allclose(good(answered)["y"], unbatched(path, request)["y"], rtol=1e-4, atol=1e-6)
    stats = graph.batching_stats()["cell"]
    assert stats["rows"] == sum(int(request["steps"][0]) for request in requests)
    assert stats["in_loop"] == 0


def test_a_request_that_dies_in_a_loop_leaves_its_population(tmp_path: Path) -> None:
    """Counted forever, it would make every later step wait for it."""

    def serve(x: Any) -> Any:
        def body(step: Any, state: Any) -> Any:
            (state,), token = batching.batch([state], name="cell")
            (state,) = batching.unbatch([tf.debugging.check_numerics(state * 0.5, "bad row")], token)
            return step + 1, state

        _, state = tf.while_loop(lambda step, _state: step < 20, body, [tf.constant(0), x])
        return {"y": state}

    graph = load(save(tmp_path / "m", serve, x=spec(WIDTH)))
    bad = random_rows(1)
    bad[0, 0] = np.nan
    answers = answer_all(graph, [{"x": bad}] + [{"x": random_rows(1, seed)} for seed in range(3)])
    assert isinstance(answers[0], InvalidArgumentError)
    assert all(isinstance(answer, dict) for answer in answers[1:])
    assert graph.batching_stats()["cell"]["in_loop"] == 0


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    policy = {"max_batch_size": 100, "batch_timeout_micros": 300_000, "max_enqueued_rows": 2}
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)), policy)
    answers = answer_all(graph, [{"x": random_rows(1)}] * 4)
    refused = [answer for answer in answers if isinstance(answer, UnavailableError)]
    assert len(refused) == 2
    assert "m:1/dense" in refused[0].message
    assert graph.batching_stats()["dense"]["rejected_rows_bound"] == 2


def test_a_request_does_not_wait_for_others_past_its_deadline(tmp_path: Path) -> None:
    policy = {"max_batch_size": 100, "batch_timeout_micros": 30_000_000}
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)), policy)
    begin = time.monotonic()
    assert graph.run("serving_default", {"x": random_rows(1)}, timeout_s=1.0)["y"].shape == (1, WIDTH)
    assert time.monotonic() - begin < 10
    assert graph.batching_stats()["dense"]["close_reasons"]["deadline"] == 1


def test_policies_change_while_requests_wait(tmp_path: Path) -> None:
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)), {"batch_timeout_micros": 30_000_000})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(graph.run, "serving_default", {"x": random_rows(1)})
        while graph.batching_stats()["dense"]["enqueued_rows"] == 0:
            time.sleep(0.001)
        graph.set_batching({"dense": _graph.BatchPolicy()})
        assert waiting.result(10)["y"].shape == (1, WIDTH)


def test_a_policy_for_an_unknown_region_is_refused(tmp_path: Path) -> None:
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)))
    with pytest.raises(NotFoundError, match='no batched region "other", expected some of: dense'):
        graph.set_batching({"other": _graph.BatchPolicy()})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"allowed_batch_sizes": [8, 4]}, "allowed_batch_sizes"),
        ({"batch_timeout_micros": -1}, "batch_timeout"),
        ({"weight": 0.0}, "weight"),
        ({"padding": "most"}, "padding"),
    ],
)
def test_a_wrong_policy_names_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named):
        _graph.BatchPolicy(**fields)


def test_a_graph_may_go_while_its_requests_run(tmp_path: Path) -> None:
    path = save(tmp_path / "m", dense, x=spec(WIDTH))
    stop = threading.Event()
    errors: list[Exception] = []

    def load_and_call(seed: int) -> None:
        try:
            while not stop.is_set():
                graph = load(path, {"batch_timeout_micros": 500})
                answer_all(graph, [{"x": random_rows(1, seed)}] * 3, timeout_s=20.0)
                del graph
        except Exception as error:  # noqa: BLE001 - shown by the test's end, whatever it is
            errors.append(error)

    threads = [threading.Thread(target=load_and_call, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors


def test_rows_keep_their_order_among_many_callers(tmp_path: Path) -> None:
    def serve(tag: Any) -> Any:
        (tag,), token = batching.batch([tag], name="tags")
        (y,) = batching.unbatch([tag * 3], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, tag=spec(dtype=tf.int64)), {"max_batch_size": 16})
    sizes = np.random.default_rng(3).integers(0, 40, size=600)

    def call(number: int) -> bool:
        tags = i64(number * 1000 + np.arange(sizes[number]))
        return bool(np.array_equal(graph.run("serving_default", {"tag": tags})["y"], tags * 3))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(len(sizes))))
    assert graph.batching_stats()["tags"]["enqueued_rows"] == 0


def test_a_smaller_batch_size_does_not_fail_calls_that_were_cut_for_the_larger_one(tmp_path: Path) -> None:
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)))
    stop = threading.Event()
    errors: list[str] = []

    def call(seed: int) -> None:
        x = random_rows(64, seed)
        while not stop.is_set():
            got = answer(graph, {"x": x}, timeout_s=20.0)
            if isinstance(got, TesseraError):
                errors.append(got.message)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for size in (64, 8):
            graph.set_batching({"dense": _graph.BatchPolicy(max_batch_size=size)})
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors
