"""Server reflection over the native server, without a router: both versions, and whatever is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from cpp_ext import _graph
from router.reflection_service import METHODS, PROFILER_SERVICE, SERVICES, V1, V1ALPHA, ReflectionService
from support.rpc_calls import MakeServer, connected
from tessera.errors import InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.native

SERVICE = ReflectionService(SERVICES, _graph.file_descriptor)
NAMES = [
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.PredictionService.Predict",
    "tensorflow.serving.PredictRequest.InputsEntry",
    "tensorflow.TensorProto",
    "tensorflow/core/framework/tensor.proto",
    "google.protobuf.Any",
    "no.such",
    "",
    ".",
]


def ask(**fields: Any) -> reflection_pb2.ServerReflectionResponse:
    request = reflection_pb2.ServerReflectionRequest(**fields)
    response = reflection_pb2.ServerReflectionResponse.FromString(SERVICE.answer(request.SerializeToString()))
    assert response.original_request == request
    return response


def files(response: reflection_pb2.ServerReflectionResponse) -> list[str]:
    protos = response.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(proto).name for proto in protos]


def test_both_versions_give_the_same_answer(make_server: MakeServer) -> None:
    server = make_server()
    for method in METHODS:
        server.serve_python_stream(method, SERVICE.answer)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString(),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=V1).SerializeToString(),
    ]
    with connected(server.start()) as channel:
        answers = []
        for method in METHODS:
            stub: Any = channel.stream_stream(method)
            answers.append(list(stub(iter(requests), timeout=20)))
    assert answers[0] == answers[1]
    listed, described = (reflection_pb2.ServerReflectionResponse.FromString(answer) for answer in answers[0])
    assert {service.name for service in listed.list_services_response.service} == SERVICES
    assert files(described) == ["grpc/reflection/v1/reflection.proto"]


def test_a_method_is_found_in_the_file_of_its_service() -> None:
    file = "tensorflow_serving/apis/prediction_service.proto"
    assert files(ask(file_containing_symbol="tensorflow.serving.PredictionService"))[0] == file
    assert files(ask(file_containing_symbol="tensorflow.serving.PredictionService.Predict"))[0] == file
    assert ask(file_containing_symbol="tensorflow.serving.PredictionService.No").error_response.error_code == 5


def test_what_is_not_served_is_not_described() -> None:
    service = ReflectionService(SERVICES - {PROFILER_SERVICE}, _graph.file_descriptor)
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=PROFILER_SERVICE)
    answer = reflection_pb2.ServerReflectionResponse.FromString(service.answer(request.SerializeToString()))
    assert answer.error_response.error_code == 5


def test_a_request_for_nothing_is_an_error_in_the_answer() -> None:
    assert ask().error_response.error_code == 3


@given(
    st.builds(
        reflection_pb2.ServerReflectionRequest,
        host=st.sampled_from(["", "h"]),
        **{
            field: st.none() | st.sampled_from(NAMES) | st.text(max_size=20)
            for field in ("file_by_filename", "file_containing_symbol", "all_extension_numbers_of_type")
        },
        file_containing_extension=st.none()
        | st.builds(
            reflection_pb2.ExtensionRequest,
            containing_type=st.sampled_from(NAMES),
            extension_number=st.integers(-(2**31), 2**31 - 1),
        ),
    )
)
def test_every_request_is_answered(request: Any) -> None:
    response = reflection_pb2.ServerReflectionResponse.FromString(SERVICE.answer(request.SerializeToString()))
    assert response.WhichOneof("message_response")


@given(st.binary(max_size=50))
@settings(max_examples=200)
def test_any_bytes_are_answered_or_refused(content: bytes) -> None:
    try:
        reflection_pb2.ServerReflectionRequest.FromString(content)
    except DecodeError:
        with pytest.raises(InvalidArgumentError, match="cannot be parsed"):
            SERVICE.answer(content)
    else:
        assert SERVICE.answer(content)


def test_a_file_that_tensorflow_does_not_have_is_not_found() -> None:
    with pytest.raises(NotFoundError, match=r"file no/such\.proto: not in this TensorFlow"):
        _graph.file_descriptor("no/such.proto")
    assert (
        descriptor_pb2.FileDescriptorProto.FromString(
            _graph.file_descriptor("tensorflow/core/framework/tensor.proto")
        ).package
        == "tensorflow"
    )


def test_the_names_of_the_two_versions() -> None:
    assert (f"/{V1ALPHA}/ServerReflectionInfo", f"/{V1}/ServerReflectionInfo") == METHODS
