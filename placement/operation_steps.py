"""Decides the next step of an operation from what the store holds: pure, so that every crash point can be tested."""

from __future__ import annotations

from dataclasses import dataclass

from placement.found import Found, not_ready
from placement.records import CurrentRecord, OperationState, PackageRef, Placement
from placement.store import Entry
from tessera.errors import DataLossError, FailedPreconditionError


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


def next_step(found: Found, versions: tuple[PackageRef, ...], *, fresh: bool) -> Step:
    """Return what to do next so that `versions` become the model's first placement.

    Args:
        found: what the store holds.
        versions: what is asked for.
        fresh: this driver has not begun or taken up the operation before.

    Raises:
        FailedPreconditionError: another placement is current.
        DataLossError: the current pointer names a document that is missing or another one.
    """
    if found.current is not None and not found.current.unloaded:
        return _when_current(found, found.current, versions)
    operation, target = found.operation, found.target
    if operation is None or operation.state in (OperationState.ABORTED, OperationState.DONE):
        # DONE without a placement: the model was unloaded, or removed by hand. A new epoch starts over.
        return Begin()
    if operation.state is not OperationState.PREPARING or operation.kind != "load":
        raise FailedPreconditionError(
            f"model {found.model}: operation {operation.id} ({operation.kind}, {operation.state.value}) of "
            f"{operation.owner} is under way; `tessera reshard resume` ends it"
        )
    if target is None or target.digest != operation.target_digest:
        return Abort("its placement document is missing or is not the one that it names")
    if target.versions != versions:
        return Abort("another content was asked for")
    gone = [server for server in target.servers if server not in found.members]
    if gone and fresh:
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
        f"asked for {_names(versions)}. `tessera model rollout` changes what is live (resharding: `tessera reshard`)"
    )


def _when_preparing(found: Found, target: Placement) -> Step:
    """Wait until every server of the target reported under its present instance, then commit."""
    ready, missing = found.ready_servers(target)
    if missing:
        return Wait(not_ready(missing, target))
    return Commit(target, ready)


def _names(versions: tuple[PackageRef, ...]) -> str:
    return ", ".join(
        f"version {v.version} ({v.digest[:12]}{', labels ' + ', '.join(v.labels) if v.labels else ''})"
        for v in versions
    )
