"""Trains with ParameterServerStrategy, here on tasks of this machine, and writes a SavedModel."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from admin.processes import ChildGroup
from admin.quiet import quiet_tensorflow
from tessera.errors import InvalidArgumentError, TesseraError

_GENRES = 8  # as in model.py, which imports TensorFlow
_PORTS = range(20_000, 30_000)  # the kernel gives none of these to outgoing connections
_STEPS_TOLD = 100

Tasks = dict[str, list[str]]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m examples.train_to_serve.train", description=__doc__)
    made.add_argument("output", type=Path, metavar="DIR", help="directory to write, such as models/films/1")
    made.add_argument("--ps", type=int, default=2, help="parameter servers to start (default: %(default)s)")
    made.add_argument("--workers", type=int, default=2, help="workers to start (default: %(default)s)")
    made.add_argument(
        "--cluster",
        type=json.loads,
        metavar="JSON",
        help='tasks that run already: {"worker": [HOST:PORT, …], "ps": [HOST:PORT, …]}',
    )
    made.add_argument("--users", type=int, default=200_000, help="rows (default: %(default)s)")
    made.add_argument("--films", type=int, default=20_000, help="rows, a multiple of 8 (default: %(default)s)")
    made.add_argument("--dim", type=int, default=32, help="numbers in a row (default: %(default)s)")
    made.add_argument("--steps", type=int, default=1500, help="batches in all (default: %(default)s)")
    made.add_argument("--batch", type=int, default=4096, help="examples in a batch (default: %(default)s)")
    made.add_argument("--rate", type=float, default=0.5, help="of learning (default: %(default)s)")
    return made


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be trained.

    Raises:
        InvalidArgumentError: an option is out of its range; names it.
    """
    if options.output.exists():
        raise InvalidArgumentError(f"{options.output}: exists; expected a new directory, such as the next version's")
    for name in ("ps", "workers", "users", "films", "dim", "steps", "batch"):
        if getattr(options, name) < 1:
            raise InvalidArgumentError(f"--{name}: got {getattr(options, name)}, expected at least 1")
    if options.films % _GENRES:
        raise InvalidArgumentError(f"--films: got {options.films}, expected a multiple of {_GENRES}")
    if options.cluster is not None and not (
        isinstance(options.cluster, dict) and options.cluster.get("worker") and options.cluster.get("ps")
    ):
        raise InvalidArgumentError('--cluster: expected {"worker": [HOST:PORT, …], "ps": [HOST:PORT, …]}')


@contextlib.contextmanager
def local_tasks(ps: int, workers: int) -> Iterator[Tasks]:
    """Start parameter servers and workers on this machine; they are gone after the `with` block."""
    ports = _free_ports(ps + workers)
    addresses = [f"localhost:{port}" for port in ports]
    tasks = {"ps": addresses[:ps], "worker": addresses[ps:]}
    with tempfile.TemporaryDirectory(prefix="train-to-serve-") as logs:
        group = ChildGroup(Path(logs))
        try:
            for job, members in tasks.items():
                for index in range(len(members)):
                    command = [sys.executable, "-m", "examples.train_to_serve.task", "--cluster", json.dumps(tasks)]
                    group.start(f"{job}-{index}", [*command, "--job", job, "--index", str(index)])
            yield tasks
        finally:
            group.stop()


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise TesseraError(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop - 1}")


def train(options: argparse.Namespace, tasks: Tasks) -> None:
    """Train on the tasks of a cluster and save."""
    import tensorflow as tf

    from examples.train_to_serve import model as films

    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec(tasks), rpc_layer="grpc")
    partitioner = tf.distribute.experimental.partitioners.FixedShardsPartitioner(len(tasks["ps"]))
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        model = films.Films(options.users, options.films, options.dim)
    for name, table in (("users", model.users), ("films", model.films)):
        parts = " + ".join(f"{part.shape[0]:,}" for part in films.parts(table))
        print(f"{name}: {parts} rows on {len(tasks['ps'])} parameter servers", flush=True)

    step = tf.function(lambda iterator: model.step(next(iterator), options.rate))
    batches = coordinator.create_per_worker_dataset(lambda: films.examples(options.users, options.films, options.batch))
    iterator = iter(batches)
    for first in range(0, options.steps, _STEPS_TOLD):
        steps = min(_STEPS_TOLD, options.steps - first)
        losses = [coordinator.schedule(step, args=(iterator,)) for _ in range(steps)]
        coordinator.join()
        loss = sum(float(value.fetch()) for value in losses) / steps
        print(f"step {first + steps}: loss {loss:.3f}", flush=True)
    tf.saved_model.save(model, str(options.output), signatures=model.rank)
    print(options.output, flush=True)


def main() -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args()
    try:
        check(options)
        quiet_tensorflow()
        with contextlib.ExitStack() as stack:
            tasks = options.cluster or stack.enter_context(local_tasks(options.ps, options.workers))
            train(options, tasks)
    except TesseraError as error:
        print(f"train: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
