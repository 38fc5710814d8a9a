"""Plans a change of a live placement, and says what it means server by server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from placement.change import Change
from placement.change_report import Check, ServerChange, Sizes, checks, describe_servers, limits_of, moved_bytes, owners
from placement.found import Found
from placement.plan import PlanServer, plan_placement
from placement.records import PackageRef, Placement, ServerState, TrafficRecord
from placement.relayout import check_slots, expanded, joined, joined_sizes
from placement.traffic import check_traffic, without_gone
from placement.waves import split
from tessera.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError


@dataclass(frozen=True)
class Move:
    """Slots that are to be held by `to` instead of by `source` (empty: instead of their first replica)."""

    slots: tuple[int, ...]
    to: str
    source: str = ""


@dataclass(frozen=True)
class Request:
    """What an operator asks for.

    Attributes:
        add, remove: servers that get slots, and that lose all theirs.
        moves: single slots; cannot be combined with the others.
        replicas: how many servers hold each slot; None: as many as now.
        versions: what is served; None: as now.
        rebalance: even out bytes among the servers that are there.
        back_to: the placement to go back to, under a new epoch; cannot be combined with the others.
        wave_bytes: how much one wave may move; None: all that fits.
        traffic: how requests are divided from then on; None: as now, without the versions that leave.
        slots: how many slots there are to be; None: as many as now.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    replicas: int | None = None
    versions: tuple[PackageRef, ...] | None = None
    rebalance: bool = False
    back_to: Placement | None = None
    wave_bytes: int | None = None
    traffic: TrafficRecord | None = None
    slots: int | None = None

    def finest(self, current: Placement) -> int:
        """Return the larger number of slots of what is there and what is asked for: sizes are given for that."""
        return max(current.slots, self.slots or 0, self.back_to.slots if self.back_to is not None else 0)


@dataclass(frozen=True)
class ChangePlan:
    """What a change would do.

    Attributes:
        change: to be begun; None when there is nothing to change.
        servers: per server, by id.
        moved_bytes: what servers have to fetch that do not hold it now.
        minimum_moved_bytes: what any plan with perfectly even bytes would have to move.
        moved_slots: slots that get another server, of `slots`.
        max_over_average: the fullest server relative to its fair share, after.
        checks: all of them; the change can be begun when every one holds.
    """

    change: Change | None
    servers: tuple[ServerChange, ...]
    moved_bytes: int
    minimum_moved_bytes: int
    moved_slots: int
    slots: int
    max_over_average: float
    checks: tuple[Check, ...]

    @property
    def problems(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if check.problem)


def plan_change(found: Found, request: Request, sizes: Sizes, *, kind: str, command: str) -> ChangePlan:
    """Plan what `request` asks for; nothing is refused that `ChangePlan.checks` can show.

    Args:
        found: what the store holds.
        request: what is asked for.
        sizes: of each of `request.finest` slots.
        kind: "reshard" or "rollout".
        command: what was asked for, in words.

    Raises:
        NotFoundError: the model has no placement; a server that is named is not known.
        InvalidArgumentError: the request contradicts itself or names slots that are not there.
        FailedPreconditionError: it does not fit, not even in waves; too few failure domains.

    Cost: seconds for 1,000 servers and 16,384 slots.
    """
    current = found.current_placement
    if current is None:
        raise NotFoundError(f"model {found.model}: has no placement; `tessera model load` makes one")
    _check(found, current, request)
    epoch = found.last_epoch + 1
    # Everything is compared slot by slot, in the finer layout of the two.
    base = expanded(current, request.finest(current))
    limits = limits_of(found, base, sizes.now)
    target, minimum, ratio = _target(found, current, request, sizes, limits, epoch)
    fine = expanded(target, base.slots)
    if target.versions == current.versions:
        steps = split(base, fine, sizes.now, limits, wave_bytes=request.wave_bytes)
    else:
        steps = (fine,)  # a version flips as a whole
    if replace(target, epoch=current.epoch) == current:
        steps = ()
    lost = tuple(server for server in request.remove if server not in found.members)
    targets = (*steps[:-1], replace(target, epoch=steps[-1].epoch)) if steps else ()
    change = Change(found, targets, kind, command, lost, _traffic(found, request, target)) if targets else None
    before, after = owners(base), owners(fine)
    return ChangePlan(
        change=change,
        servers=describe_servers(base, steps, sizes, limits),
        moved_bytes=moved_bytes(before, after, sizes),
        minimum_moved_bytes=minimum,
        moved_slots=sum(set(old) != set(new) for old, new in zip(before, after, strict=True)),
        slots=base.slots,
        max_over_average=ratio,
        checks=checks(found, base, steps, sizes, limits, lost),
    )


