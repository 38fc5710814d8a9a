"""Disks that are full, memory that is not there, clocks that are wrong, more requests than can be answered."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.command_line import tessera_here
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster, child
from support.resharding import found, reshard_command, wait_for
from support.running import ClusterFactory
from support.small_model import MODEL, SmallModel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PATIENT_S = 120.0
_MIB = 1 << 20
_KEPT_FREE_MIB = 64
"""What a server leaves free on the file system of its blobs."""


@contextlib.contextmanager
def _tmpfs(directory: Path, size_mib: int) -> Iterator[None]:
    """Mount a file system of this size; the test is skipped where that is not allowed."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tessera-test", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted, which needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, timeout=30)


@contextlib.contextmanager
def _growing(cluster: ProxiedCluster) -> Iterator[subprocess.Popen[str]]:
    """A command that adds server-2, and waits until it holds its part; it is gone in the end."""
    command = [sys.executable, "-m", "admin", *reshard_command(cluster, "start", "--add=server-2")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _check_that_it_waits_is_given_up_and_done_later(
    cluster: ProxiedCluster, load: OpenLoad, problem: str, lift: contextlib.ExitStack
) -> None:
    """Add server-2, which cannot have its part because of `problem`; give up; add it after that was lifted."""
    before = found(cluster)
    with _growing(cluster) as growing:
        wait_for(cluster, lambda state: problem in state.members["server-2"].error, PATIENT_S)
        load.wait_for_answers(50)
        growing.kill()
        growing.wait(30)
    # The lock of the command that was killed is free after its lease.
    aborted = tessera_here(*reshard_command(cluster, "abort"))
    assert aborted.returncode == 0, aborted.stderr
    after = wait_for(cluster, lambda state: not state.members["server-2"].error, PATIENT_S)
    assert after.current == before.current
    assert after.members["server-2"].bytes_used == 0
    lift.close()
    grown = tessera_here(*reshard_command(cluster, "start", "--add=server-2"))
    assert grown.returncode == 0, grown.stderr
    assert found(cluster).members["server-2"].bytes_used > 0


def _limit(cluster: ProxiedCluster, kind: int, limit: int, stack: contextlib.ExitStack) -> None:
    """Limit server-2 until `stack` is closed."""
    pid = child(cluster, "server-2").process.pid
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    stack.callback(lambda: resource.prlimit(pid, kind, before))


def _add_server(cluster: ProxiedCluster) -> None:
    cluster.start_server("server-2")
    wait_for(cluster, lambda state: "server-2" in state.members and MODEL in state.members["server-2"].epochs)


def test_a_disk_that_is_full_before_staging(
    start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path
) -> None:
    with _tmpfs(tmp_path / "server-2.blobs", _KEPT_FREE_MIB + 1), contextlib.ExitStack() as lift:
        cluster = start_cluster(make=ProxiedCluster, shards=2, server_blob_dirs=True)
        assert isinstance(cluster, ProxiedCluster)
        _add_server(cluster)
        ballast = tmp_path / "server-2.blobs" / "ballast"
        ballast.write_bytes(bytes(2 * _MIB))
        lift.callback(ballast.unlink)
        with OpenLoad({"router": cluster.router_address}, small_model) as load:
            with load.fault("19", "the disk of the server that stages is full; abort; again with room") as fault:
                _check_that_it_waits_is_given_up_and_done_later(cluster, load, "disk: ", lift)
                fault.recovered()
            load.wait_for_answers(50)
        assert load.failures == []
        assert list((tmp_path / "server-2.blobs" / "partial").iterdir()) == []
        cluster.stop()  # before its disk goes


def test_writes_that_fail_while_staging(start_cluster: ClusterFactory, small_model: SmallModel, tmp_path: Path) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=2, server_blob_dirs=True)
    assert isinstance(cluster, ProxiedCluster)
    _add_server(cluster)
    with contextlib.ExitStack() as lift, OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        _limit(cluster, resource.RLIMIT_FSIZE, 1000, lift)  # less than a blob has
        with load.fault("19", "every write of the server that stages fails; abort; again when they work") as fault:
            _check_that_it_waits_is_given_up_and_done_later(cluster, load, "File too large", lift)
            fault.recovered()
        load.wait_for_answers(50)
    assert load.failures == []
    assert list((tmp_path / "server-2.blobs" / "partial").iterdir()) == []


