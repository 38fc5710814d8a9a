"""What went wrong in other systems between the ops of a batched region and the batches, one test each."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from cpp_ext import _graph
from support.batch_calls import Array, answer, answer_all, load, pair, save, spec, together
from support.small_models import f32, i32
from tessera.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
)

pytestmark = pytest.mark.native


def doubled(x: Any) -> Any:
    (y,) = pair([x], "double", lambda x: x * 2.0)
    return {"y": y}


def refusal(graph: _graph.Graph, region: str) -> str:
    return str(graph.batch_regions[region]["refused"])


def assert_doubled(graph: _graph.Graph, x: Array) -> None:
    np.testing.assert_array_equal(graph.run("serving_default", {"x": x})["y"], x * 2)


def test_three_ranks_in_flight_never_meet(tmp_path: Path) -> None:
    """TensorFlow's pair hung all but one request."""
    graph = load(save(tmp_path / "m", doubled, x=tf.TensorSpec(None, tf.float32)), together(8, batch_timeout_micros=0))
    requests = [{"x": np.ones(shape, np.float32)} for shape in ((1,), (1, 2), (1, 2, 3), (1, 3, 2))] * 4
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        assert isinstance(got, dict)
        np.testing.assert_array_equal(got["y"], request["x"] * 2)


def test_a_scalar_is_its_own_error_among_others(tmp_path: Path) -> None:
    graph = load(save(tmp_path / "m", doubled, x=tf.TensorSpec(None, tf.float32)), together(2))
    answers = answer_all(graph, [{"x": f32([1.0])}, {"x": f32(3.0)}, {"x": f32([2.0])}])
    assert isinstance(answers[1], InvalidArgumentError)
    assert "region double: input 0 is a scalar, expected rows" in answers[1].message
    assert isinstance(answers[0], dict)
    assert isinstance(answers[2], dict)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_no_rows_first_in_the_middle_or_last_beside_a_large_input_and_padding(tmp_path: Path, position: int) -> None:
    """TensorFlow's pair aborted the process on an input without rows."""
    policy = together(8, allowed_batch_sizes=[8], batch_timeout_micros=100_000)
    graph = load(save(tmp_path / "m", doubled, x=spec(3)), policy)
    sizes = [1, 20]
    sizes.insert(position, 0)
    requests = [{"x": np.random.default_rng(size).normal(size=(size, 3)).astype(np.float32)} for size in sizes]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        assert isinstance(got, dict)
        np.testing.assert_array_equal(got["y"], request["x"] * 2)


@pytest.mark.parametrize("shape", [(2, 2**50, 0), (2, 0, 2**50), (0, 2**50, 2**8), (0, 2**42)])
def test_a_shape_that_costs_its_sender_nothing_does_not_end_the_process(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """With a dimension of 0 the others may be anything; batches of such rows overflowed, or were allocated."""
    graph = load(save(tmp_path / "m", doubled, x=tf.TensorSpec(None, tf.float32)), together(64, batch_timeout_micros=0))
    got = answer(graph, {"x": np.lib.stride_tricks.as_strided(f32([0]), shape, [0] * len(shape))})
    assert isinstance(got, InvalidArgumentError)
    assert "region double: input 0 has shape" in got.message


def test_rows_without_elements_are_not_cut_into_millions_of_pieces(tmp_path: Path) -> None:
    graph = load(save(tmp_path / "m", doubled, x=spec(0)), {"max_batch_size": 2})
    got = answer(graph, {"x": np.zeros((10**8, 0), np.float32)})
    assert isinstance(got, InvalidArgumentError)
    assert "the inputs have 100000000 rows, expected fewer than 16384 times max_batch_size" in got.message
    assert_doubled(graph, np.zeros((1000, 0), np.float32))


def test_a_length_past_every_power_of_two_is_refused(tmp_path: Path) -> None:
    """Doubling until it is reached never ended."""

    def serve(ids: Any) -> Any:
        attributes = {"pad_dims": [1], "pad_values": [tf.make_tensor_proto(0, tf.float32)], "length_buckets": []}
        (y,) = pair([ids], "ids", tf.identity, pad=attributes)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, ids=tf.TensorSpec(None, tf.float32)))
    ids = np.lib.stride_tricks.as_strided(f32([0]), (1, 2**60, 0), (0, 0, 0))
    assert isinstance(answer(graph, {"ids": ids}), InvalidArgumentError)


