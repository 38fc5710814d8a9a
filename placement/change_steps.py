"""Decides the next step of a change of a live placement: pure, so that every interleaving can be explored.

```
PLANNED ─► PREPARING ─► PREPARED ─► COMMITTED ─► DRAINED ─► DONE    (not the last wave: DRAINED ─► PREPARING)
   └────────┴───────────┴─► ABORTING ─► ABORTED
```

Servers hold current ∪ target while it is prepared, and current ∪ base until it is drained (`ModelView.held`). What each
step waits for is what makes the next one safe; `tests/unit/test_reshard_explored.py` shows the failing run for each
that is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.change_marks import Held, Mark
from placement.found import Found, not_ready, some, with_reason
from placement.records import MemberState, OperationRecord, OperationState, Placement
from placement.store import Entry
from tessera.errors import DataLossError, FailedPreconditionError, NotFoundError

ABORTABLE = (OperationState.PLANNED, OperationState.PREPARING, OperationState.PREPARED)


@dataclass(frozen=True)
class Finished:
    """The operation is DONE or ABORTED."""


@dataclass(frozen=True)
class Wait:
    """Look again soon; `what` says what is missing."""

    what: str


@dataclass(frozen=True)
class Move:
    """Write the operation's next state; `forget` are routers that were waited for in vain."""

    state: OperationState
    error: str = ""
    forget: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commit:
    """Make the target current, comparing that the reports still stand and that the other present owners are there.

    Attributes:
        owners: (server, revision that made its record) of the present owners that have no report to compare.
    """

    placement: Placement
    ready: tuple[Entry, ...]
    owners: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class NextWave:
    """Prepare the next wave: its base is the present target."""

    epoch: int
    digest: str


Step = Finished | Held | Wait | Mark | Move | Commit | NextWave


def next_step(found: Found, *, committed_for_s: float, grace_s: float) -> Step:
    """Return what to do next with the operation that `found` holds.

    Args:
        found: what the store holds.
        committed_for_s: how long this driver has seen the operation COMMITTED.
        grace_s: how long routers without a lease are waited for: they may have the old placement, and may be alive.

    Raises:
        NotFoundError: there is no operation.
        FailedPreconditionError: it is a load, which `placement.operation` drives.
        DataLossError: the records contradict each other; says how.
    """
    operation = found.operation
    if operation is None:
        raise NotFoundError(f"model {found.model}: there is no operation")
    if not operation.active:
        return Finished()
    if operation.kind == "load":
        raise FailedPreconditionError(
            f"model {found.model}: operation {operation.id} is a load; `tessera model load` goes on with it"
        )
    if operation.paused:
        return Held("it is paused; `tessera reshard resume` goes on")
    match operation.state:
        case OperationState.ABORTING:
            return _when_aborting(found, operation)
        case OperationState.COMMITTED:
            return _when_committed(found, operation, committed_for_s, grace_s)
        case OperationState.DRAINED:
            return _when_drained(found, operation)
    if (reason := _unfounded(found, operation)) is not None:
        return Move(OperationState.ABORTING, reason)
    if operation.state is OperationState.PLANNED:
        return Move(OperationState.PREPARING)
    return _when_preparing(found, operation)


def abort_step(found: Found, reason: str) -> Step:
    """Return the step that gives the operation up.

    Raises:
        NotFoundError: there is no operation.
        FailedPreconditionError: it is past the commit, or done.
    """
    operation = found.operation
    if operation is None:
        raise NotFoundError(f"model {found.model}: there is no operation")
    if operation.state in (OperationState.ABORTING, OperationState.ABORTED):
        return Finished() if operation.state is OperationState.ABORTED else _when_aborting(found, operation)
    if operation.state not in ABORTABLE:
        raise FailedPreconditionError(
            f"model {found.model}: operation {operation.id} is {operation.state.value}, past the point of no return; "
            "`tessera reshard reverse` makes a new one that goes back"
        )
    return Move(OperationState.ABORTING, reason)


def after(operation: OperationRecord, step: Mark | Move | Commit | NextWave, owner: str) -> OperationRecord:
    """Return the operation as it is once `step` was done by `owner`."""
    if isinstance(step, Mark):
        return step.on(operation)
    if isinstance(step, Move):
        paused = operation.paused and step.state is not OperationState.ABORTING
        return replace(operation, state=step.state, error=step.error or operation.error, owner=owner, paused=paused)
    if isinstance(step, Commit):
        return replace(operation, state=OperationState.COMMITTED, owner=owner)
    return replace(
        operation,
        state=OperationState.PREPARING,
        owner=owner,
        base_epoch=operation.target_epoch,
        base_digest=operation.target_digest,
        target_epoch=step.epoch,
        target_digest=step.digest,
        later_digests=operation.later_digests[1:],
    )


