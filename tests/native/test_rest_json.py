"""JSON of the REST API, to and from messages that TensorFlow's own classes make and read."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_serving.apis import classification_pb2, regression_pb2

from cpp_ext import _graph
from support.rest_json import A, decode, encode, error, typed
from support.small_models import f32, i64
from tessera.errors import InvalidArgumentError, TesseraError, UnimplementedError

pytestmark = pytest.mark.native

DTYPES = [tf.float32, tf.float64, tf.int32, tf.uint8, tf.int16, tf.int8, tf.int64, tf.bool, tf.uint32, tf.uint64]


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_every_dtype_there_and_back(dtype: tf.DType, rows: bool) -> None:
    @settings(max_examples=40, deadline=None)
    @given(hnp.arrays(dtype.as_numpy_dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)))
    def check(values: Any) -> None:
        for content in (False, True):
            proto = typed(values, content=content)
            text = encode(rows, y=proto)
            key, sent_key = ("predictions", "instances") if rows else ("outputs", "inputs")
            assert np.array_equal(np.array(json.loads(text)[key], values.dtype), values, equal_nan=dtype.is_floating)
            body = text.replace(key, sent_key).encode()
            got_dtype, got = decode(body, ("y", dtype.as_datatype_enum))["y"]
            assert got_dtype == dtype.as_datatype_enum
            assert got.shape == values.shape
            assert np.array_equal(got, values, equal_nan=dtype.is_floating)

    check()


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32))
@example(1 / 3)
@example(9e6)
@example(-0.0)
def test_floats_are_printed_like_printf(value: float) -> None:
    value = float(np.float32(value))
    text = encode(False, y=np.float32(value)).split(": ")[1].split("\n")[0]
    if math.isnan(value) or math.isinf(value):
        expected = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    else:
        expected = f"{value:.6g}" if np.float32(f"{value:.6g}") == np.float32(value) else f"{value:.9g}"
        expected += "" if "." in expected or "e" in expected else ".0"
    assert text == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(), min_size=1))
def test_bytes_there_and_back(values: list[bytes]) -> None:
    text = encode(y_bytes=np.array(values, object))
    assert [base64.b64decode(item["b64"]) for item in json.loads(text)["predictions"]] == values
    assert decode(text.replace("predictions", "instances").encode(), ("x", 7))["x"][1].tolist() == values


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), min_size=1))
def test_text_there_and_back(values: list[str]) -> None:
    text = encode(y=np.array([value.encode() for value in values], object))
    assert json.loads(text)["predictions"] == values
    assert decode({"instances": values}, ("x", 7))["x"][1].tolist() == [value.encode() for value in values]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "b64", "x"]), inner, max_size=3)
    ),
)


@settings(max_examples=500, deadline=None)
@given(_JSON, st.sampled_from(["instances", "inputs"]), st.sampled_from([1, 3, 7, 9, 10, 19, 23]), st.booleans())
def test_any_json_is_a_tensor_or_an_error(value: Any, key: str, dtype: int, two: bool) -> None:
    signature = [("a", dtype), ("b", 1)] if two else [("a", dtype)]
    try:
        decoded = decode({key: value}, *signature)
    except (InvalidArgumentError, UnimplementedError) as caught:
        caught.message.encode()
        return
    assert set(decoded) == {alias for alias, _ in signature}


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60) | st.text('[]{},:"0123456789.eE+-abinstances\\u ', max_size=60).map(str.encode))
def test_any_bytes_are_an_error_or_a_request(body: bytes) -> None:
    for function in (lambda: _graph.json_to_inputs(body, [A]), lambda: _graph.json_to_examples(body)):
        try:
            function()
        except TesseraError as caught:
            caught.message.encode()


def test_deep_nesting_is_refused_and_quoted_in_part() -> None:
    depth = 1_000_000
    message = error(b'{"instances": ' + b"[" * depth + b"]" * depth + b"}", A)
    assert "is nested more than 254 lists deep" in message
    assert len(message) < 1000


def test_parser_forgives_what_tensorflow_serving_forgives() -> None:
    assert decode(b'{"instances": [1, NaN, -Infinity]} and more', A)["a"][1].tolist()[2] == -math.inf
    assert decode(b'\xef\xbb\xbf{"inputs": 3}', A)["a"][1].tolist() == 3.0
    assert decode(b'{"inputs": [300, -1]}', ("a", 4))["a"][1].tolist() == [44, 255]
    assert decode({"inputs": {"a": [1], "z": "ignored"}}, A)["a"][1].tolist() == [1.0]
    assert decode({"inputs": {"b64": "aGkgeW91"}}, ("a", 7))["a"][1] == b"hi you"
    assert decode({"instances": [{"a": {"b64": "aGk"}}]}, ("a", 7))["a"][1].tolist() == [b"hi"]
    assert decode({"inputs": [2**63 - 1, -(2**63)]}, ("a", 9))["a"][1].tolist() == [2**63 - 1, -(2**63)]
    assert decode(b'{"inputs": [0.1, 123456789.123456789]}', ("a", 2))["a"][1].tolist() == [0.1, 123456789.123456789]
    assert decode({"instances": [[], []]}, A)["a"][1].shape == (2, 0)


GOLDEN: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "one": ('{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}', True, {"y": f32([2.5, 3, 4.5])}),
    "matrix": ('{\n    "predictions": [[1, 2], [3, 4]\n    ]\n}', True, {"y": i64([[1, 2], [3, 4]])}),
    "two": (
        '{\n    "predictions": [\n        {\n            "a": 1.0,\n            "b": [true, false]\n        }\n'
        "    ]\n}",
        True,
        {"a": f32([1]), "b": np.array([[True, False]])},
    ),
    "columns": (
        '{\n    "outputs": [\n        2.5,\n        3.0\n    ]\n}',
        False,
        {"y": f32([2.5, 3]).astype(float)},
    ),
    "two columns": (
        '{\n    "outputs": {\n        "a": 1,\n        "b": [\n            "x"\n        ]\n    }\n}',
        False,
        {"a": np.int32(1), "b": np.array([b"x"], object)},
    ),
    "empty": ('{\n    "predictions": []\n}', True, {"y": np.zeros([0, 3], np.float32)}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_answers_are_printed_as_tensorflow_serving_prints_them(name: str) -> None:
    text, rows, outputs = GOLDEN[name]
    assert encode(rows, **outputs) == text


def test_rows_need_a_common_first_dimension() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Tensor name: y has no shape information $"):
        encode(y=np.float32(1))
    with pytest.raises(InvalidArgumentError, match=r"^Tensor name: b has inconsistent batch size: 2 expecting: 1$"):
        encode(a=f32([1]), b=f32([1, 2]))
    with pytest.raises(InvalidArgumentError, match=r"^Cannot convert empty tensor map to JSON$"):
        encode()


def test_examples_take_their_kinds_from_the_tokens() -> None:
    body = {
        "context": {"c": "text"},
        "examples": [{"f": [1.5, -2.0], "i": [3, True], "s": ["x", {"b64": "aGk="}], "none": []}, {"i": 7}],
    }
    request = classification_pb2.ClassificationRequest.FromString(_graph.json_to_examples(json.dumps(body).encode()))
    expected = """
      context { features { feature { key: "c" value { bytes_list { value: "text" } } } } }
      examples { features {
        feature { key: "f" value { float_list { value: 1.5 value: -2.0 } } }
        feature { key: "i" value { int64_list { value: 3 value: 1 } } }
        feature { key: "s" value { bytes_list { value: "x" value: "hi" } } }
        feature { key: "none" value { } } } }
      examples { features { feature { key: "i" value { int64_list { value: 7 } } } } }
    """
    got = request.input.example_list_with_context
    assert got == text_format.Parse(expected, type(got)())


def test_results_of_classify_and_regress() -> None:
    classes = classification_pb2.ClassificationResponse()
    for row in ([("cat", 0.75), ("dog", 0.25)], []):
        added = classes.result.classifications.add()
        for label, score in row:
            added.classes.add(label=label, score=score)
    text = _graph.response_to_json("classify", classes.SerializeToString()).decode()
    assert text == '{\n    "results": [[["cat", 0.75], ["dog", 0.25]], []\n    ]\n}'
    values = regression_pb2.RegressionResponse()
    for value in (2.5, 3.0):
        values.result.regressions.add(value=value)
    text = _graph.response_to_json("regress", values.SerializeToString()).decode()
    assert text == '{\n    "results": [2.5, 3.0]\n}'
    with pytest.raises(InvalidArgumentError, match="empty RegressionResults"):
        _graph.response_to_json("regress", b"")


def test_lists_with_nothing_in_them_are_bounded() -> None:
    proto = typed(f32([]))
    del proto.tensor_shape.dim[:]
    for size in (1 << 30, 0):
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(InvalidArgumentError, match="more than 16777216 empty lists"):
        encode(y=proto)
