"""What is stored: frozen records. `docs/formats/etcd-keys.md` shows each by example.

Records hold what was decided or reported; they decide nothing. Times and clocks never take part in a decision, so
none is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from placement.codec import ADDED_LATER, Record
from placement.document import PackageRef as PackageRef
from placement.document import Placement as Placement
from tessera.errors import InvalidArgumentError

SCHEMA_VERSION = 1
FIRST_GENERATION = 1
"""Generation of a cluster without a `meta` record."""
WHOLE = 10_000
"""All of a model's traffic, in hundredths of a percent."""
MAX_SHARES = 64

EPOCHS_PER_GENERATION = 1_000_000_000
"""Epochs of a later generation are above all of the earlier ones: whoever compares epochs compares both."""


def epochs_before(generation: int) -> int:
    """Return the highest epoch that a model can have had before `generation`; its first one is the next."""
    return (generation - FIRST_GENERATION) * EPOCHS_PER_GENERATION


def _no_epochs() -> Any:
    return field(default_factory=lambda: MappingProxyType({}), metadata=ADDED_LATER)


class ServerState(Enum):
    """What an operator wants of a server: ACTIVE takes slots, the others take no new ones."""

    ACTIVE = "ACTIVE"
    CORDONED = "CORDONED"
    DRAINING = "DRAINING"


class MemberState(Enum):
    """What a running server says of itself."""

    STARTING = "STARTING"
    SERVING = "SERVING"
    DRAINING = "DRAINING"


class OperationState(Enum):
    """Where a change of placement is. Up to PREPARED it can be aborted; from COMMITTED on it is only rolled forward."""

    PLANNED = "PLANNED"
    PREPARING = "PREPARING"
    PREPARED = "PREPARED"
    COMMITTED = "COMMITTED"
    DRAINED = "DRAINED"
    DONE = "DONE"
    ABORTING = "ABORTING"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class MetaRecord(Record):
    """The cluster itself; `generation` grows when the store was restored from a backup."""

    cluster_uuid: str
    schema_version: int
    generation: int


@dataclass(frozen=True, slots=True)
class ServerRecord(Record):
    """What an operator wants of one server; overrides what the member says of itself."""

    domain: str
    weight: int
    capacity_bytes: int
    state: ServerState


