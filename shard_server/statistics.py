"""What a shard server has counted and holds, gathered into one value for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from placement.records import StagingRecord
from placement.view import ViewReading
from shard_server.desired import DesiredPackage, PackageKey
from shard_server.scrubber import ScrubCounts
from shard_server.staging.stager import StagingCounts
from tessera.certificates import Validity


@dataclass(frozen=True)
class ShardServerStatistics:
    """One reading.

    Attributes:
        tables: as `_rpc.TableStore.stats` has them, and `calls` as `_rpc.Server.stats`.
        buckets: (model, version) → buckets that are served.
        held_bytes: of the blobs that are mapped, each once.
        capacity_bytes: of the blobs that may be placed here.
        is_ready: what `/readyz` says.
        failures: attempts to hold what the placements ask for that failed.
        view: what is known of the cluster.
        staging: how far fetching is.
        staged: what was counted while fetching.
        scrub: what was counted while blobs were read again.
        memory_limit_bytes: that the process may use.
        certificate: when the one holds that is shown to callers; None without one.
    """

    tables: Mapping[str, int]
    calls: Mapping[str, int]
    buckets: Mapping[tuple[str, int], int]
    held_bytes: int
    capacity_bytes: int
    is_ready: bool
    failures: int
    view: ViewReading
    staging: StagingRecord = field(default_factory=StagingRecord)
    staged: StagingCounts = field(default_factory=StagingCounts)
    scrub: ScrubCounts = ScrubCounts()
    memory_limit_bytes: int = 0
    certificate: Validity | None = None


def bucket_counts(packages: Mapping[PackageKey, DesiredPackage]) -> Mapping[tuple[str, int], int]:
    """Return (model, version) → buckets of all its tables."""
    counts: Counter[tuple[str, int]] = Counter()
    for key, package in packages.items():
        counts[key.model, key.version] += sum(map(len, package.buckets))
    return counts
