"""The verbs that show and change what a cluster serves, on real processes."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from admin.cli import main
from admin.local_cluster import LocalCluster
from admin.serving_client import open_channel
from support.resharding import flags, found, wait_for
from support.running import ClusterFactory
from support.serving import predict
from support.small_model import MODEL, SmallModel
from tessera.errors import InvalidArgumentError, NotFoundError, TesseraError

pytestmark = pytest.mark.integration


@dataclass
class _Done:
    returncode: int
    stdout: str
    stderr: str


def run(words: list[str]) -> _Done:
    """Run `tessera` in this process: a new one for each of some dozens of commands would take a minute."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(words)
    return _Done(code, out.getvalue(), errors.getvalue())


class Verbs:
    """Runs verbs on one cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster

    def __call__(self, *words: str, code: int = 0, says: str = "") -> Any:
        done = run([*words, "-o", "json", *flags(self.cluster)])
        assert done.returncode == code, done.stderr
        assert says in done.stderr, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def text(self, *words: str) -> str:
        done = run([*words, *flags(self.cluster)])
        assert done.returncode == 0, done.stderr
        return done.stdout


def _served(cluster: LocalCluster, model: SmallModel, label: str = "") -> int:
    """Return the version that answers, after a check of the answer."""
    request = model.request()
    if label:
        request.model_spec.version_label = label
    with open_channel(cluster.router_address) as channel:
        answer, version = predict(channel, request)
    assert answer == model.expected[version]
    return version


def _until_served(cluster: LocalCluster, model: SmallModel, wanted: int | type[TesseraError], label: str = "") -> None:
    """Wait until requests get what is wanted: a version, or an error."""

    def is_so(_: object) -> bool:
        try:
            return _served(cluster, model, label) == wanted
        except TesseraError as error:
            if not isinstance(wanted, type) or not isinstance(error, wanted):
                raise
            return True

    wait_for(cluster, is_so)


def test_what_is_served_is_shown_and_changed(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=2, versions=(1,), labels={"stable": 1})
    do = Verbs(cluster)
    package = [f"--repository={cluster.repository}", "--yes"]

    # A canary that gets what the operator gives it, from the moment that it serves.
    first = ["--keep", "--label=canary=2", "--split=1=100", "--request-id=canary-1", *package]
    assert do("model", "rollout", MODEL, "2", *first)["state"] == "DONE"
    assert {_served(cluster, small_model) for _ in range(10)} == {1}
    _until_served(cluster, small_model, 2, "canary")
    epoch = found(cluster).last_epoch
    assert do("model", "rollout", MODEL, "2", *first)["operation"] == "canary-1"  # joins what is done
    assert found(cluster).last_epoch == epoch
    do("model", "rollout", MODEL, "1", "--request-id=canary-1", *package, code=4, says="was used for 'rollout")

    (row,) = do("model", "list")
    assert (row["state"], row["epoch"], row["split"]["percent"]) == ("SERVING", epoch, {"1": 100.0})
    assert [(one["version"], one["labels"]) for one in row["versions"]] == [(1, ["stable"]), (2, ["canary"])]
    done = run(["model", "describe", MODEL, "-o", "yaml", *flags(cluster)])
    described = yaml.safe_load(done.stdout)
    assert [server["state"] for server in described["servers"]] == ["SERVING", "SERVING"]
    assert [router["pinned"] for router in described["routers"]] == [epoch]
    assert "100 % to 1" in do.text("model", "describe", MODEL)

    # Labels and split are changed without a new placement.
    assert not do("model", "label", MODEL, "stable=2", "--dry-run")["changed"]
    do("model", "label", MODEL, "stable=3", "--yes", code=2, says="versions [1, 2]")
    assert do("model", "label", MODEL, "stable=2", "--remove=canary", "--yes")["changed"]
    _until_served(cluster, small_model, 2, "stable")
    _until_served(cluster, small_model, InvalidArgumentError, "canary")
    do("model", "split", MODEL, "1=50", "3=50", "--yes", code=2, says="a share for 3, expected one of: 1, 2, stable")
    assert do("model", "split", MODEL, "stable=100", "--yes")["split"]["percent"] == {"stable": 100.0}
    _until_served(cluster, small_model, 2)
    assert do("model", "split", MODEL, "1=100", "--yes")["changed"]
    _until_served(cluster, small_model, 1)
    assert found(cluster).last_epoch == epoch

    # They stay through a change of placement, and a rollback takes all of it back.
    moved = ["--move=slots=0,to=server-0,from=server-1", f"--repository={cluster.repository}"]
    plan = run(["reshard", "plan", MODEL, *moved, *flags(cluster)])
    back = plan.returncode != 0  # slot 0 is on the other one
    if back:
        moved[0] = "--move=slots=0,to=server-1,from=server-0"
    assert do("reshard", "start", MODEL, *moved, "--yes")["state"] == "DONE"
    assert do("model", "list")[0]["versions"][1]["labels"] == ["stable"]
    assert do("model", "list")[0]["split"]["percent"] == {"1": 100.0}

    shown = do("placement", "show", MODEL, "--slot=0", "--key=users=7", f"--repository={cluster.repository}")
    assert shown["found"][0]["servers"] == ["server-1" if back else "server-0"]
    assert any("users row 7 (bucket 7)" in row["what"] for row in shown["found"])
    diff = do("placement", "diff", MODEL, str(epoch), str(epoch + 1))
    assert (diff["slots_moved"], len(diff["moves"])) == (1, 1)
    history = do("placement", "history", MODEL)
    assert [row["epoch"] for row in history] == [epoch + 1, epoch, 1]
    assert history[1]["command"].startswith(f"rollout {MODEL} 2 --keep")
    do("placement", "show", MODEL, "--epoch=99", code=3, says="no placement of epoch 99")

    # A server that is known before it shows up.
    server = ["server", "add", "server-9", "--domain=zone-9", "--capacity=1GiB", "--weight=2"]
    assert do(*server, "--dry-run")["weight"] == 2
    assert [row["id"] for row in do("server", "list")] == ["server-0", "server-1"]
    do(*server)
    do(*server)  # the same words again
    do(*server, "--cordoned", code=4, says="is known already")
    assert {row["id"]: row["state"] for row in do("server", "list")}["server-9"] == "EXPECTED"
    do("server", "remove", "server-9")

    audit = do("audit", "--since=1h")
    commands = [row["command"].split(" --")[0] for row in audit]
    assert commands[:3] == ["server remove server-9", "server add server-9", f"reshard {MODEL}"]
    assert {f"model label {MODEL} stable=2", f"model split {MODEL} 1=100"} <= set(commands)
    assert {row["model"] for row in do("audit", f"--model={MODEL}")} == {MODEL}


def test_one_request_is_explained(shared_cluster: LocalCluster, small_model: SmallModel) -> None:
    where = [f"--router={shared_cluster.router_address}", f"--cluster={shared_cluster.cluster}"]

    def explain(*words: str) -> Any:
        done = run(["explain", MODEL, *words, "-o", "json", *where])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    inputs = small_model.inputs
    told = explain(json.dumps(inputs), "--version=1")
    assert (told["version"], told["epoch"], told["code"], told["dropped"]) == (1, 1, "OK", 0)
    (lookup,) = told["lookups"]
    users, items = set(inputs["user"]), {item for row in inputs["items"] for item in row}
    assert lookup["rows"] == len(users) + len(items)
    assert lookup["repeats"] == len(inputs["user"]) + sum(map(len, inputs["items"])) - lookup["rows"]
    first = [sub for sub in lookup["sub_requests"] if sub["cause"] == "first"]  # a slow machine may add hedges
    assert sum(sub["tables"].get("users", 0) for sub in first) == len(users)
    assert sum(sub["tables"].get("items", 0) for sub in first) == len(items)
    assert all(sub["rows_bytes"] == sub["rows"] * 32 for sub in first)
    assert {sub["server"] for sub in first} == set(told["servers"]) <= {"server-0", "server-1", "server-2"}
    assert all(sub["address"] and 0 <= sub["started_ms"] <= told["took_ms"] for sub in first)

    assert explain("--random", "--batch=3", "--seed=5")["version"] == 2
    text = run(["explain", MODEL, "--random", *where])
    assert "version 2, OK" in text.stdout
    refused = run(["explain", MODEL, json.dumps(inputs | {"user": [-1] * 16}), "-o", "json", *where])
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (2, "INVALID_ARGUMENT")
    unknown = run(["explain", "other", "--random", *where])
    assert unknown.returncode == 3, unknown.stderr


def test_a_model_is_unloaded_and_loaded_again(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(shards=2, versions=(1, 2))
    do = Verbs(cluster)
    do("model", "unload", "other", "--yes", code=3, says="there is nothing to unload")
    do("model", "unload", MODEL, code=2, says="--yes: needed")
    assert do("model", "unload", MODEL, "--dry-run")["routers"] == 1
    assert _served(cluster, small_model) == 2
    assert do("model", "unload", MODEL, "--yes")["state"] == "DONE"
    _until_served(cluster, small_model, NotFoundError)
    assert all(member.bytes_used == 0 for member in found(cluster).members.values())
    assert do("model", "list") == []
    assert [row["state"] for row in do("model", "list", "--all")] == ["UNLOADED"]
    do("model", "rollout", MODEL, "2", f"--repository={cluster.repository}", code=3, says="has no placement")
    loaded = run(["model", "load", f"{MODEL}:2", f"--repository={cluster.repository}", *flags(cluster)])
    assert loaded.returncode == 0, loaded.stderr
    _until_served(cluster, small_model, 2)
