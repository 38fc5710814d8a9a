"""Packages in the native core answer as their SavedModels do in plain TensorFlow, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition import plan_package, verify_package, write_package
from partition.samples import Inputs
from support.models import SPLITTABLE, saved_model
from support.random_models import SIGNATURES, random_inputs, random_model
from tessera.errors import DataLossError, FailedPreconditionError, NotFoundError
from tessera.repository import Repository

pytestmark = pytest.mark.native

LIMIT_BYTES = 1 << 18


def write(name: str, root: Path) -> Repository:
    """Write a package in which every table is split."""
    rows = plan_package(saved_model(name), max_shard_bytes=LIMIT_BYTES).rows
    tables = [row.name for row in rows if row.reason == "the model fits whole"]
    plan = plan_package(saved_model(name), max_shard_bytes=LIMIT_BYTES, split=tables)
    repository = Repository(root)
    write_package(plan, repository, model=name, version=1)
    return repository


@pytest.mark.parametrize("name", [*SPLITTABLE, "no_variables"])
def test_the_native_core_answers_as_tensorflow(name: str, tmp_path: Path) -> None:
    repository = write(name, tmp_path)
    inputs: dict[str, list[Inputs]] | None = None
    if name == "control_flow":
        ids = np.array([0, 119, 7], np.int64)
        inputs = {"serving_default": [{"ids": ids, "steps": np.array(steps, np.int32)} for steps in range(5)]}
    report = verify_package(saved_model(name), repository, name, 1, inputs=inputs, samples=5)
    assert report.bit_equal, [output for output in report.outputs if not output.bit_equal]
    assert report.max_abs_difference == 0.0
    assert all(count > 0 for count in report.samples.values())
    assert not any(report.refused.values())


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_native_core_answers_as_tensorflow_on_random_models(seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source, repository = Path(directory, "source"), Repository(Path(directory, "repository"))
        random_model(seed, source)
        names = [row.name for row in plan_package(source, max_shard_bytes=1 << 30).rows]
        plan = plan_package(source, max_shard_bytes=1 << 30, split=names)
        assert len(write_package(plan, repository, model="m", version=1).tables) == len(names)
        report = verify_package(source, repository, "m", 1, inputs=dict.fromkeys(SIGNATURES, random_inputs(seed)))
        assert report.bit_equal, report.outputs
        assert report.samples == dict.fromkeys(SIGNATURES, 4)


def test_ids_out_of_range_are_refused_alike(tmp_path: Path) -> None:
    repository = write("two_signatures", tmp_path)
    good = {"ids": np.array([0, 599], np.int64)}
    bad = [{"ids": np.array([0, 600], np.int64)}, {"ids": np.array([-1], np.int64)}]
    report = verify_package(
        saved_model("two_signatures"), repository, "two_signatures", 1, inputs={"one": [good, *bad]}
    )
    assert report.samples["one"] == 1
    assert report.refused["one"] == 2
    with pytest.raises(FailedPreconditionError, match="signature 'one': refuses all of 2 inputs"):
        verify_package(saved_model("two_signatures"), repository, "two_signatures", 1, inputs={"one": bad})


def test_damage_and_wrong_names_are_found(tmp_path: Path) -> None:
    repository = write("two_signatures", tmp_path)
    source = saved_model("two_signatures")
    with pytest.raises(NotFoundError, match="inputs: signature 'three' is not there"):
        verify_package(source, repository, "two_signatures", 1, inputs={"three": []})
    digest = repository.read_manifest("two_signatures", 1).tables[0].blobs[0]
    path = repository.blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataLossError, match=digest):
        verify_package(source, repository, "two_signatures", 1)
