"""The router's counters in Prometheus' form.

What TensorFlow has a metric for keeps that name (`/tensorflow/serving/batching/…`, with `:` for `/` as TensorFlow
Serving writes it) and its labels, `op_name` being the region; the rest is named `tessera_…`. Label values come from
what is loaded and from the placement, never from requests, so that their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from router.statistics import RouterStatistics

_TENSORFLOW = ":tensorflow:serving:batching:"
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


class RouterCollector:
    """Reads the counters when Prometheus asks; keeps nothing."""

    def __init__(self, read: Callable[[], RouterStatistics], build: str) -> None:
        """`read` is called on the listener's threads; `build` is the version of the software."""
        self._read, self._build = read, build

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        statistics = self._read()
        build = GaugeMetricFamily("tessera_build_info", "Always 1; the label is the version.", labels=["build"])
        build.add_metric([self._build], 1)
        yield build
        yield from _predictor(statistics.predictor)
        yield from _fanout(statistics.fanout)
        yield from _lanes(statistics.lanes)
        yield from _regions(statistics)


def _predictor(stats: Mapping[str, Any]) -> Iterator[Metric]:
    requests = [
        ((model, str(version)), count)
        for model, versions in sorted(stats["models"].items())
        for version, count in sorted(versions.items())
    ]
    yield _counter("predict_requests", "Predict requests by what served them.", ("model_name", "version"), requests)
    errors = [((code,), count) for code, count in sorted(stats["errors"].items())]
    yield _counter("predict_errors", "Predict requests that failed.", ("code",), errors)
    yield _gauge("predict_in_flight", "Predict requests in progress now.", (), [((), stats["in_flight"])])


def _fanout(stats: Mapping[str, Any]) -> Iterator[Metric]:
    for name, text in (
        ("lookups", "Lookups of the router's graphs."),
        ("subrequests", "What lookups asked of one server each."),
        ("rpcs", "Requests to shard servers; each carries one subrequest or more."),
        ("merged", "Subrequests that shared a request with others."),
        ("retries", "Requests to shard servers that were sent again after a failure."),
        ("hedges", "Requests to replicas because a server was silent."),
        ("failures", "Requests to shard servers that failed."),
    ):
        yield _counter(f"fanout_{name}", text, (), [((), stats[name])])
    servers = sorted(stats["servers"].items())
    for name, text in (
        ("subrequests", "What lookups asked of one shard server."),
        ("rpcs", "Requests to one shard server."),
        ("failures", "Requests to one shard server that failed."),
    ):
        yield _counter(f"fanout_server_{name}", text, ("server",), [((id_,), one[name]) for id_, one in servers])
    for name, text in (
        ("in_flight", "Requests to one shard server in progress now."),
        ("suspect", "1 while a shard server is avoided because it failed."),
    ):
        yield _gauge(f"fanout_server_{name}", text, ("server",), [((id_,), int(one[name])) for id_, one in servers])


def _lanes(lanes: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    found = [((name,), lane) for name, lane in sorted(lanes.items())]
    yield _counter(
        "lane_busy_seconds",
        "Time with at least one batch in flight on a device; its rate is the fraction of time that the device is busy.",
        ("lane",),
        [(key, lane["busy_ns"] * 1e-9) for key, lane in found],
    )
    yield _counter(
        "lane_timer_wakeups",
        "Wake-ups of a device's timer.",
        ("lane",),
        [(key, lane["timer_wakeups"]) for key, lane in found],
    )
    for name, text in (
        ("in_flight", "Batches on a device now."),
        ("in_flight_limit", "Batches that may be on a device at once, now."),
    ):
        yield _gauge(f"lane_{name}_batches", text, ("lane",), [(key, lane[name]) for key, lane in found])


def _regions(statistics: RouterStatistics) -> Iterator[Metric]:
    found = [((r.model, str(r.version), r.region), r.stats) for r in statistics.regions]
    for name, text in _REGION_COUNTERS:
        yield _counter(f"batch_{name}", text, _REGION, [(key, stats[name]) for key, stats in found])
    yield _counter(
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
        yield _counter(f"batch_{name}", text, (*_REGION, label), counts)
    reasons = [((*key, reason), n) for key, stats in found for reason, n in sorted(stats["close_reasons"].items())]
    yield _counter("batch_closed", "Batches by why they were dispatched.", (*_REGION, "reason"), reasons)
    for name, text in _REGION_GAUGES:
        yield _gauge(f"batch_{name}", text, _REGION, [(key, stats[name]) for key, stats in found])
    yield from _region_histograms(found)
    for name, text in (
        ("max_batch_size", "Largest batch that the policy allows, rows."),
        ("batch_timeout_micros", "How long a task may wait for others while the device is free, microseconds."),
    ):
        family = GaugeMetricFamily(_TENSORFLOW + name, text, labels=_REGION)
        for region, (key, _) in zip(statistics.regions, found, strict=True):
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
        counts = [sum(n for size, n in by_size.items() if size <= bound) for bound in _SIZE_BOUNDS]
        buckets = [*zip(map(str, _SIZE_BOUNDS), counts, strict=True), ("+Inf", sum(by_size.values()))]
        sizes.add_metric(key, buckets, sum_value=sum(size * n for size, n in by_size.items()))
        for family, histogram, unit in (
            (delays, stats["queue_delay_micros"], 1.0),
            (execution, stats["execution_micros"], 1e-6),
        ):
            family.add_metric(key, power_buckets(histogram["counts"], unit), sum_value=histogram["sum"] * unit)
    yield from (sizes, delays, execution)


def power_buckets(counts: Sequence[int], unit: float) -> list[tuple[str, int]]:
    """Return cumulative buckets (upper bound in `unit`s, count) of a native power histogram; the last is +Inf."""
    # Cell i holds the times below 2^i that were cut to whole microseconds: 2^i bounds the times themselves.
    bounds = [f"{(1 << i) * unit:.10g}" for i in range(len(counts) - 1)]
    return list(zip([*bounds, "+Inf"], accumulate(counts), strict=True))


def _counter(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"tessera_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tessera_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
