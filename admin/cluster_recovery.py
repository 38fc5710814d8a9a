"""`tessera cluster backup`, `restore` and `rebuild`: what to do before and after the store was lost."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output, add_shard_tls, shard_tls
from admin.loading import owner
from admin.output import show
from admin.progress import say
from placement.backup import Backup, backup_of, read_backup, write_backup
from placement.keys import Keys, Kind
from placement.peers import PeerAnswers, ask_peers
from placement.records import CurrentRecord, Placement
from placement.republish import Republished, begin_generation, put_all, republish
from placement.routing_records import Told, highest_generation, newest
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import Store
from tessera.clock import SystemClock
from tessera.errors import FailedPreconditionError, NotFoundError, UnavailableError


def add_to(sub: Any) -> None:
    """Add the verbs below `tessera cluster`."""
    backup = sub.add_parser(
        "backup", help="write all records to a file",
        description="Writes every record that outlives its process to FILE, with a checksum, as a whole or not at all.",
    )  # fmt: skip
    backup.add_argument("file", type=Path, metavar="FILE", help="is replaced if it is there")
    restore = sub.add_parser(
        "restore", help="write the records of a backup into the store",
        description="Writes back what `backup` wrote, under a new generation: routers and servers take it, whatever "
        "they have seen. Changes that were under way then have ended. `rebuild` is better while servers run: they know "
        "what came after the backup.",
    )  # fmt: skip
    restore.add_argument("file", type=Path, metavar="FILE", help="what `tessera cluster backup` wrote")
    restore.add_argument("--replace", action="store_true", help="also where the store has placements")
    rebuild = sub.add_parser(
        "rebuild", help="recover placements from what servers know",
        description="After etcd was lost for good, or has gone back to an old state: asks the shard servers which "
        "placements they have, and makes the newest of each model current under a new generation. What operators "
        "wanted of servers (cordon, weights) is only in backups.",
    )  # fmt: skip
    rebuild.add_argument(
        "--from-servers", action="append", default=[], metavar="HOST:PORT",
        help="shard server to ask, may be repeated (default: those that have registered)",
    )  # fmt: skip
    rebuild.add_argument(
        "--partial", action="store_true", help="also if a server does not answer, which may know something newer"
    )
    for parser, function in ((backup, _backup), (restore, _restore), (rebuild, _rebuild)):
        if parser is not backup:
            add_shard_tls(parser)
            parser.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")
            parser.add_argument("--yes", action="store_true", help="do not ask")
        add_cluster(parser)
        add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


async def _backup(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    backup = backup_of(keys, await store.list_prefix(keys.prefix))
    placements = backup.placements()  # refuses what could not be restored
    await asyncio.to_thread(write_backup, options.file, backup)
    content = {
        "file": str(options.file),
        "records": len(backup.entries),
        "generation": backup.generation,
        "models": {model: current.epoch for model, (current, _) in placements.items()},
    }
    text = f"cluster {keys.cluster}: {len(backup.entries)} records, {len(placements)} models, in {options.file}"
    show(options, content, text)


async def _restore(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    backup = await asyncio.to_thread(read_backup, options.file, keys)
    placements = backup.placements()
    there = backup_of(keys, await store.list_prefix(keys.prefix))
    if there.placements() and not options.replace:
        raise FailedPreconditionError(
            f"cluster {keys.cluster}: the store has placements of {', '.join(there.placements())}; --replace writes "
            "those of the backup over them"
        )
    peers = await _peers(options, store, keys, [])
    for address, problem in peers.problems.items():
        say(f"{address} cannot say which generation it has seen: {problem}")
    above = max(backup.generation, there.generation, highest_generation(keys, peers.records))
    say(f"generation {above} -> {above + 1}; models {', '.join(placements) or 'none'}")
    if options.dry_run:
        _print_pointers(options, placements)
        return
    changes.confirm(options, f"Write {len(backup.entries)} records of {options.file} into cluster {keys.cluster}?")
    generation = await begin_generation(store, keys, above=above)
    await put_all(store, _passive(keys, backup))
    done = await republish(
        store, keys, generation, placements, backup.operations(),
        owner=owner(), command="cluster restore", clock=SystemClock(),
    )  # fmt: skip
    _show(options, done)


def _passive(keys: Keys, backup: Backup) -> dict[str, bytes]:
    """Return the records that nobody acts on: all but pointers, operations and the cluster's own."""
    active = (Kind.META, Kind.CURRENT, Kind.OPERATION)
    parsed = {key: keys.parse(key) for key in backup.entries}
    return {
        key: value for key, value in backup.entries.items() if (one := parsed[key]) is None or one.kind not in active
    }


