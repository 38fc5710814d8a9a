"""SavedModels with batched regions for tests, and many requests to them at once. Imports TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from batching.library import batch_op, unbatch_op
from cpp_ext import _graph
from tessera.errors import TesseraError

Array = np.ndarray[Any, Any]
Answer = dict[str, Array] | TesseraError
NO_PAD: dict[str, Any] = {"pad_dims": [], "pad_values": [], "length_buckets": []}
NO_TRIM: dict[str, Any] = {"trim_dims": [], "trim_inputs": []}


def spec(*shape: int | None, dtype: Any = tf.float32) -> tf.TensorSpec:
    """Return the spec of rows of this shape."""
    return tf.TensorSpec((None, *shape), dtype)


def save(path: Path, function: Callable[..., Any], **inputs: tf.TensorSpec) -> Path:
    """Write a SavedModel whose only signature is `function` of these inputs."""
    module = tf.Module()
    specs = [tf.TensorSpec(given.shape, given.dtype, name=name) for name, given in inputs.items()]
    module.serve = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path


def pair(tensors: Sequence[Any], region: str, inside: Callable[..., Any], pad: Any = None, trim: Any = None) -> Any:
    """Add the bare ops around `inside`, without the checks that `batching.batch` makes."""
    batched, token = batch_op(list(tensors), region, pad or NO_PAD)
    outputs = inside(*batched)
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    return unbatch_op(outputs, token, trim or NO_TRIM)


def load(path: Path, policy: Mapping[str, Any] | None = None, **options: Any) -> _graph.Graph:
    """Load the model, with one policy for all of its regions."""
    graph = _graph.Graph.load(str(path), name="m:1", **options)
    if policy is not None:
        graph.set_batching({region: _graph.BatchPolicy(**policy) for region in graph.batch_regions})
    return graph


def together(rows: int, **fields: Any) -> dict[str, Any]:
    """Return a policy with which `rows` rows run as one batch; fewer wait for two seconds."""
    return {"max_batch_size": rows, "batch_timeout_micros": 2_000_000} | fields


def answer(graph: _graph.Graph, inputs: Mapping[str, Array], timeout_s: float = 60.0) -> Answer:
    """Return the outputs, or the error that the request ended with."""
    try:
        return dict(graph.run("serving_default", inputs, timeout_s=timeout_s))
    except TesseraError as error:
        return error


def answer_all(graph: _graph.Graph, requests: Sequence[Mapping[str, Array]], timeout_s: float = 60.0) -> list[Answer]:
    """Run all requests from threads of their own, begun at one moment; return the answers in their order."""
    barrier = threading.Barrier(len(requests))

    def call(inputs: Mapping[str, Array]) -> Answer:
        barrier.wait(60)
        return answer(graph, inputs, timeout_s)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(call, requests))


def good(answer: Answer) -> dict[str, Array]:
    """Return the outputs; raise the error if it is one."""
    if isinstance(answer, TesseraError):
        raise answer
    return answer
