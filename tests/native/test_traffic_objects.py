"""The objects of a traffic configuration: kept while what they do is the same, all or nothing replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cpp_ext import _graph
from placement.records import TrafficRecord
from router.lifecycle.config import CLUSTER, ModelConfig, RequestLogging, ServerConfig, Shadow, TrafficSplit
from router.traffic import Traffic, all_labels, clustered_configs
from tessera.errors import InvalidArgumentError

pytestmark = pytest.mark.native


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    found = Traffic(_graph.Predictor())
    yield found
    found.stop()


def test_objects_live_as_long_as_their_configuration_is_the_same(traffic: Traffic, tmp_path: Path) -> None:
    logging = RequestLogging(str(tmp_path / "m"), 1.0)
    config = ModelConfig("m", tmp_path, split=TrafficSplit({1: 100}), shadow=Shadow(2), logging=logging)
    traffic.configure([config, ModelConfig("n", tmp_path)])
    splits, hooks = traffic.splits(), traffic.hooks("m")
    assert set(splits) == {"m"}
    assert len(hooks) == 2
    assert traffic.hooks("n") == ()
    traffic.configure([ModelConfig("m", tmp_path, split=TrafficSplit({1: 100}), shadow=Shadow(3), logging=logging)])
    assert traffic.splits()["m"] is splits["m"]
    assert traffic.hooks("m")[0] is hooks[0]
    assert traffic.hooks("m")[1] is not hooks[1]
    assert set(traffic.statistics().logs) == {"m"}
    traffic.configure([])
    assert (traffic.splits(), traffic.hooks("m")) == ({}, ())


def test_a_refused_configuration_changes_nothing(traffic: Traffic, tmp_path: Path) -> None:
    traffic.configure([ModelConfig("m", tmp_path, shadow=Shadow(1))])
    hooks = traffic.hooks("m")
    bad = ModelConfig("n", tmp_path, shadow=Shadow(-1))
    with pytest.raises(InvalidArgumentError):
        traffic.configure([ModelConfig("m", tmp_path), bad])
    assert traffic.hooks("m") == hooks


def test_what_a_configuration_says_goes_before_what_the_cluster_says() -> None:
    split = TrafficSplit({1: 100})
    config = ServerConfig(
        (
            ModelConfig("plain", Path("/plain"), labels={"a": 1}),
            ModelConfig("said", Path(), CLUSTER, labels={"a": 2}, split=split),
            ModelConfig("unsaid", Path(), CLUSTER),
        )
    )
    placed = {"plain": {"x": 9}, "said": {"a": 1, "b": 1}, "other": {"c": 3}}
    assert all_labels(config, placed) == {
        "plain": {"a": 1}, "said": {"a": 2, "b": 1}, "other": {"c": 3}, "unsaid": {},
    }  # fmt: skip
    record = TrafficRecord({"stable": 2500, "7": 7500}, "x-user")
    configs = {
        one.name: one for one in clustered_configs(config, dict.fromkeys(("plain", "said", "unsaid", "other"), record))
    }
    assert configs["said"].split is split
    for name in ("unsaid", "other"):
        assert configs[name].split == TrafficSplit({"stable": 25.0, 7: 75.0}, "x-user")
    assert configs.keys() == {"said", "unsaid", "other"}
    assert clustered_configs(ServerConfig(), {"other": TrafficRecord()}) == []
