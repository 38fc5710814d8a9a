"""`tessera k8s job` and `tessera k8s scale`."""

import argparse
import asyncio
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from admin.cli import main
from admin.k8s import job as jobs
from admin.k8s.api import ClusterApi
from admin.k8s.command import complete, run_scale
from admin.k8s.scale import in_the_way
from placement.keys import Keys
from placement.memory_store import MemoryStore
from placement.records import MemberRecord, MemberState, PackageRef, Placement, ServerRecord, ServerState
from placement.snapshot import ClusterSnapshot, MemberView, ModelView
from support.k8s_objects import parse, read
from tessera.errors import AbortedError, FailedPreconditionError, InvalidArgumentError


def test_the_job_that_is_printed_is_the_one_of_the_manifests() -> None:
    (expected,) = copy.deepcopy(read("jobs/admin/job.yaml"))
    words = expected["spec"]["template"]["spec"]["containers"][0]["args"]
    del expected["metadata"]["name"]
    expected["metadata"]["generateName"] = "tessera-admin-"
    assert jobs.job(words, image="tessera", namespace="tessera", tls=False, token=False) == expected


def test_a_command_gets_what_it_needs_to_reach_the_cluster() -> None:
    reach = ["--cluster=$(CLUSTER)", "--etcd=$(ETCD)"]
    assert complete(["status"], tls=False) == ["status", *reach]
    assert complete(["server", "drain", "tessera-shard-2", "--yes"], tls=False) == [
        *("server", "drain", "tessera-shard-2", "--yes", "--repository=/models"),
        *reach,
    ]
    assert complete(["status"], tls=True)[-3:] == list(jobs.TLS_WORDS)
    assert complete(["verify", "--model", "ranker"], tls=False) == [
        "verify",
        "--model",
        "ranker",
        "--repository=/models",
    ]


def test_a_command_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"command: got 'server drian x': .*invalid choice"):
        complete(["server", "drian", "x"], tls=False)
    assert main(["k8s", "job", "--", "no-such-verb"]) == 2
    assert "command: got 'no-such-verb'" in capsys.readouterr().err


def test_only_the_job_that_talks_to_kubernetes_gets_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    for words, token in ((["status"], False), (["k8s", "scale", "2"], True)):
        assert main(["k8s", "job", "--tls", "--image", "registry/tessera@sha256:12", "--", *words]) == 0
        pod = parse(capsys.readouterr().out)[0]["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is token
        assert pod["containers"][0]["image"] == "registry/tessera@sha256:12"
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]} == {"repository", "tmp", "etcd-tls"}


_PLACEMENT = Placement(
    model="ranker",
    epoch=1,
    layout=1,
    slots=2,
    servers=("tessera-shard-0", "tessera-shard-1"),
    slot_servers=((0,), (1,)),
    versions=(PackageRef(1, "ab" * 32),),
)
_MEMBER = MemberRecord("i", "10.0.0.1:8600", "0.1.0", MemberState.SERVING, "a", 1 << 30, 0, {}, "")


def _snapshot(placed: bool = True, **wanted: ServerState) -> ClusterSnapshot:
    names = ("tessera-shard-0", "tessera-shard-1", "tessera-shard-2", "other-5")
    return ClusterSnapshot(
        models={"ranker": ModelView(placement=_PLACEMENT)} if placed else {},
        members={name: MemberView(_MEMBER, live=True) for name in names},
        servers={name.replace("_", "-"): ServerRecord("a", 1, 1 << 30, state) for name, state in wanted.items()},
    )


def test_a_server_that_holds_slots_is_in_the_way() -> None:
    snapshot = _snapshot(tessera_shard_1=ServerState.DRAINING, tessera_shard_2=ServerState.DRAINING)
    assert in_the_way(snapshot, 1, "tessera-shard") == ["tessera-shard-1 holds slots of ranker"]
    assert in_the_way(snapshot, 2, "tessera-shard") == []


def test_a_server_that_may_get_slots_is_in_the_way() -> None:
    for state in (ServerState.ACTIVE, ServerState.CORDONED):
        snapshot = _snapshot(tessera_shard_2=state)
        (text,) = in_the_way(snapshot, 2, "tessera-shard")
        assert text == f"tessera-shard-2 may get slots: it is wanted {state.value}, expected DRAINING"
    assert in_the_way(_snapshot(), 2, "tessera-shard") != []


def test_servers_of_another_set_are_not_looked_at() -> None:
    assert in_the_way(_snapshot(), 3, "tessera-shard") == []
    assert len(in_the_way(_snapshot(), 3, "other")) == 1


class FakeApi(ClusterApi):
    """A StatefulSet in memory, with the API server's comparison of versions."""

    def __init__(self, servers: int) -> None:
        super().__init__("https://api", "token", None, "tessera")
        object.__setattr__(self, "content", {"metadata": {"resourceVersion": "7"}, "spec": {"replicas": servers}})

    content: dict[str, Any]

    def scale(self, stateful_set: str) -> dict[str, Any]:
        return copy.deepcopy(self.content)

    def patch_scale(self, stateful_set: str, content: Mapping[str, Any]) -> dict[str, Any]:
        if content["metadata"]["resourceVersion"] != self.content["metadata"]["resourceVersion"]:
            raise AbortedError(f"{stateful_set}: changed meanwhile")
        self.content["spec"] |= content["spec"]
        return self.content


def _scale(api: ClusterApi, servers: int, *drained: str) -> None:
    async def run() -> None:
        store, keys = MemoryStore(), Keys("default")
        lease = await store.grant_lease(60)
        for name in ("tessera-shard-0", "tessera-shard-1", "tessera-shard-2"):
            await store.put(keys.member(name), _MEMBER.to_bytes(), lease=lease)
        for name in drained:
            await store.put(keys.server(name), ServerRecord("a", 1, 1 << 30, ServerState.DRAINING).to_bytes())
        options = argparse.Namespace(servers=servers, shard_set="tessera-shard")
        await run_scale(options, store, keys, api)

    asyncio.run(run())


def test_servers_go_only_when_nothing_is_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(3)
    with pytest.raises(FailedPreconditionError, match=r"servers: got 2, but tessera-shard-2 may get slots"):
        _scale(api, 2)
    assert api.content["spec"] == {"replicas": 3}
    _scale(api, 2, "tessera-shard-2")
    assert api.content["spec"] == {"replicas": 2}
    assert "tessera-shard: 2 servers (was 3)" in capsys.readouterr().out


def test_servers_are_added_without_a_question() -> None:
    api = FakeApi(3)
    _scale(api, 5)
    assert api.content["spec"] == {"replicas": 5}


@pytest.mark.parametrize("servers", [0, -1, 1001])
def test_a_number_that_no_cluster_has_is_refused(servers: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"servers: got {servers}, expected 1 to 1000"):
        _scale(FakeApi(3), servers)


def test_outside_of_a_pod_the_way_into_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="tessera k8s job -- k8s scale N"):
        ClusterApi.in_cluster(tmp_path, {})
    with pytest.raises(FailedPreconditionError, match="not a pod with the token"):
        ClusterApi.in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"})
