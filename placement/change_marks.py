"""What operators want of a change that is under way: paused, held before its commit, verified. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.found import Found
from placement.records import OperationRecord, OperationState
from tessera.errors import FailedPreconditionError, NotFoundError


@dataclass(frozen=True)
class Held:
    """Nothing is to be done before an operator says so; `what` says which command that is."""

    what: str


@dataclass(frozen=True)
class Mark:
    """Write this into the operation's record, whose state stays. None: as it is."""

    paused: bool | None = None
    hold: bool | None = None
    verified_epoch: int | None = None

    def on(self, operation: OperationRecord) -> OperationRecord:
        """Return the operation with this mark."""
        return replace(operation, **{name: value for name, value in vars(self).items() if value is not None})


def pause_step(found: Found) -> Held | Mark:
    """Return what pauses the operation.

    Raises:
        NotFoundError: there is none.
        FailedPreconditionError: it has ended, is being given up, or is a load.
    """
    operation = _operation(found)
    if operation.kind == "load" or not operation.active or operation.state is OperationState.ABORTING:
        raise FailedPreconditionError(
            f"model {found.model}: the last operation is {operation.kind}, {operation.state.value}; only a change that "
            "is under way, and not being given up, can be paused"
        )
    return _unless_marked(operation, Mark(paused=True))


def resume_step(found: Found) -> Held | Mark:
    """Return what lets a paused operation go on; Held if it is not paused.

    Raises:
        NotFoundError: there is none.
    """
    return _unless_marked(_operation(found), Mark(paused=False))


def verified_step(found: Found, epoch: int) -> Held | Mark:
    """Return what says that the staged content of `epoch` was compared with what it should be.

    Raises:
        NotFoundError: there is no operation.
        FailedPreconditionError: it is not PREPARED for that epoch.
    """
    operation = _prepared(found)
    if operation.target_epoch != epoch:
        raise FailedPreconditionError(
            f"model {found.model}: the operation is PREPARED for epoch {operation.target_epoch}, expected {epoch}"
        )
    return _unless_marked(operation, Mark(verified_epoch=epoch))


def commit_step(found: Found, *, unverified: bool) -> Held | Mark:
    """Return what lets a held operation be committed.

    Raises:
        NotFoundError: there is none.
        FailedPreconditionError: it is not PREPARED, or was not verified and `unverified` is False.
    """
    operation = _prepared(found)
    if not unverified and operation.verified_epoch != operation.target_epoch:
        raise FailedPreconditionError(
            f"model {found.model}: epoch {operation.target_epoch} was not verified; `tessera reshard verify` does, "
            "--unverified commits without"
        )
    return _unless_marked(operation, Mark(paused=False, hold=False))


def _operation(found: Found) -> OperationRecord:
    if found.operation is None:
        raise NotFoundError(f"model {found.model}: there is no operation")
    return found.operation


def _prepared(found: Found) -> OperationRecord:
    operation = _operation(found)
    if operation.state is not OperationState.PREPARED:
        raise FailedPreconditionError(
            f"model {found.model}: operation {operation.id} is {operation.state.value}, expected PREPARED"
        )
    return operation


def _unless_marked(operation: OperationRecord, mark: Mark) -> Held | Mark:
    return mark if mark.on(operation) != operation else Held("it is as an operator wanted it")
