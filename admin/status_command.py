"""`tessera status`: members, models, placement and bytes of a cluster, as its store has them; what its routers count.

Batches are told per router and region: rows per batch, how long tasks waited, the part of padding in the rows, the
device's time, and how many tasks were rejected (bounds) or dropped (deadlines).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any

from admin.arguments import add_cluster, add_output
from admin.discovery import running_cluster
from admin.output import show
from admin.progress import say
from admin.router_stats import Answer, RouterTls, ask_for_window, summarise
from admin.status_text import as_text
from admin.stores import open_store
from placement.keys import Keys
from placement.snapshot import ClusterSnapshot, ModelView, replace_all
from tessera.errors import InvalidArgumentError, UnavailableError

MAX_WINDOW_S = 3600


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("status", help="show members, models, placement and bytes", description=__doc__)
    add_cluster(parser)
    parser.add_argument(
        "--router",
        action="append",
        metavar="HOST:PORT",
        help="ask only this router, without etcd; may be repeated (default: all routers of the cluster)",
    )
    parser.add_argument("--router-ca", default="", metavar="FILE", help="CA certificates for routers; turns TLS on")
    parser.add_argument("--router-cert", default="", metavar="FILE", help="client certificate for routers")
    parser.add_argument("--router-key", default="", metavar="FILE", help="private key of --router-cert")
    parser.add_argument(
        "--window-s",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="count what happens in that time from now (default: since the routers' start)",
    )
    add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the store once, ask the routers, print it.

    Raises:
        UnavailableError: the store does not answer, or none of the routers that were named.
        InvalidArgumentError: a flag has a wrong value; names it.
    """
    if not 0 <= options.window_s <= MAX_WINDOW_S:
        raise InvalidArgumentError(f"--window-s: got {options.window_s:g}, expected 0 to {MAX_WINDOW_S}")
    if options.router_cert and not options.router_ca:
        raise InvalidArgumentError("--router-ca must be given with --router-cert")
    if bool(options.router_cert) != bool(options.router_key):
        raise InvalidArgumentError("--router-cert and --router-key: expected both or none")
    content = asyncio.run(_read(options))
    show(options, content, as_text(content))


async def _read(options: argparse.Namespace) -> dict[str, Any]:
    credentials = RouterTls(options.router_ca, options.router_cert, options.router_key).credentials()
    routers = options.router or _router_without_store(options)
    if routers:
        answers = await ask_for_window(list(dict.fromkeys(routers)), credentials, options.window_s)
        if all(answer.status is None for answer in answers.values()):
            problems = "; ".join(f"router {address}: {answer.problem}" for address, answer in answers.items())
            raise UnavailableError(problems)
        return describe_routers({address: address for address in answers}, answers)
    snapshot = await _snapshot(options)
    addresses = {router: record.address for router, record in snapshot.routers.items()}
    answers = await ask_for_window(list(dict.fromkeys(addresses.values())), credentials, options.window_s)
    return describe(snapshot, answers)


def _router_without_store(options: argparse.Namespace) -> list[str]:
    """Return the router of a running `tessera up --in-process`, whose records only that process has."""
    running = running_cluster(options.cluster) if not options.etcd else None
    if running is None or running["etcd"]:
        return []
    say(f"cluster {options.cluster!r} keeps its records in its own memory: only its router is asked")
    return [running["router"]]


async def _snapshot(options: argparse.Namespace) -> ClusterSnapshot:
    store = open_store(options)
    keys = Keys(options.cluster)
    try:
        return replace_all(keys, ClusterSnapshot(), await store.list_prefix(keys.prefix))
    finally:
        await store.close()


def describe(snapshot: ClusterSnapshot, answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Return what is shown, as JSON values; a pure function of the snapshot and of the routers' answers by address."""
    routers = describe_routers({id_: record.address for id_, record in snapshot.routers.items()}, answers)
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
        "routers": routers["routers"],
        "models": [_describe_model(name, view) for name, view in sorted(snapshot.models.items())],
        "problems": [snapshot.problems[key] for key in sorted(snapshot.problems)] + routers["problems"],
    }


def describe_routers(addresses: Mapping[str, str], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Return what is shown of the routers alone; `addresses` by id, `answers` by address."""
    found = [(id_, address, answers[address]) for id_, address in sorted(addresses.items())]
    return {
        "routers": [
            {"id": id_, "address": address, "status": None if answer.status is None else summarise(answer.status)}
            for id_, address, answer in found
        ],
        "problems": [problem for id_, _, answer in found for problem in _router_problems(id_, answer)],
    }


def _router_problems(id_: str, answer: Answer) -> list[str]:
    if answer.status is None:
        return [f"router {id_}: no answer: {answer.problem}"]
    unused = [
        f"router {id_}: batching policy for {entry}: there is no such region"
        for entry in answer.status["unused_policies"]
    ]
    return unused + [
        f"router {id_}: {region['model']} version {region['version']}: region {region['region']} is not batched: "
        f"{region['refused']}"
        for region in answer.status["regions"]
        if region["refused"]
    ]


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
