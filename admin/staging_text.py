"""How far servers are with fetching blobs, and how long a change will take, for people and programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from placement.change_plan import ChangePlan
from placement.records import StagingRecord
from tessera.settings import format_bytes

ASSUMED_BYTES_PER_S = 128 << 20
"""What a server is assumed to fetch and verify, as long as none has told how fast it really is."""


def staging_json(staging: StagingRecord) -> dict[str, Any]:
    """Return what a server says, with the time that it still needs (None: not known)."""
    left_bytes = staging.total_bytes - staging.done_bytes
    return {
        "done_bytes": staging.done_bytes,
        "total_bytes": staging.total_bytes,
        "bytes_per_s": staging.bytes_per_s,
        "left_s": _left_s(left_bytes, staging.bytes_per_s),
        "problem": staging.problem,
    }


def total_of(stagings: Iterable[StagingRecord]) -> dict[str, Any]:
    """Return all servers together: they work side by side, so the slowest decides how long it takes."""
    several = [staging_json(staging) for staging in stagings]
    busy = [one for one in several if one["done_bytes"] < one["total_bytes"]]
    known = all(one["left_s"] is not None for one in busy)
    return {
        "done_bytes": sum(one["done_bytes"] for one in several),
        "total_bytes": sum(one["total_bytes"] for one in several),
        "bytes_per_s": sum(one["bytes_per_s"] for one in busy),
        "left_s": max((one["left_s"] for one in busy), default=0.0) if known else None,
    }


def _left_s(left_bytes: int, bytes_per_s: int) -> float | None:
    if left_bytes <= 0:
        return 0.0
    return round(left_bytes / bytes_per_s, 1) if bytes_per_s else None


def staging_line(total: Mapping[str, Any]) -> str:
    """Return `total_of`'s answer in a line."""
    done, rate, left = _cells(total)
    return done if total["done_bytes"] >= total["total_bytes"] else f"{done}, {rate}, {left} left"


def staging_text(staging: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Return the cells of one server: what it has of what it lacked, how fast, how long still."""
    return _cells(staging) if staging is not None and staging["total_bytes"] else ("-", "-", "-")


def _cells(staging: Mapping[str, Any]) -> tuple[str, str, str]:
    done_bytes, total_bytes, left_s = staging["done_bytes"], staging["total_bytes"], staging["left_s"]
    busy = done_bytes < total_bytes
    done = f"{format_bytes(done_bytes)} of {format_bytes(total_bytes)}"
    rate = f"{format_bytes(staging['bytes_per_s'])}/s" if staging["bytes_per_s"] else "-"
    return done, rate, ("?" if left_s is None else f"{left_s:.0f} s") if busy else "-"


def rate_of(plan: ChangePlan) -> int:
    """Return how fast a server of the plan may be expected to fetch: as the slowest of them did last, else a guess."""
    members = plan.change.found.members if plan.change else {}
    staging = [members[row.id].staging for row in plan.servers if row.id in members]
    measured = [one.bytes_per_s for one in staging if one.bytes_per_s]
    limits = [one.limit_bytes_per_s for one in staging if one.limit_bytes_per_s]
    return min([min(measured) if measured else ASSUMED_BYTES_PER_S, *limits])


def expected_s(plan: ChangePlan) -> float:
    """Return how long staging should take: servers work side by side, each on what it gets."""
    per_server = plan.moved_bytes / max(1, len(plan.servers))
    gains = max((row.peak_bytes - row.bytes_now for row in plan.servers), default=0)
    return max(per_server, gains) / rate_of(plan)
