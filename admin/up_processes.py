"""What `tessera up` does with real processes: start, load, wait, end."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from admin.discovery import announce, run_dir, withdraw
from admin.loading import load
from admin.local_cluster import LocalCluster
from admin.progress import say
from admin.serving_client import wait_until_available
from placement.connect import EtcdSettings, open_etcd
from tessera.process import write_ready_file
from tessera.repository import Repository


def run_processes(options: argparse.Namespace, models: dict[str, list[int]], stop: threading.Event) -> None:
    """Start the processes, load `models`, wait for `stop` or KeyboardInterrupt, end everything.

    Raises:
        FailedPreconditionError: there is no etcd on this machine, or the servers cannot hold the models.
        UnavailableError: a process ended by itself before all served; with the end of its log.
        DeadlineExceededError: something did not start or load in time; says what.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"up-{options.cluster}-", dir=run_dir()))
    pollers = (f"--pollers={options.pollers}",)
    cluster = LocalCluster(
        repository=options.repository.resolve(),
        directory=directory,
        shards=options.shards,
        cluster=options.cluster,
        router_listen=f"127.0.0.1:{options.port}",
        server_memory_bytes=options.server_memory_bytes,
        router_cpus=options.router_cpus,
        server_cpus=options.server_cpus,
        etcd_cpus=options.etcd_cpus,
        router_arguments=(
            f"--retry-delay-s={options.retry_delay_s}",
            f"--busy-poll-us={options.busy_poll_us}",
            *batching_flags(options),
            *pollers,
        ),
        server_arguments=pollers,
    )
    keep_logs = True
    try:
        _step("starting etcd", cluster.start_control_plane)
        _step(f"starting {options.shards} shard servers", cluster.start_servers)
        _step("starting the router", cluster.start_router)
        say(f"loading {', '.join(models)}")
        asyncio.run(_load_while_running(cluster, options, models))
        wait_until_available(cluster.router_address, models, timeout_s=60.0)
        tell_that_it_serves(cluster.describe(), options)
        _wait(stop, cluster)
        keep_logs = False
    except KeyboardInterrupt:
        keep_logs = False
        raise
    finally:
        say("stopping")
        withdraw(options.cluster)
        cluster.stop()
        if keep_logs:
            say(f"logs are in {cluster.children.log_dir}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def batching_flags(options: argparse.Namespace) -> list[str]:
    """Return the router's flags for those of `tessera up` that are about batching and metrics."""
    flags = [
        f"--enable-batching={'true' if options.enable_batching else 'false'}",
        f"--max-in-flight-batches={options.max_in_flight_batches}",
    ]
    if options.batching_policy_file:
        flags.append(f"--batching-policy-file={options.batching_policy_file}")
    if options.batching_parameters_file:
        flags.append(f"--batching-parameters-file={options.batching_parameters_file}")
    if options.metrics_port is not None:
        flags.append(f"--metrics-port={options.metrics_port}")
    return flags


async def _load_while_running(cluster: LocalCluster, options: argparse.Namespace, models: dict[str, list[int]]) -> None:
    """Load `models`, unless a process ends meanwhile: waiting for it to come back would be in vain."""
    tasks = {
        asyncio.create_task(_load_all(cluster.etcd_endpoint, options, models)),
        asyncio.create_task(_until_one_ends(cluster)),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_one_ends(cluster: LocalCluster) -> None:
    while True:
        for child in cluster.children.children:
            child.check_running()
        await asyncio.sleep(0.2)


async def _load_all(endpoint: str, options: argparse.Namespace, models: dict[str, list[int]]) -> None:
    store = open_etcd(EtcdSettings((endpoint,)))
    try:
        for model, versions in models.items():
            await load(
                store,
                options.cluster,
                Repository(options.repository),
                model,
                versions,
                replicas=options.replicas,
                timeout_s=options.timeout_s,
                min_servers=options.shards,
                say=say,
            )
    finally:
        await store.close()


def tell_that_it_serves(content: dict[str, Any], options: argparse.Namespace) -> None:
    """Tell other verbs, whoever waits for --ready-file, and the user."""
    announce(options.cluster, content)
    write_ready_file(options.ready_file, content)
    say(f"serving on {content['router']}; Ctrl-C ends it")


def _wait(stop: threading.Event, cluster: LocalCluster) -> None:
    """Wait for a signal; tell once about each process that ends meanwhile."""
    told: set[str] = set()
    while not stop.wait(0.5):
        for child in cluster.ended():
            if child.name not in told:
                told.add(child.name)
                say(f"{child.name} ended with exit code {child.process.returncode}; log: {child.log_path}")


def _step(what: str, action: Callable[[], None]) -> None:
    say(what)
    action()