def test_a_model_that_hard_codes_one_row_answers_every_request(tmp_path: Path) -> None:
    """Pitfall 5: what fails for many rows runs again, in the end for one request alone."""

    def serve(x: Any) -> Any:
        (y,) = pair([x], "one", lambda x: tf.reshape(x, [1, -1]) * 2.0)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(3)), together(4))
    requests = [{"x": f32([[i, i, i]])} for i in range(4)]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        assert isinstance(got, dict)
        np.testing.assert_array_equal(got["y"], request["x"] * 2)


def test_padding_rows_repeat_a_real_row(tmp_path: Path) -> None:
    """Pitfall 6: zeros would divide by zero here, and fail the batch."""

    def serve(x: Any) -> Any:
        (y,) = pair([x], "inverse", lambda x: tf.debugging.check_numerics(1.0 / x, "padding is seen"))
        return {"y": y}

    graph = load(
        save(tmp_path / "m", serve, x=spec(2)), together(4, allowed_batch_sizes=[4]) | {"batch_timeout_micros": 0}
    )
    for rows in (1, 2, 3, 5):
        x = np.full((rows, 2), 2.0, np.float32)
        np.testing.assert_array_equal(graph.run("serving_default", {"x": x})["y"], 1 / x)
    assert graph.batching_stats()["inverse"]["failed_batches"] == 0


def test_length_0_is_padded_and_cut_back(tmp_path: Path) -> None:
    def serve(ids: Any) -> Any:
        pad = {"pad_dims": [1], "pad_values": [tf.make_tensor_proto(-1.0)], "length_buckets": []}
        (y,) = pair([ids], "ids", lambda x: x * 2.0, pad=pad, trim={"trim_dims": [1], "trim_inputs": [0]})
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, ids=spec(None)), together(2))
    requests = [{"ids": np.ones((1, length), np.float32)} for length in (0, 1)]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        assert isinstance(got, dict)
        assert got["y"].shape == request["ids"].shape


def test_a_random_op_or_a_counter_inside_is_refused(tmp_path: Path) -> None:
    """Pitfall 8."""

    def serve(x: Any) -> Any:
        (y,) = pair([x], "noisy", lambda x: x + tf.random.uniform(tf.shape(x)))
        return {"y": y}

    assert "RandomUniform) has effects" in refusal(load(save(tmp_path / "m", serve, x=spec(2))), "noisy")


@pytest.mark.parametrize(
    ("trim", "message"),
    [
        ({"trim_dims": [1], "trim_inputs": [1]}, "trim_inputs is 1, expected an input, less than 1"),
        ({"trim_dims": [1], "trim_inputs": [0]}, "expected an input that has a variable length in pad_dims"),
    ],
)
def test_trimming_by_an_input_that_is_not_there_is_refused(tmp_path: Path, trim: Any, message: str) -> None:
    def serve(x: Any) -> Any:
        (y,) = pair([x], "trim", lambda x: x * 2.0, trim=trim)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(2)))
    assert message in refusal(graph, "trim")
    assert_doubled(graph, f32([[1, 2]]))


def test_a_region_in_a_function_that_is_not_inlined_is_told(tmp_path: Path) -> None:
    @tf.function(experimental_attributes={"_noinline": True})  # type: ignore[untyped-decorator]
    def inner(x: Any) -> Any:
        return pair([x], "hidden", lambda x: x * 2.0)[0]

    graph = load(save(tmp_path / "m", lambda x: {"y": inner(x)}, x=spec(2)))
    assert "did not inline" in refusal(graph, "hidden")
    assert_doubled(graph, f32([[1, 2]]))


