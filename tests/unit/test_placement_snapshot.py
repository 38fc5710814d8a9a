from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.keys import Keys
from placement.records import (
    CurrentRecord,
    MemberRecord,
    MemberState,
    OperationRecord,
    OperationState,
    PackageRef,
    Placement,
    ReadyRecord,
    RouterRecord,
)
from placement.snapshot import ClusterSnapshot, apply, replace_all
from placement.store import Entry, Event, Listing

KEYS = Keys("c")
REF = PackageRef(1, "0" * 64)
MEMBER = MemberRecord("i1", "h:1", "b", MemberState.SERVING, "d", 10, 0)


def document(epoch: int, server: str = "a") -> Placement:
    return Placement("m", epoch, 1, 2, (server,), ((0,), (0,)), (REF,))


def current(placement: Placement, generation: int = 1) -> CurrentRecord:
    return CurrentRecord(generation, placement.epoch, placement.digest, "op", placement.versions)


class Feed:
    """Builds events with growing versions."""

    def __init__(self) -> None:
        self.version = 100

    def put(self, key: str, value: Any) -> Event:
        self.version += 1
        data = value if isinstance(value, bytes) else value.to_bytes()
        return Event(key, Entry(key, data, self.version, self.version), self.version)

    def drop(self, key: str) -> Event:
        self.version += 1
        return Event(key, None, self.version)

    def flip(self, placement: Placement, generation: int = 1) -> list[Event]:
        return [
            self.put(KEYS.placement("m", placement.epoch), placement),
            self.put(KEYS.current("m"), current(placement, generation)),
        ]


@pytest.fixture
def feed() -> Feed:
    return Feed()


def test_a_placement_is_applied_with_its_pointer(feed: Feed) -> None:
    one = document(1)
    snapshot = apply(KEYS, ClusterSnapshot(), feed.flip(one))
    view = snapshot.models["m"]
    assert view.placement == one
    assert view.current == current(one)
    assert snapshot.revision == feed.version
    assert snapshot.problems == {}


def test_a_pointer_before_its_document_waits_for_it(feed: Feed) -> None:
    one = document(1)
    put_document, put_current = feed.flip(one)
    snapshot = apply(KEYS, ClusterSnapshot(), [put_current])
    assert snapshot.models["m"].placement is None
    assert "missing" in snapshot.problems[KEYS.placement("m", 1)]
    snapshot = apply(KEYS, snapshot, [put_document])
    assert snapshot.models["m"].placement == one
    assert snapshot.problems == {}


def test_an_older_epoch_is_never_applied_unless_the_generation_grew(feed: Feed) -> None:
    snapshot = apply(KEYS, apply(KEYS, ClusterSnapshot(), feed.flip(document(2))), feed.flip(document(1)))
    assert snapshot.models["m"].placement == document(2)
    assert "went back" in snapshot.problems[KEYS.current("m")]
    snapshot = apply(KEYS, snapshot, feed.flip(document(1), generation=2))
    assert snapshot.models["m"].placement == document(1)
    assert snapshot.problems == {}


def test_another_digest_under_the_same_epoch_is_an_alert_and_not_applied(feed: Feed) -> None:
    snapshot = apply(KEYS, ClusterSnapshot(), feed.flip(document(1)))
    snapshot = apply(KEYS, snapshot, feed.flip(document(1, server="b")))
    assert snapshot.models["m"].placement == document(1)
    assert "same numbers" in snapshot.problems[KEYS.current("m")]


def test_a_document_with_another_digest_than_the_pointer_is_not_applied(feed: Feed) -> None:
    events = [feed.put(KEYS.placement("m", 1), document(1, "b")), feed.put(KEYS.current("m"), current(document(1)))]
    snapshot = apply(KEYS, ClusterSnapshot(), events)
    assert snapshot.models["m"].placement is None
    assert "expected digest" in snapshot.problems[KEYS.placement("m", 1)]


@pytest.mark.parametrize("key", [KEYS.current("m"), KEYS.placement("m", 2)])
def test_damaged_bytes_keep_the_last_good_placement(feed: Feed, key: str) -> None:
    snapshot = apply(KEYS, ClusterSnapshot(), feed.flip(document(1)))
    events = {event.key: event for event in feed.flip(document(2))}
    events[key] = feed.put(key, b"damaged")
    snapshot = apply(KEYS, snapshot, events.values())
    assert snapshot.models["m"].placement == document(1)
    assert key in snapshot.problems
    snapshot = apply(KEYS, snapshot, feed.flip(document(2)))
    assert snapshot.models["m"].placement == document(2)
    assert snapshot.problems == {}


def test_a_deleted_pointer_and_document_change_nothing(feed: Feed) -> None:
    snapshot = apply(KEYS, ClusterSnapshot(), feed.flip(document(1)))
    snapshot = apply(KEYS, snapshot, [feed.drop(KEYS.current("m")), feed.drop(KEYS.placement("m", 1))])
    assert snapshot.models["m"].placement == document(1)


