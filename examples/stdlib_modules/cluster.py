"""Runs the `tessera` command the way a user would, and ends whatever it started."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin.processes import ChildGroup, wait_until

# The `tessera` command of this very interpreter, whether its script is on the PATH or not.
_TESSERA = (sys.executable, "-m", "admin")
_STEP_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Cluster:
    """What `tessera up` says about itself when it is ready: addresses, and the pids by role."""

    router: str
    etcd: str
    server_pids: dict[str, int]
    pids: list[int]


@dataclass(frozen=True)
class Memory:
    """What the kernel says about a process's memory, bytes; `limit_bytes` is what its address space may reach."""

    resident_bytes: int
    mapped_bytes: int
    limit_bytes: int | None


def run(arguments: Sequence[str]) -> None:
    """Run `tessera …` in the foreground; its output goes to the terminal.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took longer than ten minutes; it was killed.
    """
    sys.stdout.flush()
    subprocess.run([*_TESSERA, *arguments], check=True, timeout=_STEP_TIMEOUT_S, stderr=sys.stderr)


@contextlib.contextmanager
def running(arguments: Sequence[str], log_dir: Path) -> Iterator[Cluster]:
    """Run `tessera up …` for the time of a `with` block.

    Everything that it started is gone afterwards, however the block ends; also if this process is killed.

    Raises:
        tessera.errors.UnavailableError: it ended before it was ready; the message has the end of its log.
        tessera.errors.DeadlineExceededError: it was not ready within five minutes.
    """
    ready_file = log_dir / "ready.json"
    ready_file.unlink(missing_ok=True)
    group = ChildGroup(log_dir)
    try:
        command = [*_TESSERA, "up", *arguments, "--ready-file", str(ready_file)]
        child = group.start("tessera-up", command)
        wait_until("tessera up is ready", ready_file.exists, (child,), _START_TIMEOUT_S)
        yield parse_ready(json.loads(ready_file.read_text()))
    finally:
        group.stop(timeout_s=60.0)


def parse_ready(ready: dict[str, Any]) -> Cluster:
    """Return the content of a ready file; a role's pids may be one number, a list, or numbers by name."""
    pids = ready["pids"]
    servers = {name: _numbers(value)[0] for name, value in pids.get("servers", {}).items()}
    return Cluster(ready["router"], ready.get("etcd") or "", servers, _numbers(pids))


def memory(pid: int) -> Memory:
    """Return the memory of a process from /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    limits = Path(f"/proc/{pid}/limits").read_text()
    return parse_memory(status, limits)


def parse_memory(status: str, limits: str) -> Memory:
    """Return what the texts of /proc/<pid>/status and /proc/<pid>/limits say."""

    def field_bytes(name: str) -> int:
        match = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert match, f"/proc/<pid>/status has no {name}"
        return int(match[1]) * 1024

    limit = re.search(r"^Max address space\s+(\d+|unlimited)", limits, re.MULTILINE)
    assert limit, "/proc/<pid>/limits has no Max address space"
    return Memory(field_bytes("VmRSS"), field_bytes("VmSize"), None if limit[1] == "unlimited" else int(limit[1]))


def _numbers(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [number for part in parts for number in _numbers(part)]