def test_adjacent_regions_and_outputs_that_are_inputs_or_twice_the_same(tmp_path: Path) -> None:
    def serve(x: Any, z: Any) -> Any:
        a, b, c = pair([x, x, z], "first", lambda x, again, z: (x, x + again, x + again))
        (d,) = pair([b], "second", lambda b: b * 10.0)
        return {"a": a, "b": b, "c": c, "d": d, "z": z}

    graph = load(save(tmp_path / "m", serve, x=spec(2), z=spec(1)), together(2, batch_timeout_micros=100_000))
    assert [refusal(graph, region) for region in ("first", "second")] == ["", ""]
    requests = [{"x": np.full((1, 2), i, np.float32), "z": f32([[7]])} for i in range(4)]
    for request, got in zip(requests, answer_all(graph, requests), strict=True):
        assert isinstance(got, dict)
        for name, factor in (("a", 1), ("b", 2), ("c", 2), ("d", 20)):
            np.testing.assert_array_equal(got[name], request["x"] * factor)


def test_a_region_in_a_region_runs_request_by_request(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        (y,) = pair([x], "outer", lambda x: pair([x + 1.0], "inner", lambda x: x * 2.0)[0] - 2.0)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(2)))
    assert "begins or ends another region" in refusal(graph, "outer")
    assert_doubled(graph, f32([[1, 2]]))


def test_a_region_in_a_branch_runs_only_when_it_is_taken(tmp_path: Path) -> None:
    def serve(x: Any, double: Any) -> Any:
        return {"y": tf.cond(double[0], lambda: pair([x], "double", lambda x: x * 2.0)[0], lambda: -x)}

    path = save(tmp_path / "m", serve, x=spec(2), double=spec(dtype=tf.bool))
    graph = load(path, together(3))
    requests = [{"x": f32([[i, 1]]), "double": np.array([i % 2 == 0])} for i in range(6)]
    for i, (request, got) in enumerate(zip(requests, answer_all(graph, requests), strict=True)):
        assert isinstance(got, dict)
        np.testing.assert_array_equal(got["y"], request["x"] * (2 if i % 2 == 0 else -1))
    assert graph.batching_stats()["double"]["rows"] == 3


def test_what_every_round_of_a_loop_hands_on_is_the_same_for_all(tmp_path: Path) -> None:
    """Weights that come through a loop variable are pulled inside; a value that changes is refused."""
    weights = tf.constant(np.eye(2, dtype=np.float32) * 2)

    def serve(x: Any) -> Any:
        def body(i: Any, x: Any, w: Any, grows: Any) -> Any:
            (x,) = pair([x], "same", lambda x: x @ w)
            (x,) = pair([x], "grown", lambda x: x * grows)
            return i + 1, x, w, grows + 1.0

        return {"y": tf.while_loop(lambda i, *_: i < 3, body, [0, x, weights, tf.constant(1.0)])[1]}

    graph = load(save(tmp_path / "m", serve, x=spec(2)))
    assert refusal(graph, "same") == ""
    assert "differs from request to request" in refusal(graph, "grown")
    np.testing.assert_array_equal(graph.run("serving_default", {"x": f32([[1, 2]])})["y"], f32([[1, 2]]) * 8 * 6)


