"""`tessera model rollout` and `rollback`: change which versions of a live model are served, without failing a request.

A rollout stages what the new version does not share with the old one, makes it current in one step, and drops the rest
when the last request of the old one has ended.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from admin import changes, request_id
from admin.loading import parse_label
from admin.traffic_command import parse_shares
from placement.change_plan import Request
from placement.document import PackageRef, Placement
from placement.found import Reader
from placement.keys import Keys
from placement.records import OperationState, TrafficRecord
from placement.store import Store
from placement.traffic import same_packages, served_versions
from tessera.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tessera.repository import Repository


def add_to(model_verbs: Any) -> None:
    """Add the verbs below `tessera model`."""
    rollout = model_verbs.add_parser("rollout", help="serve another version", description=__doc__)
    rollout.add_argument("model", metavar="MODEL", help="name of the model")
    rollout.add_argument("version", type=int, metavar="VERSION", help="version to serve")
    rollout.add_argument("--keep", action="store_true", help="serve the present versions beside it")
    rollout.add_argument(
        "--label", action="append", default=[], metavar="LABEL=VERSION",
        help="name for a version; labels of versions that leave go to the new one (default: labels stay)",
    )  # fmt: skip
    rollout.add_argument(
        "--split", action="append", default=[], metavar="VERSION=PERCENT",
        help="how requests that name no version are divided from then on, may be repeated; together 100 "
        "(default: as now, without the versions that leave)",
    )  # fmt: skip
    rollback = model_verbs.add_parser(
        "rollback", help="serve what the last rollout replaced", description="Undoes the last rollout."
    )
    rollback.add_argument("model", metavar="MODEL", help="name of the model")
    rollback.add_argument(
        "version", type=int, nargs="?", metavar="VERSION", help="go to this version (default: what was served before)"
    )
    for parser, function in ((rollout, _rollout), (rollback, _rollback)):
        changes.add_plan_arguments(parser)
        changes.add_drive_arguments(parser)
        request_id.add_to(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))


def next_versions(
    current: Sequence[PackageRef], version: int, digest: str, *, keep: bool, labels: Mapping[str, int]
) -> tuple[PackageRef, ...]:
    """Return what is served after a rollout.

    Args:
        current: what is served now.
        version: to be served.
        digest: of its manifest.
        keep: what is served now stays.
        labels: label → version, over what labels stand for now. A label whose version leaves goes to `version`.

    Raises:
        InvalidArgumentError: a label is given to a version that is not served then.
    """
    digests = {reference.version: reference.digest for reference in current} if keep else {}
    digests[version] = digest
    stands_for = {label: reference.version for reference in current for label in reference.labels} | dict(labels)
    for label, number in labels.items():
        if number not in digests:
            raise InvalidArgumentError(
                f"--label: got {label}={number}, expected one of the versions {sorted(digests)} that are served then"
            )
    at = {label: number if number in digests else version for label, number in stands_for.items()}
    return tuple(
        PackageRef(number, one, tuple(sorted(label for label, where in at.items() if where == number)))
        for number, one in sorted(digests.items())
    )


async def _rollout(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    words = [f"rollout {options.model} {options.version}", *(["--keep"] if options.keep else [])]
    words += [f"--label={text}" for text in options.label] + [f"--split={text}" for text in options.split]
    command = " ".join(words)
    traffic = parse_shares(options.split, "") if options.split else None
    if not await request_id.join(options, store, keys, options.model, command):
        await _roll_out(options, store, keys, traffic, command)


async def _roll_out(
    options: argparse.Namespace, store: Store, keys: Keys, traffic: TrafficRecord | None, command: str
) -> None:
    found = await Reader(store, keys, options.model).read()
    if found.current is None or found.current_placement is None:
        raise NotFoundError(f"model {options.model}: has no placement; `tessera model load` makes one")
    current = served_versions(found.current, found.current_placement)
    if traffic is not None:
        traffic = replace(traffic, sticky_header=found.current.traffic.sticky_header)
    manifest = await asyncio.to_thread(Repository(options.repository).read_manifest, options.model, options.version)
    served = sorted({*(reference.version for reference in current if options.keep), options.version})
    labels = dict(parse_label(text, served) for text in options.label)
    versions = next_versions(current, options.version, manifest.digest, keep=options.keep, labels=labels)
    if same_packages(versions, current) and (labels or traffic is not None):
        raise FailedPreconditionError(
            f"model {options.model}: serves these versions already; `tessera model label` and `tessera model split` "
            "change who gets its requests"
        )
    await _change(options, store, keys, Request(versions=versions, traffic=traffic), command)


async def _rollback(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    command = f"rollback {options.model}" + (f" {options.version}" if options.version is not None else "")
    if await request_id.join(options, store, keys, options.model, command):
        return
    if options.version is not None:
        options.keep, options.label = False, []
        await _roll_out(options, store, keys, None, command)
        return
    found = await Reader(store, keys, options.model).read()
    operation = found.operation
    if operation is None or operation.kind != "rollout" or operation.state is not OperationState.DONE:
        raise FailedPreconditionError(
            f"model {options.model}: the last change is no finished rollout; say which VERSION to go back to"
        )
    request = Request(versions=operation.origin_versions, traffic=operation.origin_traffic)
    if not operation.origin_versions:  # an older release wrote it
        key = keys.placement(options.model, operation.origin_epoch)
        entry = await store.get(key)
        if entry is None:
            raise NotFoundError(f"{key}: the placement is no longer there; say which VERSION to go back to")
        request = Request(versions=Placement.from_bytes(entry.value, entry.key).versions)
    await _change(options, store, keys, request, command)


async def _change(options: argparse.Namespace, store: Store, keys: Keys, request: Request, command: str) -> None:
    repository = Repository(options.repository)
    plan = await changes.plan(store, keys, repository, options.model, request, kind="rollout", command=command)
    await changes.carry_out(store, keys, options.model, plan, options)
