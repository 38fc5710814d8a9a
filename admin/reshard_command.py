"""`tessera reshard`: changes where a live model's slots are, without failing a request.

A change goes PLANNED, PREPARING, PREPARED, COMMITTED, DRAINED, DONE. The command may be killed at any point: `resume`
goes on, `abort` goes back before the commit, and `reverse` is a new change that undoes one after it. `pause` holds it
where it is; with --no-commit it stops before it becomes current, for `verify` and `commit`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from dataclasses import replace
from typing import Any

from admin import changes, request_id, reshard_hold
from admin.arguments import add_cluster, add_output, byte_size
from admin.change_text import operation_json, operation_text, plan_json, plan_text, status_json, status_text
from admin.output import show
from admin.progress import say
from admin.staging_text import staging_line
from placement.change_plan import ChangePlan, Move, Request
from placement.document import Placement
from placement.found import Found, Reader
from placement.keys import Keys, Kind
from placement.records import AuditRecord, OperationRecord, OperationState
from placement.store import Store
from tessera.errors import DeadlineExceededError, FailedPreconditionError, InvalidArgumentError, NotFoundError
from tessera.repository import Repository

_WATCH_S = 0.5
_SLOTS = re.compile(r"(\d+)(?:-(\d+))?")


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    reshard = verbs.add_parser("reshard", help="change where a live model's slots are", description=__doc__)
    sub = reshard.add_subparsers(metavar="VERB", required=True)

    plan = sub.add_parser("plan", help="show what a change would do", description="Plans a change; changes nothing.")
    start = sub.add_parser("start", help="make a change", description="Plans a change, asks, and makes it.")
    for parser in (plan, start):
        _add_model(parser)
        _add_request(parser)
        changes.add_plan_arguments(parser)
    changes.add_drive_arguments(start)
    request_id.add_to(start)
    plan.set_defaults(run=lambda options: changes.run_verb(options, _plan))
    start.set_defaults(run=lambda options: changes.run_verb(options, _start))

    reverse = sub.add_parser("reverse", help="undo the last change", description="Makes a change that undoes the last.")
    _add_model(reverse)
    changes.add_plan_arguments(reverse)
    changes.add_drive_arguments(reverse)
    reverse.set_defaults(run=lambda options: changes.run_verb(options, _reverse))

    for name, function, text in (
        ("status", _status, "show how the change of a model stands"),
        ("watch", _watch, "follow a change until it has ended"),
        ("resume", _resume, "go on with a change whose command has died"),
        ("abort", _abort, "give a change up that is not committed yet"),
        ("show", _show, "show the last change of a model, with the placements before and after"),
    ):
        parser = sub.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_model(parser)
        add_cluster(parser)
        add_output(parser)
        if name in ("watch", "resume", "abort"):
            changes.add_timeout(parser)
        if name == "abort":
            parser.add_argument("--yes", action="store_true", help="do not ask")
            parser.add_argument("--reason", default="by an operator", help="for the records (default: %(default)s)")
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))

    reshard_hold.add_to(sub)

    listing = sub.add_parser("list", help="list changes", description="Lists each model's last change, and the audit.")
    add_cluster(listing)
    add_output(listing)
    listing.set_defaults(run=lambda options: changes.run_verb(options, _list))


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name of the model")


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--add", action="append", default=[], metavar="SERVER", help="give slots to a server")
    parser.add_argument("--remove", action="append", default=[], metavar="SERVER", help="take all slots from a server")
    parser.add_argument(
        "--move", action="append", default=[], metavar="slots=A-B,to=SERVER[,from=SERVER]",
        help="move single slots; slots=3, slots=0-99 or slots=0-9+12",
    )  # fmt: skip
    parser.add_argument("--replicas", type=int, metavar="N", help="servers that hold each slot")
    parser.add_argument("--rebalance", action="store_true", help="even out bytes among the servers that are there")
    parser.add_argument(
        "--relayout", type=int, metavar="SLOTS",
        help="another number of slots: a multiple or a divisor of the present one (buckets are not cut anew)",
    )  # fmt: skip
    parser.add_argument(
        "--wave-bytes", type=byte_size, metavar="BYTES", help="move at most so much at once (default: all that fits)"
    )


def request_of(options: argparse.Namespace) -> Request:
    """Return what the flags ask for.

    Raises:
        InvalidArgumentError: a flag is malformed, or none says what to change.
    """
    if options.replicas is not None and options.replicas < 1:
        raise InvalidArgumentError(f"--replicas: got {options.replicas}, expected at least 1")
    if options.wave_bytes is not None and options.wave_bytes < 1:
        raise InvalidArgumentError(f"--wave-bytes: got {options.wave_bytes}, expected at least 1")
    request = Request(
        add=tuple(options.add),
        remove=tuple(options.remove),
        moves=tuple(parse_move(text) for text in options.move),
        replicas=options.replicas,
        rebalance=options.rebalance,
        wave_bytes=options.wave_bytes,
        slots=options.relayout,
    )
    asked = (request.add, request.remove, request.moves, request.replicas, request.rebalance, request.slots)
    if not any(asked) and request.slots is None:
        raise InvalidArgumentError("expected --add, --remove, --move, --replicas, --rebalance or --relayout")
    return request


def parse_move(text: str) -> Move:
    """Parse `slots=0-9+12,to=s3,from=s1`.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    ranges = [_SLOTS.fullmatch(part) for part in fields.get("slots", "").split("+")]
    if fields.keys() - {"slots", "to", "from"} or not fields.get("to") or not all(ranges):
        raise InvalidArgumentError(f"--move: got {text!r}, expected slots=A-B,to=SERVER[,from=SERVER]")
    slots = [slot for found in ranges if found for slot in range(int(found[1]), int(found[2] or found[1]) + 1)]
    return Move(tuple(slots), fields["to"], fields.get("from", ""))


