"""GetModelStatus and GetModelMetadata: rare calls, answered in Python from the catalog.

Codes and texts are TensorFlow Serving's. Handlers take and return serialized messages; they run on the
server's one thread for Python methods.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from protos import serving_pb2
from router.catalog import Catalog
from tessera.errors import InvalidArgumentError

GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_SIGNATURE_DEF = "signature_def"
_SIGNATURE_DEF_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


class ModelService:
    """Answers from whatever catalog is current when the call comes."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        """`catalog` returns the current catalog; called on the server's Python thread."""
        self._catalog = catalog

    def get_model_status(self, request_bytes: bytes) -> bytes:
        """Return the state of all versions of a model, or of the one named by version or label.

        Raises:
            InvalidArgumentError: not a GetModelStatusRequest, no model_spec, no name, unknown label.
            NotFoundError: unknown model or version.
            UnavailableError: a label, while the models of the start are loaded.
        """
        request = serving_pb2.GetModelStatusRequest()
        spec = _parse(request, request_bytes)
        catalog = self._catalog()
        version = _version(spec)
        if spec.WhichOneof("version_choice") == "version_label":
            version = catalog.version_of_label(spec.name, spec.version_label)
        response = serving_pb2.GetModelStatusResponse()
        for number, status in catalog.statuses(spec.name, version):
            response.model_version_status.add(
                version=number,
                state=status.state,
                status=serving_pb2.StatusProto(error_code=status.error_code, error_message=status.error_message),
            )
        return response.SerializeToString()

    def get_model_metadata(self, request_bytes: bytes) -> bytes:
        """Return the signatures of a version.

        Raises:
            InvalidArgumentError: not a GetModelMetadataRequest, no model_spec, no name, no or another metadata_field.
            NotFoundError: unknown model or version, or it is not available.
            UnavailableError: a label, while the models of the start are loaded.
        """
        request = serving_pb2.GetModelMetadataRequest()
        spec = _parse(request, request_bytes)
        if not request.metadata_field:
            raise InvalidArgumentError("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != _SIGNATURE_DEF:
                raise InvalidArgumentError(f"Metadata field {name} is not supported")
        label = spec.version_label if spec.WhichOneof("version_choice") == "version_label" else None
        number, status = self._catalog().available(spec.name, _version(spec), label)
        response = serving_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = number
        signatures = response.metadata[_SIGNATURE_DEF]
        signatures.type_url = _SIGNATURE_DEF_TYPE
        signatures.value = status.signature_defs
        return response.SerializeToString()


def _parse(
    request: serving_pb2.GetModelStatusRequest | serving_pb2.GetModelMetadataRequest, request_bytes: bytes
) -> serving_pb2.ModelSpec:
    """Fill `request` and return its model_spec."""
    try:
        request.ParseFromString(request_bytes)
    except DecodeError as error:
        raise InvalidArgumentError(f"{type(request).__name__}: cannot be parsed: {error}") from error
    if not request.HasField("model_spec"):
        raise InvalidArgumentError("Missing ModelSpec")
    if not request.model_spec.name:
        raise InvalidArgumentError("ModelSpec has no name specified.")
    return request.model_spec


def _version(spec: serving_pb2.ModelSpec) -> int | None:
    return spec.version.value if spec.WhichOneof("version_choice") == "version" else None