def test_loops_in_loops_with_two_cells_and_one_in_the_condition_end(tmp_path: Path) -> None:
    """Pitfalls 19, 25, 28: every step enqueues the next one, and populations change all the time."""

    def serve(x: Any, outer: Any) -> Any:
        def inner_body(j: Any, x: Any) -> Any:
            (a,) = pair([x], "a", lambda x: x + 1.0)
            (b,) = pair([x], "b", lambda x: x * 0.0)
            return j + 1, a + b

        def again(i: Any, x: Any) -> Any:
            (seen,) = pair([x], "cond", tf.identity)
            return tf.logical_and(i < outer[0], seen[0, 0] < 1e9)

        def body(i: Any, x: Any) -> Any:
            return i + 1, tf.while_loop(lambda j, _: j < 3, inner_body, [0, x])[1]

        return {"y": tf.while_loop(again, body, [0, x])[1]}

    graph = load(save(tmp_path / "m", serve, x=spec(1), outer=spec(dtype=tf.int32)))
    assert {name: about["in_loop"] for name, about in graph.batch_regions.items()} == dict.fromkeys("ab", True) | {
        "cond": True
    }
    requests = [{"x": f32([[i]]), "outer": i32([5 + 3 * i])} for i in range(6)]
    for i, got in enumerate(answer_all(graph, requests)):
        assert isinstance(got, dict)
        np.testing.assert_array_equal(got["y"], [[i + 3 * (5 + 3 * i)]])
    assert all(stats["in_loop"] == 0 and stats["enqueued_rows"] == 0 for stats in graph.batching_stats().values())


def test_a_request_whose_time_is_up_leaves_and_its_batch_goes_on(tmp_path: Path) -> None:
    """Pitfalls 14, 20: its context is gone while the rows that it brought still wait, and run."""
    graph = load(save(tmp_path / "m", doubled, x=spec(2)), together(3, batch_timeout_micros=800_000))
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            waits = [pool.submit(answer, graph, {"x": f32([[i, i]])}) for i in range(2)]
            begin = time.monotonic()
            late = pool.submit(answer, graph, {"x": f32([[9, 9]])[:0]}, 0.05)
            assert isinstance(late.result(), (DeadlineExceededError, dict))
            assert time.monotonic() - begin < 5
            for i, wait in enumerate(waits):
                got = wait.result(30)
                assert isinstance(got, dict)
                np.testing.assert_array_equal(got["y"], [[2 * i, 2 * i]])
    assert graph.batching_stats()["double"]["enqueued_rows"] == 0


def test_pieces_of_a_large_input_end_once_when_one_fails_and_time_is_up(tmp_path: Path) -> None:
    """Pitfall 21: completion, error, cancellation and deadline of the pieces in any order are one answer."""

    def serve(x: Any) -> Any:
        (y,) = pair([x], "checked", lambda x: tf.debugging.check_numerics(x, "bad row"))
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(1)), {"max_batch_size": 3, "batch_timeout_micros": 300})

    def call(seed: int) -> bool:
        random = np.random.default_rng(seed)
        x = random.normal(size=(int(random.integers(1, 60)), 1)).astype(np.float32)
        bad = seed % 2 == 0
        if bad:
            x[int(random.integers(len(x)))] = np.nan
        got = answer(graph, {"x": x}, timeout_s=float(random.choice([0.0005, 0.002, 20.0])))
        if isinstance(got, dict):
            return not bad and bool(np.array_equal(got["y"], x))
        return isinstance(got, (DeadlineExceededError, CancelledError)) or (
            bad and isinstance(got, InvalidArgumentError)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))
    stats = graph.batching_stats()["checked"]
    assert (stats["enqueued_rows"], stats["enqueued_bytes"]) == (0, 0)


def test_more_shapes_than_a_region_keeps_queues_for(tmp_path: Path) -> None:
    """Pitfalls 27, 31: keys without bound, and none of them starves."""
    graph = load(save(tmp_path / "m", doubled, x=spec(None)), {"batch_timeout_micros": 200})

    def call(number: int) -> bool:
        x = np.full((1, 1 + number * 7 % 200), number, np.float32)
        return bool(np.array_equal(graph.run("serving_default", {"x": x}, timeout_s=20.0)["y"], x * 2))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(600)))


