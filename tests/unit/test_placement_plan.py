from __future__ import annotations

import random
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.plan import Plan, PlanServer, plan_placement, slot_bytes
from placement.records import PackageRef, Placement
from placement.slots import slot_of
from tessera.errors import FailedPreconditionError, InvalidArgumentError

REF = PackageRef(1, "0" * 64)
BIG = 1 << 50


def servers(count: int, *, start: int = 0, domains: int | None = None, capacity: int = BIG) -> list[PlanServer]:
    return [
        PlanServer(f"s{i:04}", f"d{i % domains if domains else i}", 1, capacity) for i in range(start, start + count)
    ]


def plan(group: list[PlanServer], sizes: list[int], replicas: int, current: Placement | None = None) -> Plan:
    epoch = current.epoch + 1 if current else 1
    return plan_placement(
        model="m", epoch=epoch, versions=[REF], servers=group, slot_bytes=sizes, replicas=replicas, current=current
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[PlanServer], list[int], int]:
    replicas = draw(st.integers(1, 3))
    domains = draw(st.integers(replicas, 6))
    count = draw(st.integers(domains, 12))
    group = [PlanServer(f"s{i}", f"d{i % domains}", draw(st.integers(1, 4)), BIG) for i in range(count)]
    rng = random.Random(draw(st.integers(0, 10_000)))
    zeros = draw(st.sampled_from([0.0, 0.5]))
    sizes = [0 if rng.random() < zeros else rng.randrange(1, 2000) for _ in range(128)]
    return group, sizes, replicas


@settings(max_examples=25, deadline=None)
@given(clusters())
def test_replicas_are_on_distinct_domains_and_every_slot_has_all(
    cluster: tuple[list[PlanServer], list[int], int],
) -> None:
    group, sizes, replicas = cluster
    placement = plan(group, sizes, replicas).placement
    domain = {server.id: server.domain for server in group}
    for row in placement.slot_servers:
        assert len(row) == replicas
        assert len({domain[placement.servers[s]] for s in row}) == replicas


@settings(max_examples=25, deadline=None)
@given(clusters())
def test_planning_again_changes_nothing(cluster: tuple[list[PlanServer], list[int], int]) -> None:
    group, sizes, replicas = cluster
    first = plan(group, sizes, replicas).placement
    again = plan(group, sizes, replicas, first)
    assert again.placement.slot_servers == first.slot_servers
    assert again.placement.servers == first.servers
    assert again.moved_bytes == 0


@settings(max_examples=30, deadline=None)
@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_of_the_servers_does_not_matter(
    cluster: tuple[list[PlanServer], list[int], int], rng: random.Random
) -> None:
    group, sizes, replicas = cluster
    shuffled = list(group)
    rng.shuffle(shuffled)
    assert plan(group, sizes, replicas).placement == plan(shuffled, sizes, replicas).placement


@settings(max_examples=25, deadline=None)
@given(clusters())
def test_bytes_are_even_within_a_slot(cluster: tuple[list[PlanServer], list[int], int]) -> None:
    group, sizes, replicas = cluster
    result = plan(group, sizes, replicas)
    average = sum(sizes) * replicas / len(group)
    if len({s.weight for s in group}) == 1 and len(group) % len({s.domain for s in group}) == 0:
        assert max(row.bytes_after for row in result.servers) <= average * 1.01 + max(sizes)


def test_bytes_follow_weights() -> None:
    group = [PlanServer(f"s{i}", f"d{i}", weight, BIG) for i, weight in enumerate((1, 2, 5))]
    by_id = {row.id: row.bytes_after for row in plan(group, [100] * 4096, 1).servers}
    assert [by_id[f"s{i}"] for i in range(3)] == pytest.approx([51_200, 102_400, 256_000], abs=200)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(1, 2), st.integers(1, 3))
def test_adding_servers_moves_the_minimum_only_to_them(count: int, replicas: int, added: int) -> None:
    sizes = [100] * 512
    before = plan(servers(count), sizes, replicas)
    after = plan(servers(count + added), sizes, replicas, before.placement)
    new = {server.id for server in servers(added, start=count)}
    gained = {row.id for row in after.servers if row.bytes_after > row.bytes_now}
    assert gained <= new
    assert after.moved_bytes <= after.minimum_moved_bytes + 100 * (count + added)
    assert after.moved_bytes >= 0.9 * after.minimum_moved_bytes - 100 * (count + added)
    assert after.max_over_average <= 1.02 + 100 * (count + added) / (512 * 100 * replicas)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 12), st.integers(1, 2), st.integers(0, 3), st.booleans())
def test_removing_a_server_moves_only_what_it_held(count: int, replicas: int, gone: int, skewed: bool) -> None:
    rng = random.Random(count)
    sizes = [rng.randrange(1, 400) if skewed else 100 for _ in range(512)]
    before = plan(servers(count), sizes, replicas)
    left = [server for server in servers(count) if server.id != f"s{gone:04}"]
    after = plan(left, sizes, replicas, before.placement)
    held = next(row.bytes_now for row in after.servers if row.id == f"s{gone:04}")
    assert held <= after.moved_bytes <= 1.05 * held + max(sizes)
    assert after.max_over_average < 1.05


@pytest.mark.parametrize("count", [4, 9])
def test_first_replicas_are_even_because_they_take_the_load(count: int) -> None:
    placement = plan(servers(count), [100] * 4096, 2).placement
    firsts = Counter(row[0] for row in placement.slot_servers)
    assert max(firsts.values()) <= 4096 / count * 1.02 + 1
    smaller = plan(servers(count - 1), [100] * 4096, 2, placement).placement
    firsts = Counter(row[0] for row in smaller.slot_servers)
    assert max(firsts.values()) <= 4096 / (count - 1) * 1.02 + 1


