# mypy: disable-error-code="untyped-decorator"
# (TensorFlow has no types: its decorators are Any.)
"""Which regions are found in models of every kind, and what is said of the rest."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from batching.level import predecessors
from batching.plan import LevelPlan, ModelGraph, find, short
from batching.regions import Region
from batching.search import search
from partition.batched import model_graph
from support.batch_models import batch_model_dir
from support.batch_search import find_in, functional_model
from tessera.errors import FailedPreconditionError, NotFoundError

# model → region → its heavy ops, by their last name
EXPECTED: dict[str, dict[str, list[str]]] = {
    "mlp": {"serving_default": ["MatMul", "MatMul"]},
    "cnn_jpeg": {"serving_default": ["convolution", "MatMul"]},
    "lstm": {"serving_default": ["MatMul"], "lstm_1/while/cell": ["MatMul_1", "MatMul"]},
    "gru": {"serving_default": ["MatMul"], "gru_1/while/cell": ["MatMul_1", "MatMul"]},
    "rnn_custom": {"serving_default": ["MatMul"], "rnn_1/while/cell": ["MatMul_1", "MatMul"]},
    "decoder": {"while/cell": ["MatMul", "MatMul_1"]},
    "nested_loops": {"while/cell": ["MatMul"], "while/while/cell": ["MatMul"]},
    "recommender": {"serving_default": ["MatMul", "MatMul_1", "MatMul_2"]},
    "mixing": {"serving_default": ["MatMul"], "serving_default_2": ["MatMul_1"]},
    "one_row": {},
    "text": {"serving_default": ["MatMul"]},
    "branch": {"serving_default": ["MatMul"], "serving_default_2": ["MatMul_1"]},
    "tf1": {"serving_default": ["MatMul", "y"]},
}


def regions(plan: LevelPlan) -> dict[str, tuple[LevelPlan, Region]]:
    return {name: (part, region) for part in plan.walk() for name, region in part.regions.items()}


def no_values(name: str, max_bytes: int | None) -> Any:
    raise FailedPreconditionError(f"not needed: {name}")


@pytest.mark.parametrize("name", EXPECTED)
def test_regions_are_where_the_work_is(name: str) -> None:
    found = regions(find_in(batch_model_dir(name)))
    heavy = {key: sorted(op.rpartition("/")[2] for op in region.heavy) for key, (_, region) in found.items()}
    assert heavy == {key: sorted(value) for key, value in EXPECTED[name].items()}


@pytest.mark.parametrize("name", [*EXPECTED, "attention", "lstm_masked", "broadcast"])
def test_regions_are_convex_and_their_borders_are_rows(name: str) -> None:
    for part, region in regions(find_in(batch_model_dir(name))).values():
        inside, graph = set(region.ops), part.analysis.level.graph
        after: set[str] = set()
        for op in part.analysis.order:  # what comes after the region without being in it
            before = {other.name for other in predecessors(op)}
            if op.name not in inside and before & (inside | after):
                after.add(op.name)
        fed = {tensor.op.name for op in map(graph.get_operation_by_name, inside) for tensor in op.inputs}
        light = set(region.border.light)
        assert not (fed - inside - light) & after
        for tensor in (*region.border.inputs, *region.border.outputs):
            dims = part.analysis.facts[tensor].dims
            assert dims is not None
            assert str(dims[0]) == "n"


def test_text_and_image_decoding_stay_outside() -> None:
    for name in ("text", "cnn_jpeg"):
        for part, region in regions(find_in(batch_model_dir(name))).values():
            ops = [part.analysis.level.graph.get_operation_by_name(op) for op in region.ops]
            assert not any(tensor.dtype == tf.string for op in ops for tensor in [*op.inputs, *op.outputs])


def test_embeddings_and_dense_layers_share_a_region() -> None:
    part, region = regions(find_in(batch_model_dir("recommender")))["serving_default"]
    types = [part.analysis.level.graph.get_operation_by_name(op).type for op in region.ops]
    assert types.count("ResourceGather") == 3
    assert len(region.border.inputs) == 2
    assert [short(name) for name in region.border.outputs] == ["Sigmoid:0"]


def test_a_table_on_servers_makes_its_gather_heavy() -> None:
    model = functional_model(batch_model_dir("text"))
    graph = model_graph(model)
    table = next(node.name for node in graph.graph_def.node if node.op == "VarHandleOp" and "Variable" in node.name)
    plan = find(graph, remote=frozenset({table}))
    assert any(op.endswith("Gather") for op in regions(plan)["serving_default"][1].heavy)


def test_signatures_do_not_share_regions(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable(tf.ones([4, 4]))
    spec = [tf.TensorSpec([None, 4], tf.float32, "x")]
    one = tf.function(lambda x: {"y": tf.matmul(x, module.w)}, input_signature=spec)
    two = tf.function(lambda x: {"z": tf.nn.relu(tf.matmul(x, module.w))}, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"one": one, "two": two})
    assert sorted(regions(find_in(tmp_path / "m"))) == ["one", "two"]


@pytest.mark.parametrize(
    ("model", "scope", "message"),
    [
        ("mixing", "*Mean", "Mean 'StatefulPartitionedCall/.*Mean' cannot be batched: mixes rows: reduces dimension 0"),
        ("text", "*Lower", "StringLower .* cannot be batched: works on text"),
        ("cnn_jpeg", "*DecodeJpeg", "DecodeJpeg .* cannot be batched: works on text"),
        ("one_row", "Reshape", "Reshape .* cannot be batched: "),
    ],
)
def test_a_scope_with_an_op_that_cannot_be_batched_is_refused(model: str, scope: str, message: str) -> None:
    with pytest.raises(FailedPreconditionError, match=message):
        find_in(batch_model_dir(model), scopes=[scope])


def test_a_scope_restricts_the_search() -> None:
    plan = find_in(batch_model_dir("mlp"), scopes=["*/Relu", "*/dense_?/MatMul", "*/dense_?/BiasAdd"])
    assert [op.rpartition("/")[2] for op in regions(plan)["serving_default"][1].ops] == ["MatMul", "BiasAdd", "Relu"]
    plan = find_in(batch_model_dir("nested_loops"), scopes=["while/while/*"])
    assert list(regions(plan)) == ["while/while/cell"]
    with pytest.raises(NotFoundError, match="batch scope 'nope': fits the name of no op"):
        find_in(batch_model_dir("mlp"), scopes=["nope"])


def test_a_variable_that_changes_is_not_in_a_region() -> None:
    module = tf.Module()
    module.w = tf.Variable(tf.ones([4, 4]))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def serve(x: Any) -> dict[str, Any]:
        module.w.assign_add(tf.ones([4, 4]))
        return {"y": tf.matmul(x, module.w)}

    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=serve)
        assert not regions(find_in(Path(directory)))


def test_a_model_with_pairs_is_refused() -> None:
    model = model_graph(functional_model(batch_model_dir("mlp")))
    model.graph_def.node.add(name="there", op="TesseraBatch").attr["region"].s = b"mine"
    with pytest.raises(FailedPreconditionError, match="batched regions already: mine"):
        find(model)


def test_rows_that_may_differ_in_number_do_not_share_a_region() -> None:
    model = model_graph(functional_model(batch_model_dir("broadcast")))
    result = search(model, no_values)
    assert [len(row.inputs) for row in result.regions] == [1, 1]
    assert {row.reason: row.ops for row in result.left_out}["may join different numbers of rows"] == ("Mul mul",)
    # In the MLP a Concat of both inputs shows that they have the same number.
    assert len(regions(find_in(batch_model_dir("mlp")))["serving_default"][1].border.inputs) == 2


def test_the_report_names_what_was_left_out() -> None:
    model = model_graph(functional_model(batch_model_dir("mixing")))
    result = search(model, no_values)
    left_out = {row.reason: row.ops for row in result.left_out}
    assert left_out["mixes rows: reduces dimension 0"] == ("Mean Mean",)
    assert left_out["mixes rows: input 1 depends on their number"] == ("RealDiv truediv",)
    assert [row.inserted for row in result.regions] == [False, False]
    assert all("not needed" in row.reason for row in result.regions)
    assert result.graph_def == model.graph_def
    refused = search(model_graph(functional_model(batch_model_dir("one_row"))), no_values).refused
    assert refused == {"fixed": "no input has a number of rows that may differ: fixed_x:0 [1, 3, 4]"}


def test_only_the_signatures_that_are_asked_for() -> None:
    model = model_graph(functional_model(batch_model_dir("mlp")))
    twice = ModelGraph(model.graph_def, {"one": model.signatures["serving_default"], "two": ([], [])}, model.kept)
    assert search(twice, no_values, signatures=["two"]).regions == ()
    with pytest.raises(NotFoundError, match=r"signature 'three' is not there, expected some of \['one', 'two'\]"):
        search(twice, no_values, signatures=["three"])
