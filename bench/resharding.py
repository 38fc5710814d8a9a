"""Live changes of a large table: what moves, how fast, and what requests and memory notice of it."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

from admin import changes
from bench import large_package
from bench.cluster import Cluster, Load, running
from bench.context import Context, say
from bench.flips import measure_flips
from bench.report import Row
from placement.connect import EtcdSettings, open_etcd
from placement.keys import Keys
from tessera.repository import Repository

_TABLE_BYTES, _QUICK_TABLE_BYTES = 3 << 30, 256 << 20
_QUIET_S = 6.0
_MEMORY_POLL_S = 0.02
_FLIPS, _QUICK_FLIPS = 10, 3


def _sizes(context: Context) -> tuple[int, int]:
    quick = context.durations.rounds == 1
    return (_QUICK_TABLE_BYTES, _QUICK_FLIPS) if quick else (_TABLE_BYTES, _FLIPS)


def reshard(context: Context) -> list[Row]:
    """4 → 5 → 4 servers with directories of their own, under load; then `cp` of the same blobs under the same load."""
    table_bytes, _ = _sizes(context)
    rows = []
    with running(context, 4, table_bytes) as cluster:
        cluster.add_server("server-4")
        for name, flag in (("add", "--add=server-4"), ("remove", "--remove=server-0")):
            say(f"reshard {flag} of {table_bytes >> 20} MiB under load")
            rows += _reshard(context, cluster, name, flag)
    return rows


def _reshard(context: Context, cluster: Cluster, name: str, flag: str) -> list[Row]:
    names = [f"server-{number}" for number in range(5)]
    before = {server: cluster.blobs(server) for server in names}
    load = Load(cluster.target())
    load.start()
    try:
        quiet_s = time.time()
        time.sleep(_QUIET_S)
        states_s = {"BEGIN": time.time(), **cluster.tessera("reshard", "start", large_package.MODEL, flag, "--yes")}
        end_s = time.time()
        moved = [file for server in names for file in cluster.blobs(server) - before[server]]
        moved_bytes = sum(file.stat().st_size for file in moved)
        copy_s = _copy(context, moved)
    finally:
        load.stop()
    cluster.target()  # still right
    staging_s = states_s["PREPARED"] - states_s["PREPARING"]
    return [
        Row(
            name=f"reshard_{name}_moved",
            value=moved_bytes,
            unit="bytes fetched",
            baseline="the share of one of five servers",
            baseline_value=_table_bytes(cluster) / 5,
            goal=1.1,
            higher_is_better=False,
        ),
        Row(
            name=f"reshard_{name}_rate",
            value=moved_bytes / staging_s / 1e6,
            unit="MB/s",
            baseline="cp and sync of the same files under the same load",
            baseline_value=moved_bytes / copy_s / 1e6,
            goal=0.7,
            detail={"staging_s": round(staging_s, 2), "whole_s": round(end_s - states_s["BEGIN"], 2)},
        ),
        Row(
            name=f"reshard_{name}_p99",
            value=load.p99_us(states_s["BEGIN"], end_s),
            unit="µs p99 at 500 requests/s, none failed",
            baseline="before",
            baseline_value=load.p99_us(quiet_s, states_s["BEGIN"]),
            goal=1.5,
            higher_is_better=False,
        ),
    ]


def _table_bytes(cluster: Cluster) -> int:
    return sum(Repository(cluster.local.repository).read_manifest(large_package.MODEL, 1).blob_sizes().values())


def _copy(context: Context, files: list[Path]) -> float:
    """Return the seconds that `cp` and `sync` of `files` take."""
    target = context.work_dir / "copied"
    subprocess.run(["rm", "-rf", str(target)], check=True, timeout=600)
    target.mkdir()
    begin_s = time.monotonic()
    for program in (["cp", "-t", str(target)], ["sync"]):
        names = files if program[0] == "cp" else [target / file.name for file in files]
        subprocess.run([*program, *map(str, names)], check=True, timeout=600)
    taken_s = time.monotonic() - begin_s
    subprocess.run(["rm", "-rf", str(target)], check=True, timeout=600)
    return taken_s


def rollout(context: Context) -> list[Row]:
    """A version that changes 1 % of the buckets: bytes, memory at the peak, and how fast routers take the flip."""
    table_bytes, flips = _sizes(context)
    with running(context, 4, table_bytes, "--populate") as cluster:
        names = [f"server-{number}" for number in range(4)]
        before = {server: cluster.blobs(server) for server in names}
        memory_bytes = cluster.resident_bytes()
        say(f"rollout of a version that changes {large_package.CHANGED_BUCKETS} of {large_package.BUCKETS} buckets")
        peak_bytes = _peak_of_rollout(cluster)
        moved_bytes = sum(file.stat().st_size for server in names for file in cluster.blobs(server) - before[server])
        say(f"{flips} flips from one version to the other")
        flips_ms = [1e3 * seconds for seconds in asyncio.run(_flips(cluster, flips))]
    changed_bytes = table_bytes * large_package.CHANGED_BUCKETS / large_package.BUCKETS
    return [
        Row(
            name="rollout_moved",
            value=moved_bytes,
            unit="bytes fetched",
            baseline="what the version changed",
            baseline_value=changed_bytes,
            goal=1.1,
            higher_is_better=False,
        ),
        Row(
            name="rollout_peak_memory",
            value=peak_bytes,
            unit="bytes in memory at the peak, all servers",
            baseline="before",
            baseline_value=memory_bytes,
            goal=1.05,
            higher_is_better=False,
        ),
        Row(
            name="rollout_flip_p99_ms",
            value=float(np.percentile(flips_ms, 99)),
            unit="ms from the begin of the transaction to the end of the router's first answer of the new version",
            goal=20.0,
            goal_on="value",
            higher_is_better=False,
            detail={"p50_ms": round(statistics.median(flips_ms), 2), "flips": float(len(flips_ms))},
        ),
    ]


def _peak_of_rollout(cluster: Cluster) -> int:
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(_MEMORY_POLL_S):
            peak[0] = max(peak[0], cluster.resident_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        cluster.tessera("model", "rollout", large_package.MODEL, "2", "--yes")
    finally:
        stop.set()
        watching.join()
    return max(peak[0], cluster.resident_bytes())


async def _flips(cluster: Cluster, count: int) -> list[float]:
    store = open_etcd(EtcdSettings((cluster.local.etcd_endpoint,)))
    keys = Keys(cluster.local.cluster)
    try:
        return await measure_flips(
            store,
            keys,
            large_package.MODEL,
            cluster.local.router_address,
            large_package.request(cluster.table_bytes).wire,
            count,
            lambda request: changes.plan(
                store, keys, Repository(cluster.local.repository), large_package.MODEL, request,
                kind="rollout", command="flip",
            ),
        )  # fmt: skip
    finally:
        await store.close()


CASES = {"reshard": reshard, "rollout": rollout}
