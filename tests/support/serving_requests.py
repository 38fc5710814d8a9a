"""Requests made with TensorFlow Serving's own classes, and a client of its own stubs. Imports TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

TIMEOUT_S = 20.0


class Client:
    """TensorFlow Serving's stubs over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    def call(self, method: str, request: Any) -> Any:
        """Call a method of either service by its name."""
        service = self.prediction if hasattr(self.prediction, method) else self.model
        return getattr(service, method)(request, timeout=TIMEOUT_S)


@contextlib.contextmanager
def client(address: str) -> Iterator[Client]:
    """Connect, insecurely."""
    with grpc.insecure_channel(address) as channel:
        yield Client(channel)


def spec(model: str, *, signature: str = "", version: int | None = None, label: str = "") -> Any:
    """Return a ModelSpec."""
    result = model_pb2.ModelSpec(name=model, signature_name=signature)
    if version is not None:
        result.version.value = version
    if label:
        result.version_label = label
    return result


def predict(
    model: str = "half",
    inputs: Mapping[str, Any] | None = None,
    *,
    output_filter: Sequence[str] = (),
    **choice: Any,
) -> Any:
    """Return a PredictRequest; `inputs` are float32 unless they are tensors already; x = 2 by default."""
    request = predict_pb2.PredictRequest(model_spec=spec(model, **choice), output_filter=output_filter)
    for alias, value in ({"x": [[2.0]]} if inputs is None else inputs).items():
        tensor = value if isinstance(value, tf.Tensor) else tf.constant(value, tf.float32)
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(tensor))
    return request


def examples(*values: float, feature: str = "x") -> Any:
    """Return an Input of one example for each value."""
    result = input_pb2.Input()
    for value in values:
        example = result.example_list.examples.add()
        example.features.feature[feature].float_list.value.append(value)
    return result


def classify(signature: str = "classify_x_to_y", given: Any = None, model: str = "half", **choice: Any) -> Any:
    """Return a ClassificationRequest of one example with x = 2."""
    return classification_pb2.ClassificationRequest(
        model_spec=spec(model, signature=signature, **choice), input=examples(2.0) if given is None else given
    )


def regress(signature: str = "regress_x_to_y", given: Any = None, model: str = "half", **choice: Any) -> Any:
    """Return a RegressionRequest of one example with x = 2."""
    return regression_pb2.RegressionRequest(
        model_spec=spec(model, signature=signature, **choice), input=examples(2.0) if given is None else given
    )


def multi_inference(*tasks: tuple[str, str], given: Any = None, model: str = "half") -> Any:
    """Return a MultiInferenceRequest; a task is (signature, last part of the method's name)."""
    request = inference_pb2.MultiInferenceRequest(input=examples(2.0) if given is None else given)
    for signature, method in tasks:
        request.tasks.add(model_spec=spec(model, signature=signature), method_name=f"tensorflow/serving/{method}")
    return request


def metadata(*fields: str, model: str = "half", **choice: Any) -> Any:
    """Return a GetModelMetadataRequest."""
    return get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec(model, **choice), metadata_field=fields)


def status(model: str = "half", **choice: Any) -> Any:
    """Return a GetModelStatusRequest."""
    return get_model_status_pb2.GetModelStatusRequest(model_spec=spec(model, **choice))


def answer_of(calls: Client, model: str = "half") -> tuple[float, int]:
    """Ask for x = 2 and return (y, version that answered)."""
    response = calls.call("Predict", predict(model))
    return response.outputs["y"].float_val[0], response.model_spec.version.value