def test_an_operation_shows_its_target_while_it_is_staged(feed: Feed) -> None:
    two = document(2)
    operation = OperationRecord("o", "load", OperationState.PREPARING, 1, 2, two.digest, "me")
    snapshot = apply(KEYS, ClusterSnapshot(), feed.flip(document(1)))
    put = feed.put(KEYS.operation("m"), operation)
    snapshot = apply(KEYS, snapshot, [feed.put(KEYS.placement("m", 2), two), put])
    view = snapshot.models["m"]
    assert (view.placement, view.target, view.operation_version) == (document(1), two, put.version)
    snapshot = apply(KEYS, snapshot, [feed.put(KEYS.ready("m", 2, "a"), ReadyRecord("i1", two.digest, 5))])
    assert snapshot.models["m"].ready == {(2, "a"): ReadyRecord("i1", two.digest, 5)}
    done = replace(operation, state=OperationState.DONE)
    snapshot = apply(KEYS, snapshot, [*feed.flip(two), feed.put(KEYS.operation("m"), done)])
    assert snapshot.models["m"].target is None
    assert snapshot.models["m"].placement is not None
    assert snapshot.models["m"].placement.epoch == 2


def test_a_lost_lease_keeps_the_address_of_servers_that_a_placement_names(feed: Feed) -> None:
    members = [feed.put(KEYS.member(name), MEMBER) for name in ("a", "unused")]
    snapshot = apply(KEYS, ClusterSnapshot(), [*members, *feed.flip(document(1))])
    assert all(member.live for member in snapshot.members.values())
    snapshot = apply(KEYS, snapshot, [feed.drop(KEYS.member("a")), feed.drop(KEYS.member("unused"))])
    assert {name: member.live for name, member in snapshot.members.items()} == {"a": False}
    assert snapshot.address_of("a") == "h:1"
    assert snapshot.address_of("unused") == ""
    assert snapshot.models["m"].placement == document(1)
    snapshot = apply(KEYS, snapshot, [feed.put(KEYS.member("a"), replace(MEMBER, instance="i2", address="h:2"))])
    assert snapshot.members["a"].live
    assert snapshot.address_of("a") == "h:2"


def test_routers_go_with_their_lease(feed: Feed) -> None:
    snapshot = apply(KEYS, ClusterSnapshot(), [feed.put(KEYS.router("r"), RouterRecord("i", "h:1"))])
    assert list(snapshot.routers) == ["r"]
    assert apply(KEYS, snapshot, [feed.drop(KEYS.router("r"))]).routers == {}


def test_unknown_keys_and_other_clusters_are_ignored(feed: Feed) -> None:
    events = [feed.put("/tessera/other/models/m/current", b"x"), feed.put(KEYS.prefix + "later/x", b"x")]
    snapshot = apply(KEYS, ClusterSnapshot(), events)
    assert snapshot.models == {}
    assert snapshot.entries == {}


def test_a_snapshot_is_never_changed(feed: Feed) -> None:
    before = apply(KEYS, ClusterSnapshot(), [*feed.flip(document(1)), feed.put(KEYS.member("a"), MEMBER)])
    copy = (dict(before.models), dict(before.members), dict(before.entries), before.revision)
    apply(KEYS, before, [*feed.flip(document(2)), feed.drop(KEYS.member("a"))])
    assert (dict(before.models), dict(before.members), dict(before.entries), before.revision) == copy


step = st.tuples(st.sampled_from(["flip", "member", "drop", "router", "damage"]), st.integers(1, 4))


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=25), st.data())
def test_watching_and_listing_agree_and_epochs_only_grow(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    """Any split of the changes into batches, with repeats, ends where one listing ends; epochs never shrink."""
    feed = Feed()
    events: list[Event] = []
    for what, number in steps:
        if what == "flip":
            events += feed.flip(document(number))
        elif what == "member":
            events.append(feed.put(KEYS.member("a"), replace(MEMBER, address=f"h:{number}")))
        elif what == "drop":
            events.append(feed.drop(KEYS.member("a")))
        elif what == "router":
            events.append(feed.put(KEYS.router(f"r{number}"), RouterRecord("i", "h")))
        else:
            events.append(feed.put(KEYS.placement("m", number), b"damaged"))
    watched, epoch, start = ClusterSnapshot(), 0, 0
    while start < len(events):
        end = data.draw(st.integers(start + 1, len(events)))
        repeat = data.draw(st.integers(max(0, start - 1), start))
        watched = apply(KEYS, watched, events[repeat if events[repeat].key != KEYS.member("a") else start : end])
        placement = watched.models["m"].placement if "m" in watched.models else None
        assert (placement.epoch if placement else 0) >= epoch
        epoch = placement.epoch if placement else 0
        start = end
    final = {event.key: event.entry for event in events}
    listing = Listing(tuple(entry for _, entry in sorted(final.items()) if entry), feed.version)
    relisted = replace_all(KEYS, watched, listing)
    assert relisted.models == watched.models
    assert relisted.members == watched.members
    assert relisted.entries == watched.entries
    assert relisted.revision == feed.version


def test_a_listing_after_missed_changes_is_like_having_seen_them(feed: Feed) -> None:
    first = [
        *feed.flip(document(1)),
        feed.put(KEYS.member("a"), MEMBER),
        feed.put(KEYS.router("r"), RouterRecord("i", "")),
    ]
    snapshot = apply(KEYS, ClusterSnapshot(), first)
    missed = [*feed.flip(document(2)), feed.drop(KEYS.member("a")), feed.drop(KEYS.router("r"))]
    state = {event.key: event.entry for event in [*first, *missed]}
    listing = Listing(tuple(entry for entry in state.values() if entry), feed.version)
    relisted = replace_all(KEYS, snapshot, listing)
    seen = apply(KEYS, snapshot, missed)
    assert relisted.models == seen.models
    assert relisted.members == seen.members
    assert relisted.routers == seen.routers == {}
