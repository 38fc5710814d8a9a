"""What tools ask a running server: reflection, health and profiles, by the clients that others use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support.model_server import ModelServer
from support.rpc_calls import connected
from support.serving_requests import client, predict

pytestmark = pytest.mark.integration

TRACE = """
import sys
import tensorflow as tf
address, log_dir = sys.argv[1:]
tf.profiler.experimental.client.trace(f"grpc://{address}", log_dir, 300, num_tracing_attempts=5)
print(tf.profiler.experimental.client.monitor(address, 100, 1))
"""


def test_a_client_with_nothing_but_reflection_asks_for_a_prediction(half_server: ModelServer) -> None:
    with connected(half_server.address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName("tensorflow.serving.PredictionService").methods_by_name["Predict"]
        request: Any = message_factory.GetMessageClass(method.input_type)()
        request.model_spec.name = "half"
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add().size = 1
        request.inputs["x"].float_val.append(2.0)
        response: Any = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )(request, timeout=20)
    assert list(response.outputs["y"].float_val) == [3.0]


def test_every_service_is_listed_and_described(half_server: ModelServer) -> None:
    with connected(half_server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        methods = {
            name: sorted(pool.FindServiceByName(name).methods_by_name) for name in sorted(database.get_services())
        }
    # TensorFlow describes methods of later versions of its own, which nobody answers.
    assert {"Monitor", "Profile", "Terminate"} < set(methods.pop("tensorflow.ProfilerService"))
    assert methods == {
        "grpc.health.v1.Health": ["Check", "Watch"],
        "grpc.reflection.v1.ServerReflection": ["ServerReflectionInfo"],
        "grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"],
        "tensorflow.serving.ModelService": ["GetModelStatus", "HandleReloadConfigRequest"],
        "tensorflow.serving.PredictionService": [
            "Classify",
            "GetModelMetadata",
            "MultiInference",
            "Predict",
            "Regress",
        ],
        "tessera.router.v1.RouterService": ["Explain", "GetStatus"],
    }


def test_the_descriptors_are_those_of_tensorflow_serving(half_server: ModelServer) -> None:
    """All that a wire format depends on, file by file, of the package that its clients use."""
    from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

    def files(descriptor: Any) -> dict[str, Any]:
        found = {descriptor.name: descriptor}
        for dependency in descriptor.dependencies:
            found |= files(dependency)
        return found

    def shape(message: Any) -> dict[str, Any]:
        fields = {
            field.name: (
                field.number,
                field.type,
                field.is_repeated,
                field.message_type.full_name if field.message_type else "",
                field.enum_type.full_name if field.enum_type else "",
                field.containing_oneof.name if field.containing_oneof else "",
            )
            for field in message.fields
        }
        enums = {enum.name: [(value.name, value.number) for value in enum.values] for enum in message.enum_types}
        return {"fields": fields, "enums": enums, "nested": {one.name: shape(one) for one in message.nested_types}}

    theirs = files(prediction_service_pb2.DESCRIPTOR) | files(model_service_pb2.DESCRIPTOR)
    with connected(half_server.address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for name in sorted(theirs):
            ours = pool.FindFileByName(name)
            assert ours.package == theirs[name].package
            for message in theirs[name].message_types_by_name:
                assert shape(ours.message_types_by_name[message]) == shape(theirs[name].message_types_by_name[message])
            for service, theirs_service in theirs[name].services_by_name.items():
                assert [
                    (one.name, one.input_type.full_name, one.output_type.full_name)
                    for one in ours.services_by_name[service].methods
                ] == [(one.name, one.input_type.full_name, one.output_type.full_name) for one in theirs_service.methods]
    assert len(theirs) > 30


def test_reflection_of_what_is_not_there_is_an_answer(half_server: ModelServer) -> None:
    with connected(half_server.address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        with pytest.raises(KeyError):
            pool.FindServiceByName("no.such.Service")
        with pytest.raises(KeyError):
            pool.FindFileByName("no/such/file.proto")


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService", "tensorflow.serving.PredictionService"])
def test_a_ready_server_is_serving(half_server: ModelServer, service: str) -> None:
    with connected(half_server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="no"), timeout=20)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_tensorflows_own_client_captures_a_profile_and_monitors(half_server: ModelServer, tmp_path: Path) -> None:
    ended = threading.Event()

    def load() -> None:
        with client(half_server.address) as calls:
            while not ended.is_set():
                calls.call("Predict", predict("half"))

    loading = threading.Thread(target=load)
    loading.start()
    try:
        run = subprocess.run(
            [sys.executable, "-c", TRACE, half_server.address, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
    finally:
        ended.set()
        loading.join()
    assert run.returncode == 0, run.stderr
    assert "requests: " in run.stdout
    profile = max(tmp_path.rglob("*.xplane.pb"), key=lambda path: path.stat().st_size)
    content = profile.read_bytes()
    assert b"Run serving_default" in content
    assert b"tessera-poller" in content
