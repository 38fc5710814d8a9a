"""The tables of `tessera status`, from the JSON values that `admin.status_command` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin.table import render
from tessera.settings import format_bytes

_BATCH_HEADER = (
    "ROUTER",
    "MODEL",
    "VERSION",
    "REGION",
    "BATCHES",
    "ROWS/BATCH",
    "P50",
    "P99",
    "WAIT P50",
    "WAIT P99",
    "PADDING",
    "OF LENGTH",
    "DEVICE",
    "REJECTED",
    "DROPPED",
)


def as_text(content: Mapping[str, Any]) -> str:
    """Return tables for people: servers and models only where `content` has them, batches where there are regions."""
    parts = []
    if "servers" in content:
        parts.append(_servers(content))
    parts.append(_routers(content))
    if any(router["status"] and router["status"]["regions"] for router in content["routers"]):
        parts.append(_batches(content))
    if "models" in content:
        parts.append(_models(content))
    failing = [f"{s['id']}: cannot hold its part: {s['error']}" for s in content.get("servers", ()) if s["error"]]
    if problems := failing + content["problems"]:
        parts.append("PROBLEMS\n" + "\n".join(problems))
    return "\n\n".join(parts)


def _servers(content: Mapping[str, Any]) -> str:
    return render(
        ("SERVER", "ADDRESS", "STATE", "DOMAIN", "BYTES", "CAPACITY", "SLOTS"),
        [
            (
                s["id"],
                s["address"],
                s["state"],
                s["domain"],
                format_bytes(s["bytes_used"]),
                format_bytes(s["capacity_bytes"]),
                ", ".join(f"{model} {slots}" for model, slots in s["slots"].items()) or "-",
            )
            for s in content["servers"]
        ],
        right=("BYTES", "CAPACITY"),
    )


def _routers(content: Mapping[str, Any]) -> str:
    return render(
        ("ROUTER", "ADDRESS", "REQUESTS", "ERRORS", "IN FLIGHT", "DEVICES BUSY"),
        [(r["id"], r["address"], *_router_counts(r["status"])) for r in content["routers"]],
        right=("REQUESTS", "ERRORS", "IN FLIGHT"),
    )


def _router_counts(status: Mapping[str, Any] | None) -> tuple[object, ...]:
    if status is None:
        return "no answer", "-", "-", "-"
    lanes = ", ".join(f"{lane['name']} {_percent(lane['busy_fraction'])}" for lane in status["lanes"])
    return status["requests"], sum(status["errors"].values()), status["in_flight"], lanes or "-"


def _batches(content: Mapping[str, Any]) -> str:
    rows = [
        (
            router["id"],
            region["model"],
            region["version"],
            region["region"],
            region["stats"]["batches"],
            _number(summary["mean_rows"]),
            _or_dash(summary["p50_rows"]),
            _or_dash(summary["p99_rows"]),
            _duration(summary["p50_queue_delay_micros"]),
            _duration(summary["p99_queue_delay_micros"]),
            _percent(summary["padding_fraction"]),
            _percent(summary["length_padding_fraction"]),
            _percent(summary["device_fraction"]),
            summary["rejected"],
            summary["dropped"],
        )
        for router in content["routers"]
        if router["status"] is not None
        for region in router["status"]["regions"]
        for summary in [region["summary"]]
    ]
    return render(_BATCH_HEADER, rows, right=(*_BATCH_HEADER[4:], "VERSION"))


def _models(content: Mapping[str, Any]) -> str:
    return render(
        ("MODEL", "VERSIONS", "EPOCH", "SLOTS", "REPLICAS", "SERVERS", "OPERATION"),
        [
            (
                m["name"],
                ", ".join(_version(v) for v in m["versions"]) or "-",
                m["epoch"] or "-",
                m["slots"],
                m["replicas"],
                len(m["servers"]),
                f"{m['operation']['kind']} {m['operation']['state']}" if m["operation"] else "-",
            )
            for m in content["models"]
        ],
        right=("EPOCH", "SLOTS", "REPLICAS", "SERVERS"),
    )


def _version(version: Mapping[str, Any]) -> str:
    labels = f" ({', '.join(version['labels'])})" if version["labels"] else ""
    return f"{version['version']}{labels}"


def _or_dash(value: object) -> object:
    return "-" if value is None else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.1%}"


def _duration(micros: float | None) -> str:
    """Return a time with two or three digits that matter: `85 µs`, `1.9 ms`, `2.1 s`."""
    if micros is None:
        return "-"
    if micros < 1000:
        return f"{micros:.0f} µs"
    return f"{micros / 1e3:.1f} ms" if micros < 1e6 else f"{micros / 1e6:.1f} s"
