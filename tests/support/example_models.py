"""Models whose signatures classify and regress tf.Examples, and the requests for them. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, regression_pb2

from support import small_models  # noqa: F401  # sets the environment of TensorFlow
from support.batch_calls import pair

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def heads(path: Path, *, more: bool = False, region: bool = False) -> Path:
    """Feature x → scores [x, 1 - x] of the classes "no" and "yes", and the regression 2 x + 1.

    Signatures: serving_default and classify (both outputs), scores_only, regress, and regress_column (its output has
    shape [n, 1]). With `more` also classes_only and those that misfit: flat_scores, int_scores, half_batch.
    With `region` scores and regression are calculated in the batched region "head".
    `predict` has the input "examples"; `count` has an output "runs": how often the examples were parsed, whatever the
    signature.
    """
    v1 = tf.compat.v1
    signature = v1.saved_model
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="examples")
        runs = v1.get_variable("runs", [], tf.int64, v1.zeros_initializer(), use_resource=True)
        count = runs.read_value()
        parsed = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        with tf.control_dependencies([runs.assign_add(1)]):
            x = tf.identity(parsed)
        scores, column = tf.concat([x, 1.0 - x], 1, name="scores"), 2.0 * x + 1.0
        if region:
            scores, column = pair([x], "head", lambda rows: [tf.concat([rows, 1.0 - rows], 1), 2.0 * rows + 1.0])
        classes = tf.tile(tf.constant([["no", "yes"]]), [tf.shape(x)[0], 1])
        value = tf.squeeze(column, 1)
        classify = signature.classification_signature_def(serialized, classes, scores)

        def custom(method: str, **outputs: Any) -> Any:
            return signature.build_signature_def(
                {"inputs": signature.build_tensor_info(serialized)},
                {name: signature.build_tensor_info(tensor) for name, tensor in outputs.items()},
                method,
            )

        signatures = {
            "serving_default": classify,
            "classify": classify,
            "scores_only": custom(CLASSIFY, scores=scores),
            "regress": signature.regression_signature_def(serialized, value),
            "regress_column": custom(REGRESS, outputs=column),
            "predict": signature.predict_signature_def({"examples": serialized}, {"outputs": value}),
            "count": signature.predict_signature_def({"inputs": serialized}, {"runs": count}),
        }
        if more:
            signatures |= {
                "classes_only": custom(CLASSIFY, classes=classes),
                "flat_scores": custom(CLASSIFY, scores=value),
                "int_scores": custom(CLASSIFY, scores=tf.cast(scores, tf.int32)),
                "half_batch": custom(REGRESS, outputs=value[: tf.shape(value)[0] // 2]),
            }
        session.run(v1.global_variables_initializer())
        builder = signature.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()
    return path


def example(**features: float | Sequence[float]) -> tf.train.Example:
    """Return an Example of float features."""
    message = tf.train.Example()
    for name, value in features.items():
        values = [value] if isinstance(value, int | float) else list(value)
        message.features.feature[name].float_list.value.extend(values)
    return message


def example_input(*examples: tf.train.Example, context: tf.train.Example | None = None) -> input_pb2.Input:
    """Return an Input; with a context when one is given."""
    message = input_pb2.Input()
    if context is None:
        message.example_list.examples.extend(examples)
    else:
        message.example_list_with_context.context.CopyFrom(context)
        message.example_list_with_context.examples.extend(examples)
    return message


def classification(
    *xs: float, model: str = "m", signature: str = "", input_: input_pb2.Input | None = None
) -> classification_pb2.ClassificationRequest:
    """Return a request that classifies examples with these values of x."""
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.CopyFrom(input_ if input_ is not None else example_input(*(example(x=x) for x in xs)))
    return request


def regression(
    *xs: float, model: str = "m", signature: str = "regress", input_: input_pb2.Input | None = None
) -> regression_pb2.RegressionRequest:
    """Return a request that regresses examples with these values of x."""
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.CopyFrom(input_ if input_ is not None else example_input(*(example(x=x) for x in xs)))
    return request


def multi_inference(tasks: Sequence[tuple[str, str]], *xs: float, model: str = "m") -> Any:
    """Return a request for (signature, method name) tasks on examples with these values of x."""
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    request.input.CopyFrom(example_input(*(example(x=x) for x in xs)))
    return request
