"""Platform `python`: a version's directory with `model.py`, whose `load(directory)` returns what answers requests.

The contract is docs/platforms.md, an example examples/python_model/1/model.py. The model runs in this process, on
threads of its own; several requests at once.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cpp_ext import _graph
from router.platforms.base import LoadOptions, MemoryEstimate
from router.platforms.files import size_bytes
from router.platforms.foreign import Arrays, make_graph
from router.platforms.tensors import Signature, Tensor
from tessera.errors import FailedPreconditionError, InternalError, NotFoundError, TesseraError

MODEL_FILE = "model.py"
_KEYS = {"inputs", "outputs"}
_numbers = itertools.count(1)


class PythonPlatform:
    """See `router.platforms.base.Platform`."""

    name = "python"

    def is_complete(self, path: Path) -> bool:
        """Return whether `model.py` is Python that defines `load`; of other files only the model knows."""
        try:
            tree = ast.parse((path / MODEL_FILE).read_bytes())
        except (OSError, ValueError, SyntaxError):
            return False
        return any(isinstance(node, ast.FunctionDef) and node.name == "load" for node in tree.body)

    def estimate(self, path: Path) -> MemoryEstimate:
        """Return the bytes of all files in the directory: the best guess there is."""
        if not (path / MODEL_FILE).is_file():
            raise NotFoundError(f"path: no {MODEL_FILE} in {path}")
        size = size_bytes(path)
        return MemoryEstimate(size, size)

    def load(self, path: Path, options: LoadOptions) -> _graph.Graph:
        """Run `load` of the version's `model.py`; see `Platform.load`."""
        model = _load_model(path)
        signatures = read_signatures(str(path / MODEL_FILE), model.signatures)
        return make_graph(path, options, signatures, _Predict(model), options.python_workers)


class _Predict:
    """Calls a model's `predict`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, signature: str, inputs: dict[str, np.ndarray[Any, Any]], _: list[str]) -> Arrays:
        """Return the outputs.

        Raises:
            TesseraError: the model raised it.
            InternalError: the model raised anything else.
        """
        try:
            answer: Arrays = self._model.predict(signature, inputs)
        except TesseraError:
            raise
        except Exception as error:
            raise InternalError(f"{type(error).__name__}: {error}") from error
        return answer


def read_signatures(place: str, given: object) -> dict[str, Signature]:
    """Return the signatures of a model, given as name → {"inputs": …, "outputs": …} of name → (dtype, shape).

    Raises:
        FailedPreconditionError: it is something else; names what is wrong.
    """
    if not isinstance(given, Mapping) or not given:
        raise FailedPreconditionError(f"{place}: signatures: got {given!r}, expected a dict with one or more")
    signatures = {}
    for name, parts in given.items():
        where = f"{place}: signatures[{name!r}]"
        if not isinstance(parts, Mapping) or parts.keys() != _KEYS or not isinstance(name, str):
            raise FailedPreconditionError(f"{where}: got {parts!r}, expected a dict with 'inputs' and 'outputs'")
        tensors = {kind: _read_tensors(f"{where}[{kind!r}]", parts[kind]) for kind in sorted(_KEYS)}
        if not tensors["outputs"]:
            raise FailedPreconditionError(f"{where}['outputs']: got none, expected one or more")
        signatures[name] = Signature(tensors["inputs"], tensors["outputs"])
    return signatures


def _read_tensors(where: str, given: object) -> dict[str, Tensor]:
    if not isinstance(given, Mapping):
        raise FailedPreconditionError(f"{where}: got {given!r}, expected a dict of (dtype, shape) by name")
    tensors = {}
    for name, spec in given.items():
        try:
            dtype, shape = spec
            dtype = "string" if dtype == "string" else np.dtype(dtype).name
            dims = None if shape is None else [None if size is None else int(size) for size in shape]
        except (TypeError, ValueError):
            raise FailedPreconditionError(
                f"{where}[{name!r}]: got {spec!r}, expected (dtype, shape), for example ('float32', [None, 4])"
            ) from None
        tensors[str(name)] = Tensor(dtype, dims)
    return tensors


def _load_model(path: Path) -> Any:
    """Run `model.py` as a module of its own, so that two versions are two modules; return what its `load` returns."""
    file = path / MODEL_FILE
    if not file.is_file():
        raise NotFoundError(f"path: no {MODEL_FILE} in {path}")
    name = f"_tessera_model_{next(_numbers)}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look themselves up there while they are made
    try:
        # Not by an import, which would write its byte code into the model's directory.
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
        model = module.load(path)
    except TesseraError:
        raise
    except Exception as error:
        raise FailedPreconditionError(f"{file}: {type(error).__name__}: {error}") from error
    finally:
        del sys.modules[name]
    for attribute in ("signatures", "predict"):
        if not hasattr(model, attribute):
            raise FailedPreconditionError(f"{file}: load returned {model!r}, expected an object with {attribute!r}")
    return model
