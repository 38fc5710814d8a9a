"""The `tessera` command as a user runs it: real packages, a real cluster, exit codes and messages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from admin.local_cluster import LocalCluster
from support.command_line import TIMEOUT_S, damage, refused, tessera, up
from support.small_model import MODEL, SmallModel
from tessera.repository import Repository

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_run_dir")]


def _inputs(small_model: SmallModel) -> str:
    return json.dumps(small_model.inputs)


def test_a_port_in_use_is_named_before_anything_starts(small_model: SmallModel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for mode in ((), ("--in-process",)):
            refused(
                1,
                f"--port {port}: Address already in use; give another one, or 0 for any that is free",
                "up", f"--repository={small_model.repository}", f"--port={port}", *mode,
            )  # fmt: skip


# --- up -----------------------------------------------------------------------------------------------------------


def test_up_serves_until_ctrl_c(small_model: SmallModel, tmp_path: Path) -> None:
    known = f"--repository={small_model.repository}"
    policies = tmp_path / "policies.toml"
    policies.write_text("[default]\nmax_batch_size = 32\n")
    flags = ("--shards=3", "--replicas=2", f"--batching-policy-file={policies}", "--metrics-port=0")
    with up(tmp_path, known, f"--model={MODEL}:1,2", *flags) as running:
        for version in (1, 2):
            answer = tessera("predict", MODEL, _inputs(small_model), f"--version={version}")
            assert answer.returncode == 0, answer.stderr
            assert json.loads(answer.stdout) == small_model.expected[version]
            assert answer.stderr.startswith(f"version {version}, ")
        piped = tessera("predict", MODEL, "--output-filter=version", stdin=_inputs(small_model))
        assert json.loads(piped.stdout) == {"version": small_model.expected[2]["version"]}

        _predict_refuses(small_model)
        _check_status(small_model, shards=3, replicas=2)
        assert _metric(running.ready["metrics"], "tessera_fanout_lookups_total") > 0

        refused(4, "cluster 'default' is up already; end it first or give --cluster another name", "up", known)
        again = tessera("model", "load", f"{MODEL}:1,2", known, "--replicas=2")
        assert again.returncode == 0, again.stderr
        assert "was current already" in again.stdout
        refused(4, "`tessera model rollout` changes what is live", "model", "load", f"{MODEL}:1", known)

        errors = running.end()
        assert running.process.returncode == 0, errors
        assert "Traceback" not in errors
        assert "logs are in" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in running.pids())
    left = list(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("*"))
    assert [path.name for path in left] == [f"tessera-{os.getuid()}"]


def _predict_refuses(small_model: SmallModel) -> None:
    inputs = small_model.inputs

    def predict(change: dict[str, Any], *flags: str) -> tuple[object, ...]:
        return "predict", MODEL, json.dumps({k: v for k, v in (inputs | change).items() if v is not None}), *flags

    refused(2, "input usr: not in signature serving_default; expected bias, items, user", *predict({"usr": [1]}))
    refused(2, "input user: got ['a'], expected int64 values of one shape", *predict({"user": ["a"]}))
    refused(2, "input items: got", *predict({"items": [[1], [2, 3]]}))
    refused(2, "Missing but required: {bias}", *predict({"bias": None}))
    refused(2, "= 5000 is not in [0, 5000)", *predict({"user": [5000] * 16}))
    refused(2, "--signature score: expected one of serving_default", *predict({}, "--signature=score"))
    refused(2, "Unrecognized servable version label: canary", *predict({}, "--label=canary"))
    refused(3, f"Servable not found for request: Specific({MODEL}, 7)", *predict({}, "--version=7"))
    refused(3, "Servable not found for request: Latest(rankr)", "predict", "rankr", "{}")


def _check_status(small_model: SmallModel, shards: int, replicas: int) -> None:
    content = json.loads(tessera("status", "-o", "json").stdout)
    manifests = [Repository(small_model.repository).read_manifest(MODEL, version) for version in (1, 2)]
    blobs = {digest: size for manifest in manifests for digest, size in manifest.blob_sizes().items()}
    assert [server["id"] for server in content["servers"]] == [f"server-{i}" for i in range(shards)]
    assert {server["state"] for server in content["servers"]} == {"SERVING"}
    (model,) = content["models"]
    assert [version["version"] for version in model["versions"]] == [1, 2]
    assert (model["epoch"], model["replicas"], len(model["servers"])) == (1, replicas, shards)
    assert sum(server["slots"][MODEL] for server in content["servers"]) == model["slots"] * replicas
    table_bytes = sum(
        size for digest, size in blobs.items() if any(digest in t.blobs for m in manifests for t in m.tables)
    )
    assert sum(server["bytes_used"] for server in content["servers"]) >= table_bytes * replicas
    fair = model["slots"] * replicas / shards
    assert all(abs(server["slots"][MODEL] - fair) < 0.1 * fair for server in content["servers"])
    assert content["problems"] == []
    (router,) = content["routers"]
    assert router["status"]["requests"] >= 3
    assert router["status"]["regions"] == []  # the model has none

    text = tessera("status").stdout
    assert [line.split()[0] for line in text.splitlines() if line] == [
        "SERVER", *(f"server-{i}" for i in range(shards)), "ROUTER", content["routers"][0]["id"], "MODEL", MODEL,
    ]  # fmt: skip


def test_up_in_process(small_model: SmallModel, tmp_path: Path) -> None:
    flags = ("--in-process", "--shards=2", "--metrics-port=0")
    with up(tmp_path, f"--repository={small_model.repository}", *flags) as running:
        assert _metric(running.ready["metrics"], "tessera_predict_requests_total") == 0
        answer = tessera("predict", MODEL, _inputs(small_model))
        assert json.loads(answer.stdout) == small_model.expected[2], answer.stderr
        status = tessera("status")
        assert [line.split()[0] for line in status.stdout.splitlines()] == ["ROUTER", running.ready["router"]]
        assert "keeps its records in its own memory: only its router is asked" in status.stderr
        assert json.loads(tessera("status", "-o", "json").stdout)["routers"][0]["status"]["requests"] == 1
        known = f"--repository={small_model.repository}"
        refused(4, "runs --in-process: its records are in its own memory", "model", "load", MODEL, known)
        errors = running.end()
        assert running.process.returncode == 0, errors
        assert "Traceback" not in errors


def _metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as response:
        families = text_string_to_metric_families(response.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def test_why_a_server_cannot_hold_its_part_is_said_by_up(small_model: SmallModel, tmp_path: Path) -> None:
    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    digest = repository.read_manifest(MODEL, 1).tables[0].blobs[0]
    damage(repository.blob_path(digest))
    for mode in ((), ("--in-process",)):
        done = tessera(
            "up", f"--repository={repository.root}", f"--model={MODEL}:1", "--port=0", "--timeout-s=4", *mode
        )
        assert done.returncode == 5, done.stderr
        last = done.stderr.splitlines()[-1]
        assert "to hold their part of epoch 1: server-" in last
        assert f"{digest}: has SHA-256" in last
        assert "Traceback" not in done.stderr


@contextmanager
def _up_that_waits(directory: Path, small_model: SmallModel, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """Run a `tessera up` that waits for server-1 or server-0, which cannot hold a damaged blob."""
    repository = Repository(shutil.copytree(small_model.repository, directory / "repository"))
    damage(repository.blob_path(repository.read_manifest(MODEL, 1).tables[0].blobs[0]))
    command = [sys.executable, "-m", "admin", "up", f"--repository={repository.root}", f"--model={MODEL}:1", "--port=0"]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "(cannot: " not in process.stderr.readline():
            assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_dies_while_up_waits_for_it_is_named(small_model: SmallModel, tmp_path: Path) -> None:
    with _up_that_waits(tmp_path, small_model) as process:
        os.kill(_children(process.pid)["--server-id=server-1"], signal.SIGKILL)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "server-1 ended with exit code -9; the end of " in errors


@pytest.mark.parametrize("flags", [(), ("--in-process",)])
def test_ctrl_c_while_up_waits_ends_it(small_model: SmallModel, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with _up_that_waits(tmp_path, small_model, *flags) as process:
        children = _children(process.pid).values()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def _children(parent: int) -> dict[str, int]:
    """Return the pids of the child processes of `parent`, by their first argument that names a server, or by pid."""
    children = {}
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        name = next((argument for argument in arguments if argument.startswith("--server-id=")), pid)
        children[name] = int(pid)
    return children


def test_a_machine_without_etcd_is_told_what_to_do(small_model: SmallModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(
        4, "etcd: not found on PATH; install it (Debian: apt-get install etcd-server) or use --in-process",
        "up", f"--repository={small_model.repository}", "--port=0",
    )  # fmt: skip


def test_too_little_memory_is_named(small_model: SmallModel) -> None:
    known = f"--repository={small_model.repository}"
    refused(
        1, "--memory-limit-bytes: got 40.0 MiB, expected 0 or at least 320.0 MiB",
        "up", known, "--port=0", "--server-memory-bytes=40MiB",
    )  # fmt: skip


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_cluster_started_by_hand_as_production_does(small_model: SmallModel, tmp_path: Path) -> None:
    cluster = LocalCluster(small_model.repository, tmp_path / "cluster", shards=0)
    children, ready = cluster.children, tmp_path / "ready"
    try:
        cluster.start_control_plane()
        etcd = f"--etcd={cluster.etcd_endpoint}"
        config = tmp_path / "shard.toml"
        config.write_text(
            f'etcd = ["{cluster.etcd_endpoint}"]\nrepository = "{small_model.repository}"\n'
            'listen = "127.0.0.1:0"\npollers = 1\n'
        )
        for number in range(2):
            environ = {
                "TESSERA__SHARD_SERVER__CONFIG": str(config),
                "TESSERA__SHARD_SERVER__DOMAIN": f"zone-{number}",
                "TESSERA__SHARD_SERVER__CLUSTER": "prod",
            }
            command = [sys.executable, "-m", "shard_server", f"--server-id=shard-{number}"]
            children.start(f"shard-{number}", command, environ=environ)
        environ = {"TESSERA__ROUTER__REPOSITORY": str(small_model.repository), "TESSERA__ROUTER__CLUSTER": "prod"}
        command = [sys.executable, "-m", "router", "--listen=127.0.0.1:0", etcd, f"--ready-file={ready}"]
        children.start("router", [*command, f"--state-dir={tmp_path / 'state'}"], environ=environ)

        load = ["model", "load", f"{MODEL}:1", f"--repository={small_model.repository}", "--cluster=prod", etcd]
        done = tessera(*load, "--replicas=2", "--min-servers=2", "--label=stable=1")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"model {MODEL}: epoch 1 is current, on 2 servers\n"
        again = tessera(*load, "--replicas=2", "--label=stable=1", "-o", "json")
        servers = ["shard-0", "shard-1"]
        assert json.loads(again.stdout) == {"model": MODEL, "changed": False, "epoch": 1, "servers": servers}
        planned = tessera(*load, "--replicas=2", "--label=stable=1", "--dry-run")
        assert planned.stdout == f"model {MODEL}: nothing to change\n"
        unloaded = tessera("model", "unload", MODEL, "--cluster=prod", etcd, "--yes")
        assert unloaded.returncode == 0, unloaded.stderr
        planned = tessera(*load, "--replicas=2", "--dry-run")
        assert planned.returncode == 0, planned.stderr
        assert planned.stdout.startswith(f"model {MODEL}: would make epoch ")
        assert [line.split()[0] for line in planned.stdout.splitlines()[1:]] == ["SERVER", *servers]
        done = tessera(*load, "--replicas=2", "--label=stable=1")
        assert done.returncode == 0, done.stderr
        refused(2, "--label: got 'canary=2', expected LABEL=VERSION", *load, "--label=canary=2")

        router = f"--router={json.loads(ready.read_text())['address']}"
        deadline = time.monotonic() + TIMEOUT_S
        while (answer := tessera("predict", MODEL, _inputs(small_model), router, "--label=stable")).returncode:
            assert time.monotonic() < deadline, answer.stderr
            time.sleep(0.1)
        assert json.loads(answer.stdout) == small_model.expected[1]
        content = json.loads(tessera("status", "--cluster=prod", etcd, "-o", "json").stdout)
        assert [(s["id"], s["domain"]) for s in content["servers"]] == [("shard-0", "zone-0"), ("shard-1", "zone-1")]
        assert content["models"][0]["versions"][0]["labels"] == ["stable"]
    finally:
        cluster.stop()


@pytest.mark.parametrize("process", ["router", "shard_server"])
def test_processes_name_a_wrong_setting(process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", process, "--colour=red"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{process}: unrecognized arguments: --colour=red",
        f"See python -m {process} --help.",
    ]
