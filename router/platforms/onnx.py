"""Platform `onnxruntime`: `model.onnx` in the version's directory, run by ONNX Runtime on the CPU.

The signature `serving_default` has the model's own names of inputs and outputs. Needs the extra `onnx`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from cpp_ext import _graph
from router.platforms import wire
from router.platforms.base import LoadOptions, MemoryEstimate
from router.platforms.files import size_bytes
from router.platforms.foreign import Arrays, make_graph
from router.platforms.tensors import SERVING_DEFAULT, Signature, Tensor
from tessera.errors import (
    DataLossError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
)

MODEL_FILE = "model.onnx"
_log = logging.getLogger("router.platforms")
_DTYPES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "bfloat16", "bool", "string")},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_GRAPH, _INITIALIZER, _EXTERNAL, _KEY, _VALUE = 7, 5, 13, 1, 2  # of ModelProto, GraphProto, TensorProto, its entries


class OnnxPlatform:
    """See `router.platforms.base.Platform`."""

    name = "onnxruntime"

    def is_complete(self, path: Path) -> bool:
        """Return whether the model is not cut off, and the files that it keeps weights in are as long as it says."""
        try:
            return all(file.stat().st_size >= size for file, size in _files(path))
        except (OSError, ValueError):
            return False

    def estimate(self, path: Path) -> MemoryEstimate:
        """Return the bytes of the model and its weights; the file is in memory a second time while it is read."""
        model = path / MODEL_FILE
        if not model.is_file():
            raise NotFoundError(f"path: no {MODEL_FILE} in {path}")
        resident = size_bytes(path)
        return MemoryEstimate(resident, resident + model.stat().st_size)

    def load(self, path: Path, options: LoadOptions) -> _graph.Graph:
        """Load the model; see `Platform.load`."""
        session = _load(path / MODEL_FILE, options.intra_op_threads)
        inputs = {node.name: _tensor("input", node) for node in session.get_inputs()}
        outputs = {node.name: _tensor("output", node) for node in session.get_outputs()}
        model = _Model(session, tuple(name for name, tensor in inputs.items() if tensor.dtype == "string"))
        signatures = {SERVING_DEFAULT: Signature(inputs, outputs)}
        return make_graph(path, options, signatures, model.run, workers=max(2, os.cpu_count() or 1))


class _Model:
    """One loaded model. Thread-safe, as sessions are."""

    def __init__(self, session: ort.InferenceSession, strings: tuple[str, ...]) -> None:
        self._session, self._strings = session, strings

    def run(self, _: str, inputs: dict[str, np.ndarray[Any, Any]], outputs: list[str]) -> Arrays:
        """Run the model; the runtime lets go of the GIL meanwhile.

        Raises:
            InvalidArgumentError: the runtime refuses the inputs.
            InternalError: anything else went wrong.
        """
        for name in self._strings:
            inputs[name] = _decoded(name, inputs[name])
        try:
            values = self._session.run(outputs, inputs)
        except Exception as error:
            text = f"{MODEL_FILE}: {error}"
            refused = type(error).__name__ == "InvalidArgument"
            raise (InvalidArgumentError(text) if refused else InternalError(text)) from error
        return dict(zip(outputs, values, strict=True))


def _load(file: Path, intra_op_threads: int) -> ort.InferenceSession:
    if not file.is_file():
        raise NotFoundError(f"path: no {MODEL_FILE} in {file.parent}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the cores from the threads that serve.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    before = _threads()
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        damaged = type(error).__name__ == "InvalidProtobuf"
        raise (DataLossError if damaged else FailedPreconditionError)(f"{file}: {error}") from error
    _restore_priority(_threads() - before)
    return session


def _threads() -> set[int]:
    """Return the threads of this process that are not Python's."""
    every = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    return every - {thread.native_id for thread in threading.enumerate()}


def _restore_priority(threads: set[int]) -> None:
    """Give `threads` the process's priority: models are loaded at a low one, which the session's threads inherit."""
    try:
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, os.getpid()))
    except ProcessLookupError:
        return  # it was somebody else's, and has ended
    except PermissionError:
        _log.warning("large operations of ONNX models run at low priority: raising it needs CAP_SYS_NICE")


def _tensor(kind: str, node: ort.NodeArg) -> Tensor:
    dtype = _DTYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise FailedPreconditionError(f"{MODEL_FILE}: {kind} {node.name} is a {node.type}, expected a tensor")
    # A scalar looks as a tensor of unknown rank does. Names stand for sizes that requests choose.
    shape = [size if isinstance(size, int) else None for size in node.shape] or None
    return Tensor(dtype, shape)


def _decoded(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of str of one of bytes: strings of ONNX are UTF-8."""
    decoded = np.empty(array.size, dtype=object)
    for i, item in enumerate(array.ravel()):
        try:
            decoded[i] = item.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"input {name}: element {i}: byte {error.start} is not UTF-8") from error
    return decoded.reshape(array.shape)


def _files(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files that the model needs, with the bytes that each has to have.

    Raises:
        OSError, ValueError: the model is not there, or is cut off.
    """
    with wire.mapped(path / MODEL_FILE) as data:
        graphs = [span for span in wire.spans(data, 0, len(data)) if span[0] == _GRAPH]
        if not graphs:
            raise ValueError(f"{MODEL_FILE}: has no graph")
        for _, first, last in graphs:
            for field, start, end in wire.spans(data, first, last):
                entries = _external(data, start, end) if field == _INITIALIZER else {}
                if "location" in entries:
                    size = int(entries.get("offset", 0)) + int(entries.get("length", 0))
                    yield path / entries["location"], size


def _external(data: memoryview, first: int, last: int) -> dict[str, str]:
    entries = {}
    for field, start, end in wire.spans(data, first, last):
        if field == _EXTERNAL:
            parts = {kind: wire.text(data, a, b) for kind, a, b in wire.spans(data, start, end)}
            entries[parts.get(_KEY, "")] = parts.get(_VALUE, "")
    return entries
