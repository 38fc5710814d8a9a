"""How many ready servers slots have, and what is told of it."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.coverage import fewest_ready_owners, unready_servers
from placement.records import MemberRecord, MemberState, OperationRecord, OperationState
from placement.snapshot import ClusterSnapshot, MemberView, ModelView
from placement.view import ViewReading, ViewStatus
from placement.view_metrics import view_metrics
from support.fake_cluster import MODEL, make_placement

PLACEMENT = make_placement(3, "abc", replicas=2)


def _member(*, live: bool = True, epoch: int = 3, **changes: Any) -> MemberView:
    known: dict[str, Any] = {"state": MemberState.SERVING, "epochs": {MODEL: epoch}, **changes}
    record = MemberRecord(
        instance="i", address="h:1", build="b", domain="d", capacity_bytes=10, bytes_used=5, **known
    )  # fmt: skip
    return MemberView(record, live)


def _snapshot(**members: MemberView) -> ClusterSnapshot:
    known: Mapping[str, MemberView] = {server: _member() for server in "abc"} | members
    return ClusterSnapshot(models={MODEL: ModelView(placement=PLACEMENT)}, members=known)


def test_all_are_ready() -> None:
    assert unready_servers(_snapshot(), PLACEMENT) == []
    assert fewest_ready_owners(_snapshot(), PLACEMENT) == 2


@pytest.mark.parametrize(
    "member",
    [
        _member(live=False),
        _member(epoch=2),
        _member(error="blob ab: damaged"),
        _member(state=MemberState.DRAINING),
        _member(state=MemberState.STARTING),
    ],
    ids=["gone", "late", "cannot", "draining", "starting"],
)
def test_a_server_that_cannot_be_counted_on(member: MemberView) -> None:
    assert unready_servers(_snapshot(b=member), PLACEMENT) == ["b"]
    assert fewest_ready_owners(_snapshot(b=member), PLACEMENT) == 1


@given(st.sets(st.sampled_from("abc")))
def test_it_is_the_least_over_all_slots(gone: set[str]) -> None:
    snapshot = _snapshot(**{server: _member(live=False) for server in gone})
    names = [[PLACEMENT.servers[position] for position in row] for row in PLACEMENT.slot_servers]
    assert fewest_ready_owners(snapshot, PLACEMENT) == min(len(set(row) - gone) for row in names)


def _samples(snapshot: ClusterSnapshot) -> dict[str, float]:
    reading = ViewReading(snapshot, ViewStatus(True, 1.0, {}, 0))
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in view_metrics(reading)
        for sample in family.samples
    }


def test_what_is_told() -> None:
    samples = _samples(_snapshot(a=_member(live=False), b=_member(live=False), c=_member(live=False)))
    assert samples[f"tessera_placement_replicas[('model_name', '{MODEL}')]"] == 2
    assert samples[f"tessera_placement_ready_owners[('model_name', '{MODEL}')]"] == 0


def test_a_model_without_tables_has_no_owners() -> None:
    models = {MODEL: ModelView(placement=make_placement(3, "", replicas=0))}
    names = {name.partition("[")[0] for name in _samples(ClusterSnapshot(models=models))}
    assert "tessera_placement_epoch" in names
    assert names.isdisjoint({"tessera_placement_replicas", "tessera_placement_ready_owners"})


@pytest.mark.parametrize(
    ("state", "marks", "told"),
    [
        (OperationState.PREPARING, {}, "PREPARING"),
        (OperationState.PREPARING, {"hold": True}, "PREPARING"),
        (OperationState.PREPARED, {"hold": True}, "STOPPED"),
        (OperationState.COMMITTED, {"paused": True}, "STOPPED"),
        (OperationState.DONE, {}, None),
        (OperationState.ABORTED, {}, None),
    ],
)
def test_the_state_of_a_change(state: OperationState, marks: dict[str, Any], told: str | None) -> None:
    operation = OperationRecord("o", "reshard", state, 3, 4, "x", "ana", **marks)
    samples = _samples(ClusterSnapshot(models={MODEL: ModelView(placement=PLACEMENT, operation=operation)}))
    found = {name: value for name, value in samples.items() if name.startswith("tessera_operation_state[")}
    labels = [("kind", "reshard"), ("model_name", MODEL), ("state", told)]
    assert found == ({f"tessera_operation_state{labels}": 1} if told else {})
