"""The state and the signatures of a model as TensorFlow Serving prints them: proto3 JSON with all fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import json_format

from protos import serving_pb2
from router.rest.routes import ReadRoute
from tessera.errors import Code

# serving.proto has numbers where TensorFlow's files have enums, whose names JSON shows.
_STATES: Final = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_TYPES: Final = (
    *("INVALID", "FLOAT", "DOUBLE", "INT32", "UINT8", "INT16", "INT8", "STRING", "COMPLEX64", "INT64", "BOOL"),
    *("QINT8", "QUINT8", "QINT32", "BFLOAT16", "QINT16", "QUINT16", "UINT16", "COMPLEX128", "HALF", "RESOURCE"),
    *("VARIANT", "UINT32", "UINT64", "FLOAT8_E5M2", "FLOAT8_E4M3FN", "FLOAT8_E4M3FNUZ", "FLOAT8_E4M3B11FNUZ"),
    *("FLOAT8_E5M2FNUZ", "INT4", "UINT4"),
)
_REFERENCES: Final = 100  # a variable's dtype is its values' plus this


def status_json(route: ReadRoute, get_model_status: Callable[[bytes], bytes]) -> bytes:
    """Return the body of `GET /v1/models/NAME`.

    Raises:
        TesseraError: there is no such model, version or label.
    """
    request = serving_pb2.GetModelStatusRequest()
    _fill(request.model_spec, route)
    response = serving_pb2.GetModelStatusResponse.FromString(get_model_status(request.SerializeToString()))
    content = _to_dict(response)
    for entry, status in zip(content["model_version_status"], response.model_version_status, strict=True):
        entry["state"] = _STATES.get(status.state, status.state)
        # proto3 JSON leaves a message out that is not there; TensorFlow Serving's always is.
        entry["status"] = {
            "error_code": Code(status.status.error_code).name,
            "error_message": status.status.error_message,
        }
    return _dump(content).encode() + b"\n"


def metadata_json(route: ReadRoute, get_model_metadata: Callable[[bytes], bytes]) -> bytes:
    """Return the body of `GET /v1/models/NAME/metadata`.

    Raises:
        TesseraError: there is no such model, version or label, or it is not available.
    """
    request = serving_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    _fill(request.model_spec, route)
    response = serving_pb2.GetModelMetadataResponse.FromString(get_model_metadata(request.SerializeToString()))
    signatures = serving_pb2.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    spec = {
        "name": response.model_spec.name,
        "signature_name": response.model_spec.signature_name,
        "version": str(response.model_spec.version.value),
    }
    definitions = _to_dict(signatures)
    for signature in definitions["signature_def"].values():
        for info in (*signature["inputs"].values(), *signature["outputs"].values()):
            info["dtype"] = _type_name(info["dtype"])
        signature["defaults"] = signature.get("defaults", {})
        for tensor in signature["defaults"].values():
            tensor["dtype"] = _type_name(tensor["dtype"])
    text = f'{{\n"model_spec":{_dump(spec)},\n"metadata": {{"signature_def": {_dump(definitions)}}}\n}}\n'
    return text.encode()


def _fill(spec: serving_pb2.ModelSpec, route: ReadRoute) -> None:
    spec.name = route.model
    if route.version is not None:
        spec.version.value = route.version
    elif route.label is not None:
        spec.version_label = route.label


def _type_name(dtype: int) -> str | int:
    reference = dtype > _REFERENCES
    number = dtype - _REFERENCES if reference else dtype
    return f"DT_{_TYPES[number]}{'_REF' if reference else ''}" if number < len(_TYPES) else dtype


def _to_dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)
