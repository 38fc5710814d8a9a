"""Clients that nobody here wrote, unchanged: TensorFlow Serving's stubs, grpcio's health client, curl."""

import base64
import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from support.etcd_process import make_certificates
from support.model_server import ModelServer, model_server
from support.serving_requests import (
    Client,
    classify,
    client,
    examples,
    metadata,
    multi_inference,
    predict,
    regress,
    status,
)

pytestmark = pytest.mark.integration

REGRESS = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}, {"x": [4.0]}]}


@pytest.fixture(scope="module")
def calls(half_server: ModelServer) -> Iterator[Client]:
    with client(half_server.address) as found:
        yield found


@pytest.mark.parametrize("output_filter", [[], ["y"]])
def test_predict_as_upstreams_own_test_sends_it(half_server: ModelServer, output_filter: list[str]) -> None:
    """A shape that disagrees with the signature's is accepted, floats come in float_val, the spec is filled."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = "half"
    request.inputs["x"].dtype = types_pb2.DT_FLOAT
    request.inputs["x"].float_val.append(2.0)
    request.inputs["x"].tensor_shape.dim.add().size = 1
    with grpc.insecure_channel(half_server.address) as channel:
        result = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, 5.0)
    assert list(result.outputs) == ["y"]
    assert result.outputs["y"].dtype == types_pb2.DT_FLOAT
    assert list(result.outputs["y"].float_val) == [3.0]
    assert result.model_spec.name == "half"
    assert result.model_spec.signature_name == "serving_default"
    assert result.model_spec.version.value == 123


def test_classify(calls: Client) -> None:
    result = calls.call("Classify", classify("classify_labels", examples(2.0, 4.0)))
    found = [[(one.label, one.score) for one in example.classes] for example in result.result.classifications]
    assert found == [[("a", 3.0), ("b", 4.0)], [("a", 4.0), ("b", 5.0)]]
    assert result.model_spec.signature_name == "classify_labels"
    assert result.model_spec.version.value == 123


def test_regress(calls: Client) -> None:
    result = calls.call("Regress", regress(given=examples(2.0, 4.0)))
    assert [one.value for one in result.result.regressions] == [3.0, 4.0]
    assert result.model_spec.version.value == 123


def test_context_is_part_of_every_example(calls: Client) -> None:
    given = examples()
    given.example_list_with_context.context.features.feature["x"].float_list.value.append(2.0)
    for _ in range(2):
        given.example_list_with_context.examples.add()
    assert [one.value for one in calls.call("Regress", regress(given=given)).result.regressions] == [3.0, 3.0]


def test_multi_inference(calls: Client) -> None:
    result = calls.call(
        "MultiInference", multi_inference(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))
    )
    assert result.results[0].regression_result.regressions[0].value == 3.0
    assert result.results[1].classification_result.classifications[0].classes[0].score == 3.0
    assert [one.model_spec.signature_name for one in result.results] == ["regress_x_to_y", "classify_x_to_y"]


def test_status_and_metadata(calls: Client) -> None:
    (version,) = calls.call("GetModelStatus", status()).model_version_status
    assert (version.version, version.state, version.status.error_code) == (123, 30, 0)
    answer = calls.call("GetModelMetadata", metadata("signature_def"))
    assert answer.model_spec.version.value == 123
    found = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    assert found.signature_def["regress_x_to_y"].method_name == "tensorflow/serving/regress"


def test_health_with_grpcs_own_client(half_server: ModelServer) -> None:
    health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
    health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
    with grpc.insecure_channel(half_server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "PredictionService", "ModelService", "tensorflow.serving.PredictionService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status == 1, service


def _curl(server: ModelServer, path: str, *arguments: str) -> Any:
    """Return what curl gets, parsed; it fails on codes from 400 on."""
    url = f"http://localhost:{server.rest_port}{path}"
    curl = shutil.which("curl")
    assert curl is not None
    done = subprocess.run([curl, "-sSf", *arguments, url], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/models/half:predict", {"instances": [[2.0], [4.0]]}, {"predictions": [[3.0], [4.0]]}),
        ("/v1/models/half/versions/123:predict", {"instances": [2.0, 3.0, 4.0]}, {"predictions": [3.0, 3.5, 4.0]}),
        ("/v1/models/half:predict", {"inputs": {"x": [[2.0]]}}, {"outputs": [[3.0]]}),
        ("/v1/models/half:predict", {"inputs": [[2.0]]}, {"outputs": [[3.0]]}),
        ("/V1/MODELS/half:PREDICT", {"inputs": [[2.0]]}, {"outputs": [[3.0]]}),
        ("/v1/models/half:predict", {"signature_name": "two_outputs", "instances": [[2.0]]},
         {"predictions": [{"y": [3.0], "y2": [4.0]}]}),
        ("/v1/models/half:predict", {"signature_name": "two_inputs", "instances": [{"x": [1.0], "z": [2.0]}]},
         {"predictions": [[3.0]]}),
        ("/v1/models/half:predict",
         {"signature_name": "strings", "instances": [{"b64": base64.b64encode(b"ab").decode()}, "c"]},
         {"predictions": [{"s": "ab", "s_bytes": {"b64": "YWI="}}, {"s": "c", "s_bytes": {"b64": "Yw=="}}]}),
        ("/v1/models/half:regress", REGRESS, {"results": [3.0, 4.0]}),
        ("/v1/models/half:classify", {**REGRESS, "signature_name": "classify_labels"},
         {"results": [[["a", 3.0], ["b", 4.0]], [["a", 4.0], ["b", 5.0]]]}),
    ],
)  # fmt: skip
def test_rest_with_curl(half_server: ModelServer, path: str, body: Any, answer: Any) -> None:
    assert _curl(half_server, path, "-X", "POST", "-d", json.dumps(body)) == answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_status_with_curl(half_server: ModelServer) -> None:
    assert _curl(half_server, "/v1/models/half") == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_is_what_tensorflows_own_json_says(half_server: ModelServer, calls: Client) -> None:
    code, text, headers = half_server.http("GET", "/v1/models/half/metadata")
    assert (code, headers["content-type"]) == (200, "application/json")
    message = calls.call("GetModelMetadata", metadata("signature_def"))
    expected = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    found = json.loads(text)
    assert found["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    for answer in (found, expected):
        for container in answer["metadata"].values():
            container.pop("@type", None)
    assert found["metadata"] == expected["metadata"]


def test_a_compressed_body(half_server: ModelServer) -> None:
    body = gzip.compress(json.dumps({"instances": [[2.0]]}).encode())
    code, text, _ = half_server.http("POST", "/v1/models/half:predict", body, {"Content-Encoding": "gzip"})
    assert (code, json.loads(text)) == (200, {"predictions": [[3.0]]})


def test_readiness_is_said_alike_everywhere(half_server: ModelServer) -> None:
    assert half_server.http("GET", "/healthz")[0] == 200
    code, text, _ = half_server.http("GET", "/readyz")
    assert code == 200, text
    assert half_server.wait_ready()["pid"] == half_server.process.pid


def test_cors_only_where_it_is_asked_for(half_server: ModelServer, half_models: Path, tmp_path: Path) -> None:
    asked = {"Origin": "http://example.com"}
    assert "access-control-allow-origin" not in half_server.http("GET", "/v1/models/half", None, asked)[2]
    arguments = ("--rest_api_enable_cors_support", f"--model_base_path={half_models / 'half_plus_two'}")
    with model_server(tmp_path, *arguments) as server:
        code, text, headers = server.http("OPTIONS", "/v1/models/default:predict", None, asked)
        assert (code, text, headers["access-control-allow-origin"]) == (200, "", "*")


def test_tls_from_an_ssl_config_file(half_models: Path, tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    certificate, key, ca = (path.read_bytes() for path in (files.certificate, files.key, files.ca))
    ssl_config = tmp_path / "ssl.txt"
    ssl_config.write_text(
        f"server_key: {json.dumps(key.decode())}\nserver_cert: {json.dumps(certificate.decode())}\n"
        f"custom_ca: {json.dumps(ca.decode())}\nclient_verify: true\n"
    )
    base_path = f"--model_base_path={half_models / 'half_plus_two'}"
    arguments = (f"--ssl_config_file={ssl_config}", "--model_name=half", base_path)
    with model_server(tmp_path / "server", *arguments, rest=False) as server:
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            assert Client(channel).call("Predict", predict()).outputs["y"].float_val[0] == 3.0
        without = grpc.ssl_channel_credentials(ca)
        with grpc.secure_channel(f"localhost:{server.port}", without) as channel, pytest.raises(grpc.RpcError):
            Client(channel).call("Predict", predict())


def test_reflection_with_grpcios_own_client(half_server: ModelServer) -> None:
    """What `grpcurl` does: find a service's descriptors, and call a method by them."""
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    with grpc.insecure_channel(half_server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
            "tensorflow.ProfilerService",
            "grpc.health.v1.Health",
        }
        assert services <= set(database.get_services())
        pool = DescriptorPool(database)
        method = pool.FindServiceByName("tensorflow.serving.PredictionService").FindMethodByName("Predict")
        request = json_format.ParseDict(
            {"model_spec": {"name": "half"}, "inputs": {"x": {"dtype": "DT_FLOAT", "float_val": [2.0]}}},
            GetMessageClass(method.input_type)(),
            descriptor_pool=pool,
        )
        call: Any = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        answer: Any = GetMessageClass(method.output_type).FromString(call(request.SerializeToString(), timeout=10))
        assert list(answer.outputs["y"].float_val) == [3.0]


def test_the_profiler_answers(half_server: ModelServer) -> None:
    from protos import profiler_pb2

    with grpc.insecure_channel(half_server.address) as channel:
        profile: Any = channel.unary_unary("/tensorflow.ProfilerService/Profile")
        profiled = profile(profiler_pb2.ProfileRequest(duration_ms=100).SerializeToString(), timeout=20)
        assert profiler_pb2.ProfileResponse.FromString(profiled).xspace
        monitor: Any = channel.unary_unary("/tensorflow.ProfilerService/Monitor")
        assert "uptime_s" in profiler_pb2.MonitorResponse.FromString(monitor(b"", timeout=10)).data
