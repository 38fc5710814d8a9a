"""What requests have counted, in Prometheus' form: under TensorFlow Serving's names, and more under ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

from router.load_statistics import BOUNDS_MICROS
from router.statistics import TrafficStatistics
from tessera.metric_families import (
    SERVING,
    bounded_buckets,
    counter,
    gauge,
    histogram,
    power_buckets,
    serving_counter,
)

Methods = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""Model → method → entry point → counters: `methods` of `_graph.Predictor.stats`."""

Splits = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Model → version or label → counters: `traffic` of `_graph.Predictor.stats`."""

_Key = tuple[str, ...]
_RUNTIME = "TF1"
"""TensorFlow Serving's name of the runtime that runs sessions, which dashboards filter by."""
_UNCOUNTED = "MultiInference"
"""TensorFlow Serving's request_count leaves it out."""
_LOGGED = {"written": "OK", "dropped": "RESOURCE_EXHAUSTED", "failed": "UNAVAILABLE"}


def request_metrics(methods: Methods) -> Iterator[Metric]:
    """Yield the metrics of requests; models that are not served are together under one name."""
    found = [
        (model, method, entrypoint, stats)
        for model, by_method in sorted(methods.items())
        for method, by_entrypoint in sorted(by_method.items())
        for entrypoint, stats in sorted(by_entrypoint.items())
    ]
    codes: defaultdict[_Key, int] = defaultdict(int)
    for model, method, _, stats in found:
        for code, count in stats["codes"].items():
            if method != _UNCOUNTED:
                codes[model, code] += count
    yield serving_counter(
        "request_count",
        "Requests of Predict, Classify and Regress, over gRPC and REST.",
        ("model_name", "status"),
        sorted(codes.items()),
    )
    yield _latencies(
        "request_latency",
        "How long successful requests took, microseconds.",
        ("model_name", "API", "entrypoint"),
        [
            ((model, method.lower() if entrypoint == "REST" else method, entrypoint), stats["latency_micros"])
            for model, method, entrypoint, stats in found
        ],
    )
    yield _latencies(
        "runtime_latency",
        "How long the model itself ran for successful requests, microseconds.",
        ("model_name", "API", "runtime"),
        [((model, method, _RUNTIME), stats["runtime_micros"]) for model, method, _, stats in found],
    )
    examples = _joined([((model,), stats["examples"]) for model, _, _, stats in found if stats["examples"]["count"]])
    yield histogram(
        f"{SERVING}request_example_counts",
        "Examples in a request of Classify, Regress or MultiInference.",
        ("model",),
        [(key, power_buckets(one["counts"], 1.0), one["sum"]) for key, one in examples],
    )
    yield serving_counter(
        "request_example_count_total", "Those examples.", ("model",), [(key, one["sum"]) for key, one in examples]
    )
    yield counter(
        "requests",
        "Requests that run a model.",
        ("model_name", "method", "entrypoint", "status"),
        [
            ((model, method, entrypoint, code), count)
            for model, method, entrypoint, stats in found
            for code, count in sorted(stats["codes"].items())
        ],
    )
    stages = _joined(
        [
            ((model, method, stage), one)
            for model, method, _, stats in found
            for stage, one in stats["stages_micros"].items()
        ]
    )
    yield histogram(
        "tessera_request_stage_seconds",
        "How long the stages of successful requests took, seconds.",
        ("model_name", "method", "stage"),
        [(key, power_buckets(one["counts"], 1e-6), one["sum"] * 1e-6) for key, one in stages],
    )


def traffic_metrics(
    splits: Mapping[str, Mapping[str, Mapping[str, int]]], traffic: TrafficStatistics
) -> Iterator[Metric]:
    """Yield what was decided by splits, became of copies, and was logged."""
    for name, field, text in (
        ("requests", "chosen", "Requests that a share of a split got."),
        ("rerouted", "rerouted", "Requests that another share got because the version was not available."),
    ):
        values = [
            ((model, share), counts[field])
            for model, shares in sorted(splits.items())
            for share, counts in sorted(shares.items())
        ]
        yield counter(f"traffic_split_{name}", text, ("model_name", "share"), values)
    shadows = sorted(traffic.shadows.items())
    yield counter(
        "shadow_requests",
        "Copies of requests to another version, by what came of them.",
        ("model_name", "result"),
        [
            ((model, result), counts[result])
            for model, counts in shadows
            for result in ("equal", "different", "failed", "dropped")
        ],
    )
    in_flight = [((model,), counts["in_flight"]) for model, counts in shadows]
    yield gauge("shadow_in_flight", "Copies of requests in progress now.", ("model_name",), in_flight)
    yield serving_counter(
        "request_log_count",
        "Sampled requests: in files, dropped because too many waited, or lost because they could not be written.",
        ("model_name", "status_code"),
        [
            ((model, code), getattr(stats, field))
            for model, stats in sorted(traffic.logs.items())
            for field, code in _LOGGED.items()
        ],
    )


def _latencies(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[_Key, Mapping[str, Any]]]) -> Metric:
    return histogram(
        SERVING + name,
        text,
        labels,
        [
            (key, bounded_buckets(one["counts"], BOUNDS_MICROS), one["sum"])
            for key, one in _joined(values)
            if one["count"]
        ],
    )


def _joined(values: Iterable[tuple[_Key, Mapping[str, Any]]]) -> list[tuple[_Key, dict[str, Any]]]:
    """Return the histograms added up by key."""
    found: dict[_Key, dict[str, Any]] = {}
    for key, one in values:
        before = found.get(key)
        if before is None:
            found[key] = dict(one)
            continue
        found[key] = {
            "counts": [a + b for a, b in zip(before["counts"], one["counts"], strict=True)],
            "sum": before["sum"] + one["sum"],
            "count": before["count"] + one["count"],
        }
    return sorted(found.items(), key=lambda item: item[0])
