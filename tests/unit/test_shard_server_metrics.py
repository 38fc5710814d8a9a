"""The metrics of a shard server, from counters made by hand."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from placement.view import ViewReading, ViewStatus
from shard_server.metrics import ShardServerCollector
from shard_server.statistics import ShardServerStatistics
from support.golden import check_golden
from support.shard_server_statistics import shard_server_statistics
from tessera.metric_families import render


def _text(statistics: ShardServerStatistics) -> str:
    return render(ShardServerCollector(lambda: statistics, "0.1.0").collect()).decode()


def _samples(statistics: ShardServerStatistics) -> dict[str, float]:
    families = text_string_to_metric_families(_text(statistics))
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_the_text() -> None:
    check_golden("shard_server_metrics.txt", _text(shard_server_statistics()))


def test_an_age_is_told_only_when_etcd_was_heard_of() -> None:
    statistics = shard_server_statistics()
    unheard = ViewReading(statistics.view.snapshot, ViewStatus(False, None, {}, 0))
    samples = _samples(replace(statistics, view=unheard, is_ready=False))
    assert samples["tessera_store_connected"] == samples["tessera_ready"] == 0
    assert "tessera_store_last_contact_age_seconds" not in samples
    assert _samples(statistics)["tessera_store_last_contact_age_seconds"] == 2.0
