"""`tessera cluster`: looks after the cluster as a whole, and after its records.

`check` ends with 0 only if every point is as it should be.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from admin import changes, cluster_recovery
from admin.arguments import add_cluster, add_output, add_shard_tls, shard_tls
from admin.certificates import TlsFiles, expiring
from admin.cluster_checks import Finding, check_cluster
from admin.output import show
from admin.reshard_hold import add_sample, sample
from admin.table import render
from placement.found import Reader, name
from placement.keys import Keys
from placement.peers import PeerAnswers, ask_peers
from placement.records import FIRST_GENERATION, LockRecord, MetaRecord
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import Store
from tessera.errors import FailedPreconditionError, InvalidArgumentError, TesseraError
from tessera.repository import Repository
from tessera.settings import format_bytes


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    cluster = verbs.add_parser("cluster", help="check, back up, restore and rebuild a cluster", description=__doc__)
    sub = cluster.add_subparsers(metavar="VERB", required=True)
    status = sub.add_parser(
        "status", help="show how the cluster stands", description="Shows how the cluster stands, in a few lines."
    )
    check = sub.add_parser(
        "check", help="say point by point whether all is as it should be",
        description="Checks that every slot has all its replicas, that servers, routers and the store agree on "
        "placements, that nothing is orphaned or stuck, clocks and certificates. Exit code 4 if a point is not as it "
        "should be.",
    )  # fmt: skip
    check.add_argument(
        "--max-clock-offset-s", type=float, default=5.0, metavar="SECONDS",
        help="how far a server's clock may be from this machine's (default: %(default)s)",
    )  # fmt: skip
    check.add_argument(
        "--certificate-days", type=float, default=14.0, metavar="DAYS",
        help="how long certificates have to be valid at least; those of etcd (--etcd-ca), of shard servers "
        "(--shard-ca) and of routers (--router-ca) are looked at (default: %(default)s)",
    )  # fmt: skip
    check.add_argument("--router-ca", default="", metavar="FILE", help="CA certificates for routers")
    check.add_argument(
        "--repository", type=Path, metavar="DIR", help="compare rows that servers answer with its blobs, too"
    )
    add_sample(check)
    add_shard_tls(check)
    for parser, function in ((status, _status), (check, _check)):
        add_cluster(parser)
        add_output(parser)
        parser.set_defaults(run=lambda options, function=function: changes.run_verb(options, function))
    cluster_recovery.add_to(sub)


async def _snapshot(store: Store, keys: Keys) -> ClusterSnapshot:
    return replace_all(keys, ClusterSnapshot(), await store.list_prefix(keys.prefix))


async def _status(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    snapshot = await _snapshot(store, keys)
    meta = await store.get(keys.meta)
    controller = await store.get(keys.controller)
    live = [member.record for member in snapshot.members.values() if member.live]
    content = {
        "cluster": keys.cluster,
        "generation": MetaRecord.from_bytes(meta.value, meta.key).generation if meta else FIRST_GENERATION,
        "revision": snapshot.revision,
        "servers": len(live),
        "servers_lost": sorted(server for server, member in snapshot.members.items() if not member.live),
        "bytes_used": sum(record.bytes_used for record in live),
        "capacity_bytes": sum(record.capacity_bytes for record in live),
        "routers": len(snapshot.routers),
        "controller": LockRecord.from_bytes(controller.value, controller.key).owner if controller else None,
        "models": {
            model: {
                "epoch": view.placement.epoch,
                "versions": [reference.version for reference in view.placement.versions],
                "operation": view.operation.state.value if view.operation and view.operation.active else None,
            }
            for model, view in sorted(snapshot.models.items())
            if view.placement is not None
        },
        "problems": [snapshot.problems[key] for key in sorted(snapshot.problems)],
    }
    show(options, content, _status_text(content))


def _status_text(content: dict[str, Any]) -> str:
    lost = f", lost: {', '.join(content['servers_lost'])}" if content["servers_lost"] else ""
    held = f"{format_bytes(content['bytes_used'])} of {format_bytes(content['capacity_bytes'])}"
    lines = [
        f"Cluster     {content['cluster']}, generation {content['generation']}, revision {content['revision']}",
        f"Servers     {content['servers']}, holding {held}{lost}",
        f"Routers     {content['routers']}",
        f"Controller  {content['controller'] or 'none'}",
    ]
    rows = [
        (model, one["epoch"], ", ".join(map(str, one["versions"])), one["operation"] or "-")
        for model, one in content["models"].items()
    ]
    lines += ["", render(("MODEL", "EPOCH", "VERSIONS", "CHANGE"), rows, right=("EPOCH",))]
    lines += [f"problem: {problem}" for problem in content["problems"]]
    return "\n".join(lines)


async def _check(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    if options.max_clock_offset_s <= 0:
        raise InvalidArgumentError(f"--max-clock-offset-s: got {options.max_clock_offset_s:g}, expected more than 0")
    snapshot = await _snapshot(store, keys)
    locked = {name(entry) for entry in (await store.list_prefix(keys.locks)).entries}
    known = [name(entry) for entry in (await store.list_prefix(keys.known_routers)).entries]
    addresses = [member.record.address for member in snapshot.members.values() if member.live]
    peers = await ask_peers(keys, addresses, shard_tls(options))
    findings = check_cluster(keys, snapshot, locked, peers, known, max_clock_offset_s=options.max_clock_offset_s)
    findings.append(await _certificates(options, snapshot, peers))
    if options.repository is not None:
        findings.append(await _contents(options, store, keys, snapshot))
    content = {finding.name: list(finding.problems) for finding in findings}
    rows = [(finding.name, "OK" if not finding.problems else "NOT OK") for finding in findings]
    problems = "".join(f"\n{one.name}: {problem}" for one in findings for problem in one.problems)
    show(options, {"checks": content}, f"{render(('CHECK', 'VERDICT'), rows)}\n{problems}")
    if wrong := [finding.name for finding in findings if finding.problems]:
        raise FailedPreconditionError(
            f"cluster {keys.cluster}: {len(wrong)} of {len(findings)} checks are not OK: {', '.join(wrong)}"
        )


async def _certificates(options: argparse.Namespace, snapshot: ClusterSnapshot, peers: PeerAnswers) -> Finding:
    """Look at the certificates of those whose CA was given."""
    wanted: dict[str, TlsFiles] = {}
    if options.etcd_ca:
        files = TlsFiles(options.etcd_ca, options.etcd_cert, options.etcd_key)
        wanted |= dict.fromkeys(options.etcd or (), files)
    if options.shard_ca:
        files = TlsFiles(options.shard_ca, options.shard_cert, options.shard_key)
        wanted |= dict.fromkeys([*peers.answers, *peers.problems], files)
    if options.router_ca:
        wanted |= {record.address: TlsFiles(options.router_ca) for record in snapshot.routers.values()}
    problems = await expiring(wanted, now_s=time.time(), days=options.certificate_days)
    return Finding("certificates last", tuple(problems))


async def _contents(options: argparse.Namespace, store: Store, keys: Keys, snapshot: ClusterSnapshot) -> Finding:
    """Compare rows that servers answer with the repository's blobs: so are replicas equal to each other."""
    problems: list[str] = []
    for model, view in sorted(snapshot.models.items()):
        if view.placement is None:
            continue
        found = await Reader(store, keys, model).read()
        try:
            verdict = await sample(options, Repository(options.repository), found, view.placement)
            problems += [f"model {model}: {problem}" for problem in verdict.problems]
        except TesseraError as error:
            problems.append(f"model {model}: {error.message}")
    return Finding("rows are those of the repository", tuple(problems))