def command_of(options: argparse.Namespace) -> str:
    """Return the request in words, for records."""
    parts = [f"--{name}={value}" for name in ("add", "remove", "move") for value in getattr(options, name)]
    parts += [f"--replicas={options.replicas}"] if options.replicas else []
    parts += ["--rebalance"] if options.rebalance else []
    parts += [f"--relayout={options.relayout}"] if options.relayout is not None else []
    parts += [f"--wave-bytes={options.wave_bytes}"] if options.wave_bytes else []
    return f"reshard {options.model} {' '.join(parts)}"


async def _planned(options: argparse.Namespace, store: Store, keys: Keys) -> ChangePlan:
    request = request_of(options)
    repository = Repository(options.repository)
    return await changes.plan(
        store, keys, repository, options.model, request, kind="reshard", command=command_of(options)
    )


async def _plan(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    plan = await _planned(options, store, keys)
    show(options, plan_json(options.model, plan), plan_text(options.model, plan))
    if plan.problems:
        raise FailedPreconditionError(
            "it would be refused: " + "; ".join(f"{check.name}: {check.problem}" for check in plan.problems)
        )


async def _start(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    request_of(options)  # before anything is read
    if not await request_id.join(options, store, keys, options.model, command_of(options)):
        await changes.carry_out(store, keys, options.model, await _planned(options, store, keys), options)


async def _reverse(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    _, operation = await _operation(store, keys, options.model)
    if operation.state is not OperationState.DONE or operation.kind in ("load", "unload"):
        raise FailedPreconditionError(
            f"model {options.model}: the last operation is {operation.kind}, {operation.state.value}; only a change "
            "that is DONE can be undone (`resume` or `abort` ends one that is under way)"
        )
    before = await _document(store, keys, options.model, operation.origin_epoch)
    if operation.origin_versions:  # their labels may not be those of the document
        before = replace(before, versions=operation.origin_versions)
    request = Request(back_to=before, traffic=operation.origin_traffic)
    plan = await changes.plan(
        store, keys, Repository(options.repository), options.model, request,
        kind=operation.kind, command=f"reverse {operation.command or operation.kind}",
    )  # fmt: skip
    await changes.carry_out(store, keys, options.model, plan, options)


async def _document(store: Store, keys: Keys, model: str, epoch: int) -> Placement:
    key = keys.placement(model, epoch)
    entry = await store.get(key)
    if entry is None:
        raise NotFoundError(f"{key}: the placement is no longer there")
    return Placement.from_bytes(entry.value, entry.key)


async def _operation(store: Store, keys: Keys, model: str) -> tuple[Found, OperationRecord]:
    found = await Reader(store, keys, model).read()
    if found.operation is None:
        raise NotFoundError(f"model {model}: there is no operation")
    return found, found.operation


async def _status(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    found, _ = await _operation(store, keys, options.model)
    content = status_json(found)
    show(options, content, status_text(content))


async def _watch(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    said = ""
    reader = Reader(store, keys, options.model)
    await _operation(store, keys, options.model)
    try:
        async with asyncio.timeout(options.timeout_s):
            while True:
                found = await reader.read()
                assert found.operation is not None
                if not found.operation.active:
                    break
                content = status_json(found)
                text = f"{content['state']}: {content['next']}"
                if content["staging"]["done_bytes"] < content["staging"]["total_bytes"]:
                    text += f"; staged {staging_line(content['staging'])}"
                if text != said:
                    said = text
                    say(text)
                await asyncio.sleep(_WATCH_S)
    except TimeoutError:
        raise DeadlineExceededError(
            f"model {options.model}: not ended within {options.timeout_s:g} s: {said}"
        ) from None
    changes.show_operation(options, options.model, found.operation)


async def _resume(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    done = await changes.driver_of(store, keys, options.model).resume(timeout_s=options.timeout_s)
    changes.show_operation(options, options.model, done)


async def _abort(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    _, operation = await _operation(store, keys, options.model)
    if operation.active:
        changes.confirm(options, f"Give up: {operation_text(options.model, operation)}?")
    driver = changes.driver_of(store, keys, options.model)
    aborted = await driver.abort(options.reason, timeout_s=options.timeout_s)
    changes.show_operation(options, options.model, aborted, wanted=OperationState.ABORTED)


async def _show(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    found, operation = await _operation(store, keys, options.model)
    slots = {
        name: {server: sum(p.servers.index(server) in row for row in p.slot_servers) for server in p.servers}
        for name, p in (("before", found.base), ("after", found.target))
        if p is not None
    }
    lines = [
        f"{name}: " + ", ".join(f"{server} {count} slots" for server, count in servers.items())
        for name, servers in slots.items()
    ]
    content = operation_json(options.model, operation) | {"slots": slots}
    show(options, content, "\n".join([operation_text(options.model, operation), *lines]))


async def _list(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    operations, audits = [], []
    for entry in (await store.list_prefix(keys.prefix)).entries:
        parsed = keys.parse(entry.key)
        if parsed is not None and parsed.kind is Kind.OPERATION:
            operations.append((parsed.model, OperationRecord.from_bytes(entry.value, entry.key)))
        elif parsed is not None and parsed.kind is Kind.AUDIT:
            audits.append(AuditRecord.from_bytes(entry.value, entry.key))
    done = [{"operation": a.operation, "owner": a.owner, "command": a.command, "result": a.result} for a in audits]
    lines = [operation_text(*one) for one in operations] or ["no operations"]
    lines += [f"{audit.command}: {audit.result} ({audit.owner})" for audit in audits]
    show(options, {"operations": [operation_json(*one) for one in operations], "audit": done}, "\n".join(lines))
