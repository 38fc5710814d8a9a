"""Decides what is split and how. Pure: sizes and limits in, decisions out; the same input gives the same plan.

Rules, in this order:

1. `keep` and `split` name variables (shell patterns); what they say holds.
2. A model that fits the limit whole stays whole.
3. Otherwise every table larger than a sixteenth of the limit is split: it is as large as the unit of placement.
4. While the root is still above the limit, the largest table left is split.
5. What remains must fit the limit, or the plan is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tessera.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

# A server should be able to hold several buckets below its limit, or they cannot be spread evenly.
BUCKETS_PER_SHARD = 16
# Below this, files, mappings and placement cost more than balance gains.
MIN_BUCKET_BYTES = 1 << 20
# Enough to balance hundreds of servers, few enough for a server's memory mappings and for the manifest.
TARGET_BUCKETS = 2047
# About 34 MB of manifest.
MAX_BUCKETS_PER_PACKAGE = 500_000


@dataclass(frozen=True)
class Candidate:
    """A variable of the model.

    Attributes:
        name: unique in the model.
        dtype: numpy-style name, or string.
        shape: of the whole variable.
        bytes: of all its elements.
        gathers: how many gathers read it.
        obstacles: why it cannot be split by rows; empty if it can.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    gathers: int
    obstacles: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What becomes of one variable.

    Attributes:
        candidate: the variable.
        buckets: into how many buckets it is split; 0: it stays in the root.
        bucket_bytes: of the largest bucket; 0 when it stays.
        reason: for people.
    """

    candidate: Candidate
    buckets: int
    bucket_bytes: int
    reason: str

    @property
    def split(self) -> bool:
        """Whether its rows go to shard servers."""
        return self.buckets > 0


def plan(
    candidates: Sequence[Candidate],
    *,
    max_shard_bytes: int,
    other_root_bytes: int = 0,
    split: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> list[Decision]:
    """Return a decision for each candidate, in their order.

    Args:
        candidates: every variable of the model.
        max_shard_bytes: what a shard server, and the root, may hold.
        other_root_bytes: what the root holds besides variables.
        split: patterns of names to split in any case.
        keep: patterns of names to keep in the root in any case.

    Raises:
        InvalidArgumentError: a limit is not positive, or a name is both to be split and to be kept.
        NotFoundError: a pattern fits no variable.
        FailedPreconditionError: a variable to be split cannot be; the root stays above the limit; too many buckets.
    """
    if max_shard_bytes < 1:
        raise InvalidArgumentError(f"max_shard_bytes: got {max_shard_bytes}, expected at least 1")
    forced, kept = _named(candidates, split, "split"), _named(candidates, keep, "keep")
    if both := sorted(forced & kept):
        raise InvalidArgumentError(f"split and keep: both name {', '.join(both)}")
    root_bytes = other_root_bytes + sum(candidate.bytes for candidate in candidates)
    fits_whole = root_bytes <= max_shard_bytes
    decisions: dict[str, Decision] = {}

    def decide(candidate: Candidate, reason: str) -> None:
        nonlocal root_bytes
        buckets = bucket_count(candidate, max_shard_bytes)
        decisions[candidate.name] = Decision(candidate, buckets, _bucket_bytes(candidate, buckets), reason)
        root_bytes -= candidate.bytes

    free = []
    for candidate in sorted(candidates, key=lambda c: (-c.bytes, c.name)):
        obstacle = _obstacle(candidate, max_shard_bytes)
        if candidate.name in forced:
            if obstacle:
                raise FailedPreconditionError(f"split: {candidate.name!r} cannot be split: {obstacle}")
            decide(candidate, "named by split")
        elif candidate.name in kept:
            decisions[candidate.name] = Decision(candidate, 0, 0, "named by keep")
        elif obstacle:
            decisions[candidate.name] = Decision(candidate, 0, 0, obstacle)
        else:
            free.append(candidate)
    for candidate in free:
        if not fits_whole and candidate.bytes > max_shard_bytes // BUCKETS_PER_SHARD:
            decide(candidate, "larger than a bucket may be")
        elif root_bytes > max_shard_bytes:
            decide(candidate, "the root would be above the limit")
        else:
            decisions[candidate.name] = Decision(candidate, 0, 0, "the model fits whole" if fits_whole else "small")
    _check(decisions, root_bytes, other_root_bytes, max_shard_bytes)
    return [decisions[candidate.name] for candidate in candidates]


def bucket_count(candidate: Candidate, max_shard_bytes: int) -> int:
    """Return into how many buckets a table is split: an odd number ≤ rows.

    No bucket is above a sixteenth of the limit where the rows allow it; there are about `TARGET_BUCKETS` of them, or
    fewer so that none is far below `MIN_BUCKET_BYTES`.
    """
    rows = candidate.shape[0]
    row_bytes = candidate.bytes // rows
    largest = max_shard_bytes // BUCKETS_PER_SHARD
    aim_bytes = min(max(MIN_BUCKET_BYTES, -(-candidate.bytes // TARGET_BUCKETS)), largest)
    bucket_rows = max(1, aim_bytes // row_bytes)
    buckets = -(-rows // bucket_rows)
    if buckets % 2 == 0:
        buckets += 1
    return buckets if buckets <= rows else max(1, rows - 1 + rows % 2)


def _bucket_bytes(candidate: Candidate, buckets: int) -> int:
    rows = candidate.shape[0]
    return -(-rows // buckets) * (candidate.bytes // rows)


def _obstacle(candidate: Candidate, max_shard_bytes: int) -> str:
    if candidate.obstacles:
        more = len(candidate.obstacles) - 1
        return candidate.obstacles[0] + (f" (and {more} more)" if more else "")
    if not candidate.shape or candidate.bytes == 0:
        return "has no rows"
    largest = max_shard_bytes // BUCKETS_PER_SHARD
    if _bucket_bytes(candidate, bucket_count(candidate, max_shard_bytes)) > largest:
        return f"its rows are too large for buckets of {largest} bytes"
    return ""


def _named(candidates: Sequence[Candidate], patterns: Sequence[str], what: str) -> set[str]:
    names: set[str] = set()
    for pattern in patterns:
        found = {candidate.name for candidate in candidates if fnmatchcase(candidate.name, pattern)}
        if not found:
            known = ", ".join(sorted(candidate.name for candidate in candidates))
            raise NotFoundError(f"{what}: {pattern!r} fits no variable, expected one of: {known}")
        names |= found
    return names


def _check(decisions: dict[str, Decision], root_bytes: int, other_root_bytes: int, max_shard_bytes: int) -> None:
    if root_bytes > max_shard_bytes:
        rest = [decision for decision in decisions.values() if not decision.split]
        biggest = max(rest, key=lambda decision: decision.candidate.bytes, default=None)
        what = f"the graph itself has {other_root_bytes} bytes"
        if biggest is not None and biggest.candidate.bytes > other_root_bytes:
            what = (
                f"the largest part is {biggest.candidate.name!r} of {biggest.candidate.bytes} bytes: {biggest.reason}"
            )
        raise FailedPreconditionError(
            f"max_shard_bytes: the root cannot be brought below {root_bytes} bytes, expected at most "
            f"{max_shard_bytes}; {what}"
        )
    buckets = sum(decision.buckets for decision in decisions.values())
    if buckets > MAX_BUCKETS_PER_PACKAGE:
        raise FailedPreconditionError(
            f"max_shard_bytes: {max_shard_bytes} makes {buckets} buckets, expected at most {MAX_BUCKETS_PER_PACKAGE}; "
            "raise it"
        )