@dataclass(frozen=True, slots=True)
class StagingRecord(Record):
    """How far a server is with fetching the blobs that it lacked when it last lacked some; all 0 before that.

    Attributes:
        done_bytes, total_bytes: of those blobs; equal when nothing is missing any more.
        bytes_per_s: how fast they come, or came last.
        limit_bytes_per_s: how fast they may come; 0: as fast as it goes.
        problem: the newest thing that went wrong with a source of blobs, such as a peer with a damaged one; for people.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: int = 0
    limit_bytes_per_s: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MemberRecord(Record):
    """What a running server says of itself.

    Attributes:
        instance: a uuid of this process; another process under the same id has another one.
        address: host:port at which routers reach it.
        build: version of the software.
        domain: failure domain (zone, rack or host); replicas of a slot are on distinct ones.
        capacity_bytes: how many bytes of blobs it can hold.
        bytes_used: how many it holds.
        epochs: model → epoch of the newest current placement that it has seen.
        error: why it cannot hold what the placements give it; empty while it can.
        released: model → version, in the store, of the newest operation record that told it to drop something and
            that it has obeyed.
        staging: how far it is with fetching blobs.
    """

    instance: str
    address: str
    build: str
    state: MemberState
    domain: str
    capacity_bytes: int
    bytes_used: int
    epochs: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    error: str = ""
    released: Mapping[str, int] = _no_epochs()
    staging: StagingRecord = field(default_factory=StagingRecord, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True)
class RouterRecord(Record):
    """A running router.

    Attributes:
        pinned: model → oldest epoch that a request of it still uses or may come to use.
        prepared: model → newest epoch, current or target, whose graphs it has loaded.
    """

    instance: str
    address: str
    pinned: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    prepared: Mapping[str, int] = _no_epochs()


@dataclass(frozen=True, slots=True)
class TrafficRecord(Record):
    """How requests are divided that name neither a version nor a label; without shares the largest version gets all.

    Attributes:
        shares: label, or version in digits → hundredths of a percent, together `WHOLE`.
        sticky_header: metadata key, in lower case, whose value decides where a client belongs; empty: its client_id,
            else chance.

    Raises:
        InvalidArgumentError: shares that do not sum up, or too many; says so.
    """

    shares: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), hash=False)  # operations are hashed
    sticky_header: str = ""

    def __post_init__(self) -> None:
        shares = dict(self.shares)
        if any(share <= 0 for share in shares.values()) or sum(shares.values()) not in ((WHOLE,) if shares else (0,)):
            raise InvalidArgumentError(f"shares: got {shares}, expected more than 0 each and {WHOLE} together")
        if len(shares) > MAX_SHARES:
            raise InvalidArgumentError(f"shares: got {len(shares)}, expected at most {MAX_SHARES}")

    def percent(self) -> dict[int | str, float]:
        """Return version or label → its share in percent."""
        return {int(name) if name.isdecimal() else name: share / 100 for name, share in self.shares.items()}


def _no_traffic() -> Any:
    return field(default_factory=TrafficRecord, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True)
class CurrentRecord(Record):
    """The pointer that flips: which placement of a model is current, and how it is asked for.

    Attributes:
        digest: of the placement document; empty when the model was unloaded.
        operation: id of the operation that put it.
        versions: those of the document, none when the model was unloaded. Their labels count, not the document's:
            labels change without a new placement.
        traffic: how requests that name no version are divided.
    """

    generation: int
    epoch: int
    digest: str
    operation: str
    versions: tuple[PackageRef, ...]
    traffic: TrafficRecord = _no_traffic()

    @property
    def unloaded(self) -> bool:
        """It says that the model is no longer served, since this epoch."""
        return not self.versions


@dataclass(frozen=True, slots=True)
class OperationRecord(Record):
    """One change of a model's placement; at most one per model exists.

    A change that goes in waves is one record: each wave makes an epoch, and its base is what the wave before made.

    Attributes:
        kind: "load" (a first placement), "reshard", "rollout" or "unload".
        base_epoch: the epoch that the present wave starts from; 0 for a model that has no placement.
        target_epoch: the epoch that the present wave makes.
        target_digest: of the target's document.
        owner: who drives it.
        error: why it was aborted; empty otherwise.
        base_digest: of the base's document; empty without one.
        later_digests: of the documents of the waves after this one, whose epochs follow `target_epoch`.
        origin_epoch: the epoch before the first wave: what undoing it goes back to.
        lost: servers that are gone for good, as an operator said: nothing waits for them.
        routers: ids of the routers that might send requests when it began. One that is not heard of at the end is
            waited for for a while.
        command: what was asked for, in words.
        traffic: what `CurrentRecord.traffic` becomes when other versions become current.
        origin_versions, origin_traffic: what the pointer said before the first wave.
        paused: an operator said that nothing is to be done before it is resumed.
        hold: an operator wants to say when its first wave is committed; it stops when it is PREPARED.
        verified_epoch: the target whose staged content was compared with what it should be; 0: none.
    """

    id: str
    kind: str
    state: OperationState
    base_epoch: int
    target_epoch: int
    target_digest: str
    owner: str
    error: str = ""
    base_digest: str = field(default="", metadata=ADDED_LATER)
    later_digests: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    origin_epoch: int = field(default=0, metadata=ADDED_LATER)
    lost: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    routers: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    command: str = field(default="", metadata=ADDED_LATER)
    traffic: TrafficRecord = _no_traffic()
    origin_versions: tuple[PackageRef, ...] = field(default=(), metadata=ADDED_LATER)
    origin_traffic: TrafficRecord = _no_traffic()
    paused: bool = field(default=False, metadata=ADDED_LATER)
    hold: bool = field(default=False, metadata=ADDED_LATER)
    verified_epoch: int = field(default=0, metadata=ADDED_LATER)

    @property
    def active(self) -> bool:
        """It is neither done nor aborted."""
        return self.state not in (OperationState.DONE, OperationState.ABORTED)

    @property
    def stopped(self) -> bool:
        """It goes on only when an operator says so."""
        return self.paused or (self.hold and self.state is OperationState.PREPARED)


@dataclass(frozen=True, slots=True)
class ReadyRecord(Record):
    """A server holds, verified, everything that a placement gives it; `digest` is of that placement's document."""

    instance: str
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LockRecord(Record):
    """Who drives a model's operation."""

    owner: str


@dataclass(frozen=True, slots=True)
class AuditRecord(Record):
    """One thing that a command changed, for people.

    Attributes:
        operation: id of the operation, or of the command that is none.
        model: what it changed; empty when that is no model.
    """

    operation: str
    owner: str
    command: str
    result: str
    model: str = field(default="", metadata=ADDED_LATER)
