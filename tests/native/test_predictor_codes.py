"""Codes and texts of wrong requests, method by method: the table of TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow_serving.apis import inference_pb2, input_pb2, predict_pb2

from cpp_ext import _graph
from support import example_models as models
from support import small_models
from support.example_models import CLASSIFY, REGRESS, example, example_input
from support.fake_abi import HandlerClient
from support.small_models import f32
from tessera.errors import Code

pytestmark = pytest.mark.native

METHODS = ("Predict", "Classify", "Regress", "MultiInference")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HandlerClient]:
    """Clients of all methods of one predictor: model `m` has heads, `two` two inputs, `defaults` one with a default."""
    folder = tmp_path_factory.mktemp("codes")
    two = folder / "two"
    with tf.Graph().as_default():
        a, b = (tf.compat.v1.placeholder(tf.float32, [None], name=name) for name in ("a", "b"))
        small_models.save_v1(two, {"serving_default": ({"a": a, "b": b}, {"sum": a + b})})
    predictor = _graph.Predictor()
    predictor.publish(
        {
            "m": [_version(models.heads(folder / "m", more=True), 3, ["stable"])],
            "two": [_version(two, 1)],
            "half": [_version(small_models.half_plus(folder / "half", 1.0), 1)],
            "defaults": [_version(_with_default(folder / "defaults"), 1)],
        },
        labels={"m": {"stable": 3, "gone": 7}, "none": {"x": 1}},
    )
    return {method: HandlerClient(predictor.handler(method)) for method in METHODS}


def _version(path: Path, version: int, labels: list[str] | None = None) -> _graph.Version:
    return _graph.Version(version=version, graph=_graph.Graph.load(str(path)), labels=labels or [])


def _with_default(path: Path) -> Path:
    """y = x + b, where b is 10 unless the request has it."""
    from tensorflow.core.protobuf import saved_model_pb2

    with tf.Graph().as_default():
        x, b = (tf.compat.v1.placeholder(tf.float32, name=name) for name in ("x", "b"))
        small_models.save_v1(path, {"serving_default": ({"x": x, "b": b}, {"y": x + b})})
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signature = model.meta_graphs[0].signature_def["serving_default"]
    signature.defaults["b"].CopyFrom(tf.make_tensor_proto(f32(10.0)))
    file.write_bytes(model.SerializeToString())
    return path


def predict(model: str = "half", **inputs: Any) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    for alias, value in inputs.items():
        message.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return message


def multi(*tasks: tuple[str, str], model: str = "m") -> inference_pb2.MultiInferenceRequest:
    request: inference_pb2.MultiInferenceRequest = models.multi_inference(tasks, 0.5, model=model)
    return request


def valid(method: str, model: str = "m") -> Any:
    """Return a request that succeeds when the model is `m`."""
    if method == "Predict":
        return predict(model, inputs=[example(x=0.5).SerializeToString()])
    if method == "MultiInference":
        return multi(("regress", REGRESS), model=model)
    return models.classification(0.5, model=model) if method == "Classify" else models.regression(0.5, model=model)


def spec_of(message: Any) -> Any:
    return (
        message.tasks[0].model_spec if isinstance(message, inference_pb2.MultiInferenceRequest) else message.model_spec
    )


def changed(message: Any, change: Callable[[Any], object]) -> Any:
    change(message)
    return message


@pytest.mark.parametrize("method", METHODS)
def test_valid_requests_succeed(clients: dict[str, HandlerClient], method: str) -> None:
    call = clients[method].call(valid(method).SerializeToString())
    assert (call.code, call.message) == (0, "")


def _no_spec(method: str) -> Any:
    message = valid(method)
    message.ClearField("model_spec")
    return message


MISSING = "Servable not found for request: "
OF_EVERY_METHOD: list[tuple[str, Callable[[str], Any], Code, str]] = [
    ("no name", lambda m: valid(m, ""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ("unknown model", lambda m: valid(m, "nobody"), Code.NOT_FOUND, MISSING + "Latest(nobody)"),
    (
        "unknown version",
        lambda m: changed(valid(m), lambda r: setattr(spec_of(r).version, "value", 7)),
        Code.NOT_FOUND,
        MISSING + "Specific(m, 7)",
    ),
    (
        "unknown label",
        lambda m: changed(valid(m), lambda r: setattr(spec_of(r), "version_label", "L")),
        Code.INVALID_ARGUMENT,
        "Unrecognized servable version label: L",
    ),
    (
        "label of a version that is not available",
        lambda m: changed(valid(m), lambda r: setattr(spec_of(r), "version_label", "gone")),
        Code.NOT_FOUND,
        MISSING + "Specific(m, 7)",
    ),
    (
        "label of a model that is not available",
        lambda m: changed(valid(m, "none"), lambda r: setattr(spec_of(r), "version_label", "x")),
        Code.NOT_FOUND,
        MISSING + "Specific(none, 1)",
    ),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("make", "code", "text"), [row[1:] for row in OF_EVERY_METHOD], ids=[r[0] for r in OF_EVERY_METHOD]
)
def test_what_all_methods_say_of_a_model_spec(
    clients: dict[str, HandlerClient], method: str, make: Callable[[str], Any], code: Code, text: str
) -> None:
    call = clients[method].call(make(method).SerializeToString())
    assert (call.code, call.message) == (code, text)


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_are_not_known_yet(method: str) -> None:
    predictor = _graph.Predictor()
    predictor.publish({}, labels={"m": {"gone": 7}}, labels_known=False)
    client = HandlerClient(predictor.handler(method))
    for label, expected in (
        ("L", (Code.UNAVAILABLE, "Model labels does not init yet.L")),
        ("gone", (Code.NOT_FOUND, MISSING + "Specific(m, 7)")),
    ):
        spec_of(request := valid(method)).version_label = label
        call = client.call(request.SerializeToString())
        assert (call.code, call.message) == expected
    predictor.publish({})
    call = client.call(request.SerializeToString())
    assert (call.code, call.message) == (Code.INVALID_ARGUMENT, "Unrecognized servable version label: gone")


@pytest.mark.parametrize("method", METHODS[:3])
def test_no_model_spec(clients: dict[str, HandlerClient], method: str) -> None:
    call = clients[method].call(_no_spec(method).SerializeToString())
    assert (call.code, call.message) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")


def test_no_task_at_all(clients: dict[str, HandlerClient]) -> None:
    call = clients["MultiInference"].call(inference_pb2.MultiInferenceRequest().SerializeToString())
    assert (call.code, call.message) == (Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")


def _filtered(*aliases: str) -> Any:
    return changed(predict(x=f32([1])), lambda r: r.output_filter.extend(aliases))


def _broken(**fields: Any) -> Any:
    message = predict()
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(f32([1, 2])))
    for name, value in fields.items():
        setattr(message.inputs["x"], name, value)
    return message


OF_PREDICT: list[tuple[str, Message, Code, str]] = [
    (
        "unknown signature",
        changed(predict(x=f32([1])), lambda r: setattr(r.model_spec, "signature_name", "S")),
        Code.FAILED_PRECONDITION,
        'Serving signature key "S" not found.',
    ),
    (
        "too few inputs",
        predict("two", a=f32([1])),
        Code.INVALID_ARGUMENT,
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
    ),
    (
        "too many inputs",
        predict("two", a=f32([1]), b=f32([1]), c=f32([1])),
        Code.INVALID_ARGUMENT,
        "input size does not match signature: 3!=2 len({a,b,c}) != len({a,b}). Sent extra: {c}. "
        "Missing but required: {}.",
    ),
    (
        "wrong name",
        predict("two", a=f32([1]), c=f32([1])),
        Code.INVALID_ARGUMENT,
        "Signature input alias: b(feed name: b:0) not found in request and no default value provided. Inputs expected "
        "to be in the request {a,b}, or default input alias set: ",
    ),
    (
        "missing input, another has a default",
        predict("defaults", b=f32(1)),
        Code.INVALID_ARGUMENT,
        "Signature input alias: x(feed name: x:0) not found in request and no default value provided. Inputs expected "
        "to be in the request {b,x}, or default input alias set: b",
    ),
    (
        "superfluous input, another has a default",
        predict("defaults", x=f32(1), c=f32(1)),
        Code.INVALID_ARGUMENT,
        "Inputs contains invalid name. Used request inputs: b,x, request input: c,x",
    ),
    ("wrong size", _broken(tensor_content=b"123"), Code.INVALID_ARGUMENT, "tensor parsing error: x"),
    ("wrong dtype number", _broken(dtype=0), Code.INVALID_ARGUMENT, "tensor parsing error: x"),
    (
        "unknown output",
        _filtered("Z"),
        Code.INVALID_ARGUMENT,
        "output tensor alias not found in signature: Z Outputs expected to be in the set {y}.",
    ),
    ("output twice", _filtered("y", "y"), Code.INVALID_ARGUMENT, "duplicate output tensor alias: y"),
    (
        "wrong dtype",
        predict(x=[1, 2]),
        Code.INVALID_ARGUMENT,
        "Type mismatch: actual int32 vs. expect float for input x",
    ),
    (
        "no example",
        predict("m", inputs=[b"\xff\xff"]),
        Code.INVALID_ARGUMENT,
        "Could not parse example input, value: '??'",
    ),
    (
        "example without the feature",
        predict("m", inputs=[b""]),
        Code.INVALID_ARGUMENT,
        "Name: <unknown>, Feature: x (data type: float) is required but could not be found.",
    ),
]


@pytest.mark.parametrize(("message", "code", "text"), [row[1:] for row in OF_PREDICT], ids=[r[0] for r in OF_PREDICT])
def test_what_predict_says(clients: dict[str, HandlerClient], message: Message, code: Code, text: str) -> None:
    call = clients["Predict"].call(message.SerializeToString())
    assert (call.code, call.message.split("\n\t [[{{node ")[0]) == (code, text)


BAD_EXAMPLE = "Name: <unknown>, Feature: x (data type: float) is required but could not be found."
OF_INFERENCE: list[tuple[str, str, Any, str]] = [
    ("no signature", "Classify", models.classification(0.5, signature="S"), "No signature was found with the name: S"),
    ("no signature", "Regress", models.regression(0.5, signature="S"), "No signature was found with the name: S"),
    ("no default", "Regress", models.regression(0.5, model="two", signature=""), "Expected one input Tensor."),
    ("no examples", "Classify", models.classification(), "Input is empty."),
    ("no examples", "Regress", models.regression(input_=example_input(context=example())), "Input is empty."),
    ("no input", "Regress", models.regression(input_=input_pb2.Input()), "Input is empty."),
    ("without feature", "Classify", models.classification(input_=example_input(example())), BAD_EXAMPLE),
    ("inputs", "Classify", models.classification(0.5, model="two"), "Expected one input Tensor."),
    ("outputs", "Regress", models.regression(0.5, signature="classify"), "Expected one output Tensor."),
    (
        "input name",
        "Regress",
        models.regression(0.5, signature="predict"),
        "No regression inputs found in SignatureDef: inputs {examples} outputs {outputs} "
        'method_name: "tensorflow/serving/predict"',
    ),
    (
        "input name",
        "Classify",
        models.classification(0.5, signature="predict"),
        "No classification inputs found in SignatureDef: inputs {examples} outputs {outputs} "
        'method_name: "tensorflow/serving/predict"',
    ),
    (
        "output name",
        "Regress",
        models.regression(0.5, signature="count"),
        "No regression outputs found in SignatureDef: inputs {inputs} outputs {runs} "
        'method_name: "tensorflow/serving/predict"',
    ),
    (
        "output name",
        "Classify",
        models.classification(0.5, signature="regress"),
        'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: '
        'inputs {inputs} outputs {outputs} method_name: "tensorflow/serving/regress"',
    ),
    (
        "rank",
        "Classify",
        models.classification(0.5, signature="flat_scores"),
        "Expected Tensor shape: [batch_size num_classes] but got [1]",
    ),
    (
        "dtype",
        "Classify",
        models.classification(0.5, signature="int_scores"),
        "Expected scores Tensor of DT_FLOAT. Got: DT_INT32",
    ),
    (
        "rows",
        "Regress",
        models.regression(0.5, 0.5, 0.5, signature="half_batch"),
        "Input batch size did not match output batch size: 3 vs. 1",
    ),
]


@pytest.mark.parametrize(
    ("method", "message", "text"), [row[1:] for row in OF_INFERENCE], ids=[f"{r[1]}, {r[0]}" for r in OF_INFERENCE]
)
def test_what_classify_and_regress_say(
    clients: dict[str, HandlerClient], method: str, message: Message, text: str
) -> None:
    call = clients[method].call(message.SerializeToString())
    assert (call.code, call.message.split("\n\t [[{{node ")[0]) == (Code.INVALID_ARGUMENT, text)


def _renamed(message: Any, task: int, model: str) -> Any:
    message.tasks[task].model_spec.name = model
    return message


PAIR = (("regress", REGRESS), ("classify", CLASSIFY))
OF_TASKS: list[tuple[str, Any, Code, str]] = [
    (
        "empty name",
        _renamed(multi(*PAIR), 1, ""),
        Code.INVALID_ARGUMENT,
        "Found ModelSpec with an empty model name.",
    ),
    (
        "two models",
        _renamed(multi(*PAIR), 1, "half"),
        Code.INVALID_ARGUMENT,
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    (
        "signature twice",
        multi(("", CLASSIFY), ("serving_default", CLASSIFY)),
        Code.INVALID_ARGUMENT,
        "Duplicate evaluation of signature: serving_default",
    ),
    (
        "unknown signature",
        multi(("regress", REGRESS), ("S", CLASSIFY)),
        Code.INVALID_ARGUMENT,
        "Requested signature not found in model graph: S",
    ),
    (
        "method",
        multi(("regress", REGRESS), ("predict", "tensorflow/serving/predict")),
        Code.UNIMPLEMENTED,
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
    (
        "outputs of another method",
        multi(("regress", REGRESS), ("classify", REGRESS)),
        Code.INVALID_ARGUMENT,
        "Expected one output Tensor.",
    ),
    (
        "no examples",
        changed(multi(*PAIR), lambda r: r.ClearField("input")),
        Code.INVALID_ARGUMENT,
        "Input is empty.",
    ),
    (
        "one task's result",
        multi(("regress", REGRESS), ("flat_scores", CLASSIFY)),
        Code.INVALID_ARGUMENT,
        "Expected Tensor shape: [batch_size num_classes] but got [1]",
    ),
]


@pytest.mark.parametrize(("message", "code", "text"), [row[1:] for row in OF_TASKS], ids=[r[0] for r in OF_TASKS])
def test_what_multi_inference_says(clients: dict[str, HandlerClient], message: Message, code: Code, text: str) -> None:
    call = clients["MultiInference"].call(message.SerializeToString())
    assert (call.code, call.message) == (code, text)


@pytest.mark.parametrize("method", METHODS)
def test_a_message_that_is_not_protobuf(clients: dict[str, HandlerClient], method: str) -> None:
    call = clients[method].call(b"\x0a\xff")
    assert call.code == Code.INVALID_ARGUMENT
    assert "the message of 2 bytes cannot be parsed" in call.message


@pytest.mark.parametrize("shape", [[], [1], [3], [2, 2], [0]])
def test_feeds_of_other_shapes_than_the_static_one_are_run(clients: dict[str, HandlerClient], shape: list[int]) -> None:
    value = tf.ones(shape).numpy()  # the input's static shape is [None]
    call = clients["Predict"].call(predict(x=value).SerializeToString())
    assert call.code == 0, call.message
    result = tf.make_ndarray(predict_pb2.PredictResponse.FromString(call.response).outputs["y"])
    assert result.shape == tuple(shape)
    assert (result == 1.5).all()
