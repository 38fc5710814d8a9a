"""A shard server's counters in Prometheus' form. Labels come from placements and packages, never from requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric

from placement.view_metrics import view_metrics
from shard_server.scrubber import ScrubCounts
from shard_server.statistics import ShardServerStatistics
from tessera.metric_families import build_info, counter, gauge, process_families

_REFUSED = "refused_"


class ShardServerCollector:
    """Reads the counters when Prometheus asks; keeps nothing."""

    def __init__(self, read: Callable[[], ShardServerStatistics], build: str) -> None:
        """`read` is called on the listener's threads; `build` is the version of the software."""
        self._read, self._build = read, build

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        statistics = self._read()
        yield build_info(self._build)
        yield from process_families(statistics.is_ready, statistics.memory_limit_bytes, statistics.certificate)
        yield from _lookups(statistics.tables)
        yield from _calls(statistics.calls)
        yield from _held(statistics)
        yield from _staging(statistics)
        yield from _scrubbing(statistics.scrub)
        yield from view_metrics(statistics.view)


def _lookups(stats: Mapping[str, int]) -> Iterator[Metric]:
    for name, text in (
        ("requests", "Lookups that came."),
        ("rows", "Rows that were gathered for lookups."),
        ("bytes", "Bytes of those rows."),
    ):
        yield counter(f"lookup_{name}", text, (), [((), stats[name])])
    refused = [((name.removeprefix(_REFUSED),), count) for name, count in stats.items() if name.startswith(_REFUSED)]
    yield counter("lookup_refused", "Lookups that were refused, by reason.", ("reason",), sorted(refused))


def _calls(stats: Mapping[str, int]) -> Iterator[Metric]:
    for name, key, text in (
        ("calls", "calls_started", "Calls of all methods that came."),
        ("calls_failed", "calls_failed", "Calls of all methods that failed."),
        ("calls_refused", "calls_refused", "Calls of all methods that were refused because too many were in progress."),
    ):
        yield counter(f"server_{name}", text, (), [((), stats[key])])
    in_flight = [((), stats["calls_in_flight"])]
    yield gauge("server_calls_in_flight", "Calls of all methods in progress now.", (), in_flight)


def _held(statistics: ShardServerStatistics) -> Iterator[Metric]:
    buckets = [((model, str(version)), count) for (model, version), count in sorted(statistics.buckets.items())]
    yield gauge("held_buckets", "Buckets of a package that are served here.", ("model_name", "version"), buckets)
    yield gauge("held_bytes", "Bytes of the blobs that are mapped, each once.", (), [((), statistics.held_bytes)])
    text = "Bytes of blobs that the planner may place here."
    yield gauge("capacity_bytes", text, (), [((), statistics.capacity_bytes)])
    text = "Attempts to hold what the placements ask for that failed; each is tried again."
    yield counter("hold_failures", text, (), [((), statistics.failures)])


def _staging(statistics: ShardServerStatistics) -> Iterator[Metric]:
    left_bytes = statistics.staging.total_bytes - statistics.staging.done_bytes
    yield gauge("staging_left_bytes", "Bytes of blobs that are still to be fetched.", (), [((), left_bytes)])
    text = "Bytes of blobs that were read from other servers or the repository."
    yield counter("staging_fetched_bytes", text, (), [((), statistics.staged.fetched_bytes)])
    text = "Times that a source of blobs was silent, refused, or gave a damaged one."
    yield counter("staging_source_problems", text, (), [((), statistics.staged.problems)])


def _scrubbing(counts: ScrubCounts) -> Iterator[Metric]:
    text = "Blobs that were read again and compared with their SHA-256."
    yield counter("scrub_blobs", text, (), [((), counts.read)])
    text = "Blobs that were found to be damaged then; they are not served any more."
    yield counter("scrub_damaged_blobs", text, (), [((), counts.damaged)])
