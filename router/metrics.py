"""The router's counters in Prometheus' form.

What TensorFlow has a metric for keeps that name (`/tensorflow/serving/…`, with `:` for `/` as TensorFlow Serving
writes it) and its labels; the rest is named `tessera_…`. Label values come from what is loaded and from the placement,
never from requests, so that their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from placement.view_metrics import view_metrics
from router.metrics_batching import batching_metrics, session_metrics
from router.metrics_models import model_metrics
from router.metrics_requests import request_metrics, traffic_metrics
from router.statistics import LeaseStatistics, RouterStatistics
from tessera.metric_families import build_info, counter, gauge, process_families


class RouterCollector:
    """Reads the counters when Prometheus asks; keeps nothing."""

    def __init__(self, read: Callable[[], RouterStatistics], build: str) -> None:
        """`read` is called on the listener's threads; `build` is the version of the software."""
        self._read, self._build = read, build

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        statistics = self._read()
        yield build_info(self._build)
        yield from process_families(statistics.is_ready, statistics.memory_limit_bytes, statistics.certificate)
        if statistics.view is not None:
            yield from view_metrics(statistics.view)
        yield from _predictor(statistics.predictor)
        yield from _fanout(statistics.fanout)
        yield from _leases(statistics.leases, statistics.predictor["models"])
        yield from _lanes(statistics.lanes)
        yield from batching_metrics(statistics.regions)
        yield from session_metrics(statistics.regions)
        yield from request_metrics(statistics.predictor.get("methods", {}))
        yield from traffic_metrics(statistics.predictor.get("traffic", {}), statistics.traffic)
        yield from model_metrics(statistics.states, statistics.loads)


def _predictor(stats: Mapping[str, Any]) -> Iterator[Metric]:
    requests = [
        ((model, str(version)), count)
        for model, versions in sorted(stats["models"].items())
        for version, count in sorted(versions.items())
    ]
    yield counter(
        "predict_requests", "Requests of all methods by what served them.", ("model_name", "version"), requests
    )
    errors = [((code,), count) for code, count in sorted(stats["errors"].items())]
    yield counter("predict_errors", "Requests of all methods that failed.", ("code",), errors)
    yield gauge("predict_in_flight", "Requests of all methods in progress now.", (), [((), stats["in_flight"])])
    yield counter(
        "predict_run_again",
        "Runs of requests from the beginning because servers had moved on to a newer placement.",
        (),
        [((), stats["run_again"])],
    )
    yield gauge(
        "predict_awaiting_newer",
        "Requests that wait now for a newer placement, to be run again.",
        (),
        [((), stats["awaiting_newer"])],
    )


def _fanout(stats: Mapping[str, Any]) -> Iterator[Metric]:
    for name, text in (
        ("lookups", "Lookups of the router's graphs."),
        ("subrequests", "What lookups asked of one server each."),
        ("rpcs", "Requests to shard servers; each carries one subrequest or more."),
        ("merged", "Subrequests that shared a request with others."),
        ("retries", "Requests to shard servers that were sent again after a failure."),
        ("hedges", "Requests to replicas because a server was silent."),
        ("failures", "Requests to shard servers that failed."),
        ("ejections", "Times that a shard server was found to do much worse than the others."),
    ):
        yield counter(f"fanout_{name}", text, (), [((), stats[name])])
    servers = sorted(stats["servers"].items())
    for name, text in (
        ("subrequests", "What lookups asked of one shard server."),
        ("rpcs", "Requests to one shard server."),
        ("failures", "Requests to one shard server that failed."),
        ("ejections", "Times that one shard server was found to do much worse than the others."),
    ):
        yield counter(f"fanout_server_{name}", text, ("server",), [((id_,), one[name]) for id_, one in servers])
    for name, text in (
        ("in_flight", "Requests to one shard server in progress now."),
        ("suspect", "1 while a shard server is avoided because it failed."),
        ("ejected", "1 while a shard server is avoided because it does much worse than the others."),
        ("avoided", "1 while a shard server is asked last, as its record or its lease advises."),
    ):
        yield gauge(f"fanout_server_{name}", text, ("server",), [((id_,), int(one[name])) for id_, one in servers])


def _leases(leases: LeaseStatistics, models: Iterable[str]) -> Iterator[Metric]:
    yield counter(
        "lease_panics",
        "Times that leases began to be ignored, because most of a model's servers lost theirs together.",
        (),
        [((), leases.panics)],
    )
    yield gauge(
        "lease_panic",
        "1 while the leases of a model's servers are ignored.",
        ("model_name",),
        [((name,), int(name in leases.panicking)) for name in sorted(models)],
    )


def _lanes(lanes: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    found = [((name,), lane) for name, lane in sorted(lanes.items())]
    yield counter(
        "lane_busy_seconds",
        "Time with at least one batch in flight on a device; its rate is the fraction of time that the device is busy.",
        ("lane",),
        [(key, lane["busy_ns"] * 1e-9) for key, lane in found],
    )
    yield counter(
        "lane_timer_wakeups",
        "Wake-ups of a device's timer.",
        ("lane",),
        [(key, lane["timer_wakeups"]) for key, lane in found],
    )
    for name, text in (
        ("in_flight", "Batches on a device now."),
        ("in_flight_limit", "Batches that may be on a device at once, now."),
    ):
        yield gauge(f"lane_{name}_batches", text, ("lane",), [(key, lane[name]) for key, lane in found])
