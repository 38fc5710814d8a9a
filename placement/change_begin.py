"""What a change of a live placement begins with: what is asked of the driver, checked, as its first record."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from placement.found import Found
from placement.records import OperationRecord, OperationState, Placement, TrafficRecord
from tessera.errors import FailedPreconditionError


@dataclass(frozen=True)
class Change:
    """What is to be changed, decided from `found`; refused when that is no longer so.

    Attributes:
        targets: the placements to be made current one after the other; their epochs follow `found.last_epoch`.
        kind: "reshard" or "rollout".
        command: what was asked for, in words, for people.
        lost: servers of the present placement that are gone for good.
        traffic: how requests are divided once other versions are current.
        id: of the operation; empty for a new one.
        hold: stop before the first commit, until an operator says so.
    """

    found: Found
    targets: tuple[Placement, ...]
    kind: str
    command: str
    lost: tuple[str, ...] = ()
    traffic: TrafficRecord = field(default_factory=TrafficRecord)
    id: str = ""
    hold: bool = False


def check_change(change: Change) -> None:
    """Refuse what can be seen to be wrong before anything is written.

    Raises:
        FailedPreconditionError: another operation is under way, or the model has no placement.
    """
    found = change.found
    if found.operation is not None and found.operation.active:
        raise FailedPreconditionError(
            f"model {found.model}: operation {found.operation.id} ({found.operation.command or found.operation.kind}, "
            f"{found.operation.state.value}) of {found.operation.owner} is under way; see `tessera reshard status`"
        )
    if found.current_placement is None:
        raise FailedPreconditionError(f"model {found.model}: has no placement yet; `tessera model load` makes one")
    for server, member in sorted(found.members.items()):
        if member.epochs.get(found.model, 0) > found.last_epoch:
            raise FailedPreconditionError(
                f"model {found.model}: server {server} has seen epoch {member.epochs[found.model]}, the newest in the "
                f"store is {found.last_epoch}: the store has gone back; `tessera cluster rebuild` repairs that"
            )
    epochs = [placement.epoch for placement in change.targets]
    assert epochs == list(range(found.last_epoch + 1, found.last_epoch + 1 + len(epochs)))
    assert epochs


def first_record(change: Change, owner: str) -> OperationRecord:
    """Return the operation as it is written first. REQUIRED: `check_change` accepted `change`."""
    found, (target, *later) = change.found, change.targets
    base = found.current_placement
    assert base is not None
    assert found.current is not None
    return OperationRecord(
        id=change.id or uuid.uuid4().hex,
        kind=change.kind,
        state=OperationState.PLANNED,
        base_epoch=base.epoch,
        target_epoch=target.epoch,
        target_digest=target.digest,
        owner=owner,
        base_digest=base.digest,
        later_digests=tuple(placement.digest for placement in later),
        origin_epoch=base.epoch,
        lost=change.lost,
        routers=tuple(sorted({*found.routers, *found.known_routers})),
        command=change.command,
        traffic=change.traffic,
        origin_versions=found.current.versions,
        origin_traffic=found.current.traffic,
        hold=change.hold,
    )
