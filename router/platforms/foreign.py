"""Makes a native graph of a model that Python code runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cpp_ext import _graph
from router.platforms.base import LoadOptions
from router.platforms.request_policy import apply_policy, batches_requests
from router.platforms.tensors import Signature

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Run = Callable[[str, dict[str, "np.ndarray[Any, Any]"], list[str]], Arrays]


def make_graph(
    path: Path, options: LoadOptions, signatures: Mapping[str, Signature], run: Run, workers: int
) -> _graph.Graph:
    """Return the graph of the version in `path`; see `_graph.Graph.foreign` for `run` and errors."""
    graph = _graph.Graph.foreign(
        {name: signature.native() for name, signature in signatures.items()},
        run,
        name=options.name,
        workers=workers,
        request_batching=batches_requests(path, options),
    )
    apply_policy(path, options, graph)
    return graph
