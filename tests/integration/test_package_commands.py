"""`tessera partition` and `tessera verify`, and what the command line says to wrong arguments."""

import json
from pathlib import Path

import pytest

from support.command_line import damage, refused, tessera
from support.small_model import MODEL, SmallModel
from tessera.repository import Repository

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("private_run_dir")]


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
    damage(Repository(repository).blob_path(digest))
    refused(1, f"{digest}: has SHA-256", "verify", *package)


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
