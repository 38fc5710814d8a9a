"""`tessera server`: the servers of a cluster, and what an operator wants of them.

A cordoned server keeps its slots and takes no new ones; a draining one gives all of them away. One that was added and
has not shown up yet is EXPECTED: it takes no slots before it is there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output, byte_size
from admin.loading import owner
from admin.output import show
from admin.progress import say
from admin.table import render
from placement.audit import write_audited
from placement.change_plan import Request
from placement.keys import Keys
from placement.records import ServerRecord, ServerState
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import ABSENT, Compare, Delete, Put, Store
from tessera.errors import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError, NotFoundError
from tessera.repository import Repository
from tessera.settings import format_bytes


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    server = verbs.add_parser("server", help="list, cordon, drain and remove servers", description=__doc__)
    sub = server.add_subparsers(metavar="VERB", required=True)
    for name, function, text in (
        ("list", _list, "list servers, running or wanted"),
        ("describe", _describe, "show everything that is known of a server"),
        ("add", _add, "say what a server is, before it shows up"),
        ("cordon", _cordon, "give a server no new slots"),
        ("uncordon", _uncordon, "let a server have slots again"),
        ("drain", _drain, "take all slots of all models from a server"),
        ("remove", _remove, "forget a server that holds nothing"),
    ):
        parser = sub.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != "list":
            parser.add_argument("server", metavar="SERVER", help="id of the server")
        if name == "add":
            _add_description(parser)
        if name in ("add", "cordon", "uncordon", "remove"):
            parser.add_argument("--dry-run", action="store_true", help="say what it would do and change nothing")
        if name == "drain":
            changes.add_plan_arguments(parser)
            changes.add_drive_arguments(parser)
        else:
            add_cluster(parser)
            add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


def _add_description(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", required=True, metavar="NAME", help="failure domain: its zone, rack or host")
    parser.add_argument(
        "--capacity", required=True, type=byte_size, metavar="BYTES", help="how many bytes of blobs it can hold"
    )
    parser.add_argument("--weight", type=int, default=1, help="its share among others (default: %(default)s)")
    parser.add_argument("--cordoned", action="store_true", help="it takes no slots before `tessera server uncordon`")


async def read_snapshot(store: Store, keys: Keys) -> ClusterSnapshot:
    """Return the cluster as the store has it now."""
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
        "state": member.record.state.value if member and member.live else "LOST" if slots else "EXPECTED",
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
    snapshot = await read_snapshot(store, keys)
    rows = [describe(snapshot, server) for server in ids(snapshot)]
    table = render(
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
    show(options, rows, table)


async def _describe(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    content = describe(await read_snapshot(store, keys), options.server)
    width = max(len(name) for name in content)
    lines = []
    for name, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items()) or "-"
        lines.append(f"{name.replace('_', ' '):<{width}}  {format_bytes(value) if 'bytes' in name else value}")
    show(options, content, "\n".join(lines))


async def _add(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    """Write what a server is; again with the same words it does nothing.

    Raises:
        AlreadyExistsError: there is another record.
        InvalidArgumentError: a flag has a wrong value; names it.
    """
    if options.weight < 1:
        raise InvalidArgumentError(f"--weight: got {options.weight}, expected at least 1")
    if options.capacity < 1:
        raise InvalidArgumentError(f"--capacity: got {options.capacity}, expected at least 1")
    if not options.domain:
        raise InvalidArgumentError("--domain: got an empty one, expected a name")
    state = ServerState.CORDONED if options.cordoned else ServerState.ACTIVE
    record = ServerRecord(options.domain, options.weight, options.capacity, state)
    entry = await store.get(keys.server(options.server))
    there = ServerRecord.from_bytes(entry.value, entry.key) if entry is not None else None
    if there is not None and there != record:
        raise AlreadyExistsError(
            f"server {options.server}: is known already, in domain {there.domain} with weight {there.weight}, "
            f"{there.capacity_bytes} bytes, {there.state.value}; `tessera server remove` it first"
        )
    if there is None and not options.dry_run:
        words = f"server add {options.server} --domain={options.domain} --weight={options.weight}"
        await _write(
            options, store, keys, record, ABSENT,
            f"{words} --capacity={options.capacity}{' --cordoned' if options.cordoned else ''}",
        )  # fmt: skip
    content = {
        "id": options.server,
        "wanted": state.value,
        "domain": record.domain,
        "weight": record.weight,
        "capacity_bytes": record.capacity_bytes,
    }
    size = format_bytes(record.capacity_bytes)
    text = f"server {options.server}: {state.value}, {size} in domain {record.domain}, weight {record.weight}"
    show(options, content, text)


async def _write(
    options: argparse.Namespace, store: Store, keys: Keys, record: ServerRecord, version: int, command: str
) -> None:
    """Write what is wanted of a server, comparing that nobody else did meanwhile."""
    key = keys.server(options.server)
    await write_audited(
        store, keys, [Compare(key, version=version)], [Put(key, record.to_bytes())],
        owner=owner(), command=command, result=f"{options.server} is {record.state.value}",
    )  # fmt: skip


async def _cordon(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    await _want(options, store, keys, ServerState.CORDONED)


async def _uncordon(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    await _want(options, store, keys, ServerState.ACTIVE)


async def _want(options: argparse.Namespace, store: Store, keys: Keys, state: ServerState) -> None:
    verb = "cordon" if state is ServerState.CORDONED else "uncordon"
    if options.dry_run:
        describe(await read_snapshot(store, keys), options.server)  # is it there?
    else:
        await _want_quietly(options, store, keys, state, f"server {verb} {options.server}")
    content = {"id": options.server, "wanted": state.value}
    show(options, content, f"server {options.server}: {state.value}")


async def _wanted(options: argparse.Namespace, store: Store, keys: Keys) -> tuple[ServerRecord, int]:
    """Return what is wanted of a server, from its own record if nobody said anything yet, and the key's version."""
    entry = await store.get(keys.server(options.server))
    if entry is not None:
        return ServerRecord.from_bytes(entry.value, entry.key), entry.version
    content = describe(await read_snapshot(store, keys), options.server)
    return ServerRecord(content["domain"], 1, content["capacity_bytes"], ServerState.ACTIVE), ABSENT


