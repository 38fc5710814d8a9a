"""Predict from the wire bytes to the wire bytes, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from cpp_ext import _graph
from support import small_models
from support.fake_abi import HandlerClient
from support.small_models import f32, i32
from tessera.errors import Code, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    folder = tmp_path_factory.mktemp("models")
    return {v: _graph.Graph.load(str(small_models.half_plus(folder / str(v), float(v)))) for v in (1, 2)}


@pytest.fixture
def client(graphs: dict[int, Any]) -> HandlerClient:
    predictor = _graph.Predictor()
    versions = [
        _graph.Version(version=1, graph=graphs[1], labels=["stable"]),
        _graph.Version(version=2, graph=graphs[2], labels=["canary"]),
    ]
    predictor.publish({"half": versions})
    return HandlerClient(predictor.handler())


def request(model: str = "half", **inputs: Any) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    for alias, value in inputs.items():
        message.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return message


def predict(client: HandlerClient, message: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    call = client.call(message.SerializeToString())
    assert call.code == 0, call.message
    return predict_pb2.PredictResponse.FromString(call.response)


def test_latest_version_answers_with_typed_fields(client: HandlerClient) -> None:
    response = predict(client, request(x=f32([1, 2, 3])))
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 3.5]
    assert [d.size for d in response.outputs["y"].tensor_shape.dim] == [3]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 2, "serving_default")


def test_version_and_label_are_honoured(client: HandlerClient) -> None:
    message = request(x=f32([0]))
    message.model_spec.version.value = 1
    assert predict(client, message).outputs["y"].float_val[0] == 1.0
    message = request(x=f32([0]))
    message.model_spec.version_label = "canary"
    assert predict(client, message).outputs["y"].float_val[0] == 2.0


def test_tensor_content_when_asked_for(graphs: dict[int, Any]) -> None:
    predictor = _graph.Predictor(tensor_content=True)
    predictor.publish({"half": [_graph.Version(version=1, graph=graphs[1])]})
    response = predict(HandlerClient(predictor.handler()), request(x=f32([1, 2])))
    assert response.outputs["y"].tensor_content == f32([1.5, 2.0]).tobytes()


def mistakes() -> list[Any]:
    no_spec = predict_pb2.PredictRequest()
    no_spec.inputs["x"].CopyFrom(tf.make_tensor_proto(f32([1])))
    version = request(x=f32([1]))
    version.model_spec.version.value = 7
    label = request(x=f32([1]))
    label.model_spec.version_label = "L"
    signature = request(x=f32([1]))
    signature.model_spec.signature_name = "S"
    unknown_output = request(x=f32([1]))
    unknown_output.output_filter.append("Z")
    twice = request(x=f32([1]))
    twice.output_filter.extend(["y", "y"])
    broken = request()
    broken.inputs["x"].dtype = 1
    broken.inputs["x"].tensor_shape.dim.add(size=4)
    broken.inputs["x"].tensor_content = b"123"
    return [
        (no_spec, Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (request(""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (request("nobody"), Code.NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        (version, Code.NOT_FOUND, "Servable not found for request: Specific(half, 7)"),
        (label, Code.INVALID_ARGUMENT, "Unrecognized servable version label: L"),
        (signature, Code.FAILED_PRECONDITION, 'Serving signature key "S" not found.'),
        (
            request(),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            request(z=f32([1])),
            Code.INVALID_ARGUMENT,
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {x}, or default input alias set: ",
        ),
        (request(x=i32([1])), Code.INVALID_ARGUMENT, "Type mismatch: actual int32 vs. expect float for input x"),
        (
            broken,
            Code.INVALID_ARGUMENT,
            "tensor parsing error: x",
        ),
        (
            unknown_output,
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: Z Outputs expected to be in the set {y}.",
        ),
        (twice, Code.INVALID_ARGUMENT, "duplicate output tensor alias: y"),
    ]


@pytest.mark.parametrize(("message", "code", "text"), mistakes())
def test_mistakes_get_the_codes_and_texts_of_tensorflow_serving(
    client: HandlerClient, message: Any, code: Code, text: str
) -> None:
    call = client.call(message.SerializeToString())
    assert (call.code, call.message) == (code, text)


def test_truncated_message_is_refused(client: HandlerClient) -> None:
    bytes_ = request(x=f32([1, 2, 3])).SerializeToString()
    for size in range(1, len(bytes_)):
        call = client.call(bytes_[:size])
        assert call.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND), (size, call.code, call.message)


def test_unknown_fields_are_skipped(client: HandlerClient) -> None:
    unknown = bytes([0x7A, 3, 1, 2, 3, 0x78, 5])  # fields 15: bytes, then a varint
    call = client.call(request(x=f32([2])).SerializeToString() + unknown)
    assert call.code == 0
    assert predict_pb2.PredictResponse.FromString(call.response).outputs["y"].float_val[0] == 3.0


def test_deadline_that_has_passed_is_refused_before_the_work(client: HandlerClient) -> None:
    call = client.call(request(x=f32([2])).SerializeToString(), timeout_s=-1)
    assert call.code == Code.DEADLINE_EXCEEDED


def test_stats_count_requests_errors_and_versions(graphs: dict[int, Any]) -> None:
    predictor = _graph.Predictor()
    version = _graph.Version(version=3, graph=graphs[1])
    predictor.publish({"m": [version]})
    client = HandlerClient(predictor.handler())
    client.call(request("m", x=f32([1])).SerializeToString())
    client.call(request("nobody", x=f32([1])).SerializeToString())
    predictor.publish({"m": [version]})
    stats = predictor.stats()
    assert set(stats.pop("methods")) == {"m", "(unknown)"}
    assert stats == {
        "requests": 2,
        "errors": {"NOT_FOUND": 1},
        "in_flight": 0,
        "run_again": 0,
        "awaiting_newer": 0,
        "models": {"m": {3: 1}},
        "traffic": {},
    }


def test_snapshots_that_contradict_themselves_are_refused(graphs: dict[int, Any]) -> None:
    predictor = _graph.Predictor()
    version = _graph.Version(version=3, graph=graphs[1], labels=["a"])
    with pytest.raises(InvalidArgumentError, match="model m: version 3 twice"):
        predictor.publish({"m": [version, version]})
    with pytest.raises(InvalidArgumentError, match="model m: label a on two versions"):
        predictor.publish({"m": [version, _graph.Version(version=4, graph=graphs[1], labels=["a"])]})
    with pytest.raises(InvalidArgumentError, match="model m: no versions"):
        predictor.publish({"m": []})
    with pytest.raises(InvalidArgumentError, match="max_in_flight: got 0"):
        _graph.Predictor(max_in_flight=0)


def test_missing_model_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no saved_model\.pb in .*gone"):
        _graph.Graph.load(str(tmp_path / "gone"))
