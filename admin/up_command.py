"""`tessera up`: a cluster on this machine until Ctrl-C, of real processes with a real etcd, or all in one process."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from admin.arguments import byte_size
from admin.discovery import running_cluster, withdraw
from admin.loading import wanted_models
from admin.progress import say
from admin.up_processes import run_processes, tell_that_it_serves
from tessera.errors import AlreadyExistsError, InvalidArgumentError, UnavailableError
from tessera.repository import Repository
from tessera.telemetry import set_up_logging

_SIGNAL_POLL_S = 0.5


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("up", help="run a cluster on this machine until Ctrl-C", description=__doc__)
    parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="packages and blobs")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME[:VERSION,…]",
        help="serve only this model, at these versions (default: all models, latest version)",
    )
    parser.add_argument("--shards", type=int, default=2, help="number of shard servers (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=1, help="servers that hold each slot (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8500, help="port of the router; 0: any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--in-process", action="store_true", help="everything in this process with an in-memory store instead of etcd"
    )
    parser.add_argument(
        "--server-memory-bytes",
        type=byte_size,
        default=0,
        metavar="BYTES",
        help="address space that each shard server may use, for example 512MiB (default: no limit)",
    )
    parser.add_argument(
        "--busy-poll-us",
        type=int,
        default=0,
        metavar="MICROSECONDS",
        help="how long the router looks for answers of shard servers before it sleeps (default: %(default)s)",
    )
    parser.add_argument(
        "--retry-delay-s",
        type=float,
        default=0.05,
        help="silence of a shard server after which a replica is asked too, seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--pollers", type=int, default=0, help="threads that serve in each process (default: one per core)"
    )
    _add_batching(parser)
    for part in ("router", "server", "etcd"):
        parser.add_argument(
            f"--{part}-cpus",
            type=cpu_set,
            default=frozenset(),
            metavar="LIST",
            help=f"cores for the {part} processes, for example 0,1 (default: all)",
        )
    parser.add_argument("--cluster", default="default", help="name of the cluster (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="for loading the models (default: %(default)s)")
    parser.add_argument(
        "--ready-file", default="", metavar="FILE", help="file that gets addresses and pids as JSON once all serves"
    )
    parser.set_defaults(run=run)


def _add_batching(parser: argparse.ArgumentParser) -> None:
    files = parser.add_mutually_exclusive_group()
    files.add_argument(
        "--batching-policy-file",
        default="",
        metavar="FILE",
        help="TOML file with the policy of each batched region; read again when it changes",
    )
    files.add_argument(
        "--batching-parameters-file",
        default="",
        metavar="FILE",
        help="TensorFlow Serving's batching parameters instead; read again when it changes",
    )
    files.add_argument(
        "--no-batching",
        dest="enable_batching",
        action="store_false",
        help="run the regions that models mark for batching request by request",
    )
    parser.add_argument(
        "--max-in-flight-batches",
        type=int,
        default=0,
        metavar="N",
        help="batches that a device runs at once; 0: one or two, whichever is faster (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="port of 127.0.0.1 where the router serves metrics for Prometheus; 0: any free one (default: none)",
    )


def cpu_set(text: str) -> frozenset[int]:
    """Parse `0,1`; for argparse."""
    try:
        cores = frozenset(int(part) for part in text.split(","))
    except ValueError:
        cores = frozenset()
    if not cores or min(cores) < 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected core numbers such as 0,1")
    return cores


def run(options: argparse.Namespace) -> None:
    """Start, load, wait for a signal, end everything."""
    if running_cluster(options.cluster):
        raise AlreadyExistsError(
            f"cluster {options.cluster!r} is up already; end it first or give --cluster another name"
        )
    _check(options)
    models = wanted_models(Repository(options.repository), options.model)
    stop = _stop_on_signals()
    try:
        (_run_in_process if options.in_process else run_processes)(options, models, stop)
    except KeyboardInterrupt:  # the usual end
        return


def _check(options: argparse.Namespace) -> None:
    """Refuse at once what would fail only after processes were started.

    Raises:
        InvalidArgumentError: a number is out of its range, or a policy file is wrong; names the flag.
        UnavailableError: the router's port is taken.
    """
    from router.batch_policies import check_policy_file  # here: only this verb needs the parsers of policies

    if options.shards < 0:
        raise InvalidArgumentError(f"--shards: got {options.shards}, expected at least 0")
    if not 1 <= options.replicas <= max(1, options.shards):
        raise InvalidArgumentError(
            f"--replicas: got {options.replicas}, expected 1 to {max(1, options.shards)}, the number of --shards"
        )
    if not 0 <= options.port < 1 << 16:
        raise InvalidArgumentError(f"--port: got {options.port}, expected 0 to 65535")
    if options.max_in_flight_batches < 0:
        raise InvalidArgumentError(f"--max-in-flight-batches: got {options.max_in_flight_batches}, expected at least 0")
    if options.metrics_port is not None and not 0 <= options.metrics_port < 1 << 16:
        raise InvalidArgumentError(f"--metrics-port: got {options.metrics_port}, expected 0 to 65535")
    check_policy_file(options)
    if options.in_process and options.server_memory_bytes:
        raise InvalidArgumentError("--server-memory-bytes: cannot be given with --in-process, which has one process")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended are no obstacle
        try:
            probe.bind(("127.0.0.1", options.port))
        except OSError as error:
            raise UnavailableError(
                f"--port {options.port}: {error.strerror}; give another one, or 0 for any that is free"
            ) from None


def _run_in_process(options: argparse.Namespace, models: dict[str, list[int]], stop: threading.Event) -> None:
    set_up_logging(level="WARNING")
    # Read by TensorFlow's libraries when they are loaded: their news (1 hides INFO) is not for whoever runs `up`.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    from admin.in_process import InProcessCluster  # brings the native core and TensorFlow's libraries

    say(f"loading {', '.join(models)}")
    cluster = InProcessCluster(
        options.repository,
        shards=options.shards,
        replicas=options.replicas,
        listen=f"127.0.0.1:{options.port}",
        models=models,
        cluster=options.cluster,
        retry_delay_s=options.retry_delay_s,
        pollers=options.pollers,
        enable_batching=options.enable_batching,
        batching_policy_file=options.batching_policy_file,
        batching_parameters_file=options.batching_parameters_file,
        max_in_flight_batches=options.max_in_flight_batches,
        metrics_port=options.metrics_port,
        timeout_s=options.timeout_s,
        say=say,
    )
    try:
        with cluster:
            tell_that_it_serves(cluster.describe(), options)
            while not stop.wait(_SIGNAL_POLL_S):  # a signal may wake a thread of the native core instead of this one
                pass
    finally:
        withdraw(options.cluster)


def _stop_on_signals() -> threading.Event:
    """Return an event that the first SIGINT or SIGTERM sets; it also interrupts what runs. Later ones are ignored."""
    stop = threading.Event()

    def on_signal(number: int, _: object) -> None:
        if not stop.is_set():
            stop.set()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
