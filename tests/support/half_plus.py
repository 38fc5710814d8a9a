"""Writes the models of TensorFlow Serving's own tests, y = x / 2 + b with all kinds of signatures, with TensorFlow.

A program of its own where a test must not import TensorFlow: `python half_plus.py DIRECTORY OFFSET [SCALE]`.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1


def half_plus(path: Path, offset: float, scale: float = 0.5) -> Path:
    """Write a SavedModel; y = x * scale + offset, y2 = x * scale + offset + 1.

    Signatures: serving_default (predict, float x [-1, 1] → y), two_outputs (x → y, y2), two_inputs (x, z → x + z),
    regress_x_to_y, regress_x_to_y2, classify_x_to_y, classify_labels (with classes "a", "b"), all four of serialized
    tf.Examples with the feature x, and of another dtype: strings (s → s, s_bytes) and halves.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=float(scale), use_resource=True)
        b = v1.get_variable("b", initializer=float(offset), use_resource=True)
        examples = v1.placeholder(tf.string, [None], "tf_example")
        feature = v1.parse_example(examples, {"x": v1.FixedLenFeature([1], tf.float32)})["x"]
        x = v1.placeholder(tf.float32, [None, 1], "x")
        z = v1.placeholder(tf.float32, [None, 1], "z")
        s = v1.placeholder(tf.string, [None], "s")
        h = v1.placeholder(tf.half, [None], "h")
        y, y2 = a * x + b, a * x + b + 1.0
        ye, ye2 = a * feature + b, a * feature + b + 1.0
        scores = tf.concat([ye, ye2], 1)
        labels = tf.tile(tf.constant([["a", "b"]]), [tf.shape(examples)[0], 1])
        predict, regress, classify = (f"tensorflow/serving/{kind}" for kind in ("predict", "regress", "classify"))
        signatures = {
            "serving_default": _signature({"x": x}, {"y": y}, predict),
            "two_outputs": _signature({"x": x}, {"y": y, "y2": y2}, predict),
            "two_inputs": _signature({"x": x, "z": z}, {"sum": x + z}, predict),
            "regress_x_to_y": _signature({"inputs": examples}, {"outputs": ye}, regress),
            "regress_x_to_y2": _signature({"inputs": examples}, {"outputs": ye2}, regress),
            "classify_x_to_y": _signature({"inputs": examples}, {"scores": ye}, classify),
            "classify_labels": _signature({"inputs": examples}, {"classes": labels, "scores": scores}, classify),
            "strings": _signature({"s": s}, {"s": tf.identity(s), "s_bytes": tf.identity(s)}, predict),
            "halves": _signature({"h": h}, {"h": tf.identity(h)}, predict),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return path


def _signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str) -> Any:
    def infos(tensors: dict[str, Any]) -> dict[str, Any]:
        return {alias: v1.saved_model.build_tensor_info(tensor) for alias, tensor in tensors.items()}

    return v1.saved_model.build_signature_def(infos(inputs), infos(outputs), method)


if __name__ == "__main__":
    half_plus(Path(sys.argv[1]), float(sys.argv[2]), *(float(text) for text in sys.argv[3:]))
