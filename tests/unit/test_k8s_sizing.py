"""`tessera k8s render`: the smallest cluster that the planner can place packages on."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.cli import main
from admin.k8s import overlay
from admin.k8s.quantity import format_quantity, parse_quantity
from admin.k8s.sizing import ClusterSize, size_cluster
from support.k8s_chart import chart
from support.k8s_objects import one, parse, rendered
from tessera.errors import FailedPreconditionError, InvalidArgumentError, SettingsError
from tessera.manifest import Manifest, Table, Weight

_MIB = 1 << 20
SLOTS = 128
"""Fewer than clusters have: a plan takes a second with those."""


def _manifest(model: str = "ranker", *, rows: int = 1001, buckets: int = 101, weight_bytes: int = 0) -> Manifest:
    """A table of MiB-sized rows, so that numbers are easy."""
    blobs = tuple(f"{bucket:064x}" for bucket in range(1, buckets + 1))
    table = Table(f"{model}-table", rows, (_MIB // 4,), "float32", _MIB, buckets, blobs)
    weights = (Weight("w", "uint8", (weight_bytes,), "f" * 64, weight_bytes),) if weight_bytes else ()
    return Manifest(model, 1, (table,), weights, {}, ())


def _size(*manifests: Manifest, memory: int = 512 * _MIB, replicas: int = 2, spare: float = 0.0) -> ClusterSize:
    models = {manifest.model: [manifest] for manifest in manifests}
    return size_cluster(models, shard_memory_bytes=memory, replicas=replicas, spare=spare, slots=lambda servers: SLOTS)


def test_servers_hold_all_replicas_within_three_quarters_of_their_memory() -> None:
    size = _size(_manifest())
    assert size.table_bytes == 1001 * _MIB
    assert size.capacity_bytes == 384 * _MIB
    assert size.servers in (6, 7)  # 2,002 MiB in buckets of 10 MiB: six servers hold 2,304
    assert size.fullest_bytes <= size.capacity_bytes


def test_spare_room_takes_more_servers() -> None:
    assert _size(_manifest(), spare=0.5).servers >= 11


def test_several_models_share_the_servers() -> None:
    one_model, both = _size(_manifest()), _size(_manifest(), _manifest("words"))
    assert both.servers > one_model.servers
    assert both.fullest_bytes <= both.capacity_bytes


def test_there_are_at_least_as_many_servers_as_replicas() -> None:
    assert _size(_manifest(), memory=64 << 30, replicas=3).servers == 3


def test_routers_have_room_for_two_versions_of_the_root() -> None:
    assert _size(_manifest()).router_memory_bytes == 1 << 30
    assert _size(_manifest(weight_bytes=(1 << 30) + 1)).router_memory_bytes == 4 << 30


def test_what_fits_nowhere_is_refused_with_the_numbers() -> None:
    with pytest.raises(FailedPreconditionError, match=r"2 replicas of 1001\.0 MiB do not fit.*capacity: slot \d+ of"):
        _size(_manifest(), memory=10 * _MIB)
    with pytest.raises(FailedPreconditionError, match=r"it would take \d{4,} servers"):
        _size(_manifest(), memory=_MIB)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"replicas": 0}, "replicas: got 0, expected at least 1"),
        ({"spare": 0.95}, "spare: got 0.95, expected 0 to 0.9"),
        ({"memory": 0}, "shard memory: got 0, expected at least one byte"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        _size(_manifest(), **arguments)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(101, 1500),
    memory=st.integers(512 * _MIB, 4096 * _MIB),
    replicas=st.integers(1, 3),
    spare=st.floats(0, 0.5),
)
def test_whatever_is_planned_fits(rows: int, memory: int, replicas: int, spare: float) -> None:
    size = _size(_manifest(rows=rows), memory=memory, replicas=replicas, spare=spare)
    assert size.servers >= replicas
    assert size.fullest_bytes <= size.capacity_bytes * (1 - spare) + 1
    assert size.fullest_bytes * size.servers >= size.table_bytes * replicas


@pytest.mark.parametrize(
    ("text", "count"),
    [("64Gi", 64 << 30), ("512Mi", 512 << 20), ("1.5GiB", 3 << 29), ("1000", 1000), ("2GB", 2 * 10**9)],
)
def test_amounts_are_read_as_kubernetes_and_as_tessera_write_them(text: str, count: int) -> None:
    assert parse_quantity(text) == count
    assert parse_quantity(format_quantity(count)) == count


@pytest.mark.parametrize("text", ["", "64G i", "64gi", "-1Gi", "Gi"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(SettingsError, match="expected an amount such as 512Mi, 64Gi or 64GiB"):
        parse_quantity(text)


def _written(tmp_path: Path) -> Path:
    """A repository with one package; `render` reads nothing but the manifest."""
    directory = tmp_path / "packages" / "ranker" / "1"
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_bytes(_manifest().to_bytes())
    return tmp_path


def test_the_kustomization_patches_what_is_in_the_overlays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["k8s", "render", "--repository", str(_written(tmp_path)), "--model", "ranker", "--shard-memory", "512Mi"]
    assert main([*words, "--spare", "0", "--base", "../prod", "-o", "kustomization"]) == 0
    out, summary = capsys.readouterr()
    (content,) = parse(out)
    assert content["resources"] == ["../prod"]
    patches = {patch["kind"]: patch for entry in content["patches"] for patch in parse(entry["patch"])}
    servers = patches["StatefulSet"]["spec"]["replicas"]
    (cache,) = patches["StatefulSet"]["spec"]["volumeClaimTemplates"]
    (there,) = one(rendered("prod"), "StatefulSet", "tessera-shard")["spec"]["volumeClaimTemplates"]
    assert cache["spec"].keys() == there["spec"].keys()
    assert cache["metadata"] == there["metadata"]
    assert f"on {servers} shard servers of 512Mi" in summary
    for patch in patches.values():
        target = one(rendered("prod"), patch["kind"], patch["metadata"]["name"])
        assert target["metadata"]["namespace"] == patch["metadata"]["namespace"]
        for container in patch.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            names = [found["name"] for found in target["spec"]["template"]["spec"]["containers"]]
            assert container["name"] in names
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


def test_values_are_values_of_the_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["k8s", "render", "--repository", str(_written(tmp_path)), "--shard-memory", "512Mi", "-o", "values"]
    assert main(words) == 0
    (found,) = parse(capsys.readouterr().out)
    known = chart("values.yaml")
    for group, values in found.items():
        for name, value in values.items():
            assert type(known[group][name]) is type(value)


def test_without_kubectl_the_other_forms_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kustomization.yaml").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="neither is on the PATH; `-o kustomization` needs none"):
        overlay.manifests(_size(_manifest()), tmp_path)
    with pytest.raises(Exception, match=r"expected a directory with a kustomization\.yaml"):
        overlay.manifests(_size(_manifest()), tmp_path / "other")


def test_what_kubectl_refuses_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "kustomization.yaml").touch()
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho no such field >&2\nexit 1\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(FailedPreconditionError, match=f"{kubectl} kustomize: no such field"):
        overlay.manifests(_size(_manifest()), base)
