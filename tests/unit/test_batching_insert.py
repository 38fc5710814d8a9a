"""With pairs around its regions a model answers as before; plain TensorFlow runs it, a pair being an IdentityN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from batching.apply import with_pairs
from batching.plan import find
from partition.batched import model_graph
from support.batch_models import batch_model_dir
from support.batch_search import answers, check_pairs, functional_model

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


INPUTS: dict[str, list[dict[str, Any]]] = {
    "mlp": [{"a": floats(3, 16), "b": floats(3, 8)}, {"a": floats(0, 16), "b": floats(0, 8)}],
    "attention": [{"x": floats(2, 5, 12)}, {"x": floats(1, 1, 12)}],
    "cnn_jpeg": [{"jpeg": np.array([tf.io.encode_jpeg(np.full((9, 7, 3), v, np.uint8)).numpy() for v in (3, 200)])}],
    "lstm": [{"x": floats(2, 4, 6)}, {"x": floats(1, 1, 6)}],
    "gru": [{"x": floats(3, 5, 6)}],
    "lstm_masked": [{"ids": np.array([[3, 4, 0], [1, 0, 0], [7, 8, 9]], np.int32)}],
    "rnn_custom": [{"x": floats(2, 3, 6)}],
    "decoder": [{"h": floats(3, 16), "steps": np.int32(4)}, {"h": floats(2, 16), "steps": np.int32(1)}],
    "nested_loops": [{"x": floats(3, 12)}],
    "recommender": [{"dense": floats(4, 5), "ids": RANDOM.integers(0, 500, (4, 3))}],
    "mixing": [{"x": floats(5, 6)}],
    "text": [{"words": np.array([[b"Word3", b"word19", b"other"], [b"", b"word0", b"WORD7"]])}],
    "branch": [{"x": floats(2, 6), "twice": np.bool_(True)}, {"x": floats(2, 6), "twice": np.bool_(False)}],
    "broadcast": [{"user": floats(3, 6), "item": floats(3, 5)}, {"user": floats(1, 6), "item": floats(4, 5)}],
    "tf1": [{"x": floats(3, 6)}],
}


def inserted(name: str) -> tuple[Any, GraphDef, GraphDef]:
    model = functional_model(batch_model_dir(name))
    graph = model_graph(model)
    plan = find(graph)
    names = frozenset(region for part in plan.walk() for region in part.regions)
    return model, graph.graph_def, with_pairs(graph.graph_def, plan, names)


@pytest.mark.parametrize("name", INPUTS)
def test_answers_are_the_same_bit_for_bit(name: str) -> None:
    model, before, after = inserted(name)
    for inputs in INPUTS[name]:
        expected = answers(model, before, "serving_default", inputs)
        found = answers(model, after, "serving_default", inputs)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert value.shape == found[key].shape
            assert value.tolist() == found[key].tolist()


@pytest.mark.parametrize("name", INPUTS)
def test_all_that_uses_the_region_comes_through_the_pair(name: str) -> None:
    """What the loader of graphs expects: see what lies between a pair as it does, and nothing leads past it."""
    _, _, graph_def = inserted(name)
    assert check_pairs(graph_def)


def test_a_loop_gets_a_body_of_its_own() -> None:
    _, before, after = inserted("nested_loops")
    old = {function.signature.name for function in before.library.function}
    new = {function.signature.name for function in after.library.function} - old
    assert len(new) == 2
    assert all(name.endswith("_batched") for name in new)
    originals = {f.signature.name: f for f in before.library.function}
    assert all(f == originals[f.signature.name] for f in after.library.function if f.signature.name in old)


def test_a_name_that_a_signature_uses_stays() -> None:
    model, _, after = inserted("tf1")
    nodes = {node.name: node for node in after.node}
    assert model.meta.signature_def["serving_default"].outputs["y"].name == "y:0"
    assert nodes["y"].op == "IdentityN"
    assert nodes["y/batched"].op == "MatMul"


def test_only_what_was_chosen_is_inserted() -> None:
    graph = model_graph(functional_model(batch_model_dir("lstm")))
    plan = find(graph)
    assert with_pairs(graph.graph_def, plan, frozenset()) == graph.graph_def
    one = with_pairs(graph.graph_def, plan, frozenset({"serving_default"}))
    assert [node.name for node in one.node if node.op == "TesseraBatch"] == ["serving_default/batch"]
    assert one.library == graph.graph_def.library
