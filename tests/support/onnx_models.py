"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def save_onnx(
    directory: Path,
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: dict[str, tuple[int, Sequence[Any]]],
    weights: dict[str, Array] | None = None,
    **options: Any,
) -> Path:
    """Write `model.onnx` to a new version directory; names of dimensions stand for any size."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    directory.mkdir(parents=True)
    onnx.save_model(model, str(directory / "model.onnx"), **options)
    return directory


def save_linear(directory: Path, weights: Array, **options: Any) -> Path:
    """Write y = x · weights, with `mean`, the mean of each row."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("ReduceMean", ["y"], ["mean"], axes=[1], keepdims=0),
    ]
    rows, columns = weights.shape
    return save_onnx(
        directory,
        nodes,
        {"x": (FLOAT, ["n", rows])},
        {"y": (FLOAT, ["n", columns]), "mean": (FLOAT, ["n"])},
        {"w": weights},
        **options,
    )
