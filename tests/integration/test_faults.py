"""What happens when parts of a cluster die, hang or are damaged: real processes, real signals."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from admin.local_cluster import LocalCluster
from admin.serving_client import open_channel
from placement.connect import EtcdSettings, open_etcd
from placement.keys import Keys
from support.running import ClusterFactory
from support.serving import Load, predict
from support.small_model import SmallModel
from tessera.errors import Code, TesseraError, UnavailableError
from tessera.repository import Repository

pytestmark = pytest.mark.integration


def _pid(cluster: LocalCluster, name: str) -> int:
    return next(child.process.pid for child in cluster.children.children if child.name == name)


def test_kill_minus_nine_of_a_server_under_load_fails_no_request(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3, replicas=2)
    with Load(cluster.router_address, small_model.request(), small_model.expected[2]) as load:
        os.kill(_pid(cluster, "server-1"), signal.SIGKILL)
        load.wait_for_answers(500)
    assert load.failures == []


def test_a_stopped_server_costs_the_retry_delay_and_no_request(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3, replicas=2, router_arguments=("--retry-delay-s=0.05",))
    pid = _pid(cluster, "server-0")
    with Load(cluster.router_address, small_model.request(), small_model.expected[2]) as load:
        load.slowest_s = 0.0
        os.kill(pid, signal.SIGSTOP)
        try:
            load.wait_for_answers(300)
        finally:
            os.kill(pid, signal.SIGCONT)
        load.wait_for_answers(300)
    assert load.failures == []
    # Far below the deadline of 10 s, far above the delay of 0.05 s: this machine may be busy.
    assert load.slowest_s < 2.0


def test_a_bucket_that_no_live_server_holds_is_unavailable_at_once(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=2, replicas=1)
    with open_channel(cluster.router_address) as channel:
        predict(channel, small_model.request())
        os.kill(_pid(cluster, "server-1"), signal.SIGKILL)
        started_s = time.monotonic()
        with pytest.raises(TesseraError) as caught:
            predict(channel, small_model.request(), timeout_s=30.0)
    assert caught.value.code == Code.UNAVAILABLE
    assert "server-1" in caught.value.message
    assert any(table in caught.value.message for table in ("users", "items"))
    assert time.monotonic() - started_s < 10.0  # not by the deadline


def test_serving_goes_on_with_etcd_stopped_and_starts_from_the_disk(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    cluster = start_cluster(shards=2)
    with open_channel(cluster.router_address) as channel:
        assert predict(channel, small_model.request())[0] == small_model.expected[2]
        os.kill(_pid(cluster, "etcd"), signal.SIGKILL)
        for _ in range(20):
            assert predict(channel, small_model.request())[0] == small_model.expected[2]
    router = next(child for child in cluster.children.children if child.name == "router")
    router.process.terminate()
    assert router.process.wait(30) == 0

    cluster.start_router()  # from its state directory: there is no etcd to ask
    deadline = time.monotonic() + 30
    while True:
        try:
            with open_channel(cluster.router_address) as channel:
                assert predict(channel, small_model.request())[0] == small_model.expected[2]
            break
        except TesseraError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_restarted_server_is_found_at_its_new_address(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=2)
    server = next(child for child in cluster.children.children if child.name == "server-0")
    server.process.terminate()
    assert server.process.wait(30) == 0
    cluster.start_server("server-0")
    deadline = time.monotonic() + 30
    with open_channel(cluster.router_address) as channel:
        while True:
            try:
                assert predict(channel, small_model.request())[0] == small_model.expected[2]
                break
            except UnavailableError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_sigterm_of_a_replica_under_load_fails_no_request(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=3, replicas=2)
    server = next(child for child in cluster.children.children if child.name == "server-2")
    with Load(cluster.router_address, small_model.request(), small_model.expected[2]) as load:
        server.process.terminate()
        assert server.process.wait(30) == 0
        load.wait_for_answers(200)
    assert load.failures == []


def test_sigterm_drains_the_router(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=2)
    router = next(child for child in cluster.children.children if child.name == "router")
    with Load(cluster.router_address, small_model.request(), small_model.expected[2]) as load:
        router.process.terminate()
        assert router.process.wait(30) == 0
    # Requests that had been taken were answered; later ones find nobody.
    assert all("UNAVAILABLE" in failure or "CANCELLED" in failure for failure in load.failures)


def test_a_duplicate_server_id_is_refused_with_exit_code_78(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    cluster = start_cluster(shards=1)
    command = [sys.executable, "-m", "shard_server", "--server-id=server-0", "--listen=127.0.0.1:0"]
    command += [f"--etcd={cluster.etcd_endpoint}", f"--repository={small_model.repository}"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 78
    assert "duplicate id" in second.stderr
    with open_channel(cluster.router_address) as channel:
        assert predict(channel, small_model.request())[0] == small_model.expected[2]


def test_a_damaged_blob_is_refused_by_its_name(small_model: SmallModel, tmp_path: Path) -> None:
    import shutil

    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    digest = repository.read_manifest("ranker", 1).tables[0].blobs[0]
    path = repository.blob_path(digest)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    cluster = LocalCluster(repository.root, tmp_path / "cluster", shards=1, router_listen="127.0.0.1:0")
    try:
        cluster.start_control_plane()
        cluster.start_servers()
        asyncio.run(_try_load(cluster, repository))
        assert digest in (cluster.children.log_dir / "server-0.log").read_text()
    finally:
        cluster.stop()


async def _try_load(cluster: LocalCluster, repository: Repository) -> None:
    from admin.loading import load

    store = open_etcd(EtcdSettings((cluster.etcd_endpoint,)))
    try:
        with pytest.raises(TesseraError) as caught:
            await load(store, cluster.cluster, repository, "ranker", [1], replicas=1, timeout_s=5, min_servers=1)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        assert "server-0" in caught.value.message
        assert await store.get(Keys(cluster.cluster).current("ranker")) is None
    finally:
        await store.close()


def test_children_end_when_their_parent_is_killed(small_model: SmallModel, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready"
    command = [sys.executable, "-m", "admin", "up", f"--repository={small_model.repository}", "--shards=1", "--port=0"]
    command += [f"--ready-file={ready_file}", f"--cluster=orphans-{os.getpid()}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 60
        while not ready_file.exists():
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = json.loads(ready_file.read_text())["pids"]
        parent.kill()
    children = [pids["router"], pids["etcd"], *pids["servers"].values()]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a child outlived its parent"
        time.sleep(0.05)