def test_many_waiting_requests_park_no_thread_of_the_lane(tmp_path: Path) -> None:
    """Pitfall 24: more calls than threads, each with two regions after each other."""

    def serve(x: Any) -> Any:
        (y,) = pair([x], "first", lambda x: x + 1.0)
        (y,) = pair([y], "second", lambda y: y * 2.0)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(1)), together(48))
    requests = [{"x": f32([[i]])} for i in range(48)]
    for i, got in enumerate(answer_all(graph, requests)):
        assert isinstance(got, dict)
        np.testing.assert_array_equal(got["y"], [[2 * (i + 1)]])
    assert graph.batching_stats()["second"]["batches"] <= 2


def test_an_answer_of_few_rows_does_not_change_with_later_batches(tmp_path: Path) -> None:
    """Pitfalls 30, 33, 34: views of a batch, and rows that were reserved and left."""
    graph = load(save(tmp_path / "m", doubled, x=spec(16)), {"max_batch_size": 32})
    kept: list[tuple[Array, Array]] = []

    def call(number: int) -> None:
        x = np.full((1 + number % 5, 16), number, np.float32)
        got = answer(graph, {"x": x}, timeout_s=0.0002 if number % 3 == 0 else 20.0)
        if isinstance(got, dict):
            kept.append((got["y"], x * 2))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(call, range(1000)))
    assert len(kept) >= 600
    for got_rows, expected in kept:
        np.testing.assert_array_equal(got_rows, expected)


def test_a_constant_input_is_folded_to_the_same_answer(tmp_path: Path) -> None:
    """Pitfall 35: whatever the optimizer does with the pair."""

    def serve(x: Any) -> Any:
        (c,) = pair([tf.constant([[1.0, 2.0]])], "constant", lambda c: c * 3.0)
        (a,) = pair([x], "once", lambda x: x + 1.0)
        (b,) = pair([x], "once", lambda x: x + 1.0)
        return {"y": a + b + c}

    graph = load(save(tmp_path / "m", serve, x=spec(2)), {"batch_timeout_micros": 200})
    np.testing.assert_array_equal(graph.run("serving_default", {"x": f32([[1, 1]])})["y"], [[7, 10]])


EXIT = """
import sys, threading, time
import numpy as np
from cpp_ext import _graph
graph = _graph.Graph.load(sys.argv[1])
graph.set_batching({"cell": _graph.BatchPolicy(batch_timeout_micros=int(sys.argv[2]))})
for _ in range(4):
    call = lambda: graph.run("serving_default", {"x": np.ones((1, 2), np.float32)}, timeout_s=1000.0)
    threading.Thread(target=call, daemon=True).start()
while graph.batching_stats()["cell"]["tasks"] < 4:
    time.sleep(0.01)
print("leaving", flush=True)
"""


@pytest.mark.parametrize("loop", [True, False], ids=["batches run", "requests wait"])
def test_a_process_may_end_while(tmp_path: Path, loop: bool) -> None:
    """Pitfall 16. The requests do not end before the process does."""

    def serve(x: Any) -> Any:
        def body(i: Any, x: Any) -> Any:
            return i + 1, pair([x], "cell", lambda x: x * 1.0)[0]

        return {"y": tf.while_loop(lambda i, _: i < 2**30, body, [0, x])[1] if loop else body(0, x)[1]}

    path = save(tmp_path / "m", serve, x=spec(2))
    command = [sys.executable, "-c", EXIT, str(path), "0" if loop else "1000000000"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "leaving" in ended.stdout
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_a_graph_that_goes_with_its_last_batch(tmp_path: Path) -> None:
    """Pitfall 16: the lane's queue was the last to hold the region, after the functions that its kernels use."""
    squared = tf.function(lambda x: x * x, experimental_attributes={"_noinline": True})

    def serve(x: Any) -> Any:
        (y,) = pair([x], "calls", lambda x: squared(x))
        return {"y": y}

    path = save(tmp_path / "m", serve, x=spec(2))
    for _ in range(15):
        graph = load(path, {"batch_timeout_micros": 300})
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(graph.run, "serving_default", {"x": f32([[i, i]])}) for i in range(4)]
            del graph
            for i, call in enumerate(calls):
                np.testing.assert_array_equal(call.result(30)["y"], [[i * i, i * i]])
