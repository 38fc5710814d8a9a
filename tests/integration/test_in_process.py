"""The in-process cluster as a notebook uses it."""

import gc
import shutil
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from admin.in_process import InProcessCluster
from admin.serving_client import open_channel
from support.serving import predict
from support.small_model import MODEL, SmallModel
from tessera.errors import (
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    SettingsError,
    UnavailableError,
)
from tessera.repository import Repository

pytestmark = pytest.mark.integration


def _python_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.is_alive()}


def _native_threads() -> int:
    gc.collect()  # servers end their threads when they are freed
    return len(list(Path("/proc/self/task").iterdir()))


def _serve_once(small_model: SmallModel) -> None:
    with InProcessCluster(small_model.repository, models={MODEL: [1, 2]}, shards=2, replicas=2) as cluster:
        with open_channel(cluster.address) as channel:
            for version in (1, 2):
                assert predict(channel, small_model.request(version)) == (small_model.expected[version], version)
        assert cluster.describe()["router"] == cluster.address


def test_clusters_may_follow_each_other_and_leave_no_threads(small_model: SmallModel) -> None:
    _serve_once(small_model)  # libraries start their own threads the first time
    before, native_before = _python_threads(), _native_threads()
    _serve_once(small_model)
    assert _python_threads() <= before
    # Threads of gRPC's own pool end by themselves a little later.
    deadline = time.monotonic() + 30
    while _native_threads() > native_before:
        assert time.monotonic() < deadline, f"{_native_threads()} threads, {native_before} before"
        time.sleep(0.1)


def test_batching_and_metrics_are_set_as_for_a_router(small_model: SmallModel, tmp_path: Path) -> None:
    policies = tmp_path / "policies.toml"
    policies.write_text("[default]\nmax_batch_size = 32\n")
    models = {MODEL: [1]}
    settings: dict[str, Any] = {"batching_policy_file": policies, "metrics_port": 0}
    with InProcessCluster(small_model.repository, models=models, shards=1, **settings) as cluster:
        assert cluster.describe()["metrics"] == cluster.metrics_address
        with urllib.request.urlopen(f"http://{cluster.metrics_address}/metrics", timeout=10) as response:
            assert b"tessera_lane_busy_seconds_total" in response.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(cluster.metrics_address.rpartition(":")[2])))
    policies.unlink()
    with pytest.raises(SettingsError, match=r"--batching-policy-file: .*policies\.toml; No such file or directory"):
        InProcessCluster(small_model.repository, models=models, **settings).__enter__()
    with pytest.raises(SettingsError, match="--enable-batching must be given with --batching-policy-file"):
        InProcessCluster(small_model.repository, models=models, enable_batching=False, batching_policy_file=policies)


def test_two_clusters_may_run_side_by_side(small_model: SmallModel) -> None:
    with (
        InProcessCluster(small_model.repository, models={MODEL: [1]}) as one,
        InProcessCluster(small_model.repository, models={MODEL: [2]}) as two,
        open_channel(one.address) as first,
        open_channel(two.address) as second,
    ):
        assert one.address != two.address
        assert predict(first, small_model.request()) == (small_model.expected[1], 1)
        assert predict(second, small_model.request()) == (small_model.expected[2], 2)


def test_what_goes_wrong_comes_out_of_the_with_and_leaves_nothing(small_model: SmallModel, tmp_path: Path) -> None:
    before = _python_threads()
    with pytest.raises(NotFoundError, match="model 'rankr' version 1: no package in"):
        InProcessCluster(small_model.repository, models={"rankr": [1]}).__enter__()
    with pytest.raises(FailedPreconditionError, match="replicas: got 3"):
        InProcessCluster(small_model.repository, models={MODEL: [1]}, shards=2, replicas=3).__enter__()
    with InProcessCluster(small_model.repository, models={MODEL: [1]}) as cluster:
        taken = InProcessCluster(small_model.repository, models={MODEL: [1]}, listen=cluster.address)
        with pytest.raises(UnavailableError, match=cluster.address):
            taken.__enter__()
    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    manifest = repository.package_dir(MODEL, 1) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace("users", "usurs"))
    with pytest.raises(DataLossError, match=r"manifest\.json"):
        InProcessCluster(repository.root, models={MODEL: [1]}).__enter__()
    assert _python_threads() <= before


def test_a_blob_that_is_gone_is_named_and_told_while_waiting(small_model: SmallModel, tmp_path: Path) -> None:
    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    digest = repository.read_manifest(MODEL, 1).tables[0].blobs[0]
    repository.blob_path(digest).unlink()
    said: list[str] = []
    cluster = InProcessCluster(repository.root, models={MODEL: [1]}, timeout_s=8, say=said.append)
    with pytest.raises(DeadlineExceededError, match=f"server-. .cannot: .*{digest}: no such file"):
        cluster.__enter__()
    assert any(digest in text for text in said)


def test_a_blob_that_comes_back_ends_the_waiting(small_model: SmallModel, tmp_path: Path) -> None:
    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    path = repository.blob_path(repository.read_manifest(MODEL, 1).tables[0].blobs[0])
    path.rename(tmp_path / "blob")

    def put_back(text: str) -> None:
        if path.name in text and not path.exists():
            (tmp_path / "blob").rename(path)

    with (
        InProcessCluster(repository.root, models={MODEL: [1]}, say=put_back) as cluster,
        open_channel(cluster.address) as channel,
    ):
        assert predict(channel, small_model.request(1)) == (small_model.expected[1], 1)


def test_an_end_before_or_while_loading_is_prompt(small_model: SmallModel, tmp_path: Path) -> None:
    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    repository.blob_path(repository.read_manifest(MODEL, 1).tables[0].blobs[0]).unlink()  # it would wait for long
    for delay_s in (0.0, 1.0):
        cluster = InProcessCluster(repository.root, models={MODEL: [1]}, timeout_s=600)
        waiting = threading.Thread(target=lambda c=cluster: _ignore_end(c), daemon=True)
        waiting.start()
        time.sleep(delay_s)
        while not cluster.is_running:
            time.sleep(0.01)
        started_s = time.monotonic()
        cluster.__exit__(None, None, None)
        waiting.join(30)
        assert not waiting.is_alive()
        assert time.monotonic() - started_s < 30


def _ignore_end(cluster: InProcessCluster) -> None:
    with pytest.raises(UnavailableError, match="ended before it served"):
        cluster.__enter__()
