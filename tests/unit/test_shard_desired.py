"""What a shard server has alone."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from placement.snapshot import ClusterSnapshot, ModelView
from shard_server.desired import slots_of_one
from support.fake_cluster import MODEL, SLOTS, make_placement


def snapshot(servers: str, replicas: int) -> ClusterSnapshot:
    placement = make_placement(1, servers, replicas=replicas)
    other = replace(placement, model="other")
    models = {MODEL: ModelView(placement=placement), "other": ModelView(placement=other), "none": ModelView()}
    return ClusterSnapshot(1, MappingProxyType(models))


def test_slots_with_one_replica_are_counted_by_model() -> None:
    assert slots_of_one(snapshot("abc", 1), "b") == {MODEL: SLOTS // 3, "other": SLOTS // 3}
    assert slots_of_one(snapshot("abc", 1), "d") == {}


def test_replicated_slots_are_not() -> None:
    assert slots_of_one(snapshot("abc", 2), "b") == {}
