"""REST's JSON and TensorFlow's own messages: what the tests of both directions share. Imports TensorFlow."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2

from cpp_ext import _graph
from support import small_models  # noqa: F401  (sets TensorFlow's environment)
from tessera.errors import InvalidArgumentError

A, B = ("a", 1), ("b", 1)
"""Inputs of a signature: alias and DataType, here float."""


def decode(body: Any, *signature: tuple[str, int]) -> dict[str, tuple[int, Any]]:
    """Return alias → (dtype, values) of a predict's body."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = predict_pb2.PredictRequest.FromString(_graph.json_to_inputs(text, list(signature))[1])
    return {alias: (proto.dtype, tf.make_ndarray(proto)) for alias, proto in request.inputs.items()}


def encode(rows: bool = True, **outputs: Any) -> str:
    """Return the JSON of tensors; an np.ndarray is sent in typed fields."""
    response = predict_pb2.PredictResponse()
    for alias, value in outputs.items():
        proto = value if isinstance(value, TensorProto) else typed(value)
        response.outputs[alias].CopyFrom(proto)
    return _graph.response_to_json("predict", response.SerializeToString(), rows=rows).decode()


def typed(value: Any, content: bool = False) -> Any:
    proto = tf.make_tensor_proto(value)
    return type(proto).FromString(_graph.recode_tensor(proto.SerializeToString(), tensor_content=content))


def error(body: Any, *signature: tuple[str, int]) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        decode(body, *signature)
    return caught.value.message
