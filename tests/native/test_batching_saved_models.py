"""SavedModels and packages with regions inserted: plain TensorFlow and the native core answer as without."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from batching.library import load_op_library
from cpp_ext import _graph
from partition import (
    BatchOptions,
    plan_batches,
    plan_package,
    verify_package,
    write_batched_model,
    write_package,
)
from partition.graph import Graph
from partition.rewrite import batched_regions
from support.batch_models import BUILDERS, batch_model_dir
from support.packages import package_graph, run_saved_model
from tessera.errors import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError
from tessera.repository import Repository

pytestmark = pytest.mark.native

OFF = BatchOptions(gate=False)
BATCHED = sorted(set(BUILDERS) - {"one_row", "tf1"})


def floats(random: np.random.Generator, *shape: int) -> Any:
    return random.standard_normal(shape).astype(np.float32)


def sample(name: str, seed: int) -> dict[str, Any]:
    """Return an input with 1 to 3 rows."""
    random = np.random.default_rng(seed)
    rows = 1 + seed % 3
    length = 2 + seed % 2
    if name == "cnn_jpeg":
        images = random.integers(0, 256, (rows, 9, 8, 3)).astype(np.uint8)
        return {"jpeg": np.array([tf.io.encode_jpeg(image).numpy() for image in images])}
    words = np.array([b"word1", b"Word2", b"other"], object)
    make: dict[str, Callable[[], dict[str, Any]]] = {
        "mlp": lambda: {"a": floats(random, rows, 16), "b": floats(random, rows, 8)},
        "attention": lambda: {"x": floats(random, rows, length, 12)},
        "lstm_masked": lambda: {"ids": random.integers(0, 40, (rows, length)).astype(np.int32)},
        "decoder": lambda: {"h": floats(random, rows, 16), "steps": np.int32(1 + seed % 4)},
        "nested_loops": lambda: {"x": floats(random, rows, 12)},
        "recommender": lambda: {"dense": floats(random, rows, 5), "ids": random.integers(0, 500, (rows, 3))},
        "text": lambda: {"words": words[random.integers(0, 3, (rows, 3))]},
        "branch": lambda: {"x": floats(random, rows, 6), "twice": np.bool_(seed % 2)},
        "broadcast": lambda: {"user": floats(random, rows, 6), "item": floats(random, rows, 5)},
        **dict.fromkeys(("mixing", "tf1"), lambda: {"x": floats(random, rows, 6)}),
        **dict.fromkeys(("lstm", "gru", "rnn_custom"), lambda: {"x": floats(random, rows, length, 6)}),
    }
    return make[name]()


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape
        if value.dtype.kind in "OSU":
            assert found[key].tolist() == value.tolist()
        else:
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BATCHED)
def test_every_region_is_batched_by_the_native_core(name: str, tmp_path: Path) -> None:
    source, out = batch_model_dir(name), tmp_path / "out"
    batched = write_batched_model(source, out, OFF)
    assert all(row.inserted for row in batched.regions)
    graph = _graph.Graph.load(str(out))
    regions = graph.batch_regions
    assert sorted(regions) == sorted(row.name for row in batched.regions)
    assert {key: region["refused"] for key, region in regions.items() if region["refused"]} == {}
    assert {key: region["in_loop"] for key, region in regions.items()} == {
        row.name: row.in_loop for row in batched.regions
    }
    samples = [sample(name, seed) for seed in range(12)]
    expected = run_saved_model(source, "serving_default", samples)
    for one, given in zip(expected, samples, strict=True):
        assert_close(graph.run("serving_default", given), one)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda given: graph.run("serving_default", given), samples * 4))
    for one, answer in zip(expected * 4, answers, strict=True):
        assert_close(answer, one)


@pytest.mark.parametrize("name", ["mlp", "lstm", "text", "tf1"])
def test_plain_tensorflow_loads_it(name: str, tmp_path: Path) -> None:
    load_op_library()
    write_batched_model(batch_model_dir(name), tmp_path / "out", OFF)
    given = sample(name, 1)
    [expected] = run_saved_model(batch_model_dir(name), "serving_default", [given])
    [found] = run_saved_model(tmp_path / "out", "serving_default", [given])
    assert_close(found, expected)
    loaded = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    answer = loaded(**{key: tf.constant(value) for key, value in given.items()})
    assert_close({key: value.numpy() for key, value in answer.items()}, expected)


def test_reference_variables_are_answered_batched_or_not(tmp_path: Path) -> None:
    write_batched_model(batch_model_dir("tf1"), tmp_path / "out", OFF)
    samples = [sample("tf1", seed) for seed in range(3)]
    graph = _graph.Graph.load(str(tmp_path / "out"))
    for one, given in zip(run_saved_model(batch_model_dir("tf1"), "serving_default", samples), samples, strict=True):
        assert_close(graph.run("serving_default", given), one)


def test_different_numbers_of_rows_are_not_joined(tmp_path: Path) -> None:
    """One user for many items: what broadcasts stays outside."""
    write_batched_model(batch_model_dir("broadcast"), tmp_path / "out", OFF)
    random = np.random.default_rng(0)
    given = {"user": floats(random, 1, 6), "item": floats(random, 4, 5)}
    [expected] = run_saved_model(batch_model_dir("broadcast"), "serving_default", [given])
    [found] = run_saved_model(tmp_path / "out", "serving_default", [given])
    assert_close(found, expected)
    assert_close(_graph.Graph.load(str(tmp_path / "out")).run("serving_default", given), expected)


def test_nothing_is_written_to_the_source_or_over_anything(tmp_path: Path) -> None:
    source = batch_model_dir("mlp")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    write_batched_model(source, tmp_path / "out", OFF)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(AlreadyExistsError, match="out: exists"):
        write_batched_model(source, tmp_path / "out", OFF)
    with pytest.raises(InvalidArgumentError, match="is inside of the SavedModel"):
        write_batched_model(source, source / "more", OFF)
    with pytest.raises(FailedPreconditionError, match="no region is worth batching, so nothing was written"):
        write_batched_model(batch_model_dir("one_row"), tmp_path / "other", OFF)
    with pytest.raises(FailedPreconditionError, match="no region is worth batching, so nothing was written"):
        write_batched_model(source, tmp_path / "other", BatchOptions())  # its regions are too small
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FailedPreconditionError, match="batched regions already: serving_default"):
        plan_batches(tmp_path / "out", OFF)


def test_variables_are_links_where_that_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = batch_model_dir("mlp")
    data = "variables/variables.data-00000-of-00001"
    write_batched_model(source, tmp_path / "copied", OFF)
    monkeypatch.setattr(os, "link", _no_link)
    write_batched_model(source, tmp_path / "other", OFF)
    assert (tmp_path / "other" / data).read_bytes() == (source / data).read_bytes()
    assert not (tmp_path / "other" / data).samefile(source / data)


def _no_link(source: str, target: str) -> None:
    raise OSError(18, "Invalid cross-device link")


@pytest.mark.parametrize("name", ["recommender", "decoder", "lstm_masked", "text", "attention"])
def test_packages_with_regions_answer_as_their_saved_models(name: str, tmp_path: Path) -> None:
    rows = plan_package(batch_model_dir(name), max_shard_bytes=1 << 30).rows
    tables = [row.name for row in rows if row.reason == "the model fits whole"]
    plan = plan_package(batch_model_dir(name), max_shard_bytes=1 << 30, split=tables, batch=OFF)
    assert plan.batched is not None
    repository = Repository(tmp_path)
    manifest = write_package(plan, repository, model=name, version=1)
    assert bool(manifest.tables) == bool(tables)
    samples = [sample(name, seed) for seed in range(6)]
    report = verify_package(batch_model_dir(name), repository, name, 1, inputs={"serving_default": samples})
    assert report.max_abs_difference <= 1e-5
    graph = package_graph(repository, manifest)
    if name in ("recommender", "decoder", "text"):
        _check_lookups_are_inside(graph, [row.name for row in plan.batched.regions if row.inserted])


def _check_lookups_are_inside(graph: Graph, regions: list[str]) -> None:
    inside = batched_regions(graph)
    lookups = [name for name, node in graph.nodes.items() if node.op == "TesseraLookup"]
    assert len(lookups) == 1
    assert graph.nodes[inside[lookups[0]]].attr["region"].s.decode() in regions
    for edge in graph.inputs(lookups[0]):
        assert edge.node in inside or graph.nodes[edge.node].op == "TesseraBatch"


def test_lookups_on_servers_pass_the_cost_gate() -> None:
    rows = plan_package(batch_model_dir("recommender"), max_shard_bytes=1 << 30).rows
    tables = [row.name for row in rows if row.reason == "the model fits whole"]
    plan = plan_package(batch_model_dir("recommender"), max_shard_bytes=1 << 30, split=tables, batch=BatchOptions())
    assert plan.batched is not None
    assert [(row.inserted, row.reason) for row in plan.batched.regions] == [
        (True, "looks rows up on servers (3 tables)")
    ]


def test_the_report_can_be_written_as_json() -> None:
    from admin.batch_command import as_json, plan_text

    batched = plan_batches(batch_model_dir("mixing"), BatchOptions())
    content = json.loads(json.dumps(as_json(batched)))
    assert [region["inserted"] for region in content["regions"]] == [False, False]
    assert content["regions"][0]["inputs"][0]["shape"] == "[n, 6]"
    assert sorted(content["regions"][0]["cost_micros"]) == ["1", "32", "8"]
    text = plan_text(batched)
    assert "mixes rows: reduces dimension 0: Mean Mean" in text
    assert "too small: one row takes" in text