def _unfounded(found: Found, operation: OperationRecord) -> str | None:
    """Return why the operation can no longer be committed, or None."""
    if found.current is None or found.current.epoch != operation.base_epoch:
        return f"epoch {operation.base_epoch} is no longer current"
    if found.target is None or found.target.digest != operation.target_digest:
        return "its placement document is missing or is not the one that it names"
    return None


def _when_preparing(found: Found, operation: OperationRecord) -> Step:
    """PREPARING and PREPARED: both wait for the same reports; only the second commits."""
    target, base = found.target, found.base
    assert target is not None
    if base is None or base.digest != operation.base_digest:
        raise DataLossError(f"model {found.model}: the document of epoch {operation.base_epoch} is missing or damaged")
    ready, missing = found.ready_servers(target)
    if missing:
        return Wait(not_ready(missing, target))
    loading = [
        router
        for router, record in sorted(found.routers.items())
        if found.model in record.pinned and record.prepared.get(found.model, 0) < target.epoch
    ]
    if loading:
        return Wait(f"{len(loading)} routers to load epoch {target.epoch}: {some(loading)}")
    if operation.state is OperationState.PREPARING:
        return Move(OperationState.PREPARED)
    if operation.hold:
        return Held("it is PREPARED and held; `tessera reshard verify`, then `tessera reshard commit`")
    unwell = [with_reason(s, found.members.get(s)) for s in _owners(base, operation) if not _is_well(found, s, base)]
    if unwell:
        return Wait(f"the servers of epoch {base.epoch} to be well: {some(unwell)}")
    others = [server for server in _owners(base, operation) if server not in target.servers]
    return Commit(target, ready, tuple((server, found.created[server]) for server in others))


def _owners(base: Placement, operation: OperationRecord) -> list[str]:
    return [server for server in base.servers if server not in operation.lost]


def _is_well(found: Found, server: str, base: Placement) -> bool:
    """Return whether a current owner is there, serving, and has what it should: a degraded cluster is not changed."""
    member = found.members.get(server)
    return (
        member is not None
        and member.state is MemberState.SERVING
        and not member.error
        and member.epochs.get(found.model, 0) >= base.epoch
    )


def _when_committed(found: Found, operation: OperationRecord, committed_for_s: float, grace_s: float) -> Step:
    """Wait until nobody uses the base: every server knows the new epoch, no router has a request on an older one."""
    epoch, model = operation.target_epoch, found.model
    if found.current is None or found.current.epoch != epoch:
        raise DataLossError(f"model {model}: operation {operation.id} is COMMITTED, but epoch {epoch} is not current")
    behind = [server for server, member in sorted(found.members.items()) if member.epochs.get(model, 0) < epoch]
    if behind:
        return Wait(f"{len(behind)} servers to see epoch {epoch}: {some(behind)}")
    using = [router for router, record in sorted(found.routers.items()) if record.pinned.get(model, 0) < epoch]
    if using:
        return Wait(f"{len(using)} routers to end requests of earlier epochs than {epoch}: {some(using)}")
    silent = sorted({*operation.routers, *found.known_routers} - found.routers.keys())
    if silent and committed_for_s < grace_s:
        left_s = grace_s - committed_for_s
        return Wait(f"{left_s:.0f} s more for routers that are not heard of: {some(silent)}")
    return Move(OperationState.DRAINED, forget=tuple(silent))


def _when_drained(found: Found, operation: OperationRecord) -> Step:
    if keeping := _keeping(found, operation):  # also before another wave, which counts on the room
        return Wait(f"{len(keeping)} servers to drop what they no longer need: {some(keeping)}")
    if operation.later_digests:
        return NextWave(operation.target_epoch + 1, operation.later_digests[0])
    return Move(OperationState.DONE)


def _when_aborting(found: Found, operation: OperationRecord) -> Step:
    if keeping := _keeping(found, operation):
        return Wait(f"{len(keeping)} servers to drop what they staged: {some(keeping)}")
    return Move(OperationState.ABORTED, operation.error)


def _keeping(found: Found, operation: OperationRecord) -> list[str]:
    """Return the live servers that have not yet done what the present operation record says about dropping."""
    involved = {
        server for placement in (found.base, found.target) if placement is not None for server in placement.servers
    }
    return [
        with_reason(server, found.members[server])
        for server in sorted(involved & found.members.keys())
        if found.members[server].released.get(found.model, 0) < found.operation_version
    ]
