"""`tessera server`: the servers of a cluster, and what an operator wants of them.

A cordoned server keeps its slots and takes no new ones; a draining one gives all of them away.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output
from admin.progress import say
from admin.table import render
from placement.change_plan import Request
from placement.keys import Keys
from placement.records import ServerRecord, ServerState
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import ABSENT, Store
from tessera.errors import FailedPreconditionError, NotFoundError
from tessera.repository import Repository
from tessera.settings import format_bytes


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    server = verbs.add_parser("server", help="list, cordon, drain and remove servers", description=__doc__)
    sub = server.add_subparsers(metavar="VERB", required=True)
    for name, function, text in (
        ("list", _list, "list servers, running or wanted"),
        ("describe", _describe, "show everything that is known of a server"),
        ("cordon", _cordon, "give a server no new slots"),
        ("uncordon", _uncordon, "let a server have slots again"),
        ("drain", _drain, "take all slots of all models from a server"),
        ("remove", _remove, "forget a server that holds nothing"),
    ):
        parser = sub.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != "list":
            parser.add_argument("server", metavar="SERVER", help="id of the server")
        if name == "drain":
            changes.add_plan_arguments(parser)
            changes.add_drive_arguments(parser)
        else:
            add_cluster(parser)
            add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


async def _snapshot(store: Store, keys: Keys) -> ClusterSnapshot:
    return replace_all(keys, ClusterSnapshot(), await store.list_prefix(keys.prefix))


def describe(snapshot: ClusterSnapshot, server: str) -> dict[str, Any]:
    """Return what is known of a server as JSON values.

    Raises:
        NotFoundError: nothing is.
    """
    member, wanted = snapshot.members.get(server), snapshot.servers.get(server)
    if server not in ids(snapshot):
        raise NotFoundError(f"server {server}: is not there; there are {', '.join(ids(snapshot)) or 'none'}")
    slots: dict[str, dict[int, int]] = {}
    for name, view in sorted(snapshot.models.items()):
        for placement in view.held:
            if server in placement.servers:
                position = placement.servers.index(server)
                count = sum(position in row for row in placement.slot_servers)
                slots.setdefault(name, {})[placement.epoch] = count
    record = member.record if member else None
    return {
        "id": server,
        "state": record.state.value if member and member.live and record else "LOST",
        "wanted": wanted.state.value if wanted else ServerState.ACTIVE.value,
        "address": record.address if record else "",
        "build": record.build if record else "",
        "domain": wanted.domain if wanted else record.domain if record else "",
        "weight": wanted.weight if wanted else 1,
        "bytes_used": record.bytes_used if record else 0,
        "capacity_bytes": wanted.capacity_bytes if wanted else record.capacity_bytes if record else 0,
        "slots": {name: {str(epoch): count for epoch, count in epochs.items()} for name, epochs in slots.items()},
        "epochs_seen": dict(record.epochs) if record else {},
        "error": record.error if record else "",
    }


def ids(snapshot: ClusterSnapshot) -> list[str]:
    """Return every server that is running, named by a placement, or wanted."""
    named = {server for view in snapshot.models.values() for placement in view.held for server in placement.servers}
    return sorted(snapshot.members.keys() | snapshot.servers.keys() | named)


async def _list(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    snapshot = await _snapshot(store, keys)
    rows = [describe(snapshot, server) for server in ids(snapshot)]
    if options.output == "json":
        print(json.dumps(rows, indent=2))
        return
    print(
        render(
            ("SERVER", "STATE", "WANTED", "DOMAIN", "HELD", "CAPACITY", "SLOTS"),
            [
                (
                    row["id"],
                    row["state"],
                    row["wanted"],
                    row["domain"],
                    format_bytes(row["bytes_used"]),
                    format_bytes(row["capacity_bytes"]),
                    ", ".join(f"{name} {max(epochs.values())}" for name, epochs in row["slots"].items()) or "-",
                )
                for row in rows
            ],
            right=("HELD", "CAPACITY"),
        )
    )


async def _describe(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    content = describe(await _snapshot(store, keys), options.server)
    if options.output == "json":
        print(json.dumps(content, indent=2))
        return
    width = max(len(name) for name in content)
    for name, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items()) or "-"
        print(f"{name.replace('_', ' '):<{width}}  {format_bytes(value) if 'bytes' in name else value}")


async def _cordon(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    await _want(options, store, keys, ServerState.CORDONED)


async def _uncordon(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    await _want(options, store, keys, ServerState.ACTIVE)


async def _want(options: argparse.Namespace, store: Store, keys: Keys, state: ServerState) -> None:
    """Write what is wanted of a server, comparing that nobody else did meanwhile."""
    record, version = await _wanted(options, store, keys)
    if record.state is not state:
        await store.put(keys.server(options.server), replace(record, state=state).to_bytes(), expected=version)
    content = {"id": options.server, "wanted": state.value}
    print(json.dumps(content, indent=2) if options.output == "json" else f"server {options.server}: {state.value}")


async def _wanted(options: argparse.Namespace, store: Store, keys: Keys) -> tuple[ServerRecord, int]:
    """Return what is wanted of a server, from its own record if nobody said anything yet, and the key's version."""
    entry = await store.get(keys.server(options.server))
    if entry is not None:
        return ServerRecord.from_bytes(entry.value, entry.key), entry.version
    content = describe(await _snapshot(store, keys), options.server)
    return ServerRecord(content["domain"], 1, content["capacity_bytes"], ServerState.ACTIVE), ABSENT


async def _drain(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    """Mark the server as draining, then take its slots away, one model after the other."""
    snapshot = await _snapshot(store, keys)
    models = sorted(describe(snapshot, options.server)["slots"])
    if not options.dry_run:
        changes.confirm(options, f"Take the slots of {', '.join(models) or 'no model'} from {options.server}?")
        options.yes = True
        await _want_quietly(options, store, keys)
    request = Request(remove=(options.server,))
    for model in models:
        say(f"model {model}: taking slots from {options.server}")
        command = f"server drain {options.server}"
        plan = await changes.plan(
            store, keys, Repository(options.repository), model, request, kind="reshard", command=command
        )
        await changes.carry_out(store, keys, model, plan, options)
    if not models:
        print(f"server {options.server}: holds nothing")


async def _want_quietly(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    record, version = await _wanted(options, store, keys)
    if record.state is not ServerState.DRAINING:
        draining = replace(record, state=ServerState.DRAINING)
        await store.put(keys.server(options.server), draining.to_bytes(), expected=version)


async def _remove(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    """Forget what was wanted of a server.

    Raises:
        FailedPreconditionError: a placement still names it, or it still runs.
    """
    snapshot = await _snapshot(store, keys)
    content = describe(snapshot, options.server)
    if content["slots"]:
        raise FailedPreconditionError(
            f"server {options.server}: holds slots of {', '.join(content['slots'])}; `tessera server drain` first"
        )
    if content["state"] != "LOST":
        raise FailedPreconditionError(f"server {options.server}: runs at {content['address']}; stop it first")
    await store.delete(keys.server(options.server))
    removed = {"id": options.server, "removed": True}
    print(json.dumps(removed, indent=2) if options.output == "json" else f"server {options.server}: removed")
