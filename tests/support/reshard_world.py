"""A bounded world in which placements change: its steps are the product's own decisions, its state is one small tuple.

What decides is real: `next_step`, `abort_step` and `after` move the operation, the snapshot's reducer says what is
current and held, `desired_packages` which buckets that is, `pinned_epochs` what a router reports. What surrounds them
is the worst that may happen: everybody acts at any time, sees the store late, dies, is cut off.

Everything is a function of the store's history, which only the operation makes longer; a view is a position in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from placement.change_marks import Held, Mark
from placement.change_steps import ABORTABLE, Commit, Finished, Step, Wait, abort_step, after, next_step
from placement.document import Placement
from placement.found import Found
from placement.records import OperationState
from router.pinned_epochs import pinned_epochs
from support.explore import ViolationError
from support.fake_cluster import MODEL
from support.reshard_records import NEVER, Records

S = OperationState
GRACE_S = 30.0


class Server(NamedTuple):
    """`applied` and `reported` are positions in the history, -1: nothing yet; `life` counts its restarts."""

    alive: bool = True
    applied: int = 0
    reported: int = 0
    life: int = 0


class Controller(NamedTuple):
    """`token` is that of the lock it believes to hold, 0: none; `pending` the write that it has decided on."""

    token: int = 0
    pending: tuple[Any, ...] | None = None


class Router(NamedTuple):
    """`seen` is a position in the history; `pinned` and `prepared` its record; `epoch` the request's, 0: none."""

    seen: int = 0
    pinned: int = 1
    prepared: int = 1
    connected: bool = True
    lease: bool = True
    epoch: int = 0
    done: int = 0
    versions: frozenset[str] = frozenset()


class State(NamedTuple):
    """The whole world. `history` holds numbers of `Records.entries`, `ready` (epoch, server, life)."""

    history: tuple[int, ...]
    lock: int
    aborts: int
    crashes: int
    pauses: int
    controllers: tuple[Controller, ...]
    servers: tuple[Server, ...]
    ready: frozenset[tuple[int, int, int]]
    router: Router