def test_memory_that_ends_while_staging(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=2)
    assert isinstance(cluster, ProxiedCluster)
    _add_server(cluster)
    with contextlib.ExitStack() as lift, OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        _limit(cluster, resource.RLIMIT_AS, 32 * _MIB, lift)  # less than it has
        with load.fault("20", "the server that stages gets no more memory; abort; again when it does") as fault:
            _check_that_it_waits_is_given_up_and_done_later(cluster, load, "memory", lift)
            fault.recovered()
        load.wait_for_answers(50)
    assert load.failures == []


def _faked(offset: str) -> Mapping[str, str]:
    """Return the environment of a process whose wall clock is off; the test is skipped where that cannot be had."""
    libraries = sorted(Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    return {"LD_PRELOAD": str(libraries[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def test_clocks_that_are_an_hour_off(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    ahead, behind = dict(_faked("+1h")), dict(_faked("-1h"))
    cluster = start_cluster(
        make=ProxiedCluster, shards=3, replicas=2, environ_of={"router": ahead, "server-0": behind, "server-1": ahead}
    )
    assert isinstance(cluster, ProxiedCluster)
    with OpenLoad({"router": cluster.router_address}, small_model) as load:
        load.wait_for_answers(50)
        with load.fault("23", "clocks of router, servers and command an hour off, either way; a change") as fault:
            for environ, change in ((ahead, "--remove=server-2"), (behind, "--add=server-2")):
                done = subprocess.run(
                    [sys.executable, "-m", "admin", *reshard_command(cluster, "start", change)],
                    capture_output=True, text=True, timeout=PATIENT_S, check=False,
                    env=environ,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
                load.wait_for_answers(50)
            fault.recovered()
    assert load.failures == []


def test_three_times_as_many_requests_as_can_be_answered(
    start_cluster: ClusterFactory, small_model: SmallModel
) -> None:
    # Answers of servers come 200 ms late: what may be in flight, and not this machine, is what limits the router.
    cluster = start_cluster(
        make=ProxiedCluster, proxied=["server-0"], shards=1, router_arguments=("--max-in-flight=16",)
    )
    assert isinstance(cluster, ProxiedCluster)
    cluster.proxies["server-0"].delay(0.2)
    routers = {"router": cluster.router_address}
    with OpenLoad(routers, small_model, rate=70) as load:
        load.wait_for_answers(400)
    peak = _good_per_s(load)
    with OpenLoad(routers, small_model, rate=3 * peak) as load:
        with load.fault("26", "three times as many requests as can be answered") as fault:
            load.wait_for_answers(1500)
        goodput = _good_per_s(load)
        fault.note = f"{goodput / peak:.0%} of the answers at a load it can just not bear; the rest is refused at once"
    assert not [failure for failure in load.failures if not failure.startswith("RESOURCE_EXHAUSTED")]
    assert goodput > 0.5 * peak  # 0.9 is the aim; this machine may be busy
    cluster.proxies["server-0"].heal()
    with OpenLoad(routers, small_model, rate=20) as load:
        load.wait_for_answers(50)
    assert load.failures == []


def _good_per_s(load: OpenLoad) -> float:
    """Return how many right answers came per second, from the first to the last."""
    ends_s = sorted(sample.due_s + sample.took_s for sample in load.samples if not sample.failure)
    return (len(ends_s) - 1) / (ends_s[-1] - ends_s[0])
