"""Platform `tflite`: `model.tflite` in the version's directory, run by TensorFlow Lite's interpreter.

Also what `--prefer_tflite_model` makes of versions of platform `tensorflow`. Needs the extra `tflite`. The signatures
are the model's own; a model without any gets `serving_default` with the names of its tensors.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from cpp_ext import _graph
from router.platforms import flatbuffer
from router.platforms.base import LoadOptions, MemoryEstimate
from router.platforms.files import size_bytes
from router.platforms.foreign import Arrays, make_graph
from router.platforms.tensors import SERVING_DEFAULT, Signature, Tensor
from tessera.errors import DataLossError, InternalError, InvalidArgumentError, NotFoundError

MODEL_FILE = "model.tflite"


class TflitePlatform:
    """See `router.platforms.base.Platform`."""

    name = "tflite"

    def is_complete(self, path: Path) -> bool:
        """Return whether the model is there and not cut off."""
        return flatbuffer.is_whole(path / MODEL_FILE)

    def estimate(self, path: Path) -> MemoryEstimate:
        """Return the bytes of the file, which all interpreters share; what they need to run is not known before."""
        if not (path / MODEL_FILE).is_file():
            raise NotFoundError(f"path: no {MODEL_FILE} in {path}")
        resident = size_bytes(path / MODEL_FILE)
        return MemoryEstimate(resident, resident)

    def load(self, path: Path, options: LoadOptions) -> _graph.Graph:
        """Load the model; see `Platform.load`."""
        pools = options.tflite_pools or os.cpu_count() or 1
        interpreters = Interpreters(path / MODEL_FILE)
        workers = pools * options.tflite_interpreters_per_pool
        return make_graph(path, options, interpreters.signatures, interpreters.run, workers)


class Interpreters:
    """Interpreters of one model, as many as requests ever ran at once; each runs one request at a time. Thread-safe."""

    def __init__(self, file: Path) -> None:
        """Load the model.

        Raises:
            NotFoundError: no such file.
            DataLossError: it is no model that can be run; names it.
        """
        self._file = file
        self._lock = threading.Lock()
        self._idle: list[_Interpreter] = []  # guarded by _lock
        first = self._make()
        self.signatures = first.signatures()
        self._idle.append(first)

    def run(self, signature: str, inputs: dict[str, np.ndarray[Any, Any]], _: list[str]) -> Arrays:
        """Run one request on an interpreter that is idle, or on a new one.

        Raises:
            InvalidArgumentError: the interpreter refuses the inputs.
            InternalError: anything else went wrong.
        """
        with self._lock:
            interpreter = self._idle.pop() if self._idle else None
        interpreter = interpreter or self._make()
        answer = interpreter.run(signature, inputs)  # one that failed is dropped: its tensors may be half allocated
        with self._lock:
            self._idle.append(interpreter)
        return answer

    def _make(self) -> _Interpreter:
        if not self._file.is_file():
            raise NotFoundError(f"path: no {MODEL_FILE} in {self._file.parent}")
        try:
            return _Interpreter(Interpreter(model_path=str(self._file), num_threads=1))
        except (ValueError, RuntimeError) as error:
            raise DataLossError(f"{self._file}: {error}") from error


class _Interpreter:
    """One interpreter. Not thread-safe."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}

    def signatures(self) -> dict[str, Signature]:
        """Return the model's signatures; dimension 0 is the batch, whatever the model was converted with."""
        if not self._runners:
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            return {SERVING_DEFAULT: Signature(_by_name(inputs), _by_name(outputs))}
        return {
            name: Signature(_tensors(runner.get_input_details()), _tensors(runner.get_output_details()))
            for name, runner in self._runners.items()
        }

    def run(self, signature: str, inputs: dict[str, np.ndarray[Any, Any]]) -> Arrays:
        """Run one request; see `Interpreters.run`."""
        try:
            runner = self._runners.get(signature)
            return self._run_default(inputs) if runner is None else runner(**inputs)
        except ValueError as error:
            raise InvalidArgumentError(f"{MODEL_FILE}: {error}") from error
        except RuntimeError as error:
            raise InternalError(f"{MODEL_FILE}: {error}") from error

    def _run_default(self, inputs: dict[str, np.ndarray[Any, Any]]) -> Arrays:
        places = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
        for name, array in inputs.items():
            self._interpreter.resize_tensor_input(places[name], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in inputs.items():
            self._interpreter.set_tensor(places[name], array)
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return {detail["name"]: self._interpreter.get_tensor(detail["index"]) for detail in outputs}


def _by_name(details: list[dict[str, Any]]) -> dict[str, Tensor]:
    return _tensors({detail["name"]: detail for detail in details})


def _tensors(details: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    return {name: _tensor(detail) for name, detail in details.items()}


def _tensor(detail: dict[str, Any]) -> Tensor:
    dtype = np.dtype(detail["dtype"])
    shape: list[int | None] = [int(size) for size in detail["shape_signature"]]
    return Tensor("string" if dtype.kind in "OS" else dtype.name, [None, *shape[1:]] if shape else None)
