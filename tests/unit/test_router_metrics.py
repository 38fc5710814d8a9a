"""The metrics of a router, from counters made by hand."""

import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from router.metrics import RouterCollector
from router.statistics import RouterStatistics
from shard_server.metrics import ShardServerCollector
from support.golden import check_golden
from support.router_statistics import CELLS, router_statistics
from support.shard_server_statistics import shard_server_statistics
from tessera.metric_families import bounded_buckets, power_buckets, render

ROOT = Path(__file__).parents[2]
_REGION = {"model_name": "ranker", "version": "2", "op_name": "mlp"}


def _text(statistics: RouterStatistics) -> str:
    return render(RouterCollector(lambda: statistics, "0.1.0").collect()).decode()


def _samples(statistics: RouterStatistics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(_text(statistics))
        for sample in family.samples
    }


def test_the_text() -> None:
    check_golden("router_metrics.txt", _text(router_statistics()))


def test_histograms_are_cumulative_and_end_with_their_count() -> None:
    samples = _samples(router_statistics())

    def bucket(name: str, bound: str) -> float:
        return samples[f"{name}_bucket", frozenset((_REGION | {"le": bound}).items())]

    sizes = ":tensorflow:serving:batching:processed_batch_size"
    assert [bucket(sizes, bound) for bound in ("4", "8", "16", "32", "+Inf")] == [0, 100, 100, 125, 125]
    assert samples[f"{sizes}_sum", frozenset(_REGION.items())] == 1600
    delays = ":tensorflow:serving:batching:batch_delay_us"
    assert [bucket(delays, bound) for bound in ("1", "64", "128", "4096", "+Inf")] == [200, 200, 350, 400, 400]
    execution = "tessera_batch_execution_seconds"
    assert [bucket(execution, bound) for bound in ("0.000512", "0.001024", "0.002048", "+Inf")] == [0, 100, 125, 125]
    assert samples[f"{execution}_sum", frozenset(_REGION.items())] == 0.105


def test_a_router_without_regions_or_shard_servers_has_metrics_too() -> None:
    statistics = router_statistics()
    bare = replace(statistics, regions=(), lanes={}, fanout={**statistics.fanout, "servers": {}})
    names = {name for name, _ in _samples(bare)}
    assert {"tessera_predict_in_flight", "tessera_fanout_lookups_total"} <= names
    assert not any("tessera_batch" in name or "batching:" in name for name in names)


def test_requests_are_counted_under_the_names_of_tensorflow_serving() -> None:
    samples = _samples(router_statistics())

    def value(name: str, **labels: str) -> float:
        # The library's parser puts `_total` behind counters that have none.
        names = (f":tensorflow:serving:{name}", f":tensorflow:serving:{name}_total")
        (found,) = [samples[n, frozenset(labels.items())] for n in names if (n, frozenset(labels.items())) in samples]
        return found

    assert value("request_count", model_name="ranker", status="OK") == 306 + 40 + 10  # without MultiInference
    assert value("request_count", model_name="(unknown)", status="NOT_FOUND") == 2
    rest = {"model_name": "ranker", "API": "predict", "entrypoint": "REST"}
    assert value("request_latency_count", **rest) == 40
    assert value("request_latency_sum", **rest) == 2000
    assert value("request_latency_bucket", **rest, le="18") == 0
    assert value("request_latency_bucket", **rest, le=f"{10 * 1.8**13:.10g}") == 40
    runtime = {"model_name": "ranker", "API": "Predict", "runtime": "TF1"}
    assert value("runtime_latency_count", **runtime) == 346  # gRPC and REST
    assert value("runtime_latency_bucket", **runtime, le="10") == 300
    assert value("request_example_counts_count", model="ranker") == 11
    assert value("request_example_count_total", model="ranker") == 68
    assert value("request_log_count", model_name="ranker", status_code="RESOURCE_EXHAUSTED") == 4
    assert value("model_warmup_records_read", model_path="/models/ranker/1", status="OK") == 20
    assert value("batching_session:wrapped_run_count") == 125
    assert value("batching_session:queuing_latency_count", thread_pool_name="batch_threads") == 400


def test_the_text_is_what_the_library_reads_as_the_same_samples() -> None:
    families = [CounterMetricFamily("a", 'Say "a"\nor \\.', labels=["b"]), Metric(":c:d", "Without.", "counter")]
    families[0].add_metric(['x"y\\z\n'], 3)  # type: ignore[attr-defined]
    families[1].add_sample(":c:d", {}, 0.5)
    text = render(families).decode()
    assert "# TYPE a_total counter\n" in text
    assert "# TYPE :c:d counter\n:c:d 0.5\n" in text
    assert "# TYPE e_total counter\n" in render([CounterMetricFamily("e", "None yet.", labels=["f"])]).decode()
    read = {s.name: (s.labels, s.value) for family in text_string_to_metric_families(text) for s in family.samples}
    assert read == {"a_total": ({"b": 'x"y\\z\n'}, 3), ":c:d_total": ({}, 0.5)}  # the parser's suffix


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_buckets_of_bounds(counts: list[int]) -> None:
    buckets = bounded_buckets(counts, [10, 18, 32.4])
    assert [bound for bound, _ in buckets] == ["10", "18", "32.4", "+Inf"]
    assert [total for _, total in buckets] == [sum(counts[: i + 1]) for i in range(4)]


@given(st.lists(st.integers(0, 1000), min_size=CELLS, max_size=CELLS))
def test_buckets_of_powers(counts: list[int]) -> None:
    buckets = power_buckets(counts, 1e-6)
    bounds = [float(bound) for bound, _ in buckets]
    assert bounds == sorted(set(bounds))
    assert bounds[0] == 1e-6
    assert bounds[-1] == float("inf")
    totals = [total for _, total in buckets]
    assert totals == sorted(totals)
    assert totals[-1] == sum(counts)


def test_the_documentation_has_every_metric_and_no_other() -> None:
    tables = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE)
    server = render(ShardServerCollector(shard_server_statistics, "0.1.0").collect()).decode()
    told = set(re.findall(r"^# TYPE (\S+) ", _text(router_statistics()) + server, re.MULTILINE))
    assert set(tables) == told
    assert len(tables) == len(told)