class World:
    """What is explored, and which guards are taken out.

    Args:
        placements: epoch 1 is current; each operation's targets are the others, under the next epochs.
        zombie: two controllers; any may be paused, and its lock given to the other.
        aborts: how many operations an operator gives up; each is followed by another.
        crashes: how many servers are killed and come back.
        cut: the router may lose the store, and come back while the drain still waits for it.
        cut_for_long: it may also stay away for longer than the grace.
        pauses: how often an operator pauses the operation, and resumes it.
        many: the commit compares only that no server has registered since, as it does for many servers.
        without: names of guards that are left out: ready, fence, barrier, base, version, epochs.
    """

    def __init__(
        self,
        placements: tuple[Placement, ...],
        *,
        zombie: bool = False,
        aborts: int = 0,
        crashes: int = 0,
        cut: bool = False,
        cut_for_long: bool = False,
        pauses: int = 0,
        many: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self._records = Records(placements)
        self._zombie, self._aborts, self._crashes = zombie, aborts, crashes
        self._cut, self._cut_for_long, self._without = cut, cut_for_long, without
        self._pauses, self._many = pauses, many
        self._names = self._records.servers
        self._found: dict[Any, Found] = {}
        self._decided: dict[Any, list[tuple[str, tuple[Any, ...]]]] = {}

    def start(self) -> State:
        """Return the first state: epoch 1 is current, and all is held."""
        controllers = (Controller(),) * (2 if self._zombie else 1)
        servers = (Server(),) * len(self._names)
        return State((self._records.number(1, None),), 0, 0, 0, 0, controllers, servers, frozenset(), Router())

    def is_final(self, state: State) -> bool:
        """Say whether the operation is DONE."""
        operation = self._records.entries[state.history[-1]][1]
        return operation is not None and operation.state is S.DONE

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every step that can be made.

        Raises:
            ViolationError: a request has no owner of exactly what it pinned, an answer mixes versions, or the epoch
            goes back.
        """
        for index in range(len(state.controllers)):
            yield from self._controller(state, index)
        if self._pauses:
            yield from self._operator(state)
        for index in range(len(state.servers)):
            yield from self._server(state, index)
        yield from self._router(state)

    # --- what controllers do ------------------------------------------------------------------------------

    def _controller(self, state: State, index: int) -> Iterator[tuple[str, State]]:
        name, mine = f"controller {index}", state.controllers[index]

        def with_me(changed: Controller, **more: Any) -> State:
            controllers = (*state.controllers[:index], changed, *state.controllers[index + 1 :])
            return state._replace(controllers=controllers, **more)

        if not mine.token:
            token = max(controller.token for controller in state.controllers) + 1
            if not state.lock and token <= (3 if self._zombie else 1) and not self.is_final(state):
                yield f"{name} takes the lock", with_me(Controller(token), lock=token)
            return
        if self._zombie and state.lock == mine.token:
            yield f"{name} is paused and loses the lock", state._replace(lock=0)
        if mine.pending is None:
            for what, pending in self._decisions(state):
                yield f"{name} decides {what}", with_me(Controller(mine.token, pending))
            return
        position, number, compared, is_abort = mine.pending
        valid = state.lock == mine.token and position == len(state.history) and compared <= self._compared(state)
        if not valid and "fence" not in self._without:
            yield f"{name} is refused", with_me(Controller(mine.token))
            return
        current, operation = self._records.entries[number]
        assert operation is not None
        if current < self._records.entries[state.history[-1]][0]:
            raise ViolationError("the epoch goes back")
        text = f"{name} writes {operation.state.value} (epoch {operation.base_epoch} -> {operation.target_epoch})"
        history = (*state.history, number)
        yield text, with_me(Controller(mine.token), history=history, aborts=state.aborts + is_abort)

    def _decisions(self, state: State) -> list[tuple[str, tuple[Any, ...]]]:
        """Return what a controller that reads the store now may decide to write; decided once for each content."""
        silent_s = 2 * GRACE_S if self._cut_for_long else 0.0
        servers = tuple((one.alive, one.life, one.reported) for one in state.servers)
        router = (state.router.pinned, state.router.prepared) if state.router.lease else None
        key = (state.history, servers, state.ready, router, state.aborts)
        if key not in self._decided:
            self._decided[key] = list(self._decide(state, servers, router, silent_s))
        return self._decided[key]

    def _compared(self, state: State) -> frozenset[tuple[int, int, int]]:
        """Return what comparisons of a commit can see: reports, or, with `many`, which servers have registered."""
        if self._many:
            return frozenset((0, index, life) for index, one in enumerate(state.servers) for life in range(one.life, 9))
        return state.ready

    def _decide(
        self, state: State, servers: tuple[Any, ...], router: tuple[int, int] | None, silent_s: float
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        position = len(state.history)
        current, operation = self._records.entries[state.history[-1]]
        if operation is None or operation.state is S.ABORTED:
            last = 1 if "epochs" in self._without else self._records.last_epoch(state.history)
            begun = self._records.operation(current, last)
            yield "to begin", (position, self._records.number(current, begun), frozenset(), 0)
            return
        ready = state.ready
        if "ready" in self._without:
            ready = frozenset((operation.target_epoch, index, one.life) for index, one in enumerate(state.servers))
        if "barrier" in self._without:
            router = (NEVER, NEVER)
        found = self._records.found(state.history, servers, ready, router)
        steps: list[tuple[int, Step]] = [(0, next_step(found, committed_for_s=silent_s, grace_s=GRACE_S))]
        if operation.state in ABORTABLE and state.aborts < self._aborts:
            steps.append((1, abort_step(found, "an operator said so")))
        for is_abort, step in steps:
            if isinstance(step, Wait | Finished | Held):
                continue
            compared: frozenset[tuple[int, int, int]] = frozenset()
            if isinstance(step, Commit) and self._many:
                compared = self._compared(state)
            elif isinstance(step, Commit) and "ready" not in self._without:
                names = {entry.key.rpartition("/")[2] for entry in step.ready}
                compared = frozenset(
                    one for one in ready if one[0] == step.placement.epoch and self._names[one[1]] in names
                )
            changed = after(operation, step, "c")
            epoch = changed.target_epoch if isinstance(step, Commit) else current
            yield f"on {changed.state.value}", (position, self._records.number(epoch, changed), compared, is_abort)

    def _operator(self, state: State) -> Iterator[tuple[str, State]]:
        """Pause and resume: writes without the lock, which compare the operation's record."""
        current, operation = self._records.entries[state.history[-1]]
        if operation is None or not operation.active or operation.state is S.ABORTING:
            return
        changed = Mark(paused=not operation.paused).on(operation)
        history = (*state.history, self._records.number(current, changed))
        if operation.paused:
            yield "operator resumes", state._replace(history=history)
        elif state.pauses < self._pauses:
            yield "operator pauses", state._replace(history=history, pauses=state.pauses + 1)

    # --- what servers do ----------------------------------------------------------------------------------

    def _server(self, state: State, index: int) -> Iterator[tuple[str, State]]:
        name, mine, newest = f"server {self._names[index]}", state.servers[index], len(state.history) - 1

        def with_me(changed: Server, **more: Any) -> State:
            return state._replace(servers=(*state.servers[:index], changed, *state.servers[index + 1 :]), **more)

        if not mine.alive:  # its record went with its lease before it may take its id again
            ready = frozenset(one for one in state.ready if one[1] != index)
            yield f"{name} comes back", with_me(Server(True, -1, -1, mine.life + 1), ready=ready)
            return
        if mine.applied < newest:
            yield f"{name} sees and holds", with_me(mine._replace(applied=newest))
        if mine.reported < mine.applied:
            ready = state.ready
            # The report compares that the operation is what the view says; else it is refused, and comes later.
            if mine.applied == newest:
                view = self._records.view(state.history, mine.applied)
                ready |= {(t.epoch, index, mine.life) for t in view.staged if self._names[index] in t.servers}
            yield f"{name} reports", with_me(mine._replace(reported=mine.applied), ready=ready)
        # Two replicas promise as much: one server at a time is down or reloading.
        if state.crashes < self._crashes and all(one.alive and one.applied >= 0 for one in state.servers):
            yield f"{name} is killed", with_me(mine._replace(alive=False), crashes=state.crashes + 1)

    def _has(self, state: State, server: str, package: str, slot: int) -> bool:
        mine = state.servers[self._names.index(server)]
        if not mine.alive or mine.applied < 0:
            return False
        held = self._records.held(state.history, mine.applied, server, without_base="base" in self._without)
        return (package, slot) in held

    # --- what the router does -----------------------------------------------------------------------------

    def _router(self, state: State) -> Iterator[tuple[str, State]]:
        mine, newest = state.router, len(state.history) - 1

        def with_me(**changes: Any) -> State:
            return state._replace(router=mine._replace(**changes))

        if mine.connected and mine.seen < newest:
            yield "router sees", with_me(seen=newest)
        current = self._records.entries[state.history[mine.seen]][0]
        if mine.connected:
            view = self._records.view(state.history, mine.seen)
            pinned = pinned_epochs({MODEL: current}, {MODEL: mine.epoch} if mine.epoch else {})[MODEL]
            prepared = max(mine.prepared, *(placement.epoch for placement in view.held))
            if (mine.pinned, mine.prepared, mine.lease) != (pinned, prepared, True):
                yield "router reports", with_me(pinned=pinned, prepared=prepared, lease=True)
        if self._cut or self._cut_for_long:
            yield "router is cut off or back", with_me(connected=not mine.connected)
            if not mine.connected and mine.lease:
                yield "router's lease ends", with_me(lease=False)
        if not mine.epoch:
            yield f"request begins at epoch {current}", with_me(epoch=current)
            return
        placement = self._records.placement(mine.epoch)
        if mine.done == placement.slots:
            if len(mine.versions) > 1:
                raise ViolationError("an answer mixes versions")
            yield "request is answered", with_me(epoch=0, done=0, versions=frozenset())
            return
        asked = {placement.versions[0].digest}
        if "version" in self._without:
            asked = self._records.digests
        owners = [placement.servers[position] for position in placement.slot_servers[mine.done]]
        answers = {package for package in asked if any(self._has(state, s, package, mine.done) for s in owners)}
        if not answers:
            raise ViolationError(f"nobody has slot {mine.done} of epoch {mine.epoch}")
        for package in sorted(answers):
            versions = mine.versions | {package}
            yield f"slot {mine.done} is answered", with_me(done=mine.done + 1, versions=versions)
