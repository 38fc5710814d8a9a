from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.document import PackageRef, Placement
from placement.found import Found
from placement.keys import Keys
from placement.records import WHOLE, CurrentRecord, OperationRecord, OperationState, TrafficRecord
from placement.snapshot import ClusterSnapshot, apply
from placement.store import Entry, Event
from placement.traffic import (
    after_commit,
    check_label,
    check_traffic,
    relabelled,
    served_versions,
    traffic_of,
    versions_of,
    without_gone,
)
from tessera.errors import InvalidArgumentError

KEYS = Keys("c")
ONE, TWO = PackageRef(1, "1" * 64, ("stable",)), PackageRef(2, "2" * 64)
SPLIT = TrafficRecord({"1": 9_000, "2": 1_000}, "x-user")


def placement(epoch: int, *versions: PackageRef) -> Placement:
    return Placement("m", epoch, 1, 2, ("a",), ((0,), (0,)), versions)


def pointer(document: Placement, traffic: TrafficRecord = SPLIT) -> CurrentRecord:
    return CurrentRecord(1, document.epoch, document.digest, "op", document.versions, traffic)


def put(key: str, value: CurrentRecord | Placement, version: int) -> Event:
    return Event(key, Entry(key, value.to_bytes(), version, version), version)


def served(document: Placement) -> ClusterSnapshot:
    events = [put(KEYS.placement("m", document.epoch), document, 1), put(KEYS.current("m"), pointer(document), 2)]
    return apply(KEYS, ClusterSnapshot(), events)


def test_labels_and_split_change_in_the_pointer_alone() -> None:
    document = placement(3, ONE, TWO)
    snapshot = served(document)
    moved = replace(pointer(document), versions=relabelled(document.versions, {"stable": 2}), traffic=TrafficRecord())
    snapshot = apply(KEYS, snapshot, [put(KEYS.current("m"), moved, 3)])
    view = snapshot.models["m"]
    assert view.placement == document
    assert [one.labels for one in versions_of(view)] == [(), ("stable",)]
    assert traffic_of(view) == TrafficRecord()
    assert snapshot.problems == {}


def test_labels_of_a_pointer_to_other_packages_do_not_count() -> None:
    document = placement(3, ONE, TWO)
    other = replace(pointer(document), versions=(replace(ONE, digest="3" * 64, labels=("x",)), TWO))
    assert served_versions(other, document) == document.versions


def test_an_unload_takes_the_placement_away_and_is_not_undone_by_an_older_pointer() -> None:
    document = placement(3, ONE)
    snapshot = served(document)
    gone = replace(pointer(document), epoch=4, digest="", versions=(), traffic=TrafficRecord())
    snapshot = apply(KEYS, snapshot, [put(KEYS.current("m"), gone, 3)])
    view = snapshot.models["m"]
    assert (view.placement, view.epoch, view.held) == (None, 4, ())
    assert versions_of(view) == ()
    assert snapshot.problems == {}
    snapshot = apply(KEYS, snapshot, [put(KEYS.current("m"), pointer(document), 4)])
    assert snapshot.models["m"].placement is None
    assert "went back" in snapshot.problems[KEYS.current("m")]
    again = placement(5, TWO)
    events = [put(KEYS.placement("m", 5), again, 5), put(KEYS.current("m"), pointer(again), 6)]
    assert apply(KEYS, snapshot, events).models["m"].placement == again


def test_a_commit_keeps_labels_and_split_unless_versions_change() -> None:
    base = placement(3, ONE, TWO)
    current = replace(pointer(base), versions=relabelled(base.versions, {"stable": 2}))
    found = Found("m", generation=2, current=current)
    operation = OperationRecord("op2", "reshard", OperationState.PREPARED, 3, 4, "d", "me", traffic=TrafficRecord())
    moved = after_commit(found, operation, replace(base, epoch=4))
    assert (moved.versions, moved.traffic, moved.epoch, moved.operation) == (current.versions, SPLIT, 4, "op2")
    assert moved.generation == 2
    rolled = after_commit(found, operation, placement(4, TWO))
    assert (rolled.versions, rolled.traffic) == ((TWO,), TrafficRecord())


def test_labels_are_set_moved_and_removed() -> None:
    versions = relabelled((ONE, TWO), {"canary": 2, "stable": 2}, ())
    assert [one.labels for one in versions] == [(), ("canary", "stable")]
    assert [one.labels for one in relabelled(versions, {}, ["stable"])] == [(), ("canary",)]
    for labels, removed, says in (
        ({"x": 3}, (), "label x: got version 3, expected one that is served: \\[1, 2\\]"),
        ({}, ("x",), "label x: is not there, expected one of: stable"),
        ({"stable": 1}, ("stable",), "both given and removed"),
        ({"7": 1}, (), "that are no number"),
    ):
        with pytest.raises(InvalidArgumentError, match=says):
            relabelled((ONE, TWO), labels, removed)


@pytest.mark.parametrize("label", ["", "1", "a=b", "a b", "a,b", "\n", "x" * 129])
def test_what_cannot_be_a_label(label: str) -> None:
    with pytest.raises(InvalidArgumentError, match="label: got"):
        check_label(label)


def test_a_share_of_nothing_is_refused() -> None:
    check_traffic(TrafficRecord({"stable": 5_000, "2": 5_000}), (ONE, TWO))
    with pytest.raises(InvalidArgumentError, match="a share for canary, expected one of: 1, 2, stable"):
        check_traffic(TrafficRecord({"canary": 10_000}), (ONE, TWO))
    for shares in ({"1": 9_999}, {"1": 10_001, "2": -1}, {"1": 10_000, "2": 0}):
        with pytest.raises(InvalidArgumentError, match="shares: got"):
            TrafficRecord(shares)
    with pytest.raises(InvalidArgumentError, match="at most 64"):
        TrafficRecord({str(n): WHOLE // 100 for n in range(100)})
    assert SPLIT.percent() == {1: 90.0, 2: 10.0}


@given(
    st.lists(st.integers(1, 1_000), min_size=1, max_size=20).map(lambda weights: [w * 500_000 for w in weights]),
    st.sets(st.integers(0, 19)),
)
def test_shares_of_versions_that_left_go_to_the_others(weights: list[int], gone: set[int]) -> None:
    total = sum(weights)
    shares = {str(n): max(1, weight * WHOLE // total) for n, weight in enumerate(weights)}
    shares["0"] += WHOLE - sum(shares.values())
    if shares["0"] < 1:
        return
    traffic = TrafficRecord(shares, "x-user")
    versions = [PackageRef(n, "0" * 64) for n in range(len(weights)) if n not in gone]
    left = without_gone(traffic, versions)
    kept = [name for name in shares if int(name) not in gone]
    if len(kept) == len(shares):
        assert left == traffic
    elif len(kept) < 2:
        assert left == TrafficRecord()
    else:
        assert list(left.shares) == kept
        assert sum(left.shares.values()) == WHOLE  # no rounding is lost
        assert left.sticky_header == "x-user"
        scale = WHOLE / sum(shares[name] for name in kept)
        assert all(abs(left.shares[name] - shares[name] * scale) <= 20 for name in kept)
