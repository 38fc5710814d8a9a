"""Makes the lifecycle of a router's plain models from its settings."""

from __future__ import annotations

import os

from cpp_ext import _graph
from router.lifecycle.actions import Limits, Load
from router.lifecycle.loader import Loader
from router.lifecycle.manager import Lifecycle
from router.lifecycle.target import Target
from router.lifecycle.warm_up import Caller, Replay
from router.platforms.base import LoadOptions
from router.platforms.registry import platforms
from router.settings import RouterSettings
from tessera.clock import SystemClock

MAX_INITIAL_LOADS = 4
"""Versions that are loaded at once at the start, with as many cores: restoring has threads of its own, and memory."""


def make_lifecycle(settings: RouterSettings, target: Target) -> Lifecycle:
    """Return the lifecycle, not started; `target` serves what it loads."""
    options = LoadOptions(
        saved_model_tags=settings.tags(),
        batching=settings.enable_batching,
        request_batching=settings.request_batching,
        per_version_batching=settings.per_model_batching_parameters,
        intra_op_threads=settings.intra_op_threads,
        prefer_tflite_model=settings.prefer_tflite,
        tflite_pools=settings.tflite_pools,
        tflite_interpreters_per_pool=settings.tflite_interpreters_per_pool,
    )
    limits = Limits(
        memory_bytes=settings.memory_limit_bytes,
        initial_loads=min(MAX_INITIAL_LOADS, len(os.sched_getaffinity(0))),
        loads=max(1, settings.load_threads),
        max_retries=settings.load_retries,
        retry_interval_s=settings.load_retry_interval_s,
    )
    return Lifecycle(
        limits,
        Loader(platforms(), options, Replay(_only, settings.warmup_iterations) if settings.warmup else None),
        target,
        SystemClock(),
        poll_s=settings.model_poll_s,
        allow_labels_for_unavailable=settings.labels_for_unavailable,
        in_cluster=bool(settings.etcd),
    )


def _only(load: Load, graph: _graph.Graph) -> Caller:
    """Return what answers for a version that is not published yet."""
    predictor = _graph.Predictor()
    predictor.publish({load.model: [_graph.Version(version=load.version, graph=graph)]})
    return predictor.call
