"""Child processes that never outlive their parent.

Each child gets a process group of its own (Ctrl-C in the terminal reaches only the parent, which then ends the
children in order) and PR_SET_PDEATHSIG (the kernel kills it when the parent dies in any way).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tessera.errors import DeadlineExceededError, UnavailableError

_LAUNCH = str(Path(__file__).with_name("launch.py"))


@dataclass
class Child:
    """One process: its name for messages, its log file, and the handle."""

    name: str
    log_path: Path
    process: subprocess.Popen[bytes]

    def check_running(self) -> None:
        """Raise UnavailableError with the end of the log if the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise UnavailableError(
                f"{self.name} ended with exit code {code}; the end of {self.log_path}:\n{self.tail()}"
            )

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-lines:])


@dataclass
class ChildGroup:
    """Starts children and ends them in reverse order of their start."""

    log_dir: Path
    _children: list[Child] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        cpus: frozenset[int] | None = None,
    ) -> Child:
        """Start `command` with its output in `<log_dir>/<name>.log`, on the given cores only."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        log_path = self.log_dir / f"{name}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                bound_to_parent(command, cpus),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
                process_group=0,
            )
        child = Child(name, log_path, process)
        self._children.append(child)
        return child

    @property
    def children(self) -> tuple[Child, ...]:
        """All children, in the order of their start."""
        return tuple(self._children)

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ask each child to end (SIGTERM), the last started first; kill it after `timeout_s`."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()
        self._children.clear()


def bound_to_parent(command: Sequence[str], cpus: frozenset[int] | None = None) -> list[str]:
    """Return the command line that runs `command` on the cores `cpus` (none: all) until this process ends."""
    cores = ",".join(str(cpu) for cpu in sorted(cpus or ()))
    return [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), cores, *command]


def fast_allocator() -> dict[str, str]:
    """Return the environment that gives a process tcmalloc, where it is installed.

    A request makes many small allocations on one thread and frees them on another, which glibc does less well. An
    LD_PRELOAD that is set already is left alone.
    """
    libraries = sorted(Path("/usr/lib").glob("*-linux-gnu/libtcmalloc_minimal.so.4"))
    return {"LD_PRELOAD": str(libraries[0])} if libraries and "LD_PRELOAD" not in os.environ else {}


def wait_until(what: str, ready: Callable[[], bool], children: Sequence[Child], timeout_s: float) -> None:
    """Poll `ready` until it holds.

    Raises:
        UnavailableError: one of `children`, which have to make it true, ended meanwhile.
        DeadlineExceededError: `timeout_s` passed; names `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        for child in children:
            child.check_running()
        if time.monotonic() > deadline:
            logs = ", ".join(str(child.log_path) for child in children)
            raise DeadlineExceededError(f"{what} within {timeout_s:.0f} s: did not happen; logs: {logs}")
        time.sleep(0.02)
