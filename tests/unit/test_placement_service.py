"""What a shard server tells of the placement."""

from __future__ import annotations

import asyncio

import pytest

from placement.memory_store import MemoryStore
from placement.routing_records import snapshot_of
from placement.snapshot import ClusterSnapshot, replace_all
from protos import placement_pb2 as pb
from shard_server.placement_service import PlacementService
from support.fake_cluster import KEYS, MODEL, make_current, make_placement
from tessera.clock import SystemClock
from tessera.errors import FailedPreconditionError, InvalidArgumentError


async def _snapshot() -> ClusterSnapshot:
    store = MemoryStore()
    await make_current(store, make_placement(3, "ab"))
    return replace_all(KEYS, ClusterSnapshot(), await store.list_prefix(KEYS.prefix))


def _ask(request: bytes) -> pb.GetPlacementResponse:
    snapshot = asyncio.run(_snapshot())
    service = PlacementService(lambda: snapshot, KEYS, "a", SystemClock())
    return pb.GetPlacementResponse.FromString(service.get_placement(request))


def test_the_answer_is_enough_to_route() -> None:
    answer = _ask(pb.GetPlacementRequest(cluster="c").SerializeToString())
    records = {record.key: record.value for record in answer.records}
    assert snapshot_of(KEYS, records).models[MODEL].placement == make_placement(3, "ab")
    assert answer.server == "a"
    assert answer.wall_ms > 0


def test_another_cluster_and_junk_are_refused() -> None:
    with pytest.raises(FailedPreconditionError, match="cluster: got 'x', this server is of cluster 'c'"):
        _ask(pb.GetPlacementRequest(cluster="x").SerializeToString())
    with pytest.raises(InvalidArgumentError, match="GetPlacementRequest: cannot be parsed"):
        _ask(b"\xff\xff")
