"""When a shard server is ready, decided from what it knows."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from placement.records import PackageRef, Placement
from placement.snapshot import ClusterSnapshot, ModelView
from shard_server.readiness import missing


def _placement(epoch: int, server: str = "s0") -> Placement:
    return Placement("m", epoch, 1, 2, (server,), ((0,), (0,)), (PackageRef(1, "0" * 64),))


def _snapshot(view: ModelView, revision: int = 7) -> ClusterSnapshot:
    return ClusterSnapshot(revision=revision, models=MappingProxyType({"m": view}))


def _missing(snapshot: ClusterSnapshot, *held: Placement, draining: bool = False, problem: str = "") -> list[str]:
    return missing(snapshot, "s0", [one.digest for one in held], draining=draining, problem=problem)


def test_nothing_is_known_before_the_records_were_read() -> None:
    assert _missing(ClusterSnapshot()) == ["the placement has not been read yet"]


def test_a_server_that_is_given_nothing_is_ready() -> None:
    assert _missing(ClusterSnapshot(revision=1)) == []
    assert _missing(_snapshot(ModelView())) == []
    assert _missing(_snapshot(ModelView(placement=_placement(3, server="s1")))) == []


def test_what_is_current_has_to_be_held() -> None:
    snapshot = _snapshot(ModelView(placement=_placement(3)))
    assert _missing(snapshot) == ["model m: epoch 3 is not loaded yet"]
    assert _missing(snapshot, _placement(2)) == ["model m: epoch 3 is not loaded yet"]
    assert _missing(snapshot, _placement(2), _placement(3)) == []


def test_another_document_of_the_same_epoch_is_another_placement() -> None:
    held = replace(_placement(3), versions=(PackageRef(1, "1" * 64),))
    assert _missing(_snapshot(ModelView(placement=_placement(3))), held) == ["model m: epoch 3 is not loaded yet"]


def test_the_reason_is_told() -> None:
    snapshot = _snapshot(ModelView(placement=_placement(3)))
    assert _missing(snapshot, problem="blob x: got 3 bytes, expected 4") == [
        "model m: epoch 3 is not loaded yet: blob x: got 3 bytes, expected 4"
    ]


@pytest.mark.parametrize("problem", ["", "blob x: no such file"])
def test_what_is_staged_does_not_count(problem: str) -> None:
    view = ModelView(placement=_placement(3), target=_placement(4))
    assert _missing(_snapshot(view), _placement(3), problem=problem) == []


def test_a_server_that_drains_is_not_ready_whatever_it_holds() -> None:
    snapshot = _snapshot(ModelView(placement=_placement(3)))
    assert _missing(snapshot, _placement(3), draining=True) == ["the server is draining"]
