"""What tests of resharding with real processes share."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from admin.local_cluster import LocalCluster
from placement.connect import EtcdSettings, open_etcd
from placement.found import Found, Reader
from placement.keys import Keys
from support.small_model import MODEL
from tessera.errors import DeadlineExceededError, UnavailableError

_KILLER = """
import os, signal, sys
from placement import change
state, number, *arguments = sys.argv[1:]
do = change.ChangeDriver._do

async def do_and_die(self, lock, found, step):
    await do(self, lock, found, step)
    written = (await self._reader.read()).operation
    if written.state.value == state:
        os.kill(os.getpid(), int(number))

change.ChangeDriver._do = do_and_die
from admin.cli import main
sys.exit(main(arguments))
"""


def flags(cluster: LocalCluster) -> list[str]:
    """Return what every command needs to reach the cluster."""
    return [f"--etcd={cluster.etcd_endpoint}", f"--cluster={cluster.cluster}"]


def reshard(
    cluster: LocalCluster, verb: str, *arguments: str, repository: Path | None = None, timeout_s: float = 90.0
) -> subprocess.CompletedProcess[str]:
    """Run `tessera reshard` to its end."""
    return run(reshard_command(cluster, verb, *arguments, repository=repository), timeout_s)


def reshard_command(cluster: LocalCluster, verb: str, *arguments: str, repository: Path | None = None) -> list[str]:
    """Return the command line, after `tessera`."""
    package = [f"--repository={repository or cluster.repository}"] if verb in ("plan", "start", "reverse") else []
    yes = ["--yes"] if verb in ("start", "reverse", "abort") else []
    return ["reshard", verb, MODEL, *arguments, *package, *yes, *flags(cluster)]


def run(command: list[str], timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
    """Run `tessera` with `command`."""
    return subprocess.run(
        [sys.executable, "-m", "admin", *command], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def run_and_die_after(state: str, command: list[str], timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
    """Run `tessera` with `command`; it is killed with signal 9 right after it wrote that the operation is `state`."""
    return subprocess.run(
        _with_signal_after(state, signal.SIGKILL, command),
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def stopping_after(state: str, command: list[str]) -> subprocess.Popen[str]:
    """Start `tessera` with `command`; it gets SIGSTOP right after it wrote that the operation is `state`."""
    command = _with_signal_after(state, signal.SIGSTOP, command)
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def _with_signal_after(state: str, number: signal.Signals, command: list[str]) -> list[str]:
    return [sys.executable, "-c", _KILLER, state, str(int(number)), *command]


def found(cluster: LocalCluster) -> Found:
    """Read what the store holds of the model."""

    async def read() -> Found:
        store = open_etcd(EtcdSettings(tuple(cluster.etcd_endpoint.split(","))))
        try:
            return await Reader(store, Keys(cluster.cluster), MODEL).read()
        finally:
            await store.close()

    deadline_s = time.monotonic() + 30
    while True:
        try:
            return asyncio.run(read())
        except (UnavailableError, DeadlineExceededError):  # etcd is slow on a machine that has much else to do
            if time.monotonic() > deadline_s:
                raise


def wait_for(cluster: LocalCluster, condition: Callable[[Found], bool], timeout_s: float = 60.0) -> Found:
    """Return what the store holds once `condition` is true of it."""
    deadline_s = time.monotonic() + timeout_s
    state: Found | None = None
    while True:
        with contextlib.suppress(UnavailableError, DeadlineExceededError):  # a busy machine: etcd answers late
            state = found(cluster)
            if condition(state):
                return state
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s; operation: {state and state.operation}"
        time.sleep(0.1)
