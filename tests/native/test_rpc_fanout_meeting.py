"""Lookups that meet at a server share its RPCs; real servers of this process."""

from __future__ import annotations

import time

import pytest

from support.fanout_client import Lookup
from support.shards import Shards, answer, ids_of
from tessera.errors import Code

pytestmark = pytest.mark.native


def test_lookups_that_meet_at_a_server_share_an_rpc(shards: Shards) -> None:
    silent = shards.add_silent()
    fanout = shards.fanout(max_in_flight_lookups_per_server=1)
    route, values = shards.route(fanout), shards.tables[0].values
    gathers = [[(0, ids_of(i, i + 1), 8)] for i in range(5)]
    first = Lookup(fanout, route, gathers[0])
    held = silent.next()
    others = [Lookup(fanout, route, gather) for gather in gathers[1:]]
    others[1].cancel()
    assert others[1].wait().code == Code.CANCELLED
    held.finish(0, answer(values[[0, 1]].tobytes()))
    shards.check(first.wait(), gathers[0])
    silent.next().finish(0, answer(values[[1, 2, 3, 4, 4, 5]].tobytes()))
    for i in (0, 2, 3):
        shards.check(others[i].wait(), gathers[i + 1])
    stats = fanout.stats()
    assert (stats["subrequests"], stats["rpcs"], stats["merged"], stats["failures"]) == (4, 2, 3, 1)
    assert (stats["servers"]["s0"]["subrequests"], stats["servers"]["s0"]["rpcs"]) == (4, 2)


def test_a_lookup_that_waits_keeps_its_deadline(shards: Shards) -> None:
    silent = shards.add_silent()
    fanout = shards.fanout(max_in_flight_lookups_per_server=1)
    route, gathers = shards.route(fanout), [(0, ids_of(7), 8)]
    stuck = Lookup(fanout, route, gathers, timeout_s=30)
    held = silent.next()
    began_s = time.monotonic()
    assert Lookup(fanout, route, gathers, timeout_s=0.2).wait().code == Code.DEADLINE_EXCEEDED
    assert 0.15 < time.monotonic() - began_s < 5
    held.finish(0, answer(shards.tables[0].values[[7]].tobytes()))
    shards.check(stuck.wait(), gathers)


def test_nothing_is_merged_when_it_is_switched_off(shards: Shards) -> None:
    silent = shards.add_silent()
    fanout = shards.fanout(max_in_flight_lookups_per_server=0)
    route, gathers = shards.route(fanout), [(0, ids_of(7), 8)]
    lookups = [Lookup(fanout, route, gathers) for _ in range(5)]
    for held in [silent.next() for _ in lookups]:
        held.finish(0, answer(shards.tables[0].values[[7]].tobytes()))
    for lookup in lookups:
        shards.check(lookup.wait(), gathers)