def test_domains_of_unequal_size_are_filled_as_far_as_distinct_replicas_allow() -> None:
    group = [PlanServer(f"s{i}", "a" if i < 4 else f"b{i}", 1, BIG) for i in range(6)]
    result = plan(group, [100] * 1024, 2)
    by_id = {row.id: row.bytes_after for row in result.servers}
    # Domain a may hold each slot once: its four servers share one copy, the other two servers the second copy.
    assert all(abs(by_id[f"s{i}"] - 25600) <= 300 for i in range(4))
    assert all(abs(by_id[f"s{i}"] - 51200) <= 300 for i in (4, 5))


def test_a_small_server_is_filled_no_further_than_its_capacity() -> None:
    group = [PlanServer("big", "a", 1, BIG), PlanServer("small", "b", 1, 10_000)]
    result = plan(group, [100] * 1024, 1)
    by_id = {row.id: row for row in result.servers}
    assert by_id["small"].bytes_after <= 10_000
    assert by_id["small"].limit_bytes == 10_000
    assert by_id["big"].bytes_after + by_id["small"].bytes_after == 102_400


def test_too_little_capacity_is_refused_with_needed_and_available_bytes() -> None:
    with pytest.raises(FailedPreconditionError, match=r"need 102,400 bytes.*can hold 40,000.*s0000 20,000"):
        plan(servers(2, capacity=20_000), [100] * 1024, 1)


def test_a_slot_that_fits_nowhere_is_refused_by_name() -> None:
    with pytest.raises(FailedPreconditionError, match="slot 0 of 90 bytes fits on no server"):
        plan(servers(2, capacity=80), [90, 1, 1], 1)


def test_fewer_domains_than_replicas_are_refused() -> None:
    with pytest.raises(FailedPreconditionError, match="replicas: got 2, but the 3 servers are in 1 failure domains"):
        plan(servers(3, domains=1), [1] * 8, 2)
    with pytest.raises(FailedPreconditionError, match="0 servers"):
        plan([], [1] * 8, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 0}, "replicas"),
        ({"slot_bytes": []}, "slot_bytes"),
        ({"slot_bytes": [-1]}, "slot_bytes"),
        ({"servers": [PlanServer("a", "a", 1, 1), PlanServer("a", "b", 1, 1)]}, "distinct ids"),
        ({"servers": [PlanServer("a", "a", 0, 1)]}, "weight"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"servers": servers(2), "slot_bytes": [1] * 4, "replicas": 1, **changes}
    with pytest.raises(InvalidArgumentError, match=message):
        plan_placement(model="m", epoch=1, versions=[REF], **arguments)


def test_another_number_of_slots_is_not_a_change_of_placement() -> None:
    current = plan(servers(2), [1] * 8, 1).placement
    with pytest.raises(InvalidArgumentError, match="layout"):
        plan(servers(2), [1] * 16, 1, current)


def test_a_model_without_tables_needs_no_servers() -> None:
    for group in ([], servers(3)):
        result = plan(group, [0] * 4096, 2)
        assert result.placement.servers == ()
        assert result.moved_bytes == 0


def test_slots_without_bytes_have_servers_too() -> None:
    placement = plan(servers(4), [100] * 10 + [0] * 4086, 2).placement
    assert all(len(row) == 2 for row in placement.slot_servers)


def test_slots_without_bytes_spread_by_weight() -> None:
    # The slots with bytes leave two servers a little above their share: that must not keep empty slots from them.
    sizes = [100] * 14 + [0] * 4082
    placement = plan(servers(4), sizes, 2).placement
    held = Counter(server for row in placement.slot_servers for server in row)
    assert all(abs(count - 2048) < 0.1 * 2048 for count in held.values())
    twice = [PlanServer("heavy", "a", 2, BIG), PlanServer("light", "b", 1, BIG), PlanServer("full", "c", 1, 0)]
    placement = plan(twice, sizes, 1).placement
    assert placement.servers == ("heavy", "light")  # what can hold nothing gets no empty slots either
    heavy = sum(row == (0,) for row in placement.slot_servers)
    assert abs(heavy - 4096 * 2 / 3) < 200


def test_growing_replicas_keeps_what_is_there() -> None:
    one = plan(servers(4), [100] * 512, 1)
    two = plan(servers(4), [100] * 512, 2, one.placement)
    assert two.moved_bytes == 51_200
    assert two.minimum_moved_bytes == 51_200


def fake_manifest(tables: dict[str, list[tuple[str, int]]]) -> Any:
    return SimpleNamespace(
        tables=[
            SimpleNamespace(name=name, blobs=[d for d, _ in blobs], bucket_bytes=lambda b, blobs=blobs: blobs[b][1])
            for name, blobs in tables.items()
        ]
    )


def test_slot_bytes_count_a_blob_of_two_versions_once() -> None:
    one = fake_manifest({"t": [("a", 10), ("b", 20)], "u": [("c", 5)]})
    two = fake_manifest({"t": [("a", 10), ("x", 30)]})
    sizes = slot_bytes([one, two], 4096)
    assert sum(sizes) == 10 + 20 + 5 + 30
    assert sizes[slot_of("t", 1, 4096)] == 50
    assert sizes[slot_of("u", 0, 4096)] == 5


def test_a_thousand_servers_are_planned_in_seconds() -> None:
    start_s = time.monotonic()
    result = plan(servers(1000, domains=20), [1000] * 16384, 2)
    elapsed_s = time.monotonic() - start_s
    assert elapsed_s < 30  # the goal of 10 s is for a machine with nothing else to do; measured: 3.3 s
    assert result.max_over_average < 1.05
    assert len(result.placement.to_bytes()) < 1_000_000
