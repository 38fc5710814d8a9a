"""How the whole requests of one version are batched, by TensorFlow Serving's file in the version's directory."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from batching.parameters_file import load_parameters
from router.platforms.base import LoadOptions

if TYPE_CHECKING:
    from batching.policy import Policy
    from cpp_ext import _graph

POLICY_FILE = "batching_params.pbtxt"
_log = logging.getLogger("router.platforms")


def batches_requests(path: Path, options: LoadOptions) -> bool:
    """Return whether whole requests to the version in `path` are batched."""
    return options.request_batching and (not options.per_version_batching or _file(path).is_file())


def apply_policy(path: Path, options: LoadOptions, graph: _graph.Graph) -> None:
    """Give `graph`, which was loaded from `path`, the policy of the version's own file, if that is what is wanted.

    It goes before what a file of the server says.

    Raises:
        InvalidArgumentError: the file is wrong; names file, line and field.
    """
    if not options.per_version_batching or not batches_requests(path, options):
        return
    policy, warnings = load_parameters(_file(path), tensorflow_defaults=True)
    for warning in warnings:
        _log.warning("model %s: %s", options.name, warning)
    graph.own_policy = policy
    graph.set_batching(dict.fromkeys(graph.batch_regions, _native(policy)))


def _file(path: Path) -> Path:
    return path / POLICY_FILE


def _native(policy: Policy) -> _graph.BatchPolicy:
    from cpp_ext import _graph

    return _graph.BatchPolicy(**asdict(policy))
