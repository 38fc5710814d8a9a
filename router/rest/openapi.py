"""The OpenAPI description of what the REST port serves."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any, Final

_Json = dict[str, Any]

_NAME: Final = r"^[^/:]+$"
_ERRORS: Final = {
    "400": "The request is wrong; the text says how.",
    "404": "There is no such model, version or label.",
    "409": "The model refused because of what it has done before.",
    "429": "Too many requests or bytes are in flight; try again later.",
    "499": "The client went away.",
    "500": "The model or the router failed.",
    "501": "JSON cannot hold one of the model's inputs.",
    "503": "The model is not available now.",
    "504": "It took longer than the server's limit.",
}
_SPECS: Final = {
    "": ([], "the version that its configuration chooses, as a rule the newest"),
    "/versions/{version}": (["version"], "one version"),
    "/labels/{label}": (["label"], "the version that has a label"),
}


def openapi_json(metrics_path: str) -> bytes:
    """Return the OpenAPI 3.1 document; `metrics_path` is empty where no metrics are served."""
    paths: _Json = {}
    for suffix, (names, which) in _SPECS.items():
        parameters = [_parameter(name) for name in ("model", *names)]
        base = f"/v1/models/{{model}}{suffix}"
        tag = suffix.strip("/").partition("/")[0].removesuffix("s").capitalize()
        for method, text in _METHODS.items():
            operation = _operation(
                f"{method}{tag}", f"{text} with {which} of a model.", f"{method.capitalize()}Response"
            )
            operation["requestBody"] = {"required": True, "content": _content(f"{method.capitalize()}Request")}
            paths[f"{base}:{method}"] = {"parameters": parameters, "post": operation}
        paths[base] = {
            "parameters": parameters,
            "get": _operation(f"status{tag}", "The state of a model's versions.", "ModelStatus"),
        }
        paths[f"{base}/metadata"] = {
            "parameters": parameters,
            "get": _operation(f"metadata{tag}", f"The signatures of {which} of a model.", "ModelMetadata"),
        }
    paths["/healthz"] = {"get": _probe("healthz", "Whether the process lives.", ["200"])}
    paths["/readyz"] = {"get": _probe("readyz", "Whether every configured model answers.", ["200", "503"])}
    document = _answer("This document.", {"application/json": {"schema": {"type": "object"}}})
    paths["/openapi.json"] = {"get": {"operationId": "openapi", "responses": {"200": document}}}
    if metrics_path:
        answer = _answer("Metrics.", {"text/plain": {"schema": {"type": "string"}}})
        paths[metrics_path] = {"get": {"operationId": "metrics", "responses": {"200": answer}}}
    about = {"title": "TensorFlow Serving's REST API, served by Tessera", "version": version("tessera-serving")}
    content = {"openapi": "3.1.0", "info": about, "paths": paths, "components": {"schemas": _SCHEMAS}}
    return json.dumps(content, indent=1).encode()


_METHODS: Final = {
    "predict": "Run a signature",
    "classify": "Classify examples",
    "regress": "Regress examples",
}


def _parameter(name: str) -> _Json:
    schema: _Json = {"type": "string", "pattern": _NAME, "minLength": 1}
    if name == "version":
        schema = {"type": "integer", "format": "int64", "minimum": 0}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _content(schema: str) -> _Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _answer(text: str, content: _Json) -> _Json:
    return {"description": text, "content": content}


def _operation(name: str, summary: str, schema: str) -> _Json:
    failures = {code: _answer(text, _content("Error")) for code, text in _ERRORS.items()}
    responses = {"200": _answer("The answer.", _content(schema)), **failures}
    return {"operationId": name, "summary": summary, "responses": responses}


def _probe(name: str, summary: str, codes: list[str]) -> _Json:
    schema: _Json = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    if name == "readyz":
        schema["properties"]["missing"] = {"type": "array", "items": {"type": "string"}}
        schema["required"] = ["status", "missing"]
    responses = {code: _answer(summary, {"application/json": {"schema": schema}}) for code in codes}
    return {"operationId": name, "summary": summary, "responses": responses}


_SIGNATURE: Final[_Json] = {
    "type": "string",
    "description": 'Which of the model\'s signatures; "serving_default" when it is left out.',
}
_EXAMPLES: Final[_Json] = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "signature_name": _SIGNATURE,
        "context": {"type": "object", "description": "Features that all examples share."},
        "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    },
}
_STRINGS: Final[_Json] = {"type": "string"}
_SCHEMAS: Final[_Json] = {
    "PredictRequest": {
        "type": "object",
        "description": 'Either rows ("instances") or whole tensors ("inputs"); {"b64": …} stands for bytes.',
        "properties": {"signature_name": _SIGNATURE},
        "oneOf": [
            {"required": ["instances"], "properties": {"instances": {"type": "array", "minItems": 1}}},
            {"required": ["inputs"], "properties": {"inputs": {}}},
        ],
    },
    "PredictResponse": {
        "type": "object",
        "description": 'NaN, Infinity and -Infinity may be among the numbers. Outputs named "…_bytes" are {"b64": …}.',
        "oneOf": [
            {"required": ["predictions"], "properties": {"predictions": {"type": "array"}}},
            {"required": ["outputs"], "properties": {"outputs": {}}},
        ],
    },
    "ClassifyRequest": _EXAMPLES,
    "ClassifyResponse": {
        "type": "object",
        "required": ["results"],
        "properties": {
            "results": {
                "type": "array",
                "description": "For each example its classes, each a label and a score.",
                "items": {"type": "array", "items": {"type": "array", "items": {"type": ["string", "number"]}}},
            }
        },
    },
    "RegressRequest": _EXAMPLES,
    "RegressResponse": {
        "type": "object",
        "required": ["results"],
        "properties": {"results": {"type": "array", "items": {"type": "number"}}},
    },
    "ModelStatus": {
        "type": "object",
        "required": ["model_version_status"],
        "properties": {
            "model_version_status": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["version", "state", "status"],
                    "properties": {
                        "version": {"type": "string", "pattern": "^[0-9]+$"},
                        "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                        "status": {
                            "type": "object",
                            "required": ["error_code", "error_message"],
                            "properties": {"error_code": _STRINGS, "error_message": _STRINGS},
                        },
                    },
                },
            }
        },
    },
    "ModelMetadata": {
        "type": "object",
        "required": ["model_spec", "metadata"],
        "properties": {
            "model_spec": {
                "type": "object",
                "required": ["name", "signature_name", "version"],
                "properties": {"name": _STRINGS, "signature_name": _STRINGS, "version": _STRINGS},
            },
            "metadata": {
                "type": "object",
                "required": ["signature_def"],
                "properties": {"signature_def": {"type": "object", "required": ["signature_def"]}},
            },
        },
    },
    "Error": {"type": "object", "required": ["error"], "properties": {"error": _STRINGS}},
}
