"""Server reflection, v1 and v1alpha: the descriptors of what a router serves, under TensorFlow Serving's names.

The logic is grpcio-reflection's. The descriptors are those of protos/api; what they import of TensorFlow comes from the
TensorFlow that is linked, so that Python TensorFlow is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

import protos
from protos import router_pb2
from tessera.errors import InvalidArgumentError

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"
METHODS = (f"/{V1ALPHA}/ServerReflectionInfo", f"/{V1}/ServerReflectionInfo")

PROFILER_SERVICE = "tensorflow.ProfilerService"
_FILES = {
    "tensorflow.serving.PredictionService": "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow.serving.ModelService": "tensorflow_serving/apis/model_service.proto",
    "grpc.health.v1.Health": "grpc/health/v1/health.proto",
    PROFILER_SERVICE: "tsl/profiler/protobuf/profiler_service.proto",
    "tessera.router.v1.RouterService": router_pb2.DESCRIPTOR.name,
    V1ALPHA: reflection_pb2.DESCRIPTOR.name,
    V1: "grpc/reflection/v1/reflection.proto",
}
SERVICES = frozenset(_FILES)
"""Those that can be described."""


class ReflectionService:
    """Answers one reflection request at a time; used on one thread."""

    def __init__(self, services: Iterable[str], file_descriptor: Callable[[str], bytes]) -> None:
        """Describe `services`.

        Args:
            services: Full names of what the server answers, of `SERVICES`.
            file_descriptor: `_graph.file_descriptor`: a file of TensorFlow as a serialized FileDescriptorProto.
        """
        self._services = sorted(services)
        self._file_descriptor = file_descriptor

    def answer(self, request_bytes: bytes) -> bytes:
        """Answer a message of the stream; what is not found is an answer too.

        Raises:
            InvalidArgumentError: not a ServerReflectionRequest.

        Cost: some tens of milliseconds the first time, when the descriptors are read.
        """
        request = reflection_pb2.ServerReflectionRequest()
        try:
            request.ParseFromString(request_bytes)
        except DecodeError as error:
            raise InvalidArgumentError(f"ServerReflectionRequest: cannot be parsed: {error}") from error
        asked = reflection_pb2.ServerReflectionRequest()
        asked.CopyFrom(request)
        if request.HasField("file_containing_symbol"):
            asked.file_containing_symbol = _definition(self._pool, request.file_containing_symbol)
        [response] = reflection.ReflectionServicer(self._services, self._pool).ServerReflectionInfo(iter([asked]), None)
        response.original_request.CopyFrom(request)
        return bytes(response.SerializeToString())

    @cached_property
    def _pool(self) -> descriptor_pool.DescriptorPool:
        pool = descriptor_pool.DescriptorPool()
        files = _own_files()
        added: set[str] = set()
        for service in self._services:
            self._add(_FILES[service], files, pool, added)
        return pool

    def _add(
        self,
        name: str,
        files: dict[str, descriptor_pb2.FileDescriptorProto],
        pool: descriptor_pool.DescriptorPool,
        added: set[str],
    ) -> None:
        """Add a file to `pool` after what it imports."""
        if name in added:
            return
        added.add(name)
        file = files.get(name) or descriptor_pb2.FileDescriptorProto.FromString(self._file_descriptor(name))
        for dependency in file.dependency:
            self._add(dependency, files, pool, added)
        pool.Add(file)


def _definition(pool: descriptor_pool.DescriptorPool, symbol: str) -> str:
    """Return `symbol`, or the service that it is a method of: Python's pools do not find methods."""
    service, _, method = symbol.rpartition(".")
    try:
        return service if method in pool.FindServiceByName(service).methods_by_name else symbol
    except KeyError:
        return symbol


def _own_files() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Return the files that do not come from TensorFlow, by name."""
    path = Path(protos.__file__).parent / "api_descriptors.binpb"
    files = list(descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file)
    for module in (router_pb2, reflection_pb2):
        files.append(descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))
    # v1 has the messages of v1alpha, in another package.
    v1 = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    v1.name, v1.package = _FILES[V1], V1.rpartition(".")[0]
    for field in (field for message in v1.message_type for field in message.field if field.type_name):
        field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for method in v1.service[0].method:
        method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
        method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    return {file.name: file for file in [*files, v1]}
