"""Requests as protobuf reads them: merged where fields repeat, whatever is between them; and damaged ones."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, regression_pb2

from cpp_ext import _graph
from support import example_models as models
from support.example_models import CLASSIFY, REGRESS, example, example_input
from support.wire_pieces import Bytes, delimited, message, number, text
from tessera.errors import Code, TesseraError

pytestmark = pytest.mark.native

MESSAGES: dict[str, Any] = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> _graph.Predictor:
    graph = _graph.Graph.load(str(models.heads(tmp_path_factory.mktemp("wire") / "1")))
    predictor = _graph.Predictor()
    versions = [_graph.Version(version=v, graph=graph, labels=labels) for v, labels in ((0, []), (3, ["stable"]))]
    predictor.publish({"m": versions})
    return predictor


def answer(predictor: _graph.Predictor, method: str, request: bytes) -> tuple[int, Any]:
    """Return the code and what came with it: the response or the text."""
    try:
        return 0, predictor.call(method, request, timeout_s=30)
    except TesseraError as error:
        return int(error.code), error.message


EXAMPLE = example(x=0.25).SerializeToString()
OTHER_EXAMPLE = example(x=[2.0]).SerializeToString()
VERSION = st.lists(st.sampled_from([number(1, 3), number(1, 0), number(1, 7), delimited(1, b"x")]), max_size=2)
MODEL_SPEC = message(
    (1, text(["m", "m", "m", "nobody"])),
    (2, VERSION.map(b"".join)),
    (3, text(["", "regress", "classify", "scores_only"])),
    (4, text(["stable", "stable", "old"])),
)
STRING_TENSOR = st.sampled_from(
    [
        number(1, 7),
        delimited(2, delimited(2, number(1, 1))),
        delimited(8, EXAMPLE),
        delimited(8, OTHER_EXAMPLE),
        number(1, 7) + delimited(2, delimited(2, number(1, 1))) + delimited(8, EXAMPLE),
    ]
)
# Python's protobuf drops a map entry that has an unknown field; protobuf for C++ drops the field, and so do we.
ENTRY = message((1, text(["inputs", "inputs", "other"])), (2, STRING_TENSOR), max_size=4, with_unknown=False)
CONTEXT = st.sampled_from([b"", EXAMPLE, example(y=1.0).SerializeToString()])
EXAMPLES = message((1, st.sampled_from([EXAMPLE, OTHER_EXAMPLE])), max_size=3)
EXAMPLES_WITH_CONTEXT = message((1, st.sampled_from([EXAMPLE, OTHER_EXAMPLE, b""])), (2, CONTEXT), max_size=4)
INPUT = message((1, EXAMPLES), (2, EXAMPLES_WITH_CONTEXT), max_size=3)
TASK = message((1, MODEL_SPEC), (2, text([CLASSIFY, REGRESS, REGRESS, "other"])), max_size=4)
INFERENCE = message((1, MODEL_SPEC), (2, INPUT))
REQUESTS: dict[str, Bytes] = {
    "Predict": message((1, MODEL_SPEC), (2, ENTRY), (3, text(["scores", "classes", "Z"])), (6, text(["a"]))),
    "Classify": INFERENCE,
    "Regress": INFERENCE,
    "MultiInference": message((1, TASK), (1, TASK), (2, INPUT)),
}


def complete(method: str, signature: str = "regress") -> bytes:
    """Return a request that succeeds."""
    if method == "MultiInference":
        return bytes(models.multi_inference([("regress", REGRESS), ("classify", CLASSIFY)], 0.5).SerializeToString())
    if method == "Predict":
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs["inputs"].dtype = 7
        request.inputs["inputs"].tensor_shape.dim.add(size=1)
        request.inputs["inputs"].string_val.append(EXAMPLE)
        return bytes(request.SerializeToString())
    request = models.classification(0.5) if method == "Classify" else models.regression(0.5, signature=signature)
    return bytes(request.SerializeToString())


@pytest.mark.parametrize("method", MESSAGES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_request_means_what_protobuf_reads(predictor: _graph.Predictor, method: str, data: st.DataObject) -> None:
    pieces = data.draw(REQUESTS[method])
    whole = data.draw(st.sampled_from([pieces, complete(method) + pieces, pieces + complete(method)]))
    try:
        parsed = MESSAGES[method].FromString(whole)
    except DecodeError:
        assert answer(predictor, method, whole)[0] in Code.__members__.values()
        return
    parsed.DiscardUnknownFields()
    assert answer(predictor, method, whole) == answer(predictor, method, parsed.SerializeToString(deterministic=True))


@pytest.mark.parametrize("method", MESSAGES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=4), st.integers(0, 4)), max_size=4),
    cut=st.none() | st.integers(0, 1 << 16),
)
def test_a_damaged_request_gets_an_answer_with_a_known_code(
    predictor: _graph.Predictor, method: str, edits: list[tuple[int, bytes, int]], cut: int | None
) -> None:
    request = complete(method)
    for at, new, dropped in edits:
        start = at % (len(request) + 1)
        request = request[:start] + new + request[start + dropped :]
    if cut is not None:
        request = request[: cut % (len(request) + 1)]
    code, content = answer(predictor, method, request)
    assert code in Code.__members__.values()
    assert isinstance(content, bytes if code == 0 else str)


def test_a_context_in_parts_is_their_concatenation(predictor: _graph.Predictor) -> None:
    whole = models.regression(input_=example_input(example(), context=example(x=0.25))).SerializeToString()
    with_context = delimited(2, example().SerializeToString()) + delimited(1, b"") + delimited(2, EXAMPLE)
    request = models.regression()
    request.ClearField("input")
    split = request.SerializeToString() + delimited(2, delimited(2, with_context))
    assert answer(predictor, "Regress", split) == answer(predictor, "Regress", whole)
