"""The codes and texts of TensorFlow Serving for what cannot be answered, over gRPC and REST: one row a case."""

import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import tensorflow as tf

from support.model_server import ModelServer
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


@pytest.fixture(scope="module")
def calls(half_server: ModelServer) -> Iterator[Client]:
    with client(half_server.address) as found:
        yield found


def _without_spec(request: Any) -> Any:
    request.ClearField("model_spec")
    return request


def _broken_tensor() -> Any:
    request = predict()
    request.inputs["x"].tensor_shape.dim[0].size = 7
    request.inputs["x"].tensor_content = b"123"
    return request


NO_INPUT = examples()
TWO_TASKS = (("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))

GRPC_ROWS = [
    # name, method, request, code, text
    ("no model_spec", "Predict", _without_spec(predict()), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("no model_spec", "Classify", _without_spec(classify()), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("no model_spec", "Regress", _without_spec(regress()), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("no model_spec", "GetModelStatus", _without_spec(status()), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("no model_spec", "GetModelMetadata", _without_spec(metadata("signature_def")), "INVALID_ARGUMENT",
     "Missing ModelSpec"),
    ("no name", "Predict", predict(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ("no name", "Classify", classify(model=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ("unknown model", "Predict", predict("no"), "NOT_FOUND", "Servable not found for request: Latest(no)"),
    ("unknown model", "Classify", classify(model="no"), "NOT_FOUND", "Servable not found for request: Latest(no)"),
    ("unknown model", "Regress", regress(model="no"), "NOT_FOUND", "Servable not found for request: Latest(no)"),
    ("unknown model", "MultiInference", multi_inference(*TWO_TASKS, model="no"), "NOT_FOUND",
     "Servable not found for request: Latest(no)"),
    ("unknown model", "GetModelMetadata", metadata("signature_def", model="no"), "NOT_FOUND",
     "Servable not found for request: Latest(no)"),
    ("unknown version", "Predict", predict(version=7), "NOT_FOUND",
     "Servable not found for request: Specific(half, 7)"),
    ("unknown version", "Regress", regress(version=7), "NOT_FOUND",
     "Servable not found for request: Specific(half, 7)"),
    ("unknown label", "Predict", predict(label="L"), "INVALID_ARGUMENT", "Unrecognized servable version label: L"),
    ("unknown label", "Classify", classify(label="L"), "INVALID_ARGUMENT", "Unrecognized servable version label: L"),
    ("unknown signature", "Predict", predict(signature="S"), "FAILED_PRECONDITION",
     'Serving signature key "S" not found.'),
    ("unknown signature", "Classify", classify("S"), "INVALID_ARGUMENT", "No signature was found with the name: S"),
    ("unknown signature", "Regress", regress("S"), "INVALID_ARGUMENT", "No signature was found with the name: S"),
    ("unknown signature", "MultiInference", multi_inference(("S", "regress")), "INVALID_ARGUMENT",
     "Requested signature not found in model graph: S"),
    ("method without meaning", "MultiInference", multi_inference(("regress_x_to_y", "predict")), "UNIMPLEMENTED",
     "Unsupported signature method_name: tensorflow/serving/predict"),
    ("input missing", "Predict", predict(inputs={"x": [[1.0]]}, signature="two_inputs"), "INVALID_ARGUMENT",
     "input size does not match signature: 1!=2 len({x}) != len({x,z}). Sent extra: {}. Missing but required: {z}."),
    ("input superfluous", "Predict", predict(inputs={"x": [[1.0]], "q": [[1.0]]}), "INVALID_ARGUMENT",
     "input size does not match signature: 2!=1 len({q,x}) != len({x}). Sent extra: {q}. Missing but required: {}."),
    ("input named otherwise", "Predict", predict(inputs={"q": [[1.0]]}), "INVALID_ARGUMENT",
     re.compile(r"input size does not match signature|Signature input alias: x\(feed name: x:0\) not found in request "
                r"and no default value provided\. Inputs expected to be in the request \{x\}, or default input alias "
                r"set: ")),
    ("tensor that is none", "Predict", _broken_tensor(), "INVALID_ARGUMENT", "tensor parsing error: x"),
    ("unknown output", "Predict", predict(output_filter=["Z"]), "INVALID_ARGUMENT",
     "output tensor alias not found in signature: Z Outputs expected to be in the set {y}."),
    ("output twice", "Predict", predict(output_filter=["y", "y"]), "INVALID_ARGUMENT",
     "duplicate output tensor alias: y"),
    ("wrong dtype", "Predict", predict(inputs={"x": tf.constant([[1]], tf.int32)}), "INVALID_ARGUMENT",
     re.compile("int32.*float|float.*int32", re.DOTALL)),
    ("feature missing", "Classify", classify(given=examples(1.0, feature="other")), "INVALID_ARGUMENT",
     re.compile(r"Feature: x \(data type: float\) is required but could not be found\.")),
    ("empty input", "Classify", classify(given=NO_INPUT), "INVALID_ARGUMENT", "Input is empty."),
    ("empty input", "Regress", regress(given=NO_INPUT), "INVALID_ARGUMENT", "Input is empty."),
    ("empty input", "MultiInference", multi_inference(*TWO_TASKS, given=NO_INPUT), "INVALID_ARGUMENT",
     "Input is empty."),
    ("no metadata field", "GetModelMetadata", metadata(), "INVALID_ARGUMENT",
     "GetModelMetadataRequest must specify at least one metadata_field"),
    ("other metadata field", "GetModelMetadata", metadata("F"), "INVALID_ARGUMENT",
     "Metadata field F is not supported"),
    ("status of an unknown model", "GetModelStatus", status("no"), "NOT_FOUND",
     "Could not find any versions of model no"),
    ("status of an unknown version", "GetModelStatus", status(version=7), "NOT_FOUND",
     "Could not find version 7 of model half"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "request_message", "code", "text"),
    [row[1:] for row in GRPC_ROWS],
    ids=[f"{r[1]}: {r[0]}" for r in GRPC_ROWS],
)
def test_grpc(calls: Client, method: str, request_message: Any, code: str, text: "str | re.Pattern[str]") -> None:
    with pytest.raises(grpc.RpcError) as caught:
        calls.call(method, request_message)
    assert (caught.value.code().name, _matching(text, caught.value.details() or "")) == (code, text)


def _matching(text: "str | re.Pattern[str]", found: str) -> "str | re.Pattern[str]":
    """Return `text` if `found` is that, else `found`: so that a failure shows both."""
    return text if (text == found if isinstance(text, str) else text.search(found)) else found


P = "/v1/models/half:predict"
ROW = "Failed to process element: 0 of 'instances' list. "

REST_ROWS = [
    # name, verb, path, body, status, error
    ("unknown model", "POST", "/v1/models/no:predict", {"instances": [1]}, 404,
     "Servable not found for request: Latest(no)"),
    ("unknown version", "POST", "/v1/models/half/versions/7:predict", {"instances": [1]}, 404,
     "Servable not found for request: Specific(half, 7)"),
    ("unknown label", "POST", "/v1/models/half/labels/L:predict", {"instances": [1]}, 400,
     "Unrecognized servable version label: L"),
    ("unknown signature", "POST", P, {"signature_name": "S", "instances": [1]}, 400,
     'Serving signature name: "S" not found in signature def'),
    ("unknown signature", "POST", "/v1/models/half:classify", {"signature_name": "S", "examples": [{"x": 1.0}]}, 400,
     "No signature was found with the name: S"),
    ("no model", "GET", "/v1/models", None, 400, "Missing model name in request."),
    ("version too large", "POST", "/v1/models/half/versions/9999999999999999999:predict", {"instances": [1]}, 400,
     "Failed to convert version: 9999999999999999999 to numeric."),
    ("other verb", "PUT", P, {"instances": [1]}, 400, f"Malformed request: PUT {P}"),
    ("other path", "GET", "/v1/nothing", None, 400, "Malformed request: GET /v1/nothing"),
    ("empty body", "POST", P, "", 400, "JSON Parse error: The document is empty"),
    ("no JSON", "POST", P, "hello", 400, "JSON Parse error: Invalid value. at offset: 0"),
    ("neither key", "POST", P, {}, 400, "Missing 'inputs' or 'instances' key"),
    ("both keys", "POST", P, {"inputs": [1], "instances": [1]}, 400,
     re.compile(r"Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")),
    ("wrong JSON type", "POST", P, {"instances": [["x"]]}, 400,
     re.compile(r'JSON Value: "x" Type: String is not of expected type: float')),
    ("plain list, many inputs", "POST", P, {"signature_name": "two_inputs", "instances": [1]}, 400,
     "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
     "tensorinfo_map"),
    ("other keys", "POST", P, {"signature_name": "two_inputs", "instances": [{"x": [1]}]}, 400,
     re.compile(ROW + r"JSON object: .* keys must be equal to: x,z", re.DOTALL)),
    ("ragged", "POST", P, {"instances": [[[1, 2, 3], [1, 2]]]}, 400,
     re.compile(r"Encountered list at unexpected size: 2 at level: \d expected size: 3")),
    ("columnar without an input", "POST", P, {"signature_name": "two_inputs", "inputs": {"x": [[1]]}}, 400,
     "Missing named input: z in 'inputs' object."),
    ("bad base64", "POST", P, {"signature_name": "strings", "instances": [{"b64": "@@@"}]}, 400,
     re.compile("Unable to base64 decode")),
    ("dtype that JSON cannot say", "POST", P, {"signature_name": "halves", "inputs": [1.0]}, 501,
     re.compile("to type: half")),
    ("no examples", "POST", "/v1/models/half:regress", {"signature_name": "regress_x_to_y", "examples": []}, 400,
     re.compile("'examples' value is an empty array")),
    ("feature missing", "POST", "/v1/models/half:regress", {"signature_name": "regress_x_to_y", "examples": [{}]}, 400,
     re.compile(r"Feature: x \(data type: float\) is required but could not be found\.")),
    ("status of an unknown model", "GET", "/v1/models/no", None, 404, "Could not find any versions of model no"),
    ("status of an unknown version", "GET", "/v1/models/half/versions/7", None, 404,
     "Could not find version 7 of model half"),
    ("metadata of an unknown model", "GET", "/v1/models/no/metadata", None, 404,
     "Servable not found for request: Latest(no)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "path", "body", "code", "text"), [row[1:] for row in REST_ROWS], ids=[f"{r[2]}: {r[0]}" for r in REST_ROWS]
)
def test_rest(
    half_server: ModelServer, verb: str, path: str, body: Any, code: int, text: "str | re.Pattern[str]"
) -> None:
    found_code, answer, headers = half_server.http(verb, path, body)
    assert headers["content-type"].startswith("application/json")
    error = json.loads(answer)["error"]
    assert (found_code, _matching(text, error)) == (code, text)
    assert answer == json.dumps({"error": error}, indent=4, ensure_ascii=False)
