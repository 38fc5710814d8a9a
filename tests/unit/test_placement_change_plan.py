from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.change_text import plan_json, plan_text
from admin.reshard_command import parse_move
from admin.rollout_command import next_versions
from placement.change_plan import Move, Request, plan_change
from placement.change_report import Sizes, held, owners
from placement.document import PackageRef, Placement
from placement.found import Found
from placement.records import CurrentRecord, MemberRecord, MemberState, OperationRecord, OperationState, ServerRecord
from placement.records import ServerState as Wanted
from placement.waves import peak_bytes, split
from router.pinned_epochs import pinned_epochs
from support.fake_cluster import MODEL, SLOTS, make_placement
from tessera.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

SIZE = 100
SIZES = Sizes([SIZE] * SLOTS, [SIZE] * SLOTS, [SIZE] * SLOTS)


def found(current: Placement, members: str, capacity_bytes: int = 1 << 40, **changes: Any) -> Found:
    """Return a cluster whose members hold what `current` gives them."""
    used = held(owners(current), SIZES.now)
    pointer = CurrentRecord(1, current.epoch, current.digest, "o", current.versions)
    records = {
        server: MemberRecord(
            server, "h", "b", MemberState.SERVING, server, capacity_bytes, used.get(server, (0, 0))[1], {MODEL: 1}
        )
        for server in members
    }
    values: dict[str, Any] = {"model": MODEL, "current": pointer, "current_placement": current, "members": records}
    return Found(**{**values, "last_epoch": current.epoch, **changes})


def planned(state: Found, sizes: Sizes = SIZES, **request: Any) -> Any:
    return plan_change(state, Request(**request), sizes, kind="reshard", command="test")


def test_an_added_server_gets_its_share_and_nothing_else_moves() -> None:
    plan = planned(found(make_placement(1, "ab"), "abc"), add=("c",))
    assert plan.change
    (target,) = plan.change.targets
    assert target.epoch == 2
    assert plan.moved_bytes == plan.minimum_moved_bytes == SLOTS * SIZE // 3
    assert {row.id: (row.slots_now, row.slots_after) for row in plan.servers} == {"a": (6, 4), "b": (6, 4), "c": (0, 4)}
    assert plan.problems == ()
    assert "Moves 4 of 12 slots (33.3 %" in plan_text(MODEL, plan).replace("%", " %")
    assert plan_json(MODEL, plan)["checks"] == {check.name: "" for check in plan.checks}


def test_a_removed_server_gives_everything_away_and_a_lost_one_is_said_to_be_lost() -> None:
    plan = planned(found(make_placement(1, "abc"), "ab"), remove=("c",))
    assert plan.change
    assert plan.change.lost == ("c",)
    assert plan.change.targets[-1].servers == ("a", "b")
    with pytest.raises(FailedPreconditionError, match="server c: holds slots and is not there"):
        planned(found(make_placement(1, "abc"), "ab"), rebalance=True)


def test_a_cordoned_server_cannot_be_added_and_a_draining_one_keeps_nothing() -> None:
    wanted = {"b": ServerRecord("b", 1, 1 << 40, Wanted.DRAINING), "c": ServerRecord("c", 1, 1 << 40, Wanted.CORDONED)}
    state = found(make_placement(1, "ab"), "abc", servers=wanted)
    with pytest.raises(FailedPreconditionError, match="--add=c: it is CORDONED"):
        planned(state, add=("c",))
    plan = planned(state, rebalance=True)
    assert plan.change
    assert plan.change.targets[-1].servers == ("a",)


def test_single_slots_move_where_they_are_told() -> None:
    state = found(make_placement(1, "ab"), "abc")
    plan = planned(state, moves=(Move((0, 2), "c"), Move((1,), "a", "b")))
    assert plan.change
    rows = owners(plan.change.targets[0])
    assert [rows[slot] for slot in (0, 1, 2, 3)] == [("c",), ("a",), ("c",), ("b",)]
    for move, says in (
        (Move((99,), "c"), "got slot 99, expected 0 to 11"),
        (Move((0,), "a"), "slot 0 is on a already"),
        (Move((0,), "c", "b"), "slot 0 is on a, not on b"),
    ):
        with pytest.raises(InvalidArgumentError, match=says):
            planned(state, moves=(move,))
    with pytest.raises(NotFoundError, match="server x: is not there; there are a, b, c"):
        planned(state, moves=(Move((0,), "x"),))


def test_requests_that_contradict_themselves_are_refused() -> None:
    state = found(make_placement(1, "ab"), "abc")
    with pytest.raises(InvalidArgumentError, match="--add and --remove: both name c"):
        planned(state, add=("c",), remove=("c",))
    with pytest.raises(InvalidArgumentError, match="cannot be combined"):
        planned(state, add=("c",), moves=(Move((0,), "c"),))


