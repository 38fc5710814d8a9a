"""What batches have counted, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from router.statistics import RegionStatistics
from tessera.metric_families import SERVING, counter, gauge, histogram, power_buckets, serving_counter

_TENSORFLOW = f"{SERVING}batching:"
_REGION = ("model_name", "version", "op_name")

_REGION_COUNTERS = (
    ("tasks", "Requests, or pieces of large ones, that were admitted to a region."),
    ("rows", "Rows that were run for requests."),
    ("padding_rows", "Rows that were run for nobody: the waste of padding."),
    ("padding_elements", "Elements that were added to inputs to make their lengths equal."),
    ("elements", "Elements of inputs whose lengths are padded, with padding."),
    ("inline_batches", "Batches that ran on the thread of the request that completed them."),
    ("cancelled", "Tasks whose caller went away."),
    ("failed_batches", "Batches that failed."),
    ("bisected_batches", "Failed batches that were run again in two parts."),
)
_REGION_GAUGES = (
    ("enqueued_rows", "Rows that wait for a batch now."),
    ("enqueued_bytes", "Bytes of the inputs that wait for a batch now."),
    ("in_loop", "Requests inside the loop around the region now."),
)
_REJECTED = {
    "max_enqueued_rows": "rejected_rows_bound",
    "max_enqueued_bytes": "rejected_bytes_bound",
    "max_batch_size": "rejected_too_large",
}
"""Which bound of the policy refused a task → the counter of it."""
_EXPIRED = {"queued": "expired_queued", "running": "expired_running"}

_SIZE_BOUNDS = tuple(1 << power for power in range(14))
"""Upper bounds of batch sizes in rows; TensorFlow's are powers of two as well."""


def batching_metrics(regions: Sequence[RegionStatistics]) -> Iterator[Metric]:
    """Yield the metrics of regions."""
    found = [((r.model, str(r.version), r.region), r.stats) for r in regions]
    for name, text in _REGION_COUNTERS:
        yield counter(f"batch_{name}", text, _REGION, [(key, stats[name]) for key, stats in found])
    yield counter(
        "batch_device_seconds",
        "Device time that was charged to a region.",
        _REGION,
        [(key, stats["device_ns"] * 1e-9) for key, stats in found],
    )
    for name, text, label, fields in (
        ("rejected", "Tasks that were refused, by the bound of the policy.", "bound", _REJECTED),
        ("expired", "Tasks whose deadline passed, before or after their dispatch.", "when", _EXPIRED),
    ):
        counts = [((*key, value), stats[field]) for key, stats in found for value, field in fields.items()]
        yield counter(f"batch_{name}", text, (*_REGION, label), counts)
    reasons = [((*key, reason), n) for key, stats in found for reason, n in sorted(stats["close_reasons"].items())]
    yield counter("batch_closed", "Batches by why they were dispatched.", (*_REGION, "reason"), reasons)
    for name, text in _REGION_GAUGES:
        yield gauge(f"batch_{name}", text, _REGION, [(key, stats[name]) for key, stats in found])
    yield from _region_histograms(found)
    for name, text in (
        ("max_batch_size", "Largest batch that the policy allows, rows."),
        ("batch_timeout_micros", "How long a task may wait for others while the device is free, microseconds."),
    ):
        family = GaugeMetricFamily(_TENSORFLOW + name, text, labels=_REGION)
        for region, (key, _) in zip(regions, found, strict=True):
            family.add_metric(key, getattr(region.policy, name))
        yield family


def _region_histograms(found: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]) -> Iterator[Metric]:
    sizes = HistogramMetricFamily(
        f"{_TENSORFLOW}processed_batch_size", "Rows of the batches that ran, with padding.", labels=_REGION
    )
    delays = HistogramMetricFamily(
        f"{_TENSORFLOW}batch_delay_us", "How long tasks waited for their batch, microseconds.", labels=_REGION
    )
    execution = HistogramMetricFamily(
        "tessera_batch_execution_seconds", "How long batches ran, seconds.", labels=_REGION
    )
    for key, stats in found:
        by_size = stats["batch_sizes"]
        sizes.add_metric(key, _size_buckets(by_size), sum_value=_rows(by_size))
        for family, one, unit in (
            (delays, stats["queue_delay_micros"], 1.0),
            (execution, stats["execution_micros"], 1e-6),
        ):
            family.add_metric(key, power_buckets(one["counts"], unit), sum_value=one["sum"] * unit)
    yield from (sizes, delays, execution)


def _size_buckets(batches_by_size: Mapping[int, int]) -> list[tuple[str, int]]:
    counts = [sum(n for size, n in batches_by_size.items() if size <= bound) for bound in _SIZE_BOUNDS]
    return [*zip(map(str, _SIZE_BOUNDS), counts, strict=True), ("+Inf", sum(batches_by_size.values()))]


def _rows(batches_by_size: Mapping[int, int]) -> int:
    return sum(size * n for size, n in batches_by_size.items())


def session_metrics(regions: Iterable[RegionStatistics]) -> Iterator[Metric]:
    """Yield what TensorFlow Serving tells of its batching session, which does not tell models apart."""
    stats = [region.stats for region in regions]
    name = f"{SERVING}batching_session:"
    by_size: dict[int, int] = {}
    for one in stats:
        for size, n in one["batch_sizes"].items():
            by_size[size] = by_size.get(size, 0) + n
    delays = [one["queue_delay_micros"] for one in stats]
    counts = [sum(cell) for cell in zip(*(one["counts"] for one in delays), strict=True)]
    waited = [(("batch_threads",), power_buckets(counts, 1.0), sum(one["sum"] for one in delays))] if stats else []
    yield histogram(
        f"{name}queuing_latency", "How long tasks waited for their batch, microseconds.", ("thread_pool_name",), waited
    )
    batches = sum(one["batches"] for one in stats)
    yield serving_counter("batching_session:wrapped_run_count", "Batches that were run.", (), [((), batches)])
    sizes = [((), _size_buckets(by_size), _rows(by_size))]
    yield histogram(f"{name}processed_batch_size", "Rows of the batches that ran, with padding.", (), sizes)
