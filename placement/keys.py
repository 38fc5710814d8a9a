"""Every key of the store, built and parsed here only. `docs/formats/etcd-keys.md` says what is in each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from tessera.errors import InvalidArgumentError
from tessera.manifest_checks import check_model

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
MAX_EPOCH = (1 << 63) - 1


class Kind(Enum):
    """What a key holds."""

    META = "meta"
    SERVER = "servers"
    MEMBER = "members"
    ROUTER = "routers"
    KNOWN_ROUTER = "known-routers"
    CURRENT = "current"
    PLACEMENT = "placements"
    OPERATION = "op"
    READY = "ready"
    LOCK = "locks"
    CONTROLLER = "controller"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A key taken apart; what its kind does not have is empty or 0. `id` is of a server, a router or an audit entry."""

    kind: Kind
    id: str = ""
    model: str = ""
    epoch: int = 0


def check_id(value: str, what: str) -> str:
    """Return `value` if it can be the id of a server, router, operation or cluster; `what` names it in the message.

    Raises:
        InvalidArgumentError: it is not 1 to 128 of A-Z a-z 0-9 . _ - or begins with a dot.
    """
    if not _ID.fullmatch(value):
        raise InvalidArgumentError(
            f"{what}: got {value!r}, expected 1 to 128 of A-Z a-z 0-9 . _ - that do not begin with a dot"
        )
    return value


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster. Every method raises InvalidArgumentError for a name that cannot be in a key."""

    cluster: str

    def __post_init__(self) -> None:
        check_id(self.cluster, "cluster")

    @property
    def prefix(self) -> str:
        """All keys of the cluster begin with this."""
        return f"/tessera/{self.cluster}/"

    @property
    def meta(self) -> str:
        """The cluster itself."""
        return f"{self.prefix}meta"

    @property
    def servers(self) -> str:
        """Prefix of what operators want of servers."""
        return f"{self.prefix}servers/"

    def server(self, server: str) -> str:
        """What operators want of one server."""
        return self.servers + check_id(server, "server id")

    @property
    def members(self) -> str:
        """Prefix of the running servers."""
        return f"{self.prefix}members/"

    def member(self, server: str) -> str:
        """One running server."""
        return self.members + check_id(server, "server id")

    @property
    def routers(self) -> str:
        """Prefix of the running routers."""
        return f"{self.prefix}routers/"

    def router(self, router: str) -> str:
        """One running router."""
        return self.routers + check_id(router, "router id")

    @property
    def known_routers(self) -> str:
        """Prefix of the routers that may send requests, whether they are heard of or not."""
        return f"{self.prefix}known-routers/"

    def known_router(self, router: str) -> str:
        """One of them."""
        return self.known_routers + check_id(router, "router id")

    @property
    def models(self) -> str:
        """Prefix of everything of all models but their locks."""
        return f"{self.prefix}models/"

    def model(self, model: str) -> str:
        """Prefix of everything of one model but its lock."""
        return f"{self.models}{check_model(model)}/"

    def current(self, model: str) -> str:
        """The pointer to the current placement."""
        return f"{self.model(model)}current"

    def placement(self, model: str, epoch: int) -> str:
        """One placement document; keys sort as epochs do."""
        return f"{self.model(model)}placements/{_epoch(epoch)}"

    def operation(self, model: str) -> str:
        """The one operation of a model."""
        return f"{self.model(model)}op"

    def ready(self, model: str, epoch: int, server: str) -> str:
        """A server's report that it holds its part of a placement."""
        return f"{self.model(model)}ready/{_epoch(epoch)}/" + check_id(server, "server id")

    @property
    def locks(self) -> str:
        """Prefix of the locks of models."""
        return f"{self.prefix}locks/"

    def lock(self, model: str) -> str:
        """Who may drive the operation of a model."""
        return self.locks + check_model(model)

    @property
    def controller(self) -> str:
        """Which controller is elected."""
        return f"{self.prefix}controller"

    @property
    def audits(self) -> str:
        """Prefix of the finished commands; keys sort by time."""
        return f"{self.prefix}audit/"

    def audit(self, wall_ms: int, operation: str) -> str:
        """One finished command, `wall_ms` milliseconds after 1970."""
        return f"{self.audits}{_epoch(wall_ms)}-{check_id(operation, 'operation id')}"

    def parse(self, key: str) -> Parsed | None:
        """Return what `key` is, or None if it is not one of ours (another cluster, or a newer release wrote it)."""
        if not key.startswith(self.prefix):
            return None
        parts = key[len(self.prefix) :].split("/")
        match parts:
            case ["meta" | "controller" as kind]:
                return Parsed(Kind(kind))
            case ["servers" | "members" | "routers" | "known-routers" as kind, name] if _ID.fullmatch(name):
                return Parsed(Kind(kind), id=name)
            case ["audit", name] if name:
                return Parsed(Kind.AUDIT, id=name)
            case ["locks", model] if _ID.fullmatch(model):
                return Parsed(Kind.LOCK, model=model)
            case ["models", model, "current" | "op" as kind] if _ID.fullmatch(model):
                return Parsed(Kind(kind), model=model)
            case ["models", model, "placements", epoch] if _ID.fullmatch(model) and _is_epoch(epoch):
                return Parsed(Kind.PLACEMENT, model=model, epoch=int(epoch))
            case ["models", model, "ready", epoch, name] if all(map(_ID.fullmatch, (model, name))) and _is_epoch(epoch):
                return Parsed(Kind.READY, id=name, model=model, epoch=int(epoch))
        return None


def _epoch(number: int) -> str:
    if not 0 <= number <= MAX_EPOCH:
        raise InvalidArgumentError(f"epoch or time: got {number}, expected 0 to {MAX_EPOCH}")
    return f"{number:020d}"


def _is_epoch(text: str) -> bool:
    return re.fullmatch(r"[0-9]{20}", text) is not None and int(text) <= MAX_EPOCH
