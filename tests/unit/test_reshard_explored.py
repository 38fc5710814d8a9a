"""Every interleaving of bounded changes of placement, driven by the product's decisions: `support.reshard_world`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

from placement.document import PackageRef, Placement
from support.explore import Explored, explore
from support.reshard_world import World

OLD, NEW = PackageRef(1, "0" * 64), PackageRef(2, "1" * 64)


def placement(epoch: int, *owners: str, version: PackageRef = OLD) -> Placement:
    """Return a placement of one slot per argument; each names the slot's servers by single letters."""
    servers = tuple(sorted(set("".join(owners))))
    rows = tuple(tuple(servers.index(server) for server in row) for row in owners)
    return Placement("m", epoch, 1, len(owners), servers, rows, (version,))


MOVE = (placement(1, "a", "b"), placement(2, "a", "c"))
ROLLOUT = (placement(1, "a", "b"), placement(2, "a", "b", version=NEW))
REPLICAS_DOWN = (placement(1, "ab", "ba"), placement(2, "a", "b"))
WAVES = (placement(1, "a", "a"), placement(2, "a", "b"), placement(3, "b", "b"))
MOVE_OF_ONE_SLOT = (placement(1, "ab"), placement(2, "ac"))
MOVE_OF_TWO_REPLICAS = (placement(1, "ab", "ab"), placement(2, "ac", "ac"))


def run(placements: tuple[Placement, ...], *, without: Iterable[str] = (), **settings: Any) -> Explored:
    world = World(placements, without=frozenset(without), **settings)
    return explore(world.start(), world.successors, world.is_final)


SCENARIOS: dict[str, tuple[tuple[Placement, ...], dict[str, Any]]] = {
    "move": (MOVE, {}),
    "rollout, given up and tried again": (ROLLOUT, {"aborts": 1}),
    "replicas down": (REPLICAS_DOWN, {}),
    "waves": (WAVES, {}),
    "router cut off": (ROLLOUT, {"cut": True}),
    "server killed": (MOVE_OF_TWO_REPLICAS, {"crashes": 1}),
    "server killed, many servers": (MOVE_OF_ONE_SLOT, {"crashes": 1, "many": True}),
    "paused": (REPLICAS_DOWN, {"pauses": 1}),
    "zombie": (ROLLOUT, {"zombie": True}),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_request_fails_no_answer_mixes_and_the_end_can_always_be_reached(name: str) -> None:
    placements, settings = SCENARIOS[name]
    found = run(placements, **settings)
    print(f"{name}: {found.states} states")
    assert found.violation == "", "\n".join(found.trace)
    if not settings.get("zombie"):  # a paused driver's lock is given away only so often here
        assert found.stuck == 0
    assert found.states > 500


GUARDS: dict[str, tuple[tuple[Placement, ...], dict[str, Any], str]] = {
    "ready": (MOVE, {}, "nobody has slot"),
    "barrier": (MOVE, {}, "nobody has slot"),
    "base": (MOVE, {}, "nobody has slot"),
    "version": (ROLLOUT, {}, "mixes versions"),
    "fence": (ROLLOUT, {"zombie": True}, "the epoch goes back|nobody has slot"),
    "epochs": (ROLLOUT, {"aborts": 1}, "nobody has slot"),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_that_is_taken_out_gives_a_failing_run(guard: str) -> None:
    placements, settings, violation = GUARDS[guard]
    found = run(placements, without=[guard], **settings)
    assert re.search(violation, found.violation), found
    assert found.trace


def test_a_router_that_is_cut_off_for_longer_than_the_grace_is_what_is_not_covered() -> None:
    found = run(MOVE, cut_for_long=True)
    assert "nobody has slot" in found.violation
    assert any("lease ends" in step for step in found.trace)


def test_one_replica_and_a_killed_server_is_what_is_not_covered() -> None:
    assert "nobody has slot" in run(MOVE, crashes=1).violation
