"""Another number of slots: nothing is cut anew, and little moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.reshard_command import request_of
from placement.change_plan import ChangePlan, Request, plan_change
from placement.change_report import Sizes, held, owners
from placement.document import Placement
from placement.found import Found
from placement.records import CurrentRecord, MemberRecord, MemberState
from placement.relayout import expanded, joined, joined_sizes
from placement.slots import slot_of
from support.fake_cluster import MODEL, REF, make_placement
from tessera.errors import InvalidArgumentError

BUCKETS = 97


def found(current: Placement, members: str, sizes: list[int], capacity_bytes: int = 1 << 40) -> Found:
    used = held(owners(current), joined_sizes(sizes, current.slots))
    pointer = CurrentRecord(1, current.epoch, current.digest, "o", current.versions)
    records = {
        server: MemberRecord(server, "h", "b", MemberState.SERVING, server, capacity_bytes, used.get(server, (0, 0))[1])
        for server in members
    }
    return Found(MODEL, current=pointer, current_placement=current, members=records, last_epoch=current.epoch)


def planned(current: Placement, members: str, sizes: list[int], **request: Any) -> ChangePlan:
    state = found(current, members, sizes)
    return plan_change(state, Request(**request), Sizes(sizes, sizes, sizes), kind="reshard", command="test")


def held_buckets(placement: Placement) -> dict[str, set[int]]:
    rows = owners(placement)
    return {
        server: {bucket for bucket in range(BUCKETS) if server in rows[slot_of("t", bucket, placement.slots)]}
        for server in placement.servers
    }


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5))
def test_more_slots_of_the_same_placement_hold_the_same_buckets(slots: int, times: int) -> None:
    placement = (
        Placement(MODEL, 1, 1, slots, ("a", "b"), tuple((slot % 2,) for slot in range(slots)) or (), (REF,))
        if (slots > 1)
        else Placement(MODEL, 1, 1, 1, ("a",), ((0,),), (REF,))
    )
    more = expanded(placement, slots * times)
    assert held_buckets(more) == held_buckets(placement)
    assert held_buckets(joined(more, slots, [1] * more.slots)) == held_buckets(placement)


def test_a_multiple_moves_only_what_balance_asks_for() -> None:
    plan = planned(make_placement(1, "abc"), "abc", [10] * 48, slots=48)
    assert plan.change
    (target,) = plan.change.targets
    assert (target.slots, target.epoch, plan.moved_bytes, plan.slots) == (48, 2, 0, 48)
    assert held_buckets(target) == held_buckets(make_placement(1, "abc"))


def test_a_divisor_joins_slots_and_may_go_in_waves() -> None:
    current = make_placement(1, "abc")
    plan = planned(current, "abc", [10] * 12, slots=4, wave_bytes=30)
    assert plan.change
    *waves, last = plan.change.targets
    assert [wave.slots for wave in waves] == [12] * len(waves)
    assert waves
    assert last.slots == 4
    assert [target.epoch for target in plan.change.targets] == list(range(2, 3 + len(waves)))
    assert 0 < plan.moved_bytes <= 120
    assert plan.max_over_average <= 2.0


def test_a_change_of_slots_can_be_combined_with_servers_and_undone() -> None:
    current = make_placement(1, "ab")
    plan = planned(current, "abc", [10] * 36, slots=36, add=("c",))
    assert plan.change
    target = plan.change.targets[-1]
    assert (target.slots, target.servers) == (36, ("a", "b", "c"))
    assert plan.moved_bytes == 120
    state = replace(found(target, "abc", [10] * 36))
    back = plan_change(
        state, Request(back_to=current), Sizes([10] * 36, [10] * 36, [10] * 36), kind="reshard", command="reverse"
    )
    assert back.change
    assert back.change.targets[-1].slots == 12
    assert held_buckets(back.change.targets[-1]) == held_buckets(current)


@pytest.mark.parametrize("slots", [0, 5, 18, 1 << 21])
def test_other_numbers_are_refused(slots: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"--relayout: got {slots}, expected"):
        planned(make_placement(1, "ab"), "ab", [10] * 36, slots=slots)


def test_the_same_number_is_nothing_to_change() -> None:
    assert planned(make_placement(1, "ab"), "ab", [10] * 12, slots=12).change is None


def test_the_flag_is_a_request_of_its_own() -> None:
    from argparse import Namespace

    options = Namespace(add=[], remove=[], move=[], replicas=None, rebalance=False, wave_bytes=None, relayout=8192)
    assert request_of(options).slots == 8192