def _target(
    found: Found, current: Placement, request: Request, sizes: Sizes, limits: Mapping[str, int], epoch: int
) -> tuple[Placement, int, float]:
    """Return what is to be there in the end, the bytes that have to move at least, and the unevenness after."""
    versions = request.versions if request.versions is not None else current.versions
    if request.back_to is not None:
        return replace(request.back_to, epoch=epoch), 0, 1.0
    if request.moves:
        return _moved(found, current, request.moves, epoch), 0, 1.0
    slots = request.slots or current.slots
    asked = request.add or request.remove or request.rebalance or request.replicas or slots != current.slots
    if not current.servers:
        rows = ((),) * slots
        return replace(current, epoch=epoch, versions=versions, slots=slots, slot_servers=rows), 0, 1.0
    if not asked:
        return replace(current, epoch=epoch, versions=versions), 0, 1.0
    plan = plan_placement(
        model=found.model,
        epoch=epoch,
        versions=versions,
        servers=_servers(found, current, request, limits),
        slot_bytes=joined_sizes(sizes.after, slots),
        replicas=request.replicas or current.replicas,
        current=joined(current, slots, sizes.now) if slots < current.slots else expanded(current, slots),
    )
    return plan.placement, plan.minimum_moved_bytes, plan.max_over_average


def _check(found: Found, current: Placement, request: Request) -> None:
    kinds = bool(request.moves) + (request.back_to is not None)
    kinds += bool(request.add or request.remove or request.replicas or request.rebalance or request.slots)
    if kinds > 1:
        raise InvalidArgumentError("--move and reversing cannot be combined with each other or with other changes")
    if request.slots is not None:
        check_slots(request.slots, current.slots)
    if both := sorted(set(request.add) & set(request.remove)):
        raise InvalidArgumentError(f"--add and --remove: both name {', '.join(both)}")
    for server in (*request.add, *(move.to for move in request.moves)):
        if server not in found.members:
            there = ", ".join(sorted(found.members)) or "none"
            raise NotFoundError(f"server {server}: is not there; there are {there}")
    for server in request.remove:
        if server not in current.servers and server not in found.members:
            raise NotFoundError(f"server {server}: is not there and holds nothing of model {found.model}")
    for move in request.moves:
        if wrong := [slot for slot in move.slots if not 0 <= slot < current.slots]:
            raise InvalidArgumentError(f"--move: got slot {wrong[0]}, expected 0 to {current.slots - 1}")


def _traffic(found: Found, request: Request, target: Placement) -> TrafficRecord:
    if request.traffic is not None:
        check_traffic(request.traffic, target.versions)
        return request.traffic
    assert found.current is not None
    return without_gone(found.current.traffic, target.versions)


def _servers(found: Found, current: Placement, request: Request, limits: Mapping[str, int]) -> list[PlanServer]:
    """Return who may hold slots: those that do and those that are added, without those that are removed.

    A cordoned server keeps what it has; its limit is that. A draining one keeps nothing.
    """
    result = []
    for server in sorted({*current.servers, *request.add} - set(request.remove)):
        wanted, member = found.servers.get(server), found.members.get(server)
        if member is None:
            raise FailedPreconditionError(
                f"server {server}: holds slots and is not there; wait for it, or give it up with --remove={server}"
            )
        state = wanted.state if wanted else ServerState.ACTIVE
        if server in request.add and state is not ServerState.ACTIVE:
            raise FailedPreconditionError(f"--add={server}: it is {state.value}; `tessera server uncordon` first")
        if state is ServerState.DRAINING:
            continue
        result.append(
            PlanServer(
                id=server,
                domain=wanted.domain if wanted else member.domain,
                weight=wanted.weight if wanted else 1,
                capacity_bytes=limits[server],
            )
        )
    return result


def _moved(found: Found, current: Placement, moves: Sequence[Move], epoch: int) -> Placement:
    rows = [[current.servers[position] for position in row] for row in current.slot_servers]
    for move in moves:
        for slot in move.slots:
            row = rows[slot]
            source = move.source or (row[0] if row else "")
            if source not in row:
                raise InvalidArgumentError(
                    f"--move: slot {slot} is on {', '.join(row) or 'no server'}, not on {source}"
                )
            if move.to in row:
                raise InvalidArgumentError(f"--move: slot {slot} is on {move.to} already")
            row[row.index(source)] = move.to
    servers = tuple(sorted({server for row in rows for server in row}))
    position = {server: index for index, server in enumerate(servers)}
    slot_servers = tuple(tuple(position[server] for server in row) for row in rows)
    return replace(current, epoch=epoch, servers=servers, slot_servers=slot_servers)
