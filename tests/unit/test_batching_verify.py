"""The check on numbers finds what the analysis would have missed; and the probe that it runs on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batching.plan import LevelPlan
from batching.probe import Probe
from batching.verify import check_rows, compare
from partition.batched import ModelValues
from support.batch_models import batch_model_dir
from support.batch_search import find_in, functional_model
from tessera.errors import FailedPreconditionError


class FakeProbe:
    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run

    def rows(self, count: int, seed: int) -> list[Any]:
        return [np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)]

    def run(self, inputs: list[Any]) -> list[Any]:
        return [np.asarray(self._run(inputs[0]))]


def check(run: Callable[[Any], Any]) -> str:
    return check_rows(FakeProbe(run))  # type: ignore[arg-type]


def test_what_acts_row_by_row_passes() -> None:
    assert check(lambda x: x * 2 + 1) == ""
    assert check(lambda x: x.sum(1, keepdims=True)) == ""
    with np.errstate(invalid="ignore"):
        assert check(lambda x: np.sqrt(x)) == "", "undefined values in the same places"
    assert check(lambda x: x.argmax(1)) == ""


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: x - x.mean(0), "output 0 differs in a batch of 2"),
        (lambda x: x + len(x), "output 0 differs in a batch of 2"),
        (lambda x: x[::-1], "output 0 differs"),
        (lambda x: x.sum(), r"output 0 has the shape \[\] for one row"),
        (lambda x: np.concatenate([x, x]), r"output 0 has the shape \[2, 3\] for one row"),
        (lambda x: x * (1 + 1e-4 * (len(x) > 3)), "output 0 differs in a batch of 8"),
        (lambda x: x + 1e-14 * x.sum(), "output 0: other rows change with row"),
    ],
)
def test_what_does_not_is_found(run: Callable[[Any], Any], reason: str) -> None:
    with np.errstate(all="ignore"):
        found = check(lambda x: run(x.astype(np.float64)))
    assert re.match(reason, found), found


def test_tolerance_is_relative_to_the_largest_value() -> None:
    one = np.array([1000.0, 1e-6], np.float32)
    assert compare(one, one + np.float32(5e-3)) == ""
    assert "by 0.05" in compare(one, one + np.float32(5e-2))
    assert compare(one.astype(np.float16), one.astype(np.float16) * np.float16(1.01)) == ""
    assert "other values" in compare(np.array([1, 2]), np.array([1, 3]))
    assert "expected float32" in compare(one, one.astype(np.float64))


def probes(name: str) -> list[tuple[str, LevelPlan, Any]]:
    return [
        (key, part, region) for part in find_in(batch_model_dir(name)).walk() for key, region in part.regions.items()
    ]


@pytest.mark.parametrize(
    "name", ["mlp", "attention", "cnn_jpeg", "lstm", "gru", "lstm_masked", "rnn_custom", "decoder", "nested_loops",
             "recommender", "mixing", "text", "branch", "broadcast", "tf1"],
)  # fmt: skip
def test_every_region_that_is_found_passes(name: str) -> None:
    values = ModelValues(functional_model(batch_model_dir(name))).read
    found = probes(name)
    assert found
    for key, part, region in found:
        with Probe(part, region, values) as probe:
            assert check_rows(probe) == "", key
            assert check_rows(probe, seed=5) == "", key


def test_ids_are_in_the_range_of_their_tables() -> None:
    model = functional_model(batch_model_dir("recommender"))
    read = ModelValues(model).read
    limits = []

    def first_rows(name: str, max_bytes: int | None) -> Any:
        limits.append((max_bytes is not None, read(name, None).shape[0]))
        return read(name, None)[:7] if max_bytes is not None else read(name, None)

    [(_, part, region)] = probes("recommender")
    with Probe(part, region, first_rows) as probe:
        ids = next(value for value in probe.rows(200, 1) if value.dtype == np.int64)
        assert ids.max() == 6
        probe.run(probe.rows(3, 2))
    assert {rows for cut, rows in limits if cut} == {500}
    assert {rows for cut, rows in limits if not cut} == {5, 14}


def test_a_region_that_cannot_run_says_so() -> None:
    [(_, part, region)] = probes("mlp")

    def missing(name: str, max_bytes: int | None) -> Any:
        return np.zeros([1], np.float32)

    with Probe(part, region, missing) as probe, pytest.raises(FailedPreconditionError, match="made-up rows"):
        probe.run(probe.rows(1, 0))
