import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from admin.discovery import announce, run_dir, running_cluster, withdraw
from tessera.errors import TesseraError


@pytest.fixture(autouse=True)
def _private_run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def _announce(content: object) -> None:
    (run_dir() / "up-default.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_directory_is_private() -> None:
    assert run_dir().stat().st_mode & 0o777 == 0o700
    assert run_dir() == run_dir()


def test_a_running_cluster_is_found_by_name() -> None:
    assert running_cluster("default") is None
    content = {"etcd": "127.0.0.1:1", "pids": {"up": os.getpid()}}
    _announce(content)
    assert running_cluster("default") == content
    assert running_cluster("other") is None


def test_what_is_announced_is_found_until_it_is_withdrawn() -> None:
    announce("mine", {"router": "127.0.0.1:8500", "pids": {}})
    assert running_cluster("mine") == {"router": "127.0.0.1:8500", "pids": {"up": os.getpid()}}
    assert running_cluster("default") is None
    withdraw("mine")
    withdraw("mine")
    assert running_cluster("mine") is None


def test_what_a_dead_process_left_is_not_there() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    _announce({"pids": {"up": process.pid}})
    assert running_cluster("default") is None


@pytest.mark.parametrize("content", ["", "{", {}, {"pids": {}}, [], {"pids": {"up": "7"}}, {"pids": None}])
def test_what_was_cut_off_or_is_something_else_is_not_there(content: object) -> None:
    _announce(content)
    assert running_cluster("default") is None


def test_a_directory_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_dir()
    other = path.stat().st_uid + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    path.rename(path.with_name(f"tessera-{os.getuid()}"))
    with pytest.raises(TesseraError, match="belongs to another user"):
        run_dir()


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"tessera-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(TesseraError, match="symbolic link"):
        run_dir()
