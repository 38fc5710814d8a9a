"""GetStatus: every counter of the native core is in the message, under its name."""

import dataclasses

import pytest

from admin.router_stats import to_json
from batching.policy_file import Policy
from protos import router_pb2
from router.explain_service import EXPLAIN
from router.status_service import GET_STATUS, StatusService, to_message
from support.router_statistics import region_stats, router_statistics
from tessera.errors import InvalidArgumentError


def test_the_methods_are_those_of_the_proto() -> None:
    service = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
    assert [f"/{service.full_name}/{method.name}" for method in service.methods] == [GET_STATUS, EXPLAIN]


def test_messages_have_the_fields_of_what_they_carry() -> None:
    lane = router_statistics().lanes["cpu:0"]
    assert {field.name for field in router_pb2.RegionStats.DESCRIPTOR.fields} == region_stats().keys()
    assert {field.name for field in router_pb2.Lane.DESCRIPTOR.fields} == lane.keys() | {"name"}
    policy = {field.name for field in dataclasses.fields(Policy)}
    assert {field.name for field in router_pb2.Policy.DESCRIPTOR.fields} == policy


def test_every_value_arrives() -> None:
    statistics = router_statistics()
    service = StatusService(lambda: statistics, "0.1.0")
    answer = to_json(router_pb2.GetStatusResponse.FromString(service.get_status(b"")))
    assert (answer["build"], answer["uptime_s"]) == ("0.1.0", 10.0)
    assert (answer["requests"], answer["in_flight"]) == (410, 3)
    assert answer["errors"] == {"INVALID_ARGUMENT": 4, "UNAVAILABLE": 7}
    assert answer["lanes"] == [{"name": "cpu:0", **statistics.lanes["cpu:0"]}]
    assert answer["unused_policies"] == ["model 'rankr' region '*'"]
    mlp, cell = answer["regions"]
    assert (mlp["model"], mlp["version"], mlp["region"]) == ("ranker", 2, "mlp")
    assert (cell["signatures"], cell["is_in_loop"]) == (["decode", "encode"], True)
    assert (mlp["refused"], cell["refused"]) == ("", "Sum mixes rows")
    policy = dataclasses.asdict(statistics.regions[0].policy)
    assert mlp["policy"] == policy | {"allowed_batch_sizes": [8, 32]}
    assert mlp["stats"] == region_stats() | {"batch_sizes": {"8": 100, "32": 25}}


def test_a_counter_that_is_missing_is_not_taken_for_nothing() -> None:
    statistics = router_statistics()
    stats = {name: value for name, value in region_stats().items() if name != "cancelled"}
    broken = dataclasses.replace(statistics, regions=(dataclasses.replace(statistics.regions[0], stats=stats),))
    with pytest.raises(KeyError, match="cancelled"):
        to_message(broken, "0.1.0")


def test_what_is_no_request_is_refused() -> None:
    service = StatusService(router_statistics, "0.1.0")
    with pytest.raises(InvalidArgumentError, match="GetStatusRequest: cannot be parsed"):
        service.get_status(b"\x0a\xff")
