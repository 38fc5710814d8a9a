"""TensorFlow Lite models: as platform `tflite`, and instead of a SavedModel."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from router.platforms import LoadOptions, find_platform
from router.platforms.saved_model import TensorFlowPlatform
from router.platforms.tflite import Interpreters, TflitePlatform
from support.batch_calls import answer_all, good
from tessera.errors import DataLossError, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native

WEIGHTS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
platform = TflitePlatform()


class Model(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        self.weights = tf.Variable(WEIGHTS)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(x, self.weights), "best": tf.argmax(tf.matmul(x, self.weights), axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])  # type: ignore[untyped-decorator]
    def same(self, word: Any) -> dict[str, Any]:
        return {"same": tf.identity(word)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version with both a SavedModel and a TensorFlow Lite model."""
    path = tmp_path_factory.mktemp("tflite") / "1"
    model = Model()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
    (path / "model.tflite").write_bytes(converter.convert())
    return path


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def test_it_is_found_by_its_entry_point() -> None:
    assert isinstance(find_platform("m", "tflite"), TflitePlatform)


def test_a_model_answers_by_its_own_signature_for_any_number_of_rows(saved: Path) -> None:
    graph = platform.load(saved, LoadOptions())
    assert list(graph.signatures) == ["serving_default"]
    for count in (3, 1, 7):
        answer = graph.run("serving_default", {"x": rows(count)})
        np.testing.assert_allclose(answer["y"], rows(count) @ WEIGHTS, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(answer["best"], (rows(count) @ WEIGHTS).argmax(axis=1))


def test_it_is_served_instead_of_the_saved_model_only_when_it_is_preferred(saved: Path) -> None:
    tensorflow = TensorFlowPlatform()
    assert tensorflow.load(saved, LoadOptions()).signatures["serving_default"] == "inline"
    graph = tensorflow.load(saved, LoadOptions(prefer_tflite_model=True))
    assert graph.signatures == {"serving_default": "async"}
    answer = graph.run("serving_default", {"x": rows(2)})
    np.testing.assert_allclose(answer["y"], rows(2) @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_a_model_without_signatures_gets_the_default_one(tmp_path: Path) -> None:
    function = tf.function(lambda x: x * 2.0).get_concrete_function(tf.TensorSpec([1, 4], tf.float32, name="x"))
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    (tmp_path / "model.tflite").write_bytes(content)
    graph = platform.load(tmp_path, LoadOptions())
    outputs = graph.run("serving_default", {"x": rows(5)})  # converted for one row, resized to those that come
    (answer,) = outputs.values()
    np.testing.assert_allclose(answer, rows(5) * 2)


def test_strings_go_through(tmp_path: Path) -> None:
    model = Model()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.same.get_concrete_function()], model)
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    graph = platform.load(tmp_path, LoadOptions())
    (signature,) = graph.signatures
    words = np.array([b"a", b"\xff\0b", b""], dtype=object)
    (answer,) = graph.run(signature, {"word": words}).values()
    assert list(answer) == list(words)


def test_requests_share_batches(saved: Path) -> None:
    graph = platform.load(saved, LoadOptions(request_batching=True))
    requests = [{"x": rows(size % 3 + 1, size)} for size in range(16)]
    for request, answer in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_allclose(good(answer)["y"], request["x"] @ WEIGHTS, rtol=1e-5, atol=1e-6)
    assert graph.batching_stats()["serving_default"]["rows"] == sum(len(request["x"]) for request in requests)


def test_there_are_no_more_interpreters_than_requests_at_once(saved: Path) -> None:
    interpreters = Interpreters(saved / "model.tflite")
    barrier = threading.Barrier(4)

    def call(seed: int) -> None:
        barrier.wait(10)
        for _ in range(20):
            answer = interpreters.run("serving_default", {"x": rows(2, seed)}, [])
            np.testing.assert_allclose(answer["y"], rows(2, seed) @ WEIGHTS, rtol=1e-5, atol=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert 1 <= len(interpreters._idle) <= 4


def test_inputs_that_the_interpreter_refuses_are_the_requests_error(saved: Path) -> None:
    graph = platform.load(saved, LoadOptions())
    with pytest.raises(InvalidArgumentError, match=r"input x has shape \[1,5\], expected \[\?,4\]"):
        graph.run("serving_default", {"x": np.zeros((1, 5), np.float32)})
    graph.run("serving_default", {"x": rows(1)})


def test_a_model_that_is_cut_off_is_not_complete(saved: Path, tmp_path: Path) -> None:
    content = (saved / "model.tflite").read_bytes()
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    assert platform.is_complete(tmp_path)
    assert TensorFlowPlatform().is_complete(tmp_path)
    for size in (*range(0, len(content) - 64, 97), *range(len(content) - 64, len(content))):
        file.write_bytes(content[:size])
        assert not platform.is_complete(tmp_path), size
        assert not TensorFlowPlatform().is_complete(tmp_path), size
    with pytest.raises(DataLossError, match=r"model\.tflite"):
        platform.load(tmp_path, LoadOptions())
    file.unlink()
    with pytest.raises(NotFoundError, match=r"no model\.tflite in"):
        platform.load(tmp_path, LoadOptions())
    with pytest.raises(NotFoundError):
        platform.estimate(tmp_path)


def test_the_estimate_is_the_file(saved: Path) -> None:
    assert platform.estimate(saved).resident_bytes == (saved / "model.tflite").stat().st_size
