"""Asks routers what they have counted, and condenses it; all but `ask` is pure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from protos import router_pb2
from router.status_service import GET_STATUS
from tessera.process_settings import read_file

ASK_TIMEOUT_S = 2.0

_NOW = frozenset({"in_flight", "in_flight_limit", "enqueued_rows", "enqueued_bytes", "in_loop", "policy"})
"""Fields that tell what is, not what has been counted."""


@dataclass(frozen=True)
class Answer:
    """What became of asking one router.

    Attributes:
        status: a GetStatusResponse as JSON values, None without an answer.
        problem: why there is no answer; empty with one.
    """

    status: dict[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True)
class RouterTls:
    """Files for TLS to the routers; without `ca` there is none."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return them, read, or None.

        Raises:
            SettingsError: a file cannot be read; names its flag.
        """
        if not self.ca:
            return None
        ca, key, cert = (
            read_file(path, flag)
            for path, flag in ((self.ca, "--router-ca"), (self.key, "--router-key"), (self.cert, "--router-cert"))
        )
        return grpc.ssl_channel_credentials(ca, key or None, cert or None)


async def ask(
    addresses: Sequence[str], credentials: grpc.ChannelCredentials | None, timeout_s: float = ASK_TIMEOUT_S
) -> dict[str, Answer]:
    """Ask all routers at once; those that do not answer within `timeout_s` have a problem instead of a status."""
    answers = await asyncio.gather(*(_ask(address, credentials, timeout_s) for address in addresses))
    return dict(zip(addresses, answers, strict=True))


async def ask_for_window(
    addresses: Sequence[str], credentials: grpc.ChannelCredentials | None, window_s: float
) -> dict[str, Answer]:
    """Ask all routers twice, `window_s` apart, and return what happened in between; 0: since their start, at once."""
    before = await ask(addresses, credentials)
    if not window_s:
        return before
    await asyncio.sleep(window_s)
    after = await ask(addresses, credentials)
    return {address: _between(before[address], after[address]) for address in addresses}


async def _ask(address: str, credentials: grpc.ChannelCredentials | None, timeout_s: float) -> Answer:
    channel = (
        grpc.aio.secure_channel(address, credentials) if credentials is not None else grpc.aio.insecure_channel(address)
    )
    async with channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(GET_STATUS)
        try:
            answer = await method(router_pb2.GetStatusRequest().SerializeToString(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return Answer(problem=f"{error.code().name}: {error.details()}")
    return Answer(to_json(router_pb2.GetStatusResponse.FromString(answer)))


def to_json(message: Message) -> dict[str, Any]:
    """Return every field of `message` by its name; the keys of maps become text, as JSON has them, in their order."""
    content: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is None:
            content[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            content[field.name] = {str(key): value[key] for key in sorted(value)}
        else:
            content[field.name] = [to_json(one) for one in value] if field.is_repeated else to_json(value)
    return content


def _between(before: Answer, after: Answer) -> Answer:
    if before.status is None or after.status is None:
        return before if before.status is None else after
    return Answer(difference(before.status, after.status))


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return `after` (as `to_json` makes it) with what was counted since `before`, its uptime being that time.

    A router that was started in between, and a region that was loaded in between, count from there.
    """
    if after["uptime_s"] < before["uptime_s"]:
        return dict(after)
    regions = {_region_key(region): region for region in before["regions"]}
    lanes = {lane["name"]: lane for lane in before["lanes"]}
    result = _subtract(before, {name: after[name] for name in ("uptime_s", "requests", "errors", "in_flight")})
    result |= {name: after[name] for name in ("build", "unused_policies")}
    result["regions"] = [_region_since(regions.get(_region_key(region)), region) for region in after["regions"]]
    result["lanes"] = [_lane_since(lanes.get(lane["name"]), lane) for lane in after["lanes"]]
    return result


def _region_key(region: Mapping[str, Any]) -> tuple[str, int, str]:
    return region["model"], region["version"], region["region"]


def _region_since(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    if before is None or before["stats"]["tasks"] > after["stats"]["tasks"]:  # loaded, or loaded again
        return dict(after)
    return {**after, "stats": _subtract(before["stats"], after["stats"])}


def _lane_since(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    if before is None or before["since_ns"] != after["since_ns"]:
        return dict(after)
    counted = _subtract(before, {name: after[name] for name in ("busy_ns", "timer_wakeups")})
    return {**after, **counted, "since_ns": before["now_ns"]}


def _subtract(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in after.items():
        if name in _NOW:
            result[name] = value
        elif isinstance(value, Mapping):
            result[name] = _subtract(before.get(name, {}), value)
        elif isinstance(value, list):
            old = before.get(name) or [0] * len(value)
            result[name] = [new - was for new, was in zip(value, old, strict=True)]
        else:
            result[name] = value - before.get(name, 0)
    return result


def summarise(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return `status` with a `summary` in each region and a `busy_fraction` in each lane, for people.

    A quantile of times is an estimate within its power of two; what there is no data for is None.
    """
    return {
        **status,
        "regions": [
            {**region, "summary": _summary(region["stats"], status["uptime_s"])} for region in status["regions"]
        ],
        "lanes": [{**lane, "busy_fraction": _fraction(lane["busy_ns"], _elapsed_ns(lane))} for lane in status["lanes"]],
    }


def _elapsed_ns(lane: Mapping[str, Any]) -> int:
    return int(lane["now_ns"] - lane["since_ns"])


def _summary(stats: Mapping[str, Any], time_s: float) -> dict[str, Any]:
    sizes = {int(size): count for size, count in stats["batch_sizes"].items()}
    delays = stats["queue_delay_micros"]["counts"]
    rows, padding = stats["rows"], stats["padding_rows"]
    return {
        "mean_rows": _fraction(rows, stats["batches"]),
        "p50_rows": size_quantile(sizes, 0.5),
        "p99_rows": size_quantile(sizes, 0.99),
        "p50_queue_delay_micros": power_quantile(delays, 0.5),
        "p99_queue_delay_micros": power_quantile(delays, 0.99),
        "padding_fraction": _fraction(padding, rows + padding),
        "length_padding_fraction": _fraction(stats["padding_elements"], stats["elements"]),
        "device_fraction": _fraction(stats["device_ns"] * 1e-9, time_s),
        "rejected": sum(stats[f"rejected_{why}"] for why in ("rows_bound", "bytes_bound", "too_large")),
        "dropped": stats["expired_queued"] + stats["expired_running"],
    }


def _fraction(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def size_quantile(counts: Mapping[int, int], quantile: float) -> int | None:
    """Return the smallest size that at least the fraction `quantile` of all is not above; None if there is none."""
    wanted, seen = quantile * sum(counts.values()), 0
    for size, count in sorted(counts.items()):
        seen += count
        if count and seen >= wanted:
            return size
    return None


def power_quantile(counts: Sequence[int], quantile: float) -> float | None:
    """Estimate a quantile of a power histogram (cell i: 2^(i-1) ≤ v < 2^i), straight within a cell; None if empty.

    In the last cell, which is open, it is the lower bound.
    """
    wanted, seen = quantile * sum(counts), 0
    for cell, count in enumerate(counts):
        if count and seen + count >= wanted:
            low, high = (1 << cell) // 2, 1 << cell
            return float(low) if cell == len(counts) - 1 else low + (high - low) * (wanted - seen) / count
        seen += count
    return None
