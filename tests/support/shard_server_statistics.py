"""What a shard server has counted, made by hand: for tests of metrics."""

from __future__ import annotations

from placement.records import StagingRecord
from shard_server.scrubber import ScrubCounts
from shard_server.staging.stager import StagingCounts
from shard_server.statistics import ShardServerStatistics
from support.router_statistics import view_reading


def shard_server_statistics() -> ShardServerStatistics:
    """Return one reading of a server that holds buckets of two versions."""
    return ShardServerStatistics(
        tables={
            "requests": 500,
            "rows": 70_000,
            "bytes": 2_240_000,
            "refused_not_owner": 3,
            "refused_draining": 2,
            "refused_bad_request": 1,
        },
        calls={
            "calls_started": 510,
            "calls_finished": 508,
            "calls_in_flight": 2,
            "calls_failed": 6,
            "calls_refused": 4,
        },
        buckets={("ranker", 2): 31, ("ranker", 10): 30},
        held_bytes=1 << 20,
        capacity_bytes=1 << 30,
        is_ready=True,
        failures=1,
        view=view_reading(),
        staging=StagingRecord(done_bytes=600, total_bytes=1000),
        staged=StagingCounts(fetched_bytes=5600, problems=2),
        scrub=ScrubCounts(read=40, damaged=1),
        memory_limit_bytes=8 << 30,
    )
