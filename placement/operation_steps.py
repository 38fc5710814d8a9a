"""Decides the next step of an operation from what the store holds: pure, so that every crash point can be tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from placement.plan import PlanServer
from placement.records import (
    CurrentRecord,
    MemberRecord,
    OperationRecord,
    OperationState,
    PackageRef,
    Placement,
    ReadyRecord,
    ServerRecord,
    ServerState,
)
from placement.store import MAX_OPERATIONS, Entry
from tessera.errors import DataLossError, FailedPreconditionError

MAX_SERVERS_PER_COMMIT = MAX_OPERATIONS - 8
"""Each ready server is one comparison of the committing transaction; a few more are for lock, operation and pointer."""


@dataclass(frozen=True)
class Found:
    """What the store holds of one model, and of the cluster.

    Attributes:
        generation: the cluster's; see `FIRST_GENERATION`.
        target: the document of the operation's target epoch, if it is there.
        operation_version: of the operation's key; 0 if there is none.
        last_epoch: the highest epoch that was ever written.
        ready: (epoch, server) → what the server reported.
        members: the live servers.
        servers: what the operator wants of them.
        fresh: this driver has not begun or taken up the operation before.
    """

    model: str
    generation: int
    current: CurrentRecord | None
    current_placement: Placement | None
    operation: OperationRecord | None
    operation_version: int
    target: Placement | None
    last_epoch: int
    ready: Mapping[tuple[int, str], tuple[Entry, ReadyRecord]]
    members: Mapping[str, MemberRecord]
    servers: Mapping[str, ServerRecord]
    fresh: bool


@dataclass(frozen=True)
class Nothing:
    """The model is as it was asked for."""

    placement: Placement


@dataclass(frozen=True)
class Begin:
    """Plan, and write document and operation."""


@dataclass(frozen=True)
class Wait:
    """Look again soon; `what` says what is missing."""

    what: str


@dataclass(frozen=True)
class Abort:
    """Give the operation up before its commit; the next step is `Begin`."""

    reason: str


@dataclass(frozen=True)
class Commit:
    """Make the placement current, comparing that `ready` still stand."""

    placement: Placement
    ready: tuple[Entry, ...]


Step = Nothing | Begin | Wait | Abort | Commit


def next_step(found: Found, versions: tuple[PackageRef, ...]) -> Step:
    """Return what to do next so that `versions` become the model's first placement.

    Raises:
        FailedPreconditionError: another placement is current; more servers than one commit can compare.
        DataLossError: the current pointer names a document that is missing or another one.
    """
    if found.current is not None:
        return _when_current(found, found.current, versions)
    operation, target = found.operation, found.target
    if operation is None or operation.state in (OperationState.ABORTED, OperationState.DONE):
        # DONE without a pointer: the model was removed by hand. A new epoch starts over.
        return Begin()
    if operation.state is not OperationState.PREPARING or operation.kind != "load":
        raise FailedPreconditionError(
            f"model {found.model}: operation {operation.id} ({operation.kind}, {operation.state.value}) of "
            f"{operation.owner} is under way, which this release cannot take over"
        )
    if target is None or target.digest != operation.target_digest:
        return Abort("its placement document is missing or is not the one that it names")
    if target.versions != versions:
        return Abort("another content was asked for")
    gone = [server for server in target.servers if server not in found.members]
    if gone and found.fresh:
        return Abort(f"servers that it counted on are gone: {', '.join(gone)}")
    return _when_preparing(found, target)


def _when_current(found: Found, current: CurrentRecord, versions: tuple[PackageRef, ...]) -> Step:
    placement = found.current_placement
    if placement is None or placement.digest != current.digest:
        raise DataLossError(
            f"model {found.model}: current is epoch {current.epoch} with digest {current.digest}, "
            f"but its document {'is missing' if placement is None else f'has digest {placement.digest}'}"
        )
    if placement.versions == versions:
        return Nothing(placement)
    raise FailedPreconditionError(
        f"model {found.model}: epoch {current.epoch} serves {_names(placement.versions)}; "
        f"asked for {_names(versions)}. Changing a live placement is resharding, which this release does not do"
    )


def _when_preparing(found: Found, target: Placement) -> Step:
    """Wait until every server of the target reported under its present instance, then commit."""
    if len(target.servers) > MAX_SERVERS_PER_COMMIT:
        raise FailedPreconditionError(
            f"model {found.model}: the placement has {len(target.servers)} servers, expected at most "
            f"{MAX_SERVERS_PER_COMMIT} in one commit"
        )
    ready: list[Entry] = []
    missing: list[str] = []
    for server in target.servers:
        member, report = found.members.get(server), found.ready.get((target.epoch, server))
        if (
            member is not None
            and report is not None
            and (report[1].instance, report[1].digest) == (member.instance, target.digest)
        ):
            ready.append(report[0])
        else:
            missing.append(_with_reason(server, member))
    if missing:
        count = len(target.servers)
        names = ", ".join(missing)
        return Wait(f"{len(missing)} of {count} servers to hold their part of epoch {target.epoch}: {names}")
    return Commit(target, tuple(ready))


def _with_reason(server: str, member: MemberRecord | None) -> str:
    """Return the server's name with what it says of why it is not ready."""
    if member is None:
        return f"{server} (gone)"
    return f"{server} (cannot: {member.error})" if member.error else server


def _names(versions: tuple[PackageRef, ...]) -> str:
    return ", ".join(
        f"version {v.version} ({v.digest[:12]}{', labels ' + ', '.join(v.labels) if v.labels else ''})"
        for v in versions
    )


def plan_servers(members: Mapping[str, MemberRecord], servers: Mapping[str, ServerRecord]) -> list[PlanServer]:
    """Return the servers that may get slots (see `load_model`); what a member holds is taken off its capacity."""
    result = []
    for server, member in sorted(members.items()):
        wanted = servers.get(server)
        if wanted is not None and wanted.state is not ServerState.ACTIVE:
            continue
        capacity_bytes = wanted.capacity_bytes if wanted else member.capacity_bytes
        result.append(
            PlanServer(
                id=server,
                domain=wanted.domain if wanted else member.domain,
                weight=wanted.weight if wanted else 1,
                capacity_bytes=max(0, capacity_bytes - member.bytes_used),
            )
        )
    return result
