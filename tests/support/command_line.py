"""Runs the `tessera` command as a user does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from admin.cli import main

TIMEOUT_S = 60.0


def tessera(
    *arguments: object, timeout_s: float = TIMEOUT_S, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "admin", *(str(argument) for argument in arguments)]
    # Other tests set this for the sake of their own output; users' shells do not.
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin, env=environ
    )


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def tessera_here(*arguments: str) -> Done:
    """Run `tessera` in this process: starting one for each command would be most of these tests' time."""
    deadline_s = time.monotonic() + 30
    while True:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
        # A command gives etcd 2 s to take its connection; a machine that is busy with other things may take longer.
        if "etcd: no connection" not in err.getvalue() or time.monotonic() > deadline_s:
            return Done(code, out.getvalue(), err.getvalue())


def refused(code: int, says: str, *arguments: object) -> None:
    """Run the command, which has to fail with `code` and a message that contains `says` and is no traceback."""
    done = tessera(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


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
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
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
        deadline = time.monotonic() + TIMEOUT_S
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


def damage(path: Path) -> None:
    """Flip one bit of a blob, which is read-only."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
