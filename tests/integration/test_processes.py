"""Child processes: they end in order, are killed when they do not, and never outlive their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from admin.processes import ChildGroup, fast_allocator, wait_until
from tessera.errors import DeadlineExceededError, UnavailableError

pytestmark = pytest.mark.integration

_TIMEOUT_S = 20.0


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_children_end_in_the_reverse_order_of_their_start(tmp_path: Path) -> None:
    group = ChildGroup(tmp_path / "logs")
    ended = tmp_path / "ended"
    for name in ("etcd", "server", "router"):
        on_term = f'trap "echo {name} >> {ended}; exit 0" TERM; touch {tmp_path / name}; while :; do sleep 0.02; done'
        group.start(name, _shell(on_term))
    names = [child.name for child in group.children]
    pids = [child.process.pid for child in group.children]
    wait_until("traps are set", lambda: all((tmp_path / n).exists() for n in names), group.children, _TIMEOUT_S)
    group.stop()
    assert ended.read_text().split() == ["router", "server", "etcd"]
    assert all(_gone(pid) for pid in pids)
    assert group.children == ()
    group.stop()  # a second time does nothing


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    group = ChildGroup(tmp_path)
    child = group.start("stubborn", _shell('trap "" TERM; echo set; while :; do sleep 0.02; done'))
    wait_until("the trap is set", lambda: "set" in child.tail(), group.children, _TIMEOUT_S)
    group.stop(timeout_s=0.1)
    assert child.process.returncode == -signal.SIGKILL


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib; from admin.processes import ChildGroup\n"
        f"group = ChildGroup(pathlib.Path({str(tmp_path)!r}))\n"
        "print(group.start('sleeper', ['sleep', '1000']).process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    deadline = time.monotonic() + _TIMEOUT_S
    while not _gone(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_ctrl_c_in_the_terminal_reaches_the_parent_only(tmp_path: Path) -> None:
    group = ChildGroup(tmp_path)
    try:
        child = group.start("sleeper", ["sleep", "1000"])
        assert os.getpgid(child.process.pid) != os.getpgid(0)
    finally:
        group.stop()


def test_a_child_that_ended_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    group = ChildGroup(tmp_path)
    try:
        child = group.start("server-0", _shell("echo first; echo no such blob >&2; exit 7"))
        child.process.wait(_TIMEOUT_S)
        with pytest.raises(UnavailableError) as caught:
            wait_until("it serves", lambda: False, group.children, _TIMEOUT_S)
        assert "server-0 ended with exit code 7" in caught.value.message
        assert "no such blob" in caught.value.message
    finally:
        group.stop()


def test_what_does_not_happen_in_time_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceededError, match="the moon rises within 0 s: did not happen"):
        wait_until("the moon rises", lambda: False, (), 0.01)


def test_cores_and_environment_are_those_that_were_asked_for(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    group = ChildGroup(tmp_path)
    try:
        child = group.start(
            "reader", _shell('grep Cpus_allowed_list /proc/self/status; echo "$COLOUR"'),
            environ={"COLOUR": "red"}, cpus=frozenset({core}),
        )  # fmt: skip
        child.process.wait(_TIMEOUT_S)
        assert child.tail().split() == ["Cpus_allowed_list:", str(core), "red"]
    finally:
        group.stop()


def test_an_allocator_that_is_set_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/some/library.so")
    assert fast_allocator() == {}
