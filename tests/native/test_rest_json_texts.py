"""What REST says of bodies that it refuses: TensorFlow Serving's texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tensorflow.core.framework.tensor_pb2 import TensorProto

from cpp_ext import _graph
from support.rest_json import A, B, decode, encode, error
from tessera.errors import InvalidArgumentError, UnimplementedError

pytestmark = pytest.mark.native

INSTANCES_ERROR = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "


@pytest.mark.parametrize(
    ("body", "signature", "message"),
    [
        (b"", [A], "JSON Parse error: The document is empty"),
        (b"x", [A], "JSON Parse error: Invalid value. at offset: 0"),
        (b"[1]", [A], "JSON Value: [1] Is not object"),
        ({}, [A], "Missing 'inputs' or 'instances' key"),
        (
            {"instances": [1], "inputs": [1]},
            [A],
            'JSON Value: {\n    "instances": [1],\n    "inputs": [1]\n} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist ",
        ),
        ({"inputs": 1}, [], "Failed to get input map for signature: DEFAULT"),
        ({"signature_name": "s", "inputs": 1}, [], "Failed to get input map for signature: s"),
        (
            {"signature_name": 5},
            [A],
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            {"instances": 1},
            [A],
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
        ),
        ({"instances": []}, [A], "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
        (
            {"instances": ["x"]},
            [A],
            INSTANCES_ERROR.format(0) + 'JSON Value: "x" Type: String is not of expected type: float',
        ),
        (
            {"instances": [1.5]},
            [("a", 3)],
            INSTANCES_ERROR.format(0) + "JSON Value: 1.5 Type: Number is not of expected type: int32",
        ),
        (
            {"instances": [1, 2]},
            [A, B],
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        (
            {"instances": [{"a": 1}]},
            [A, B],
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: "
            "a,b",
        ),
        (
            {"instances": [{"a": 1, "z": 1}]},
            [A],
            "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: z",
        ),
        (
            {"instances": [[[1, 2, 3], [1, 2]]]},
            [A],
            INSTANCES_ERROR.format(0) + "Encountered list at unexpected size: 2 at level: 1 expected size: 3",
        ),
        ({"instances": [[1, 2], [1]]}, [A], INSTANCES_ERROR.format(1) + "Expecting tensor size: 2 but got: 1"),
        (
            {"instances": [[[1, 2]], [[1], [2]]]},
            [A],
            INSTANCES_ERROR.format(1) + "Expecting shape [1,2] but got: [2,1]",
        ),
        ({"instances": [{"a": 1}, 2]}, [A], "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"a": 2}]}, [A], "Expecting value/list but got object at item 1 of input list"),
        ({"inputs": {"a": 1}}, [A, B], "Missing named input: b in 'inputs' object."),
        (
            {"inputs": [1]},
            [A, B],
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        ({"inputs": {"b64": "?"}}, [("a", 7)], "Unable to base64 decode"),
        ({"inputs": {"b64": "A"}}, [("a", 7)], "Unable to base64 decode"),
        (
            {"inputs": [[1], 2]},
            [A],
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ({"inputs": [1, [2]]}, [A], "Encountered list at unexpected level: 1 expected < 1"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_texts_of_refusals(body: Any, signature: list[tuple[str, int]], message: str) -> None:
    assert error(body, *signature) == message


@pytest.mark.parametrize(("dtype", "name"), [(19, "half"), (14, "bfloat16"), (17, "uint16"), (8, "complex64")])
def test_dtypes_that_json_cannot_hold(dtype: int, name: str) -> None:
    with pytest.raises(UnimplementedError, match=rf"^Conversion of JSON Value: 1 to type: {name}$"):
        decode({"inputs": [1]}, ("a", dtype))
    assert error({"instances": [1]}, ("a", dtype)) == (
        "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: "
        f"Conversion of JSON Value: 1 to type: {name}"
    )
    proto = TensorProto(dtype=dtype)
    with pytest.raises(InvalidArgumentError, match=rf"^Failed to write JSON value for tensor type: {name}$"):
        encode(y=proto)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"examples": [{"f": [1, 1.5]}]}, "Unexpected element type in feature: f expecting type: int64"),
        ({"examples": [{"f": [1.5, "x"]}]}, "Unexpected element type in feature: f expecting type: float"),
        ({"examples": [{"f": ["x", True]}]}, "Unexpected element type in feature: f expecting type: bytes"),
        ({"examples": [{"f": [None]}]}, "Feature: f has element with unexpected JSON type: Null"),
        ({"examples": [{"f": [[1]]}]}, "Feature: f has element with unexpected JSON type: Array"),
        ({"examples": [{"f": {"x": 1}}]}, "Feature: f has element with unexpected JSON type: Object"),
        ({"examples": [{"f": 2**63}]}, "Feature: f has uint64_t element. Only int64_t is supported."),
        ({"examples": [5]}, "Example must be JSON object but got JSON Number"),
        ({"examples": []}, "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ({"examples": 1}, "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array"),
        ({}, "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)
def test_texts_of_refused_examples(body: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        _graph.json_to_examples(json.dumps(body).encode())
    assert caught.value.message == message
