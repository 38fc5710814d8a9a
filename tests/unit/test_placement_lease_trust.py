"""When leases of servers are believed, on times that the test makes up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.lease_trust import LeaseTrust
from placement.records import MemberRecord, MemberState
from placement.snapshot import ClusterSnapshot, MemberView, ModelView
from support.fake_cluster import MODEL, make_placement

NONE: frozenset[str] = frozenset()
TTL_S = 10.0
SERVERS = "abcde"
LONG_S = 1000.0
"""For how long the store has been heard of, where a test does not care."""


def snapshot(lost: Iterable[str] = "", draining: Iterable[str] = "", owners: str = SERVERS) -> ClusterSnapshot:
    """Return one with a model on `owners`, and the servers SERVERS, of which those in `lost` have no lease."""
    members = {}
    for server in SERVERS:
        record = MemberRecord(f"i-{server}", "h:1", "b", MemberState.SERVING, server, 1 << 40, 0)
        if server in draining:
            record = replace(record, state=MemberState.DRAINING)
        members[server] = MemberView(record, live=server not in lost)
    models = {MODEL: ModelView(placement=make_placement(1, owners, replicas=2))}
    return ClusterSnapshot(1, MappingProxyType(models), MappingProxyType(members))


@pytest.fixture
def trust() -> LeaseTrust:
    return LeaseTrust(TTL_S)


def test_a_server_without_a_lease_is_avoided(trust: LeaseTrust) -> None:
    assert trust.judge(snapshot(), 0.0, LONG_S).avoided == set()
    advice = trust.judge(snapshot("a"), 1.0, LONG_S)
    assert (advice.avoided, advice.panicking, advice.settled) == (frozenset("a"), NONE, True)
    assert trust.judge(snapshot(), 2.0, LONG_S).avoided == set()


def test_leases_that_most_owners_lose_within_the_time_of_one_are_ignored(trust: LeaseTrust) -> None:
    assert trust.judge(snapshot("ab"), 0.0, LONG_S).avoided == {"a", "b"}
    advice = trust.judge(snapshot("abc"), TTL_S, LONG_S)
    assert (advice.avoided, advice.panicking) == (NONE, frozenset({MODEL}))
    assert trust.panics == 1
    # As long as most have none: the same panic.
    assert trust.judge(snapshot("abcde"), 100.0, LONG_S).avoided == set()
    assert trust.judge(snapshot("bcd"), 1000.0, LONG_S).panicking == {MODEL}
    assert trust.panics == 1
    assert trust.judge(snapshot("cd"), 1001.0, LONG_S).avoided == {"c", "d"}
    assert trust.judge(snapshot("cde"), 1002.0, LONG_S).panicking == set(), "c and d were lost long ago"
    assert trust.judge(snapshot(), 1003.0, LONG_S).panicking == set()
    assert trust.judge(snapshot("abcd"), 1004.0, LONG_S).panicking == {MODEL}
    assert trust.panics == 2


def test_servers_that_die_one_after_the_other_are_believed(trust: LeaseTrust) -> None:
    for number in range(1, 6):
        advice = trust.judge(snapshot(SERVERS[:number]), number * TTL_S, LONG_S)
        assert (advice.avoided, advice.panicking) == (frozenset(SERVERS[:number]), NONE)
    assert trust.panics == 0


def test_only_the_servers_of_the_model_count(trust: LeaseTrust) -> None:
    advice = trust.judge(snapshot("abe", owners="abc"), 0.0, LONG_S)
    assert (advice.avoided, advice.panicking) == (frozenset("e"), frozenset({MODEL}))
    assert LeaseTrust(TTL_S).judge(snapshot("cde", owners="abc"), 0.0, LONG_S).avoided == set("cde")


@pytest.mark.parametrize("connected_for_s", [None, 0.0, 2 * TTL_S - 0.1])
def test_leases_say_nothing_right_after_the_store_came_back(trust: LeaseTrust, connected_for_s: float | None) -> None:
    advice = trust.judge(snapshot("ab"), 0.0, connected_for_s)
    assert (advice.avoided, advice.panicking, advice.settled) == (NONE, NONE, False)
    assert trust.judge(snapshot("ab"), 30.0, 2 * TTL_S).avoided == {"a", "b"}


def test_what_a_server_says_of_itself_always_counts(trust: LeaseTrust) -> None:
    assert trust.judge(snapshot(draining="d"), 0.0, None).avoided == {"d"}
    assert trust.judge(snapshot("abc", draining="d"), 0.0, LONG_S).avoided == {"d"}
    assert trust.judge(snapshot("d", draining="d"), 0.0, None).avoided == {"d"}, "it has ended"


@given(st.lists(st.tuples(st.sets(st.sampled_from(SERVERS)), st.floats(0.0, 30.0)), max_size=20))
def test_a_majority_that_goes_at_once_is_never_avoided(steps: list[tuple[set[str], float]]) -> None:
    trust, now_s = LeaseTrust(TTL_S), 0.0
    for lost, wait_s in steps:
        now_s += wait_s
        trust.judge(snapshot(lost), now_s, LONG_S)
    trust.judge(snapshot(), now_s + 1, LONG_S)
    advice = trust.judge(snapshot("bcd"), now_s + 2, LONG_S)
    assert (advice.avoided, advice.panicking) == (NONE, frozenset({MODEL}))
