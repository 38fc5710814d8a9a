"""What is stored: frozen records, and the placement document. `docs/formats/etcd-keys.md` shows each by example.

Records hold what was decided or reported; they decide nothing. Times and clocks never take part in a decision, so
none is here.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Self

from placement.codec import Record, canonical_json, from_json, parse_json, to_json
from tessera.errors import DataLossError, InvalidArgumentError
from tessera.manifest_checks import check_digest, check_integer, check_model, check_version

SCHEMA_VERSION = 1
FIRST_GENERATION = 1
"""Generation of a cluster without a `meta` record."""

MAX_DOCUMENT_BYTES = 64 << 20
MAX_SLOTS = 1 << 20


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
class MemberRecord(Record):
    """What a running server says of itself.

    Attributes:
        instance: a uuid of this process; another process under the same id has another one.
        address: host:port at which routers reach it.
        build: version of the software.
        domain: failure domain (zone, rack or host); replicas of a slot are on distinct ones.
        capacity_bytes: how many bytes of blobs it can hold.
        bytes_used: how many it holds.
        epochs: model → newest epoch that it has seen.
        error: why it cannot hold what the placements give it; empty while it can.
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


@dataclass(frozen=True, slots=True)
class RouterRecord(Record):
    """A running router; `pinned` maps each model to the oldest epoch that a request of it still uses."""

    instance: str
    address: str
    pinned: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class PackageRef(Record):
    """One version of a model in a placement.

    Attributes:
        digest: SHA-256 (hex) of the package's manifest.
        labels: names that requests may use instead of the number.
    """

    version: int
    digest: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_version(self.version)
        check_digest(self.digest, f"version {self.version}: digest")


@dataclass(frozen=True, slots=True)
class CurrentRecord(Record):
    """The pointer that flips: which placement of a model is current.

    Attributes:
        digest: of the placement document.
        operation: id of the operation that put it.
        versions: a copy from the document, for people and for small readers.
    """

    generation: int
    epoch: int
    digest: str
    operation: str
    versions: tuple[PackageRef, ...]


@dataclass(frozen=True, slots=True)
class OperationRecord(Record):
    """One change of a model's placement; at most one per model exists.

    Attributes:
        kind: "load" is the only one in this release.
        base_epoch: the epoch that it starts from; 0 for a model that has no placement.
        target_epoch: the epoch that it makes.
        target_digest: of the target's document.
        owner: who drives it.
        error: why it was aborted; empty otherwise.
    """

    id: str
    kind: str
    state: OperationState
    base_epoch: int
    target_epoch: int
    target_digest: str
    owner: str
    error: str = ""


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
    """One finished command, for people."""

    operation: str
    owner: str
    command: str
    result: str


@dataclass(frozen=True)
class Placement:
    """Where the slots of one model live in one epoch: immutable, named by its digest.

    Attributes:
        epoch: ≥ 1, grows with every placement of the model.
        layout: number of the way in which the versions are cut; 1 in this release.
        slots: how many slots.
        servers: ids, sorted, each used by a slot; empty for a model without tables.
        slot_servers: per slot, positions in `servers`, best first; all of one length, the number of replicas
            (0 without servers). A slot that holds no bytes has servers too.
        versions: the packages that are served, ascending.

    Raises:
        InvalidArgumentError: a field has a wrong value; names it.

    Cost: checks are one pass over the slots.
    """

    model: str
    epoch: int
    layout: int
    slots: int
    servers: tuple[str, ...]
    slot_servers: tuple[tuple[int, ...], ...]
    versions: tuple[PackageRef, ...]

    def __post_init__(self) -> None:
        check_model(self.model)
        check_integer(self.epoch, "epoch", low=1)
        check_integer(self.layout, "layout", low=1)
        check_integer(self.slots, "slots", low=1, high=MAX_SLOTS)
        if list(self.servers) != sorted(set(self.servers)):
            raise InvalidArgumentError("servers: expected distinct ids in ascending order")
        if len(self.slot_servers) != self.slots:
            raise InvalidArgumentError(f"slot_servers: got {len(self.slot_servers)} slots, expected {self.slots}")
        replicas, count = len(self.slot_servers[0]), len(self.servers)
        for slot, positions in enumerate(self.slot_servers):
            if len(positions) != replicas or len(set(positions)) != replicas:
                raise InvalidArgumentError(
                    f"slot_servers[{slot}]: got {positions}, expected {replicas} distinct positions"
                )
            if positions and (min(positions) < 0 or max(positions) >= count):
                raise InvalidArgumentError(f"slot_servers[{slot}]: got {positions}, expected positions below {count}")
        if bool(self.servers) != bool(replicas):
            raise InvalidArgumentError(f"slot_servers: got {replicas} replicas on {count} servers")
        numbers = [reference.version for reference in self.versions]
        if not numbers or numbers != sorted(set(numbers)):
            raise InvalidArgumentError(f"versions: got {numbers}, expected at least one, distinct and ascending")
        labels = [label for reference in self.versions for label in reference.labels]
        if len(labels) != len(set(labels)):
            raise InvalidArgumentError(f"versions: got labels {labels}, expected each at one version only")

    @property
    def replicas(self) -> int:
        """How many servers hold each slot; 0 for a model without tables."""
        return len(self.slot_servers[0])

    @cached_property
    def canonical(self) -> bytes:
        """The document: canonical JSON."""
        return canonical_json(to_json(self))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical document."""
        return hashlib.sha256(self.canonical).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the stored form: the canonical document, zlib-compressed."""
        return zlib.compress(self.canonical, 9)

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            DataLossError: not zlib, over 64 MiB when unpacked, not JSON, or a field is missing or wrong; names key
            and field.

        Cost: about 10 ms for 16,384 slots.
        """
        unpack = zlib.decompressobj()
        try:
            document = unpack.decompress(data, MAX_DOCUMENT_BYTES)
        except zlib.error as error:
            raise DataLossError(f"{key}: not zlib: {error}") from error
        if not unpack.eof or unpack.unused_data:
            raise DataLossError(
                f"{key}: truncated, followed by other bytes, or over {MAX_DOCUMENT_BYTES} bytes unpacked"
            )
        return from_json(cls, parse_json(document, key), key)