def test_two_replicas_in_one_domain_unwell_servers_and_another_operation_are_problems() -> None:
    wanted = {server: ServerRecord("one rack", 1, 1 << 40, Wanted.ACTIVE) for server in "bc"}
    current = make_placement(1, "ab", replicas=2)
    operation = OperationRecord("o", "reshard", OperationState.PREPARING, 1, 2, "x", "bob", command="theirs")
    state = found(current, "abc", servers=wanted, operation=operation)
    assert state.members
    state = replace(state, members={**state.members, "a": replace(state.members["a"], error="on fire")})
    plan = planned(state, moves=(Move((0,), "c", "a"),))
    problems = {check.name: check.problem for check in plan.problems}
    assert problems["replicas in distinct domains"].startswith("1 slots, the first is 0")
    assert problems["servers are well"] == "a: on fire"
    assert problems["no other operation"] == "theirs of bob is PREPARING"


def test_nothing_to_change_is_no_change() -> None:
    plan = planned(found(make_placement(1, "ab"), "abc"), rebalance=True)
    assert plan.change is None
    assert plan.moved_bytes == 0


def test_a_rollout_counts_what_versions_share_once() -> None:
    sizes = Sizes([100] * SLOTS, [110] * SLOTS, [130] * SLOTS)  # 80 in both
    new = (PackageRef(2, "1" * 64),)
    plan = planned(found(make_placement(1, "ab"), "ab"), sizes, versions=new)
    assert plan.change
    assert plan.change.targets[0].versions == new
    assert plan.moved_bytes == SLOTS * 30
    assert [(row.bytes_now, row.bytes_after, row.peak_bytes) for row in plan.servers] == [(600, 660, 780)] * 2
    tight = planned(found(make_placement(1, "ab"), "ab", 700), sizes, versions=new)
    assert [check.name for check in tight.problems] == ["headroom"]


def test_what_fits_only_after_something_has_left_goes_in_waves() -> None:
    # a and b change places; each has room for two more slots.
    current = make_placement(1, "ab")
    swapped = tuple((1 - row[0],) for row in current.slot_servers)
    target = replace(current, epoch=2, slot_servers=swapped)
    waves = split(current, target, SIZES.now, {"a": 800, "b": 800})
    assert [wave.epoch for wave in waves] == [2, 3, 4]
    assert waves[-1].slot_servers == swapped
    with pytest.raises(FailedPreconditionError, match=r"no room to move slot 0 of 100 bytes"):
        split(current, target, SIZES.now, {"a": 600, "b": 600})
    assert len(split(current, target, SIZES.now, {}, wave_bytes=300)) == 4


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=30),
    st.integers(0, 60),
)
def test_waves_never_exceed_a_limit_and_end_where_they_should(slots: list[tuple[int, int, int]], room: int) -> None:
    def placement(epoch: int, column: int) -> Placement:
        used = sorted({slot[column] for slot in slots})
        rows = tuple((used.index(slot[column]),) for slot in slots)
        return Placement(MODEL, epoch, 1, len(slots), tuple("abcd"[i] for i in used), rows, (PackageRef(1, "0" * 64),))

    current, target, sizes = placement(1, 0), placement(2, 1), [slot[2] for slot in slots]
    before, after = held(owners(current), sizes), held(owners(target), sizes)
    limits = {s: max(before.get(s, (0, 0))[1], after.get(s, (0, 0))[1]) + room for s in "abcd"}
    try:
        waves = split(current, target, sizes, limits)
    except FailedPreconditionError:
        return
    for wave in waves:
        for server, peak in peak_bytes(current, wave, sizes, sizes, sizes).items():
            assert peak <= limits[server]
        current = wave
    assert owners(current) == owners(target)


def test_slots_of_a_move_are_parsed() -> None:
    assert parse_move("slots=0-2+7,to=s3,from=s1") == Move((0, 1, 2, 7), "s3", "s1")
    for text in ("", "slots=1", "to=s1", "slots=a,to=s", "slots=1,to=s,when=now"):
        with pytest.raises(InvalidArgumentError, match="--move: got"):
            parse_move(text)


def test_labels_of_versions_that_leave_go_to_the_new_one() -> None:
    old = (PackageRef(1, "0" * 64, ("stable",)), PackageRef(2, "1" * 64, ("canary",)))
    new = next_versions(old, 3, "2" * 64, keep=False, labels={})
    assert [(ref.version, ref.labels) for ref in new] == [(3, ("canary", "stable"))]
    kept = next_versions(old, 3, "2" * 64, keep=True, labels={"canary": 3})
    assert [(ref.version, ref.labels) for ref in kept] == [(1, ("stable",)), (2, ()), (3, ("canary",))]
    with pytest.raises(InvalidArgumentError, match=r"got stable=1, expected one of the versions \[3\]"):
        next_versions(old, 3, "2" * 64, keep=False, labels={"stable": 1})


def test_a_router_uses_the_oldest_epoch_that_a_request_of_it_uses() -> None:
    assert pinned_epochs({"m": 5, "n": 2}, {"m": 3, "gone": 1}) == {"m": 3, "n": 2}
    assert pinned_epochs({"m": 5}, {"m": 6}) == {"m": 5}  # a route that is being made
