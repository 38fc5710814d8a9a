"""The metrics of a router, from counters made by hand."""

import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from router.metrics import RouterCollector, power_buckets
from router.statistics import RouterStatistics
from support.golden import check_golden
from support.router_statistics import CELLS, router_statistics

ROOT = Path(__file__).parents[2]
_REGION = {"model_name": "ranker", "version": "2", "op_name": "mlp"}


def _text(statistics: RouterStatistics) -> str:
    registry = CollectorRegistry()
    registry.register(RouterCollector(lambda: statistics, "0.1.0"))
    return generate_latest(registry).decode()


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
    assert not any("batch" in name for name in names)


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
    told = set(re.findall(r"^# TYPE (\S+) ", _text(router_statistics()), re.MULTILINE))
    assert set(tables) == told
    assert len(tables) == len(told)
