"""Versions rolled out and back, and servers drained: real processes, answers checked against the version they claim."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from admin.local_cluster import LocalCluster
from admin.serving_client import open_channel
from support.resharding import flags, found, run, wait_for
from support.running import ClusterFactory
from support.serving import Load, predict
from support.small_model import MODEL, SmallModel
from tessera.repository import Repository

pytestmark = pytest.mark.integration


@dataclass
class VersionedLoad(Load):
    """Expects each answer to be that of the version which it names."""

    by_version: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)

    def expected_of(self, version: int) -> Mapping[str, Any]:
        """Return what plain TensorFlow answers; remember the order of versions."""
        if not self.seen or self.seen[-1] != version:
            self.seen.append(version)
        return self.by_version[version]


def _load(cluster: LocalCluster, model: SmallModel) -> VersionedLoad:
    return VersionedLoad(cluster.router_address, model.request(), {}, threads=1, by_version=model.expected)


def _model(cluster: LocalCluster, *arguments: str) -> dict[str, Any]:
    package = [f"--repository={cluster.repository}", "--yes", "-o", "json", *flags(cluster)]
    done = run(["model", *arguments, *package])
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_version_is_rolled_out_and_back_and_no_answer_fails_or_mixes(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=2, versions=(1,), labels={"stable": 1})
    repository = Repository(small_model.repository)
    with _load(cluster, small_model) as load:
        done = _model(cluster, "rollout", MODEL, "2")
        assert (done["state"], done["kind"]) == ("DONE", "rollout")
        load.wait_for_answers(30)
        placement = found(cluster).current_placement
        assert placement
        assert [(ref.version, ref.labels) for ref in placement.versions] == [(2, ("stable",))]

        assert _model(cluster, "rollback", MODEL)["state"] == "DONE"
        load.wait_for_answers(30)
        assert _model(cluster, "rollout", MODEL, "2", "--keep", "--label=canary=2")["state"] == "DONE"
        load.wait_for_answers(30)
    assert load.failures == []
    assert load.seen == [1, 2, 1, 2]
    # Servers hold what two versions share only once: one table is the same in both.
    blobs: dict[str, int] = {}
    for version in (1, 2):
        for table in repository.read_manifest(MODEL, version).tables:
            blobs |= {digest: table.bucket_bytes(bucket) for bucket, digest in enumerate(table.blobs)}
    assert sum(member.bytes_used for member in found(cluster).members.values()) == sum(blobs.values())
    with open_channel(cluster.router_address) as channel:
        for label, version in (("stable", 1), ("canary", 2)):
            request = small_model.request()
            request.model_spec.version_label = label
            assert predict(channel, request) == (small_model.expected[version], version)


def test_a_package_that_routers_cannot_load_never_becomes_current(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Any
) -> None:
    import shutil

    broken = shutil.copytree(small_model.repository, tmp_path / "broken")
    cluster = start_cluster(shards=1, versions=(1,), repository=broken)
    graph = next((broken / "packages" / MODEL / "2").rglob("saved_model.pb"))
    graph.chmod(0o644)
    graph.write_bytes(b"no graph")
    package = [f"--repository={broken}", "--yes", *flags(cluster)]
    with _load(cluster, small_model) as load:
        done = run(["model", "rollout", MODEL, "2", "--timeout-s=12", *package])
        assert done.returncode == 5, done.stderr
        assert "1 routers to load epoch 2" in done.stderr
        given_up = run(["reshard", "abort", MODEL, "--yes", *flags(cluster)])
        assert given_up.returncode == 0, given_up.stderr
        load.wait_for_answers(20)
    assert load.failures == []
    assert load.seen == [1]


def test_a_server_is_cordoned_drained_and_removed(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=3, versions=(2,))

    def server(*arguments: str) -> Any:
        done = run(["server", *arguments, "-o", "json", *flags(cluster)])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with _load(cluster, small_model) as load:
        assert server("cordon", "server-1") == {"id": "server-1", "wanted": "CORDONED"}
        assert [row["wanted"] for row in server("list")] == ["ACTIVE", "CORDONED", "ACTIVE"]
        assert server("uncordon", "server-1")["wanted"] == "ACTIVE"
        drained = server("drain", "server-1", f"--repository={cluster.repository}", "--yes")
        assert drained["state"] == "DONE"
        assert server("describe", "server-1")["slots"] == {}
        refused = run(["server", "remove", "server-1", *flags(cluster)])
        assert (refused.returncode, "stop it first" in refused.stderr) == (4, True)
        child = next(child for child in cluster.children.children if child.name == "server-1")
        child.process.terminate()
        assert child.process.wait(30) == 0
        wait_for(cluster, lambda state: "server-1" not in state.members)
        assert server("remove", "server-1")["removed"]
        load.wait_for_answers(30)
    assert load.failures == []
    assert [row["id"] for row in server("list")] == ["server-0", "server-2"]
