"""The `tessera` command as a user runs it: real packages, a real cluster, exit codes and messages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from admin.local_cluster import LocalCluster
from support.small_model import MODEL, SmallModel
from tessera.repository import Repository

pytestmark = pytest.mark.integration

_TIMEOUT_S = 60.0


def tessera(
    *arguments: object, timeout_s: float = _TIMEOUT_S, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "admin", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin)


def refused(code: int, says: str, *arguments: object) -> None:
    """Run the command, which has to fail with `code` and a message that contains `says` and is no traceback."""
    done = tessera(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@dataclass
class Up:
    """A running `tessera up`: what it announced and, once it has ended, what it printed."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def pids(self) -> list[int]:
        """Return the processes of the cluster."""
        pids = self.ready["pids"]
        return [pid for pid in (pids.get("router"), pids.get("etcd"), *pids["servers"].values()) if pid]

    def end(self) -> str:
        """Send what Ctrl-C sends; return stderr."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=_TIMEOUT_S)
        return errors


@contextmanager
def up(directory: Path, *arguments: object) -> Iterator[Up]:
    """Run `tessera up` until it serves; it is gone afterwards."""
    ready_file = directory / "ready"
    command = [sys.executable, "-m", "admin", "up", "--port=0", f"--ready-file={ready_file}"]
    process = subprocess.Popen(
        [*command, *(str(argument) for argument in arguments)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"`tessera up` did not come up: {process.communicate()[1]}")
            time.sleep(0.05)
        yield Up(process, json.loads(ready_file.read_text("utf-8")))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@pytest.fixture(autouse=True)
def _private_run_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))


def _inputs(small_model: SmallModel) -> str:
    return json.dumps(small_model.inputs)


# --- packages -----------------------------------------------------------------------------------------------------


def test_partition_and_verify(small_model: SmallModel, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    package = [f"--repository={repository}", f"--model={MODEL}"]
    one = ["partition", small_model.saved_models[1], *package, "--max-shard-bytes=64KiB"]

    plan = tessera(*one, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.splitlines()[0].split() == [
        "VARIABLE",
        "DTYPE",
        "SHAPE",
        "BYTES",
        "GOES",
        "TO",
        "BUCKETS",
        "BUCKET",
        "WHY",
    ]
    assert "5000×8" in plan.stdout
    assert not repository.exists()

    first = tessera(*one)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[0] == str(repository / "packages" / MODEL / "1")
    second = tessera(*one, "-o", "json")
    content = json.loads(second.stdout)
    assert first.stdout.split()[-1] == content["digest"] == Repository(repository).read_manifest(MODEL, 1).digest
    assert {row["name"]: row["decision"] for row in content["variables"]} == {"users": "split", "items": "split"}

    other = ["partition", small_model.saved_models[2], *package, "--max-shard-bytes=64KiB"]
    refused(4, "version 1: exists with other content; choose another version", *other)

    whole = tessera("verify", *package, "-o", "json")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["digest"] == content["digest"]
    same = tessera("verify", *package, f"--saved-model={small_model.saved_models[1]}", "--samples=2")
    assert same.returncode == 0, same.stderr
    assert "2 inputs answered by both, 0 refused by both: same" in same.stdout
    assert same.stderr == ""  # none of TensorFlow's chatter
    different = tessera("verify", *package, f"--saved-model={small_model.saved_models[2]}", "--samples=2")
    assert different.returncode == 1
    assert "DIFFERENT" in different.stdout

    digest = Repository(repository).read_manifest(MODEL, 1).tables[0].blobs[3]
    _damage(Repository(repository).blob_path(digest))
    refused(1, f"{digest}: has SHA-256", "verify", *package)


def _damage(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def test_wrong_arguments_are_named_at_once(small_model: SmallModel, tmp_path: Path) -> None:
    package = [f"--repository={tmp_path}", "--model=m", "--max-shard-bytes=1MiB"]
    refused(3, f"{tmp_path / 'none'}/saved_model.pb: no such file", "partition", tmp_path / "none", *package)
    (tmp_path / "saved_model.pb").write_bytes(b"\xffno model")
    refused(1, "saved_model.pb", "partition", tmp_path, *package)
    refused(2, "unrecognized arguments: --colour", "partition", tmp_path, *package, "--colour")
    known = f"--repository={small_model.repository}"
    refused(3, f"has no model rankr; it has {MODEL}", "up", known, "--model=rankr", "--port=0")
    refused(3, f"has no version 9 of model {MODEL}; it has 1, 2", "model", "load", f"{MODEL}:9", known)
    refused(3, "no such directory", "up", f"--repository={tmp_path / 'none'}", "--port=0")
    refused(3, f"model {MODEL!r} version 9: no package in", "verify", known, f"--model={MODEL}", "--version=9")
    refused(1, "router 127.0.0.1:1: UNAVAILABLE", "predict", MODEL, "{}", "--router=127.0.0.1:1")
    refused(1, "etcd: no connection to 127.0.0.1:1", "status", "--etcd=127.0.0.1:1")


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
    with up(tmp_path, known, "--shards=3", "--replicas=2", f"--model={MODEL}:1,2") as running:
        for version in (1, 2):
            answer = tessera("predict", MODEL, _inputs(small_model), f"--version={version}")
            assert answer.returncode == 0, answer.stderr
            assert json.loads(answer.stdout) == small_model.expected[version]
            assert answer.stderr.startswith(f"version {version}, ")
        piped = tessera("predict", MODEL, "--output-filter=version", stdin=_inputs(small_model))
        assert json.loads(piped.stdout) == {"version": small_model.expected[2]["version"]}

        _predict_refuses(small_model)
        _check_status(small_model, shards=3, replicas=2)

        refused(4, "cluster 'default' is up already; end it first or give --cluster another name", "up", known)
        again = tessera("model", "load", f"{MODEL}:1,2", known, "--replicas=2")
        assert again.returncode == 0, again.stderr
        assert "was current already" in again.stdout
        refused(4, "Changing a live placement is resharding", "model", "load", f"{MODEL}:1", known)

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

    text = tessera("status").stdout
    assert [line.split()[0] for line in text.splitlines() if line] == [
        "SERVER", *(f"server-{i}" for i in range(shards)), "ROUTER", content["routers"][0]["id"], "MODEL", MODEL,
    ]  # fmt: skip


def test_up_in_process(small_model: SmallModel, tmp_path: Path) -> None:
    with up(tmp_path, f"--repository={small_model.repository}", "--in-process", "--shards=2") as running:
        answer = tessera("predict", MODEL, _inputs(small_model))
        assert json.loads(answer.stdout) == small_model.expected[2], answer.stderr
        refused(4, "runs --in-process: its records are in its own memory, not in etcd", "status")
        errors = running.end()
        assert running.process.returncode == 0, errors
        assert "Traceback" not in errors


def test_why_a_server_cannot_hold_its_part_is_said_by_up(small_model: SmallModel, tmp_path: Path) -> None:
    repository = Repository(shutil.copytree(small_model.repository, tmp_path / "repository"))
    digest = repository.read_manifest(MODEL, 1).tables[0].blobs[0]
    _damage(repository.blob_path(digest))
    for mode in ((), ("--in-process",)):
        done = tessera(
            "up", f"--repository={repository.root}", f"--model={MODEL}:1", "--port=0", "--timeout-s=4", *mode
        )
        assert done.returncode == 5, done.stderr
        last = done.stderr.splitlines()[-1]
        assert "to hold their part of epoch 1: server-" in last
        assert f"{digest}: has SHA-256" in last
        assert "Traceback" not in done.stderr


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
        refused(2, "--label: got 'canary=2', expected LABEL=VERSION", *load, "--label=canary=2")

        router = f"--router={json.loads(ready.read_text())['address']}"
        deadline = time.monotonic() + _TIMEOUT_S
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
        [sys.executable, "-m", process, "--colour=red"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{process}: unrecognized arguments: --colour=red",
        f"See python -m {process} --help.",
    ]
