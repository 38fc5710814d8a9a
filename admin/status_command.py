"""`tessera status`: members, models, placement and bytes of a cluster, as its store has them."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from admin.arguments import add_cluster, add_output
from admin.stores import open_store
from admin.table import render
from placement.keys import Keys
from placement.snapshot import ClusterSnapshot, ModelView, replace_all
from tessera.settings import format_bytes


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("status", help="show members, models, placement and bytes", description=__doc__)
    add_cluster(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the store once and print it."""
    snapshot = asyncio.run(_read(options))
    content = describe(snapshot)
    print(json.dumps(content, indent=2) if options.output == "json" else as_text(content))


async def _read(options: argparse.Namespace) -> ClusterSnapshot:
    store = open_store(options)
    keys = Keys(options.cluster)
    try:
        return replace_all(keys, ClusterSnapshot(), await store.list_prefix(keys.prefix))
    finally:
        await store.close()


def describe(snapshot: ClusterSnapshot) -> dict[str, Any]:
    """Return what is shown, as JSON values; a pure function of the snapshot."""
    return {
        "servers": [
            {
                "id": server,
                "address": member.record.address,
                "state": member.record.state.value if member.live else "LOST",
                "domain": member.record.domain,
                "bytes_used": member.record.bytes_used,
                "capacity_bytes": member.record.capacity_bytes,
                "slots": {
                    name: sum(position in owners for owners in view.placement.slot_servers)
                    for name, view in sorted(snapshot.models.items())
                    if view.placement is not None and server in view.placement.servers
                    for position in [view.placement.servers.index(server)]
                },
                "build": member.record.build,
                "error": member.record.error,
            }
            for server, member in sorted(snapshot.members.items())
        ],
        "routers": [{"id": router, "address": record.address} for router, record in sorted(snapshot.routers.items())],
        "models": [_describe_model(name, view) for name, view in sorted(snapshot.models.items())],
        "problems": [snapshot.problems[key] for key in sorted(snapshot.problems)],
    }


def _describe_model(name: str, view: ModelView) -> dict[str, Any]:
    placement, operation = view.placement, view.operation
    return {
        "name": name,
        "epoch": placement.epoch if placement else None,
        "versions": [
            {"version": ref.version, "digest": ref.digest, "labels": list(ref.labels)}
            for ref in (placement.versions if placement else ())
        ],
        "slots": placement.slots if placement else 0,
        "replicas": placement.replicas if placement else 0,
        "servers": list(placement.servers) if placement else [],
        "operation": None
        if operation is None
        else {
            "kind": operation.kind,
            "state": operation.state.value,
            "target_epoch": operation.target_epoch,
            "ready": sorted(server for epoch, server in view.ready if epoch == operation.target_epoch),
            "error": operation.error,
        },
    }


def as_text(content: dict[str, Any]) -> str:
    """Return `describe`'s result as tables for people."""
    parts = [
        render(
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
        ),
        render(("ROUTER", "ADDRESS"), [(r["id"], r["address"]) for r in content["routers"]]),
        render(
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
        ),
    ]
    failing = [f"{s['id']}: cannot hold its part: {s['error']}" for s in content["servers"] if s["error"]]
    if problems := failing + content["problems"]:
        parts.append("PROBLEMS\n" + "\n".join(problems))
    return "\n\n".join(parts)


def _version(version: dict[str, Any]) -> str:
    labels = f" ({', '.join(version['labels'])})" if version["labels"] else ""
    return f"{version['version']}{labels}"
