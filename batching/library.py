"""The op library in TensorFlow: loading it, and making its two ops."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_library, op_def_registry

from tessera.errors import FailedPreconditionError, NotFoundError

_FILE = "libtessera_ops.so"


@functools.cache
def load_op_library() -> Path:
    """Load Tessera's ops into TensorFlow, once, and return the library's file.

    Raises:
        NotFoundError: it is not installed.
        FailedPreconditionError: it is older than this module.
    """
    # Not by `import cpp_ext`, which chooses TensorFlow's kernels for serving: a process that trains keeps its own.
    files = [Path(folder) / "cpp_ext" / _FILE for folder in sys.path]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        raise NotFoundError(f"{_FILE}: there is none in a folder cpp_ext on sys.path, expected an installed Tessera")
    tf.load_op_library(str(file))
    if op_def_registry.get("TesseraBatch") is None:
        raise FailedPreconditionError(
            f"{file}: has no op TesseraBatch, expected the library of this version of Tessera"
        )
    return file


def batch_op(tensors: list[tf.Tensor], region: str, attributes: dict[str, Any]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Add a TesseraBatch to the function that is traced; return its batched tensors and its token."""
    batched, token = _apply("TesseraBatch", name="TesseraBatch", tensors=tensors, region=region, **attributes)
    return list(batched), token


def unbatch_op(tensors: list[tf.Tensor], token: tf.Tensor, attributes: dict[str, Any]) -> list[tf.Tensor]:
    """Add a TesseraUnbatch to the function that is traced; return its tensors."""
    return list(_apply("TesseraUnbatch", name="TesseraUnbatch", tensors=tensors, token=token, **attributes))


def _apply(op: str, **arguments: Any) -> Any:
    # Not by what tf.load_op_library returns: that is empty when `_graph` has loaded the library before.
    return op_def_library.apply_op(op, **arguments)


@tf.RegisterGradient("TesseraBatch")  # type: ignore[untyped-decorator]
def _batch_gradient(op: tf.Operation, *gradients: tf.Tensor) -> list[tf.Tensor]:
    return list(gradients[:-1])  # the last is of the token


@tf.RegisterGradient("TesseraUnbatch")  # type: ignore[untyped-decorator]
def _unbatch_gradient(op: tf.Operation, *gradients: tf.Tensor) -> list[tf.Tensor | None]:
    return [*gradients, None]
