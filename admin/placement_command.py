"""`tessera placement`: which servers hold what of a model, now and before.

The rows of a table fall into buckets (row modulo their number), buckets into slots, and a placement says which servers
hold which slots, the preferred one first.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output
from admin.audit_command import read_audits
from admin.model_command import server_json, servers_text
from admin.output import show
from admin.placement_text import diff_json, diff_text, history_json, history_text, slots_text
from admin.server_command import read_snapshot
from admin.traffic_command import split_json, split_text, versions_json, versions_text
from placement.keys import Keys, Kind
from placement.records import CurrentRecord, Placement
from placement.slots import slot_of
from placement.store import Store
from placement.traffic import served_versions
from tessera.errors import InvalidArgumentError, NotFoundError
from tessera.manifest import Manifest
from tessera.repository import Repository

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    placement = verbs.add_parser("placement", help="show which servers hold what of a model", description=__doc__)
    sub = placement.add_subparsers(metavar="VERB", required=True)
    shown = sub.add_parser("show", help="show a placement", description="Shows a placement, or who holds parts of it.")
    shown.add_argument("model", metavar="MODEL", help="name of the model")
    shown.add_argument("--epoch", type=int, metavar="N", help="of an earlier placement (default: the current one)")
    shown.add_argument("--slot", action="append", default=[], metavar="N", help="a slot or, as A-B, several")
    shown.add_argument(
        "--partition", action="append", default=[], metavar="TABLE=BUCKET", help="a bucket of a table: where it is"
    )
    shown.add_argument(
        "--key", action="append", default=[], metavar="TABLE=ROW", help="a row of a table; needs --repository"
    )
    shown.add_argument("--repository", type=Path, metavar="DIR", help="packages, for the buckets of --key")
    shown.add_argument("--version", type=int, help="version whose tables are meant (default: the largest)")
    diff = sub.add_parser("diff", help="compare two placements", description="Says what differs between two epochs.")
    diff.add_argument("model", metavar="MODEL", help="name of the model")
    diff.add_argument("before", type=int, metavar="EPOCH1", help="the placement to start from")
    diff.add_argument("after", type=int, metavar="EPOCH2", help="the placement to compare with it")
    history = sub.add_parser(
        "history", help="list the placements that are kept", description="Lists a model's placements, newest first."
    )
    history.add_argument("model", metavar="MODEL", help="name of the model")
    for parser, function in ((shown, _show), (diff, _diff), (history, _history)):
        add_cluster(parser)
        add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


async def _documents(store: Store, keys: Keys, model: str) -> tuple[dict[int, Placement], CurrentRecord | None]:
    """Return epoch → document of all that are kept, and the pointer.

    Raises:
        NotFoundError: there is nothing of the model.
    """
    documents: dict[int, Placement] = {}
    current = None
    entries = (await store.list_prefix(keys.model(model))).entries
    for entry in entries:
        parsed = keys.parse(entry.key)
        if parsed is not None and parsed.kind is Kind.PLACEMENT:
            documents[parsed.epoch] = Placement.from_bytes(entry.value, entry.key)
        elif parsed is not None and parsed.kind is Kind.CURRENT:
            current = CurrentRecord.from_bytes(entry.value, entry.key)
    if not entries:
        raise NotFoundError(f"model {model}: is not there")
    return documents, current


def _document(documents: dict[int, Placement], model: str, epoch: int) -> Placement:
    if epoch not in documents:
        there = ", ".join(str(number) for number in sorted(documents)) or "none"
        raise NotFoundError(f"model {model}: no placement of epoch {epoch} is kept; there are {there}")
    return documents[epoch]


async def _show(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    documents, current = await _documents(store, keys, options.model)
    if options.epoch is None and (current is None or current.unloaded):
        raise NotFoundError(f"model {options.model}: has no placement; `tessera placement history` lists what is kept")
    epoch = options.epoch if options.epoch is not None or current is None else current.epoch
    placement = _document(documents, options.model, epoch)
    is_current = current is not None and current.epoch == placement.epoch
    versions = served_versions(current if is_current else None, placement)
    wanted = {slot: f"slot {slot}" for text in options.slot for slot in parse_slots(text, placement.slots)}
    for text in options.partition:
        table, bucket = _named(text, "--partition")
        slot = slot_of(table, bucket, placement.slots)
        wanted[slot] = f"{wanted[slot]}, {text}" if slot in wanted else text
    if options.key:
        manifest = await asyncio.to_thread(_manifest, options, placement)
        for text in options.key:
            slot, what = _slot_of_row(text, manifest, placement.slots)
            wanted[slot] = f"{wanted[slot]}, {what}" if slot in wanted else what
    snapshot = await read_snapshot(store, keys)
    content: dict[str, Any] = {
        "model": options.model,
        "epoch": placement.epoch,
        "current": is_current,
        "digest": placement.digest,
        "layout": placement.layout,
        "versions": versions_json(versions),
        "split": split_json(current.traffic) if current is not None and is_current else None,
        "slots": placement.slots,
        "replicas": placement.replicas,
        "servers": [server_json(snapshot, placement, server) for server in placement.servers],
        "found": [
            {"slot": slot, "what": what, "servers": [placement.servers[i] for i in placement.slot_servers[slot]]}
            for slot, what in sorted(wanted.items())
        ],
    }
    if wanted:
        show(options, content, slots_text(content["found"]))
        return
    split = f"; {split_text(current.traffic)}" if current is not None and is_current else ""
    lines = [
        f"Placement  model {options.model}, epoch {placement.epoch}{' (current)' if is_current else ''}",
        f"Digest     {placement.digest}",
        f"Versions   {versions_text(versions)}{split}",
        f"Slots      {placement.slots}, {placement.replicas} replicas, layout {placement.layout}",
    ]
    show(options, content, "\n".join(lines) + f"\n\n{servers_text(content['servers'])}")


def parse_slots(text: str, slots: int) -> range:
    """Parse `7` and `0-99`.

    Raises:
        InvalidArgumentError: it is malformed, or no such slot is there.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        raise InvalidArgumentError(f"--slot: got {text!r}, expected N or A-B")
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last < slots:
        raise InvalidArgumentError(f"--slot: got {text}, expected 0 to {slots - 1}, ascending")
    return range(first, last + 1)


