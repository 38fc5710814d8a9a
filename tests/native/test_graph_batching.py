"""Batched regions in the native executor: the same answers as without, whoever shares the batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import batching
from batching.library import batch_op, unbatch_op
from support.batch_calls import answer_all, good, load, save, spec, together
from support.dense_region import WIDTH, dense, random_rows, unbatched
from support.small_models import f32, i32
from tessera.errors import FailedPreconditionError, InvalidArgumentError

pytestmark = pytest.mark.native


def test_requests_that_arrive_together_share_a_batch(tmp_path: Path) -> None:
    path = save(tmp_path / "m", dense, x=spec(WIDTH))
    graph = load(path, together(6))
    assert graph.batch_regions == {"dense": {"signatures": ["serving_default"], "in_loop": False, "refused": ""}}
    requests = [{"x": random_rows(size, seed=size)} for size in (1, 2, 3)]
    for request, answer in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_allclose(good(answer)["y"], unbatched(path, request)["y"], rtol=1e-6)
    stats = graph.batching_stats()["dense"]
    assert stats["batch_sizes"] == {6: 1}
    assert stats["close_reasons"]["full"] == 1
    assert (stats["tasks"], stats["rows"], stats["padding_rows"]) == (3, 6, 0)


def test_a_lone_request_runs_at_once_and_is_not_copied(tmp_path: Path) -> None:
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)))
    for _ in range(10):
        graph.run("serving_default", {"x": random_rows(1)})
    stats = graph.batching_stats()["dense"]
    assert stats["batch_sizes"] == {1: 10}
    assert stats["inline_batches"] >= 7  # what the first ones cost is not known yet


def test_one_bad_request_never_fails_its_neighbours(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        (x,), token = batching.batch([x], name="checked")
        (y,) = batching.unbatch([tf.debugging.check_numerics(x, "bad row") * 2.0], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(WIDTH)), together(8))
    requests = [{"x": random_rows(1, seed)} for seed in range(8)]
    requests[5]["x"][0, 0] = np.nan
    answers = answer_all(graph, requests)
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if number == 5:
            assert isinstance(answer, InvalidArgumentError)
            assert "bad row" in answer.message
        else:
            np.testing.assert_array_equal(good(answer)["y"], request["x"] * 2)
    assert graph.batching_stats()["checked"]["bisected_batches"] >= 1


def test_different_numbers_of_rows_in_one_request_are_its_own_error(tmp_path: Path) -> None:
    def serve(x: Any, z: Any) -> Any:
        (x, z), token = batching.batch([x, z], name="sum")
        (y,) = batching.unbatch([x + z], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(WIDTH), z=spec(WIDTH)), together(2))
    fine = {"x": random_rows(1), "z": random_rows(1)}
    bad = {"x": random_rows(1), "z": random_rows(3)}
    answers = answer_all(graph, [fine, bad, fine])
    np.testing.assert_array_equal(good(answers[0])["y"], fine["x"] + fine["z"])
    np.testing.assert_array_equal(good(answers[2])["y"], fine["x"] + fine["z"])
    assert isinstance(answers[1], InvalidArgumentError)
    assert "region sum: input 1 has 3 rows, expected as many as input 0: 1" in answers[1].message


def test_shapes_that_differ_never_share_a_batch(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        (x,), token = batching.batch([x], name="double")
        (y,) = batching.unbatch([x * 2.0], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(None)), together(2, batch_timeout_micros=50_000))
    requests = [{"x": np.ones((1, width), np.float32)} for width in (2, 3, 2, 3)]
    for request, answer in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_array_equal(good(answer)["y"], request["x"] * 2)


@pytest.mark.parametrize("others", [0, 2])
def test_no_rows_give_no_rows_of_the_right_shape(tmp_path: Path, others: int) -> None:
    graph = load(save(tmp_path / "m", dense, x=spec(WIDTH)), together(1 + others))
    requests = [{"x": random_rows(0)}] + [{"x": random_rows(1)}] * others
    answers = answer_all(graph, requests)
    assert good(answers[0])["y"].shape == (0, WIDTH)
    for answer in answers[1:]:
        assert good(answer)["y"].shape == (1, WIDTH)


def test_a_large_input_is_cut_and_put_together_again(tmp_path: Path) -> None:
    path = save(tmp_path / "m", dense, x=spec(WIDTH))
    graph = load(path, {"max_batch_size": 3})
    request = {"x": random_rows(10)}
    np.testing.assert_allclose(graph.run("serving_default", request)["y"], unbatched(path, request)["y"], rtol=1e-6)
    assert graph.batching_stats()["dense"]["rows"] == 10


def test_a_large_input_with_one_bad_row_fails_once(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        (x,), token = batching.batch([x], name="checked")
        (y,) = batching.unbatch([tf.debugging.check_numerics(x, "bad row")], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(WIDTH)), {"max_batch_size": 2})
    request = random_rows(9)
    request[6, 1] = np.inf
    with pytest.raises(InvalidArgumentError, match="bad row"):
        graph.run("serving_default", {"x": request})


def test_padding_to_an_allowed_size_is_nobodys_answer(tmp_path: Path) -> None:
    path = save(tmp_path / "m", dense, x=spec(WIDTH))
    graph = load(path, {"max_batch_size": 8, "allowed_batch_sizes": [4, 8]})
    request = {"x": random_rows(3)}
    answer = graph.run("serving_default", request)["y"]
    np.testing.assert_allclose(answer, unbatched(path, request)["y"], rtol=1e-6)
    stats = graph.batching_stats()["dense"]
    assert (stats["batch_sizes"], stats["padding_rows"]) == ({4: 1}, 1)


def test_strings_are_batched(tmp_path: Path) -> None:
    def serve(text: Any) -> Any:
        (text,), token = batching.batch([text], name="upper")
        (y,) = batching.unbatch([tf.strings.upper(text)], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, text=spec(dtype=tf.string)), together(4))
    values = [b"a\0b", b"x" * 1_000_000, b"", b"q"]
    answers = answer_all(graph, [{"text": np.array([value], object)} for value in values])
    assert [good(answer)["y"][0] for answer in answers] == [value.upper() for value in values]


def test_lengths_are_padded_with_the_stated_value_and_cut_back(tmp_path: Path) -> None:
    def serve(ids: Any) -> Any:
        pad = {0: batching.Pad(dim=1, value=-1, length_buckets=(4, 8))}
        (ids,), token = batching.batch([ids], name="ids", pad=pad)
        length = tf.fill(tf.shape(ids), tf.shape(ids)[1])
        real = tf.cast(ids >= 0, tf.int32)
        trim = {0: batching.Trim(dim=1, like=0), 1: batching.Trim(dim=1, like=0)}
        real, length = batching.unbatch([real, length], token, trim=trim)
        return {"real": real, "length": length}

    graph = load(save(tmp_path / "m", serve, ids=spec(None, dtype=tf.int32)), together(3))
    answers = answer_all(graph, [{"ids": i32([[7] * length])} for length in (1, 3, 4)])
    for length, answer in zip((1, 3, 4), answers, strict=True):
        np.testing.assert_array_equal(good(answer)["real"], [[1] * length])
        np.testing.assert_array_equal(good(answer)["length"], [[4] * length])
    stats = graph.batching_stats()["ids"]
    assert stats["batch_sizes"] == {3: 1}
    assert (stats["padding_elements"], stats["elements"]) == (4, 12)


def test_a_region_that_uses_a_value_of_one_request_is_not_batched(tmp_path: Path) -> None:
    """TensorFlow's BatchFunction gives every request of a batch one request's value."""

    def serve(x: Any, scale: Any) -> Any:
        (x,), token = batch_op(
            [x], "scaled", {"pad_dims": [], "pad_values": [], "length_buckets": []}
        )  # batching.unbatch would refuse it
        (y,) = unbatch_op([x * scale], token, {"trim_dims": [], "trim_inputs": []})
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(WIDTH), scale=tf.TensorSpec((), tf.float32)), together(3))
    assert "differs from request to request" in graph.batch_regions["scaled"]["refused"]
    requests = [{"x": random_rows(1), "scale": f32(scale)} for scale in (1, 2, 3)]
    for request, answer in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_array_equal(good(answer)["y"], request["x"] * request["scale"])


def test_a_region_that_mixes_rows_into_a_scalar_is_told(tmp_path: Path) -> None:
    def serve(x: Any) -> Any:
        (x,), token = batching.batch([x], name="mean")
        (y,) = batching.unbatch([tf.reduce_mean(x, axis=0)], token)
        return {"y": y}

    graph = load(save(tmp_path / "m", serve, x=spec(WIDTH)))
    with pytest.raises(FailedPreconditionError, match=r"region mean: output 0 has shape \[4\], expected 1 rows"):
        graph.run("serving_default", {"x": random_rows(1)})


def test_two_models_with_one_region_name_never_mix(tmp_path: Path) -> None:
    """TensorFlow's BatchFunction returned 28 of 60 results of the other function."""

    def scaled(factor: float) -> Callable[[Any], Any]:
        def serve(x: Any) -> Any:
            (x,), token = batching.batch([x], name="same")
            (y,) = batching.unbatch([x * factor], token)
            return {"y": y}

        return serve

    graphs = {
        factor: load(save(tmp_path / str(factor), scaled(factor), x=spec(WIDTH)), {"batch_timeout_micros": 1000})
        for factor in (1.0, 2.0)
    }

    def call(number: int) -> bool:
        factor = 1.0 + number % 2
        x = random_rows(1, number)
        return bool(np.array_equal(graphs[factor].run("serving_default", {"x": x})["y"], x * np.float32(factor)))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))
