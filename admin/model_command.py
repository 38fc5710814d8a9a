"""`tessera model`: what a cluster serves.

Versions and labels are those that requests may name. A split divides requests that name none; without one the largest
version gets them all.
"""

from __future__ import annotations

import argparse
from typing import Any

from admin import changes, load_command, rollout_command, traffic_command, unload_command
from admin.arguments import add_cluster, add_output
from admin.change_text import operation_json, operation_text
from admin.output import show
from admin.server_command import read_snapshot
from admin.table import render
from admin.traffic_command import split_json, split_text, versions_json, versions_text
from placement.keys import Keys
from placement.records import Placement
from placement.snapshot import ClusterSnapshot, ModelView
from placement.store import Store
from placement.traffic import traffic_of, versions_of
from tessera.errors import NotFoundError


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    model = verbs.add_parser("model", help="load models onto a cluster and change what is served", description=__doc__)
    sub = model.add_subparsers(metavar="VERB", required=True)
    for name, function, text in (
        ("list", _list, "list models"),
        ("describe", _describe, "show everything that is known of a model"),
    ):
        parser = sub.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "list":
            parser.add_argument("--all", action="store_true", help="models that were unloaded too")
        else:
            parser.add_argument("model", metavar="MODEL", help="name of the model")
        add_cluster(parser)
        add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))
    for module in (load_command, unload_command, rollout_command, traffic_command):
        module.add_to(sub)


def model_json(name: str, view: ModelView) -> dict[str, Any]:
    """Return a model as `list` shows it."""
    placement, operation = view.placement, view.operation
    return {
        "name": name,
        "state": state_of(view),
        "epoch": view.epoch or None,
        "versions": versions_json(versions_of(view)),
        "split": split_json(traffic_of(view)),
        "slots": placement.slots if placement else 0,
        "replicas": placement.replicas if placement else 0,
        "servers": list(placement.servers) if placement else [],
        "operation": operation_json(name, operation) if operation is not None else None,
    }


def state_of(view: ModelView) -> str:
    """Return SERVING, LOADING, UNLOADED or, when a load was given up, ABSENT."""
    if view.placement is not None:
        return "SERVING"
    if view.operation is not None and view.operation.active and view.operation.kind == "load":
        return "LOADING"
    return "UNLOADED" if view.current is not None else "ABSENT"


def describe(snapshot: ClusterSnapshot, name: str) -> dict[str, Any]:
    """Return all that is known of a model.

    Raises:
        NotFoundError: nothing is.
    """
    view = snapshot.models.get(name)
    if view is None:
        there = ", ".join(sorted(snapshot.models)) or "none"
        raise NotFoundError(f"model {name}: is not there; there are {there}")
    placement = view.placement
    return model_json(name, view) | {
        "digest": placement.digest if placement else "",
        "layout": placement.layout if placement else 0,
        "servers": [server_json(snapshot, placement, server) for server in (placement.servers if placement else ())],
        "routers": [
            {"id": router, "address": record.address, "pinned": record.pinned[name]}
            for router, record in sorted(snapshot.routers.items())
            if name in record.pinned
        ],
    }


def server_json(snapshot: ClusterSnapshot, placement: Placement | None, server: str) -> dict[str, Any]:
    """Return a server's part in a placement."""
    assert placement is not None
    member = snapshot.members.get(server)
    position = placement.servers.index(server)
    return {
        "id": server,
        "state": member.record.state.value if member and member.live else "LOST",
        "address": snapshot.address_of(server),
        "slots": sum(position in row for row in placement.slot_servers),
        "first": sum(row[0] == position for row in placement.slot_servers),
        "error": member.record.error if member else "",
    }


async def _list(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    snapshot = await read_snapshot(store, keys)
    shown = {name: v for name, v in sorted(snapshot.models.items()) if options.all or state_of(v) != "UNLOADED"}
    table = render(
        ("MODEL", "STATE", "VERSIONS", "SPLIT", "EPOCH", "REPLICAS", "SERVERS", "OPERATION"),
        [
            (
                name,
                state_of(view),
                versions_text(versions_of(view)) or "-",
                split_text(traffic_of(view)),
                view.epoch or "-",
                view.placement.replicas if view.placement else "-",
                len(view.placement.servers) if view.placement else "-",
                f"{view.operation.kind} {view.operation.state.value}" if view.operation else "-",
            )
            for name, view in shown.items()
        ],
        right=("EPOCH", "REPLICAS", "SERVERS"),
    )
    show(options, [model_json(name, view) for name, view in shown.items()], table)


async def _describe(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    snapshot = await read_snapshot(store, keys)
    content = describe(snapshot, options.model)
    view = snapshot.models[options.model]
    lines = [
        f"Model      {options.model}: {content['state']}, epoch {view.epoch or '-'}",
        f"Versions   {versions_text(versions_of(view)) or '-'}",
        f"Split      {split_text(traffic_of(view))}",
        f"Placement  {content['slots']} slots, {content['replicas']} replicas, digest {content['digest'] or '-'}",
        f"Operation  {operation_text(options.model, view.operation) if view.operation else '-'}",
    ]
    show(options, content, "\n".join(lines) + f"\n\n{servers_text(content['servers'])}\n\n{_routers_text(content)}")


def servers_text(servers: list[dict[str, Any]]) -> str:
    """Return a table of `server_json` rows."""
    return render(
        ("SERVER", "STATE", "ADDRESS", "SLOTS", "FIRST", "ERROR"),
        [(s["id"], s["state"], s["address"] or "-", s["slots"], s["first"], s["error"] or "-") for s in servers],
        right=("SLOTS", "FIRST"),
    )


def _routers_text(content: dict[str, Any]) -> str:
    rows = [(router["id"], router["address"], router["pinned"]) for router in content["routers"]]
    return render(("ROUTER", "ADDRESS", "OLDEST EPOCH IN USE"), rows, right=("OLDEST EPOCH IN USE",))
