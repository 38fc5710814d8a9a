"""Says of a cluster, point by point, whether it is as it should be. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from placement.change_report import owners
from placement.coverage import unready_servers
from placement.keys import Keys
from placement.peers import PeerAnswers
from placement.records import CurrentRecord, MemberState
from placement.snapshot import ClusterSnapshot, ModelView

_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One point; `problems` is empty when it is as it should be."""

    name: str
    problems: tuple[str, ...]


def check_cluster(
    keys: Keys,
    snapshot: ClusterSnapshot,
    locked: Collection[str],
    peers: PeerAnswers,
    known_routers: Collection[str],
    *,
    max_clock_offset_s: float,
) -> list[Finding]:
    """Return every point that the records and the servers' answers can tell of.

    Args:
        keys: of the cluster.
        snapshot: of the store.
        locked: models whose operation somebody drives.
        peers: what the servers say of the placement.
        known_routers: ids of the routers that may send requests.
        max_clock_offset_s: how far a server's clock may be from ours.
    """
    models = sorted(snapshot.models.items())
    return [
        Finding("records are whole", tuple(snapshot.problems[key] for key in sorted(snapshot.problems))),
        Finding("every slot has all its replicas", tuple(p for one in models for p in _not_covered(snapshot, *one))),
        Finding("servers answer", tuple(peers.problems.values())),
        Finding("servers and store name the same placements", tuple(_digests(keys, snapshot, peers))),
        Finding("epochs agree", tuple(p for one in models for p in _epochs(snapshot, *one))),
        Finding("no orphans", tuple(_orphans(snapshot))),
        Finding("no stuck operation", tuple(p for one in models for p in _stuck(*one, locked))),
        Finding("every router is heard of", tuple(_silent(snapshot, known_routers))),
        Finding("clocks agree", tuple(_clocks(peers, max_clock_offset_s))),
    ]


def _not_covered(snapshot: ClusterSnapshot, name: str, view: ModelView) -> list[str]:
    placement = view.placement
    if placement is None or not placement.servers:
        return []
    unready = unready_servers(snapshot, placement)
    if not unready:
        return []
    rows = owners(placement)
    short = [slot for slot, row in enumerate(rows) if not set(row).isdisjoint(unready)]
    without = [slot for slot in short if set(rows[slot]) <= set(unready)]
    reasons = ", ".join(f"{server} {_why(snapshot, server)}" for server in unready[:_NAMED])
    text = f"model {name}: {len(short)} of {placement.slots} slots have fewer than {placement.replicas} ready owners"
    return [f"{text}, {len(without)} have none: {reasons}"]


def _why(snapshot: ClusterSnapshot, server: str) -> str:
    member = snapshot.members.get(server)
    if member is None or not member.live:
        return "is gone"
    if member.record.error:
        return f"cannot: {member.record.error}"
    if member.record.state is not MemberState.SERVING:
        return f"is {member.record.state.value}"
    return "has not taken up the placement"


def _digests(keys: Keys, snapshot: ClusterSnapshot, peers: PeerAnswers) -> list[str]:
    """Return where a server's placement is not the store's; one that is behind is told by its epoch."""
    problems = []
    for name, view in sorted(snapshot.models.items()):
        if view.current is None:
            continue
        ours = view.current.generation, view.current.epoch
        for answer in peers.answers.values():
            value = answer.records.get(keys.current(name))
            if value is None:
                continue
            theirs = CurrentRecord.from_bytes(value, f"{keys.current(name)} at {answer.server}")
            numbers = theirs.generation, theirs.epoch
            if numbers > ours:
                problems.append(
                    f"model {name}: server {answer.server} has seen (generation, epoch) {numbers}, the store has "
                    f"{ours}: it has gone back; `tessera cluster rebuild` repairs that"
                )
            elif numbers == ours and theirs.digest != view.current.digest:
                problems.append(
                    f"model {name}: server {answer.server} has digest {theirs.digest} for (generation, epoch) {ours}, "
                    f"the store {view.current.digest}"
                )
    return problems


def _epochs(snapshot: ClusterSnapshot, name: str, view: ModelView) -> list[str]:
    if view.placement is None:
        return []
    epoch = view.placement.epoch
    problems = [
        f"model {name}: server {server} has seen epoch {seen}, current is {epoch}"
        for server, member in sorted(snapshot.members.items())
        if member.live and (seen := member.record.epochs.get(name, 0)) != epoch
    ]
    return problems + [
        f"model {name}: router {router} uses epoch {pinned}, current is {epoch}"
        for router, record in sorted(snapshot.routers.items())
        if (pinned := record.pinned.get(name, 0)) != epoch
    ]


def _orphans(snapshot: ClusterSnapshot) -> list[str]:
    """Return what is held or written although nothing names it."""
    named = {server for view in snapshot.models.values() for placement in view.held for server in placement.servers}
    problems = [
        f"server {server}: holds {member.record.bytes_used:,} bytes and no placement names it"
        for server, member in sorted(snapshot.members.items())
        if member.live and member.record.bytes_used and server not in named
    ]
    for name, view in sorted(snapshot.models.items()):
        active = view.operation is not None and view.operation.active
        epoch = view.placement.epoch if view.placement is not None else 0
        late = sorted({reported for reported, _ in view.ready if reported > epoch})
        if late and not active:
            problems.append(f"model {name}: reports for epoch {late[0]}, which no operation prepares")
    return problems


def _stuck(name: str, view: ModelView, locked: Collection[str]) -> list[str]:
    operation = view.operation
    if operation is None or not operation.active or operation.stopped or name in locked:
        return []
    go_on = f"`tessera model load {name}`" if operation.kind == "load" else f"`tessera reshard resume {name}`"
    return [
        f"model {name}: {operation.command or operation.kind} of {operation.owner} is {operation.state.value} and "
        f"nobody drives it; {go_on}"
    ]


def _silent(snapshot: ClusterSnapshot, known_routers: Collection[str]) -> list[str]:
    silent = sorted(set(known_routers) - snapshot.routers.keys())
    return [f"router {router}: may send requests and has no lease" for router in silent]


def _clocks(peers: PeerAnswers, limit_s: float) -> list[str]:
    return [
        f"server {answer.server}: its clock is {answer.clock_offset_s:+.1f} s from ours, expected at most {limit_s:g} s"
        for answer in peers.answers.values()
        if abs(answer.clock_offset_s) > limit_s + answer.round_trip_s
    ]
