"""The API over a cluster of real processes, with an unmodified TensorFlow Serving client and with wrong input."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from admin.local_cluster import LocalCluster
from admin.serving_client import PREDICTION_SERVICE, call, open_channel
from support.serving import FLOAT32, INT32, INT64, predict, predict_request
from support.small_model import MODEL, SmallModel
from tessera.errors import Code, TesseraError

pytestmark = pytest.mark.integration


def test_an_unmodified_client_gets_the_answers_of_plain_tensorflow(
    shared_cluster: LocalCluster, small_model: SmallModel
) -> None:
    with grpc.insecure_channel(shared_cluster.router_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for version in (1, 2):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = MODEL
            request.model_spec.version.value = version
            for alias, dtype in (("user", tf.int64), ("items", tf.int64), ("bias", tf.float32)):
                request.inputs[alias].CopyFrom(tf.make_tensor_proto(small_model.inputs[alias], dtype))
            response = stub.Predict(request, timeout=10)
            assert response.model_spec.version.value == version
            assert response.model_spec.signature_name == "serving_default"
            for alias, value in small_model.expected[version].items():
                found = tf.make_ndarray(response.outputs[alias])
                np.testing.assert_array_equal(found, np.asarray(value, np.float32))

        metadata_request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        metadata_request.model_spec.name = MODEL
        metadata = stub.GetModelMetadata(metadata_request, timeout=10)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert metadata.metadata["signature_def"].Unpack(signatures)
        assert set(signatures.signature_def["serving_default"].inputs) == {"user", "items", "bias"}

        status_request = get_model_status_pb2.GetModelStatusRequest()
        status_request.model_spec.name = MODEL
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status_request, timeout=10)
        assert [(s.version, s.state) for s in status.model_version_status] == [(2, 30), (1, 30)]


def test_the_latest_version_answers_when_none_is_named(shared_cluster: LocalCluster, small_model: SmallModel) -> None:
    with open_channel(shared_cluster.router_address) as channel:
        outputs, version = predict(channel, small_model.request())
    assert version == 2
    assert outputs == small_model.expected[2]


def _good() -> dict[str, tuple[object, int]]:
    return {"user": ([1], INT64), "items": ([[1, 2, 3]], INT64), "bias": ([0.5], FLOAT32)}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"model": "other"}, Code.NOT_FOUND, "Servable not found for request: Latest(other)"),
        ({"version": 7}, Code.NOT_FOUND, "Servable not found for request: Specific(ranker, 7)"),
        ({"label": "canary"}, Code.INVALID_ARGUMENT, "Unrecognized servable version label: canary"),
        ({"signature": "score"}, Code.FAILED_PRECONDITION, 'Serving signature key "score" not found.'),
        ({"inputs": {"user": None}}, Code.INVALID_ARGUMENT, "Missing but required: {user}"),
        ({"inputs": {"extra": ([1], INT64)}}, Code.INVALID_ARGUMENT, "Sent extra: {extra}"),
        ({"inputs": {"user": ([1], INT32)}}, Code.INVALID_ARGUMENT, "int32"),
        ({"inputs": {"user": ([5000], INT64)}}, Code.INVALID_ARGUMENT, "= 5000 is not in [0, 5000)"),
        ({"output_filter": ("nothing",)}, Code.INVALID_ARGUMENT, "nothing"),
    ],
)
def test_wrong_requests_get_the_code_and_name_the_field(
    shared_cluster: LocalCluster, change: dict[str, object], code: Code, says: str
) -> None:
    settings = dict(change)
    inputs = _good() | settings.pop("inputs", {})  # type: ignore[operator]
    model = str(settings.pop("model", MODEL))
    request = predict_request(model, {k: v for k, v in inputs.items() if v is not None}, **settings)  # type: ignore[arg-type]
    with open_channel(shared_cluster.router_address) as channel, pytest.raises(TesseraError) as caught:
        predict(channel, request)
    assert caught.value.code == code
    assert says in caught.value.message


def test_a_tensor_that_cannot_be_parsed_is_named(shared_cluster: LocalCluster, small_model: SmallModel) -> None:
    request = small_model.request()
    request.inputs["user"].tensor_content = b"123"  # 16 int64 values take 128 bytes
    del request.inputs["user"].int64_val[:]
    with open_channel(shared_cluster.router_address) as channel, pytest.raises(TesseraError) as caught:
        predict(channel, request)
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert "user" in caught.value.message


def test_bytes_that_are_no_request_are_refused(shared_cluster: LocalCluster) -> None:
    with open_channel(shared_cluster.router_address) as channel, pytest.raises(TesseraError) as caught:
        call(channel, PREDICTION_SERVICE + "Predict", b"\x0a\xff\xff", timeout_s=10)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_a_method_that_is_not_served_is_unimplemented(shared_cluster: LocalCluster) -> None:
    with open_channel(shared_cluster.router_address) as channel, pytest.raises(TesseraError) as caught:
        call(channel, PREDICTION_SERVICE + "Imagine", b"", timeout_s=10)
    assert caught.value.code == Code.UNIMPLEMENTED


def test_too_large_messages_are_refused(start_cluster: object, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=1, versions=(1,), router_arguments=("--max-message-bytes=64KiB",))  # type: ignore[operator]
    request = small_model.request()
    request.inputs["user"].tensor_content = bytes(128 << 10)
    with open_channel(cluster.router_address) as channel:
        with pytest.raises(TesseraError) as caught:
            predict(channel, request)
        assert caught.value.code == Code.RESOURCE_EXHAUSTED
        assert predict(channel, small_model.request())[0] == small_model.expected[1]


def test_labels_stand_for_versions(start_cluster: object, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=1, labels={"stable": 1, "canary": 2})  # type: ignore[operator]
    with open_channel(cluster.router_address) as channel:
        for label, version in (("stable", 1), ("canary", 2)):
            request = small_model.request()
            request.model_spec.version_label = label
            outputs, answered = predict(channel, request)
            assert (outputs, answered) == (small_model.expected[version], version)
