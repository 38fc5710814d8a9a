"""States, loads and warm-ups of model versions, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from router.catalog import VersionStatus
from router.load_statistics import BOUNDS_MICROS, LoadStatistics
from tessera.metric_families import SERVING, bounded_buckets, counter, gauge, histogram, serving_counter

_SAVED_MODEL = ":tensorflow:cc:saved_model:"
"""TensorFlow's own metrics of loading."""


def model_metrics(states: Mapping[str, Mapping[int, VersionStatus]], loads: LoadStatistics) -> Iterator[Metric]:
    """Yield the metrics of versions. The catalog bounds how many it tells, the recorder how many paths."""
    found = [
        ((model, str(version), status.state.name), 1)
        for model, versions in sorted(states.items())
        for version, status in sorted(versions.items())
    ]
    yield gauge("model_state", "1 for the state that a version is in.", ("model_name", "version", "state"), found)
    yield counter("model_loads", "Attempts to load a version.", ("model_name", "status"), sorted(loads.loads.items()))
    yield histogram(
        "tessera_model_load_seconds",
        "How long attempts to load a version took, seconds.",
        ("model_name", "status"),
        [
            (key, bounded_buckets(one.counts, [bound * 1e-6 for bound in BOUNDS_MICROS]), one.sum_micros * 1e-6)
            for key, one in sorted(loads.load_times.items())
        ],
    )
    yield serving_counter(
        "load_attempt_count",
        "Attempts to load what is in a path.",
        ("model_path", "status"),
        sorted(loads.path_loads.items()),
        prefix=_SAVED_MODEL,
    )
    yield serving_counter(
        "load_latency",
        "Time that successful loads of a path took, microseconds.",
        ("model_path",),
        [((path,), micros) for path, micros in sorted(loads.path_load_micros.items())],
        prefix=_SAVED_MODEL,
    )
    yield histogram(
        f"{SERVING}model_warmup_latency",
        "How long warm-ups took, microseconds.",
        ("model_path", "status"),
        [
            (key, bounded_buckets(one.counts, BOUNDS_MICROS), one.sum_micros)
            for key, one in sorted(loads.warm_ups.items())
        ],
    )
    yield serving_counter(
        "model_warmup_records_read",
        "Requests that warm-ups replayed.",
        ("model_path", "status"),
        sorted(loads.warm_up_records.items()),
    )
