"""Write messages for the fuzzers to start from: `python tests/fuzz/write_seeds.py FOLDER` makes FOLDER/<fuzzer>/*."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from support import example_models as models
from support.example_models import CLASSIFY, REGRESS, example, example_input


def requests() -> list[tuple[int, bytes]]:
    """Return (number of the method, message)."""
    predict = predict_pb2.PredictRequest(client_id=b"c")
    predict.model_spec.name = "m"
    predict.model_spec.version.value = 3
    predict.output_filter.extend(["y", "z"])
    values: list[Any] = [
        np.array([1, 2], np.float32),
        np.array([[1]], np.int64),
        np.array([b"a", b"bc"], object),
        np.array([1j], np.complex64),
        np.array([True]),
    ]
    for i, value in enumerate(values):
        predict.inputs[f"packed{i}"].CopyFrom(tf.make_tensor_proto(value))
        predict.inputs[f"plain{i}"].CopyFrom(tf.compat.v1.make_tensor_proto(value[:1]))
    label = models.classification(0.5)
    label.model_spec.version_label = "stable"
    context = models.regression(input_=example_input(example(x=1), context=example(y=2)))
    multi = models.multi_inference([("a", REGRESS), ("b", CLASSIFY)], 0.5)
    return [
        (0, predict.SerializeToString()),
        (1, label.SerializeToString()),
        (2, context.SerializeToString()),
        (3, multi.SerializeToString()),
    ]


def rest_bodies() -> list[tuple[int, bytes]]:
    """Return (number of the conversion, see rest_json_fuzz.cc, text or message)."""
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(tf.compat.v1.make_tensor_proto([1.0, 2.0]))
    response.outputs["z_bytes"].CopyFrom(tf.make_tensor_proto(np.array([b"a", b"bc"], object)))
    return [
        (1, b'{"instances": [[1.5, NaN], [2, -Infinity]]}'),
        (7, b'{"signature_name": "s", "instances": [{"a": {"b64": "aGk="}, "b": 1}]}'),
        (9, b'{"inputs": {"a": [[1], [2]], "b": 1e300}}'),
        (30, response.SerializeToString()),
        (31, b'{"context": {"c": "x"}, "examples": [{"f": [1.5, 2.0], "i": [1, true], "s": ["x", {"b64": "aGk="}]}]}'),
    ]


if __name__ == "__main__":
    for fuzzer, messages in {"request_fuzz": requests(), "rest_json_fuzz": rest_bodies()}.items():
        folder = Path(sys.argv[1]) / fuzzer
        folder.mkdir(parents=True, exist_ok=True)
        for number, message in messages:
            (folder / f"seed{number}").write_bytes(bytes([number]) + message)
