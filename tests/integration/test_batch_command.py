"""`tessera batch plan`, `tessera batch apply` and `tessera partition --batch auto` from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.batch_models import batch_model_dir
from support.command_line import refused, tessera

pytestmark = pytest.mark.integration


def test_plan_and_apply(tmp_path: Path) -> None:
    model = batch_model_dir("lstm")
    plan = tessera("batch", "plan", model, "--cost-gate=off")
    assert plan.returncode == 0, plan.stderr
    assert plan.stderr == ""  # none of TensorFlow's chatter
    lines = plan.stdout.splitlines()
    assert lines[0].split()[:3] == ["REGION", "SIGNATURES", "OPS"]
    assert any("/while/cell" in line and " batched " in line for line in lines)
    assert "left out:" in lines
    assert any(line.startswith("  moves the rows to another dimension: Transpose ") for line in lines)

    out = tmp_path / "batched"
    applied = tessera("batch", "apply", model, out, "--cost-gate=off", "-o", "json")
    assert applied.returncode == 0, applied.stderr
    regions = json.loads(applied.stdout)["regions"]
    assert [region["in_loop"] for region in regions if region["inserted"]] == [False, True]
    assert (out / "saved_model.pb").is_file()
    refused(4, "batched: exists; choose another name", "batch", "apply", model, out)
    refused(4, "no region is worth batching, so nothing was written", "batch", "apply", model, tmp_path / "other")
    refused(3, "saved_model.pb: no such file", "batch", "plan", tmp_path)


def test_scopes_are_refused_by_the_op() -> None:
    message = "cannot be batched: mixes rows: reduces dimension 0"
    refused(4, message, "batch", "plan", batch_model_dir("mixing"), "--scope", "*MatMul,*Mean")
    refused(3, "batch scope 'nope': fits the name of no op", "batch", "plan", batch_model_dir("mixing"), "--scope=nope")
    refused(3, "signature 'nope' is not there", "batch", "plan", batch_model_dir("mixing"), "--signature=nope")


def test_partition_with_regions(tmp_path: Path) -> None:
    package = [f"--repository={tmp_path / 'repository'}", "--model=m"]
    partition = ["partition", batch_model_dir("recommender"), *package, "--max-shard-bytes=1GiB", "--split=*"]
    refused(2, "got --batch none, expected --batch auto", *partition, "--batch-cost-gate=off")
    partition = ["partition", batch_model_dir("recommender"), *package, "--max-shard-bytes=1GiB"]
    made = tessera(*partition, "--batch=auto", "--batch-cost-gate=off", "-o", "json")
    assert made.returncode == 0, made.stderr
    [region] = json.loads(made.stdout)["batching"]["regions"]
    assert (region["name"], region["inserted"]) == ("serving_default", True)
    same = tessera("verify", *package, f"--saved-model={batch_model_dir('recommender')}", "--samples=3")
    assert same.returncode == 0, same.stdout + same.stderr


def test_a_model_that_has_the_pair_already_can_be_partitioned(tmp_path: Path) -> None:
    """TensorFlow did not know its ops: the command had not loaded them."""
    model = tmp_path / "model"
    script = (
        "import sys, tensorflow as tf, batching\n"
        "module = tf.Module()\n"
        "@tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name='x')])\n"
        "def serve(x):\n"
        "    x, token = batching.batch(x, name='double')\n"
        "    return {'y': batching.unbatch(x * 2.0, token)}\n"
        "module.serve = serve\n"
        "tf.saved_model.save(module, sys.argv[1], signatures=serve)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(model)], check=True, capture_output=True, timeout=120)
    command = [sys.executable, "-m", "admin", "partition", str(model), f"--repository={tmp_path / 'repository'}"]
    command += ["--model=m", "--version=1", "--max-shard-bytes=1MiB"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
