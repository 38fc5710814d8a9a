"""Platform `tensorflow`: SavedModels, and packages of `tessera partition`, run by TensorFlow's C++ runtime.

A version may have `model.tflite` instead, or beside: `--prefer_tflite_model` serves that.
"""

from __future__ import annotations

from pathlib import Path

from cpp_ext import _graph
from router.platforms import flatbuffer, variables, wire
from router.platforms.base import LoadOptions, MemoryEstimate
from router.platforms.files import size_bytes
from router.platforms.registry import find_platform
from router.platforms.request_policy import apply_policy, batches_requests
from tessera.errors import NotFoundError, TesseraError

_GRAPH_FILE = "saved_model.pb"
_TEXT_FILE = "saved_model.pbtxt"
_MANIFEST = "manifest.json"
_TFLITE_FILE = "model.tflite"
_META_GRAPHS, _GRAPH_DEF, _ASSETS, _ASSET_NAME = 2, 2, 6, 2  # of SavedModel, MetaGraphDef, AssetFileDef
_VARIABLE_OPS = (b"VarHandleOp", b"VariableV2")
_GRAPH_FACTOR = 3
"""Bytes that a graph takes in memory, with its kernels, per byte of its file."""


class TensorFlowPlatform:
    """See `router.platforms.base.Platform`."""

    name = "tensorflow"

    def is_complete(self, path: Path) -> bool:
        """Return whether graph, assets and variables are there, the latter as long as their index says."""
        if (path / _TFLITE_FILE).exists() and not flatbuffer.is_whole(path / _TFLITE_FILE):
            return False
        if not (path / _GRAPH_FILE).exists() and not (path / _TEXT_FILE).exists():
            return (path / _TFLITE_FILE).exists()  # which --prefer_tflite_model can serve
        if (path / _MANIFEST).is_file():  # a package appears by one rename
            return (path / _GRAPH_FILE).is_file()
        try:
            if (path / _TEXT_FILE).is_file() and not (path / _GRAPH_FILE).exists():
                needs_variables = False  # text is not looked into
            else:
                needs_variables = _check_graph(path)
            prefix = path / "variables" / "variables"
            if prefix.parent.is_dir():
                return not variables.missing(prefix)
        except (OSError, ValueError, TesseraError):
            return False
        return not needs_variables

    def estimate(self, path: Path) -> MemoryEstimate:
        """Return the bytes of the weights, and of the graph in memory; restoring holds one copy of the weights."""
        graph = next((file for file in (path / _GRAPH_FILE, path / _TEXT_FILE) if file.is_file()), None)
        if graph is None and (path / _TFLITE_FILE).is_file():
            size = size_bytes(path / _TFLITE_FILE)
            return MemoryEstimate(size, size)
        if graph is None:
            raise NotFoundError(f"path: no {_GRAPH_FILE} in {path}")
        graph_bytes = graph.stat().st_size
        weights = size_bytes(path / "variables")
        resident = weights + _GRAPH_FACTOR * graph_bytes + size_bytes(path / "assets")
        return MemoryEstimate(resident, resident + graph_bytes)

    def load(self, path: Path, options: LoadOptions) -> _graph.Graph:
        """Load the graph and its variables; see `Graph.load` for the errors."""
        if options.prefer_tflite_model and (path / _TFLITE_FILE).is_file():
            return find_platform(options.model, "tflite").load(path, options)
        graph = _graph.Graph.load(
            str(path),
            tags=options.saved_model_tags,
            blobs=dict(options.blobs),
            name=options.name,
            batching=options.batching,
            request_batching=batches_requests(path, options),
        )
        apply_policy(path, options, graph)
        return graph


def _check_graph(path: Path) -> bool:
    """Return whether the graph in `path` has variables.

    Raises:
        ValueError: the file is cut off, or an asset that it names is not there.
    """
    with wire.mapped(path / _GRAPH_FILE) as data:
        metas = [span for span in wire.spans(data, 0, len(data)) if span[0] == _META_GRAPHS]
        for _, first, last in metas:
            for field, asset, end in wire.spans(data, first, last):
                if field == _ASSETS:
                    _check_asset(path, bytes(data[asset:end]))
    return bool(metas) and _names_variables(path / _GRAPH_FILE)


def _check_asset(path: Path, message: bytes) -> None:
    for field, first, last in wire.spans(message, 0, len(message)):
        name = wire.text(message, first, last) if field == _ASSET_NAME else ""
        if name and not (path / "assets" / name).is_file():
            raise ValueError(f"asset {name} is not there")


def _names_variables(path: Path) -> bool:
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(1 << 20):
            if any(op in tail + chunk for op in _VARIABLE_OPS):
                return True
            tail = chunk[-len(max(_VARIABLE_OPS, key=len)) :]
    return False