async def _drain(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    """Mark the server as draining, then take its slots away, one model after the other."""
    snapshot = await read_snapshot(store, keys)
    models = sorted(describe(snapshot, options.server)["slots"])
    if not options.dry_run:
        changes.confirm(options, f"Take the slots of {', '.join(models) or 'no model'} from {options.server}?")
        options.yes = True
        await _want_quietly(options, store, keys, ServerState.DRAINING, f"server drain {options.server}")
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


async def _want_quietly(
    options: argparse.Namespace, store: Store, keys: Keys, state: ServerState, command: str
) -> None:
    record, version = await _wanted(options, store, keys)
    if record.state is not state:
        await _write(options, store, keys, replace(record, state=state), version, command)


async def _remove(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    """Forget what was wanted of a server.

    Raises:
        FailedPreconditionError: a placement still names it, or it still runs.
    """
    snapshot = await read_snapshot(store, keys)
    content = describe(snapshot, options.server)
    if content["slots"]:
        raise FailedPreconditionError(
            f"server {options.server}: holds slots of {', '.join(content['slots'])}; `tessera server drain` first"
        )
    if content["state"] not in ("LOST", "EXPECTED"):
        raise FailedPreconditionError(f"server {options.server}: runs at {content['address']}; stop it first")
    key = keys.server(options.server)
    if not options.dry_run and (entry := await store.get(key)) is not None:
        await write_audited(
            store, keys, [Compare(key, version=entry.version)], [Delete(key)],
            owner=owner(), command=f"server remove {options.server}", result=f"{options.server} is removed",
        )  # fmt: skip
    removed = not options.dry_run
    show(
        options,
        {"id": options.server, "removed": removed},
        f"server {options.server}: {'' if removed else 'would be '}removed",
    )
