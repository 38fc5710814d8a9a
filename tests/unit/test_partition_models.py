"""Packages answer as their SavedModels do, bit for bit; plain TensorFlow stands in for the native core."""

from __future__ import annotations

from pathlib import Path

import pytest

from partition import PackagePlan, plan_package, write_package
from partition.graph import Graph
from partition.samples import sample_inputs
from support.models import SPLITTABLE, saved_model
from support.packages import package_graph, read_table, run_saved_model, to_plain_saved_model
from tessera.errors import FailedPreconditionError, NotFoundError
from tessera.manifest import Manifest
from tessera.repository import Repository

LIMIT_BYTES = 1 << 18


def split_all(name: str) -> PackagePlan:
    """Plan with every table split."""
    rows = plan_package(saved_model(name), max_shard_bytes=LIMIT_BYTES).rows
    tables = [row.name for row in rows if row.reason == "the model fits whole"]
    return plan_package(saved_model(name), max_shard_bytes=LIMIT_BYTES, split=tables)


def write(name: str, root: Path) -> tuple[Repository, Manifest]:
    repository = Repository(root / "repository")
    return repository, write_package(split_all(name), repository, model=name, version=1)


def lookups(graph: Graph) -> list[list[str]]:
    """Return the tables of each lookup."""
    return sorted(
        [name.decode() for name in node.attr["table_names"].list.s]
        for node in graph.nodes.values()
        if node.op == "TesseraLookup"
    )


@pytest.mark.parametrize("name", [*SPLITTABLE, "joined", "no_variables"])
def test_the_package_answers_as_the_saved_model(name: str, tmp_path: Path) -> None:
    repository, manifest = write(name, tmp_path)
    package = repository.package_dir(name, 1)
    assert bool(manifest.tables) == (name in SPLITTABLE)
    assert not (package / "variables").exists()
    to_plain_saved_model(repository, manifest, tmp_path / "plain")
    for signature in manifest.signatures:
        samples = sample_inputs(manifest, package, signature, samples=5, seed=3)
        for sample in samples:
            if "steps" in sample:
                sample["steps"][...] %= 5
        expected = run_saved_model(saved_model(name), signature, samples)
        found = run_saved_model(tmp_path / "plain", signature, samples)
        for one, other in zip(expected, found, strict=True):
            assert one.keys() == other.keys() == manifest.signatures[signature].outputs.keys()
            for key in one:
                assert one[key].dtype == other[key].dtype
                assert one[key].shape == other[key].shape
                if one[key].dtype == object:
                    assert one[key].tolist() == other[key].tolist()
                else:
                    assert one[key].tobytes() == other[key].tobytes(), key


def test_gathers_of_one_level_and_the_same_signatures_share_a_lookup(tmp_path: Path) -> None:
    assert lookups(package_graph(*write("two_signatures", tmp_path))) == [["other"], ["table"], ["table", "other"]]
    assert lookups(package_graph(*write("module_ranks", tmp_path))) == [["table", "table", "cube", "cube", "vector"]]


def test_gathers_in_loops_and_branches_stay_in_their_place(tmp_path: Path) -> None:
    assert lookups(package_graph(*write("control_flow", tmp_path))) == [
        ["branch"],
        ["table"],
        ["table"],
        ["table", "branch"],  # both in the body of the loop, at the same point
    ]


def test_rows_are_dealt_to_buckets(tmp_path: Path) -> None:
    repository, manifest = write("v1_partitioned", tmp_path)
    parts = [table for table in manifest.tables if "part_" in table.name]
    assert [part.rows for part in parts] == [126, 125, 125, 125]
    assert all(read_table(repository, part).any() for part in parts)


def test_unsplittable_variables_stay_with_a_reason() -> None:
    rows = {row.name: row for row in split_all("unsplittable").rows}
    assert rows["table"].decision == "split"
    assert rows["table"].buckets % 2 == 1
    for name, reason in {
        "dense": "MatMul .* needs all of it",
        "tied": "MatMul .* needs all of it",
        "columns": "gathers on another axis than 0",
    }.items():
        assert rows[name].decision == "root"
        with pytest.raises(FailedPreconditionError, match=f"'{name}' cannot be split: .*{reason}"):
            plan_package(saved_model("unsplittable"), max_shard_bytes=LIMIT_BYTES, split=[name])


def test_variables_that_an_if_joins_are_not_split(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"'a' cannot be split: Merge .* joins it with another value"):
        plan_package(saved_model("joined"), max_shard_bytes=LIMIT_BYTES, split=["a"])
    assert [weight.name for weight in write("joined", tmp_path)[1].weights] == ["a", "b"]


def test_a_signature_that_changes_a_variable_is_refused_by_the_op() -> None:
    with pytest.raises(FailedPreconditionError, match="variable 'table': AssignAddVariableOp"):
        plan_package(saved_model("assigning"), max_shard_bytes=LIMIT_BYTES)
    plan = plan_package(saved_model("assigning"), max_shard_bytes=LIMIT_BYTES, signatures=["read"])
    assert [row.name for row in plan.rows] == ["table"]


def test_unknown_signatures_and_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"signature 'nope' is not there, expected some of \['read', 'train'\]"):
        plan_package(saved_model("assigning"), max_shard_bytes=LIMIT_BYTES, signatures=["nope"])
    with pytest.raises(NotFoundError, match="expected the directory of a SavedModel"):
        plan_package(tmp_path, max_shard_bytes=LIMIT_BYTES)