async def _rebuild(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    peers = await _peers(options, store, keys, options.from_servers)
    if not peers.answers:
        raise UnavailableError(
            "no server answers: " + ("; ".join(peers.problems.values()) or "none is registered; name one")
        )
    if peers.problems and not options.partial:
        raise UnavailableError(
            f"{'; '.join(peers.problems.values())}; it may know something newer; --partial goes on without"
        )
    there = backup_of(keys, await store.list_prefix(keys.prefix))
    told = newest(keys, peers.records)
    lost = {model: one for model, one in told.items() if _is_newer(keys, there, model, one)}
    placements = {model: (one.current, _document(model, one)) for model, one in lost.items()}
    for model, one in told.items():
        state = "newer than the store's" if model in lost else "the store has it"
        say(f"model {model}: generation {one.current.generation}, epoch {one.current.epoch} at {one.by}: {state}")
    if not told:
        raise NotFoundError("the servers that answer know of no placement")
    if not placements or options.dry_run:
        _print_pointers(options, placements)
        return
    changes.confirm(options, f"Make these placements of {', '.join(placements)} current in cluster {keys.cluster}?")
    above = max([there.generation, *(one.current.generation for one in told.values())])
    generation = await begin_generation(store, keys, above=above)
    done = await republish(
        store, keys, generation, placements, there.operations(),
        owner=owner(), command="cluster rebuild", clock=SystemClock(),
    )  # fmt: skip
    _show(options, done)


def _is_newer(keys: Keys, there: Backup, model: str, told: Told) -> bool:
    """Return whether servers know of a newer placement of the model than the store has."""
    key = keys.current(model)
    if key not in there.entries:
        return True
    current = CurrentRecord.from_bytes(there.entries[key], key)
    return (current.generation, current.epoch) < (told.current.generation, told.current.epoch)


async def _peers(options: argparse.Namespace, store: Store, keys: Keys, named: list[str]) -> PeerAnswers:
    """Ask the servers that are named, else those that are registered."""
    snapshot = replace_all(keys, ClusterSnapshot(), await store.list_prefix(keys.prefix))
    registered = [member.record.address for _, member in sorted(snapshot.members.items())]
    return await ask_peers(keys, named or registered, shard_tls(options))


def _document(model: str, told: Told) -> Placement | None:
    if told.document is None:
        return None
    return Placement.from_bytes(told.document, f"placement of {model} at {told.by}")


def _print_pointers(options: argparse.Namespace, placements: Mapping[str, tuple[CurrentRecord, object]]) -> None:
    pointers = {model: current for model, (current, _) in placements.items()}
    show(options, _as_json(pointers), _as_text(pointers))


def _as_json(pointers: Mapping[str, CurrentRecord]) -> dict[str, Any]:
    return {
        "models": {
            model: {"epoch": current.epoch, "versions": [reference.version for reference in current.versions]}
            for model, current in pointers.items()
        }
    }


def _as_text(pointers: Mapping[str, CurrentRecord]) -> str:
    lines = [
        f"model {model}: epoch {current.epoch}, versions {_versions(current)}" for model, current in pointers.items()
    ]
    return "\n".join(lines) or "nothing to change"


def _versions(current: CurrentRecord) -> str:
    return ", ".join(str(reference.version) for reference in current.versions) or "none (unloaded)"


def _show(options: argparse.Namespace, done: Republished) -> None:
    content = {"generation": done.generation} | _as_json(done.pointers)
    show(options, content, f"generation {done.generation} has begun\n{_as_text(done.pointers)}")