def _named(text: str, flag: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not (name and number.isdecimal()):
        raise InvalidArgumentError(f"{flag}: got {text!r}, expected TABLE=NUMBER")
    return name, int(number)


def _manifest(options: argparse.Namespace, placement: Placement) -> Manifest:
    """Return the manifest of the version that is meant; on a helper thread."""
    if options.repository is None:
        raise InvalidArgumentError("--key: needs --repository, which says how many buckets a table has")
    served = [reference.version for reference in placement.versions]
    version = options.version if options.version is not None else served[-1]
    if version not in served:
        raise InvalidArgumentError(f"--version: got {version}, expected one of {served}")
    return Repository(options.repository).read_manifest(placement.model, version)


def _slot_of_row(text: str, manifest: Manifest, slots: int) -> tuple[int, str]:
    name, row = _named(text, "--key")
    tables = {table.name: table for table in manifest.tables}
    if name not in tables:
        raise InvalidArgumentError(f"--key: got table {name}, expected one of: {', '.join(sorted(tables)) or 'none'}")
    table = tables[name]
    if row >= table.rows:
        raise InvalidArgumentError(f"--key: got row {row} of {name}, expected 0 to {table.rows - 1}")
    bucket = row % table.buckets
    return slot_of(name, bucket, slots), f"{name} row {row} (bucket {bucket})"


async def _diff(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    documents, _ = await _documents(store, keys, options.model)
    before, after = (_document(documents, options.model, epoch) for epoch in (options.before, options.after))
    content = diff_json(before, after)
    show(options, content, diff_text(content))


async def _history(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    documents, current = await _documents(store, keys, options.model)
    content = history_json(options.model, documents, current, await read_audits(store, keys))
    show(options, content, history_text(content))
