"""Policy files that change while graphs serve: what is taken, what is refused, what the graphs get."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batching.policy_file import Entry, Policy, PolicyFile
from router.batch_policies import (
    BatchPolicies,
    NamedGraph,
    PolicySource,
    check_policy_file,
    policy_source,
)
from tessera.errors import InvalidArgumentError, SettingsError
from tessera.files import MAX_FILE_BYTES


@dataclass
class _Settings:
    batching_policy_file: str = ""
    batching_parameters_file: str = ""
    request_batching: bool = False


def _policies(rows: int, other: Mapping[str, int] | None = None) -> PolicyFile:
    """Return batches of `rows` everywhere but in the regions `model/region` of `other`."""
    entries = []
    for name, size in (other or {}).items():
        model, region = name.split("/")
        entries.append(Entry(model, region, Policy(max_batch_size=size)))
    return PolicyFile(Policy(max_batch_size=rows), tuple(entries))


def _parse(text: str, place: str) -> PolicyFile:
    if not text.isdecimal():
        raise InvalidArgumentError(f"{place}: got {text!r}, expected a number")
    return _policies(int(text))


def _rows(policies: PolicyFile | None) -> int | None:
    return None if policies is None else policies.policy_for("m", "r").max_batch_size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policies"
    path.write_text("8")
    return path


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_change_is_taken_once_two_looks_agree(path: Path) -> None:
    source = PolicySource("--f", str(path), _parse)
    assert _rows(source.policies) == 8
    assert source.poll() is None
    path.write_text("1")  # half of what is being written
    assert source.poll() is None
    path.write_text("16")
    assert source.poll() is None
    assert _rows(source.poll()) == 16
    assert source.poll() is None


def test_what_was_changed_and_put_back_is_no_change(path: Path) -> None:
    source = PolicySource("--f", str(path), _parse)
    path.write_text("16")
    assert source.poll() is None
    path.write_text("8")
    assert [source.poll() for _ in range(3)] == [None] * 3


def test_a_signal_reads_at_once_even_what_has_not_changed(path: Path) -> None:
    source = PolicySource("--f", str(path), _parse)
    assert _rows(source.poll(at_once=True)) == 8
    path.write_text("16")
    assert _rows(source.poll(at_once=True)) == 16
    assert source.poll() is None


def test_a_file_of_the_same_size_and_time_that_replaces_it_is_seen(path: Path, tmp_path: Path) -> None:
    source = PolicySource("--f", str(path), _parse)
    times = path.stat().st_mtime_ns
    (tmp_path / "new").write_text("9")
    (tmp_path / "new").replace(path)
    os.utime(path, ns=(times, times))
    assert source.poll() is None
    assert _rows(source.poll()) == 9


def test_a_wrong_file_is_told_once_and_a_good_one_after_it_is_taken(path: Path) -> None:
    source = PolicySource("--f", str(path), _parse)
    path.write_text("eight")
    assert source.poll() is None
    with pytest.raises(SettingsError, match=f"--f: {path}: got 'eight', expected a number"):
        source.poll()
    assert [source.poll() for _ in range(3)] == [None] * 3
    path.write_text("8")
    assert source.poll() is None
    assert _rows(source.poll()) == 8


def test_a_file_that_goes_away_is_told_once_and_taken_when_it_is_back(path: Path) -> None:
    source = PolicySource("--f", str(path), _parse)
    path.unlink()
    assert source.poll() is None
    with pytest.raises(SettingsError, match=f"--f: {path}; No such file or directory"):
        source.poll()
    assert [source.poll() for _ in range(3)] == [None] * 3
    path.write_text("16")
    source.poll()
    assert _rows(source.poll()) == 16


def test_a_file_without_end_is_refused(path: Path) -> None:
    path.write_bytes(b"1" * (MAX_FILE_BYTES + 1))
    with pytest.raises(SettingsError, match=f"--f: {path}: is over {MAX_FILE_BYTES} bytes"):
        PolicySource("--f", str(path), _parse)
    with pytest.raises(SettingsError, match="--f: /dev/zero: is over"):
        PolicySource("--f", "/dev/zero", _parse)


def test_settings_name_one_file_or_none(tmp_path: Path) -> None:
    assert policy_source(_Settings(), print) is None
    check_policy_file(_Settings())
    for settings, flag in (
        (_Settings(batching_policy_file=str(tmp_path / "no")), "--batching-policy-file"),
        (_Settings(batching_parameters_file=str(tmp_path / "no")), "--batching-parameters-file"),
    ):
        with pytest.raises(SettingsError, match=f"{flag}: {tmp_path}/no; No such file or directory"):
            check_policy_file(settings)


def test_with_whole_requests_a_parameters_file_leaves_out_what_tensorflow_servings_does(tmp_path: Path) -> None:
    path = tmp_path / "parameters"
    path.write_text("max_batch_size { value: 32 }")
    for request_batching, splits in ((False, True), (True, False)):
        source = policy_source(_Settings(batching_parameters_file=str(path), request_batching=request_batching), print)
        assert source is not None
        policy = source.policies.policy_for("any", "serving_default")
        assert (policy.max_batch_size, policy.split_large_inputs) == (32, splits)


# --- the graphs -----------------------------------------------------------------------------------------------------


class _Graph:
    """Stands for `_graph.Graph`."""

    own_policy: object = None

    def __init__(self, *regions: str) -> None:
        self.batch_regions = {region: {"signatures": ["serving_default"], "in_loop": False} for region in regions}
        self.policies: Mapping[str, Any] | None = None

    def set_batching(self, policies: Mapping[str, Any]) -> None:
        assert policies.keys() <= self.batch_regions.keys()
        self.policies = policies


def _make(**fields: Any) -> int:
    """Stand for `_graph.BatchPolicy`."""
    if fields["max_batch_size"] > 1000:
        raise InvalidArgumentError(f"max_batch_size: got {fields['max_batch_size']}, expected at most 1000")
    return int(fields["max_batch_size"])


def test_a_graph_gets_its_policies_before_it_serves() -> None:
    graph = _Graph("mlp", "tower")
    BatchPolicies(_make, _policies(8, {"m/tower": 4})).apply("m", graph)
    assert graph.policies == {"mlp": 8, "tower": 4}


def test_without_a_file_or_regions_graphs_are_left_alone() -> None:
    graph, plain = _Graph("mlp"), _Graph()
    BatchPolicies(_make).apply("m", graph)
    assert graph.policies is None
    BatchPolicies(_make, _policies(8)).apply("m", plain)
    assert plain.policies is None
    assert BatchPolicies(_make).policy_of("m", graph, "mlp") == Policy()


def test_what_a_version_says_of_itself_goes_before_every_file_of_the_server() -> None:
    own, other = _Graph("mlp"), _Graph("mlp")
    own.own_policy = Policy(max_batch_size=3)
    graphs = [NamedGraph("m", 1, own), NamedGraph("m", 2, other)]
    policies = BatchPolicies(_make, _policies(8, {"m/mlp": 4}))
    for one in graphs:
        policies.apply(one.model, one.graph)
    assert (own.policies, other.policies) == (None, {"mlp": 4})  # None: the loader has given it its own
    assert policies.replace(_policies(8, {"m/mlp": 5}), graphs) == ["model m region mlp: max_batch_size 4 → 5"]
    assert (own.policies, other.policies) == ({"mlp": 3}, {"mlp": 5})
    assert policies.policy_of("m", own, "mlp").max_batch_size == 3


def test_new_policies_reach_every_graph_and_what_changed_is_said() -> None:
    graphs = [
        NamedGraph("m", 1, _Graph("mlp", "tower")),
        NamedGraph("m", 2, _Graph("mlp")),
        NamedGraph("plain", 1, _Graph()),
    ]
    policies = BatchPolicies(_make)
    assert policies.replace(_policies(16, {"m/tower": 64}), graphs) == ["model m region mlp: max_batch_size 64 → 16"]
    assert [one.graph.policies for one in graphs] == [{"mlp": 16, "tower": 64}, {"mlp": 16}, None]
    assert policies.policy_of("m", graphs[0].graph, "mlp").max_batch_size == 16
    assert policies.replace(_policies(16, {"m/tower": 64}), graphs) == []
    late = _Graph("mlp")
    policies.apply("m", late)
    assert late.policies == {"mlp": 16}


def test_an_entry_that_speaks_of_nothing_is_told() -> None:
    graphs = [NamedGraph("m", 1, _Graph("mlp", "tower")), NamedGraph("plain", 1, _Graph())]
    policies = BatchPolicies(_make, _policies(8, {"m/mlp": 4, "*/tow*": 4, "plain/mlp": 4, "m/mpl": 4}))
    assert policies.unused(graphs) == ["model 'plain' region 'mlp'", "model 'm' region 'mpl'"]
    assert BatchPolicies(_make).unused(graphs) == []


def test_a_policy_that_the_core_refuses_changes_nothing_anywhere() -> None:
    graphs = [NamedGraph("m", 1, _Graph("mlp")), NamedGraph("n", 1, _Graph("mlp"))]
    policies = BatchPolicies(_make, _policies(8))
    for one in graphs:
        policies.apply(one.model, one.graph)
    with pytest.raises(InvalidArgumentError, match="max_batch_size: got 5000"):
        policies.replace(_policies(16, {"n/mlp": 5000}), graphs)
    assert [one.graph.policies for one in graphs] == [{"mlp": 8}, {"mlp": 8}]
    assert policies.policy_of("m", graphs[0].graph, "mlp").max_batch_size == 8
