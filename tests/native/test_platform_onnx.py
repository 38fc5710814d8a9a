"""ONNX models answer as ONNX Runtime itself does, through the same graph object as any other model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from router.platforms import LoadOptions, find_platform
from router.platforms.onnx import OnnxPlatform
from support.batch_calls import answer_all, good
from support.onnx_models import FLOAT, INT64, STRING, save_linear, save_onnx
from tessera.errors import DataLossError, InternalError, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
platform = OnnxPlatform()


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def test_it_is_found_by_its_entry_point() -> None:
    assert isinstance(find_platform("m", "onnxruntime"), OnnxPlatform)


def test_a_model_answers_for_any_number_of_rows(tmp_path: Path) -> None:
    graph = platform.load(save_linear(tmp_path / "1", WEIGHTS), LoadOptions(intra_op_threads=1))
    for count in (1, 5, 0):
        answer = graph.run("serving_default", {"x": rows(count)})
        np.testing.assert_allclose(answer["y"], rows(count) @ WEIGHTS, rtol=1e-5)
        np.testing.assert_allclose(answer["mean"], (rows(count) @ WEIGHTS).mean(axis=1), rtol=1e-4, atol=1e-6)


def test_strings_and_integers_go_through(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["word"], ["same"]), helper.make_node("Add", ["n", "n"], ["twice"])]
    inputs: dict[str, Any] = {"word": (STRING, ["k"]), "n": (INT64, ["k"])}
    outputs: dict[str, Any] = {"same": (STRING, ["k"]), "twice": (INT64, ["k"])}
    graph = platform.load(save_onnx(tmp_path / "1", nodes, inputs, outputs), LoadOptions())
    words = np.array(["ä".encode(), b""], dtype=object)
    answer = graph.run("serving_default", {"word": words, "n": np.array([1, -2])})
    assert list(answer["same"]) == list(words)
    assert list(answer["twice"]) == [2, -4]
    with pytest.raises(InvalidArgumentError, match="input word: element 1: byte 0 is not UTF-8"):
        graph.run("serving_default", {"word": np.array([b"a", b"\xff"], object), "n": np.array([1, 2])})


def test_requests_share_batches(tmp_path: Path) -> None:
    version = save_linear(tmp_path / "1", WEIGHTS)
    (version / "batching_params.pbtxt").write_text(
        "max_batch_size { value: 6 }\nbatch_timeout_micros { value: 2000000 }"
    )
    graph = platform.load(version, LoadOptions(request_batching=True, per_version_batching=True))
    requests = [{"x": rows(size, size)} for size in (1, 2, 3)]
    for request, answer in zip(requests, answer_all(graph, requests), strict=True):
        np.testing.assert_allclose(good(answer)["y"], request["x"] @ WEIGHTS, rtol=1e-5)
    assert graph.batching_stats()["serving_default"]["batch_sizes"] == {6: 1}


def test_a_version_without_a_file_of_parameters_is_not_batched(tmp_path: Path) -> None:
    version = save_linear(tmp_path / "1", WEIGHTS)
    options = LoadOptions(request_batching=True, per_version_batching=True)
    assert platform.load(version, options).batch_regions == {}
    assert list(platform.load(version, LoadOptions(request_batching=True)).batch_regions) == ["serving_default"]
    (version / "batching_params.pbtxt").write_text("max_batch_size { value: 0 }")
    with pytest.raises(InvalidArgumentError, match=r"batching_params\.pbtxt:1: max_batch_size: got 0"):
        platform.load(version, options)


def test_wrong_inputs_and_failures_are_errors_of_the_request(tmp_path: Path) -> None:
    graph = platform.load(save_linear(tmp_path / "1", WEIGHTS), LoadOptions())
    with pytest.raises(InvalidArgumentError, match=r"input x has shape \[2,5\], expected \[\?,4\]"):
        graph.run("serving_default", {"x": np.zeros((2, 5), np.float32)})
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    failing = save_onnx(tmp_path / "2", nodes, {"x": (FLOAT, ["n"]), "shape": (INT64, [1])}, {"y": (FLOAT, ["m"])})
    graph = platform.load(failing, LoadOptions())
    with pytest.raises(InternalError, match=r"model\.onnx: .*Reshape"):
        graph.run("serving_default", {"x": np.zeros(3, np.float32), "shape": np.array([7])})


def test_a_model_that_is_cut_off_is_not_complete_and_says_so_when_loaded(tmp_path: Path) -> None:
    version = save_linear(tmp_path / "1", WEIGHTS)
    assert platform.is_complete(version)
    file = version / "model.onnx"
    content = file.read_bytes()
    for size in (0, 1, 20, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        assert not platform.is_complete(version), size
    with pytest.raises(DataLossError, match=r"model\.onnx"):
        platform.load(version, LoadOptions())
    with pytest.raises(NotFoundError, match=r"no model\.onnx in"):
        platform.load(tmp_path, LoadOptions())
    assert not platform.is_complete(tmp_path)


def test_weights_in_files_of_their_own_have_to_be_there(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    version = save_linear(tmp_path / "1", weights, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert platform.is_complete(version)
    assert platform.estimate(version).resident_bytes >= weights.nbytes
    data = version / "weights.bin"
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    assert not platform.is_complete(version)
    data.unlink()
    assert not platform.is_complete(version)
