"""The whole way of a model: train, save, split, serve from four servers that each are too small for it, compare."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import grpc
import numpy as np

from admin.table import render
from examples.stdlib_modules import client, cluster, data
from examples.stdlib_modules.parameters import Parameters
from examples.stdlib_modules.training import trained_model
from tessera.errors import TesseraError
from tessera.settings import format_bytes, parse_bytes

_MODEL, _CLUSTER = "stdlib_modules", "demo"
_MODULES, _LINES_PER_MODULE, _HELD_OUT_PERCENT = 80, 4000, 10
_SHOWN_LINES, _COMPARED_LINES, _TIMED_REQUESTS = 12, 512, 2000
_COMPARED_BATCHES = (1, 32)
_LARGEST_DIFFERENCE = 1e-6


def main(options: argparse.Namespace) -> int:
    """Run the demo with the options of `__main__`; return 0 if every step worked and the answers agree."""
    signal.signal(signal.SIGTERM, _end)
    try:
        return 0 if _run(options) else 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything that the demo had started is gone.", file=sys.stderr)
        return 130
    except grpc.RpcError as error:
        print(f"\nThe demo failed: {error.code().name}: {error.details()}", file=sys.stderr)
    except (TesseraError, subprocess.SubprocessError, OSError, ValueError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
    return 1


def _run(options: argparse.Namespace) -> bool:
    parameters = Parameters(rows=options.rows)
    work_dir: Path = options.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    limit = parse_bytes(options.server_memory_bytes)

    _step("The text", "lines of Python's own standard library; the question is which module a line comes from")
    corpus = data.read_corpus(
        data.stdlib_folder(),
        max_modules=_MODULES,
        max_lines_per_module=_LINES_PER_MODULE,
        held_out_percent=_HELD_OUT_PERCENT,
    )
    _say(
        f"{len(corpus.training):,} lines of {len(corpus.modules)} modules to learn from, "
        f"{len(corpus.held_out):,} other lines to test with"
    )

    _step("The model", f"a table of {parameters.rows:,} hashed n-grams: {format_bytes(parameters.table_bytes)}")
    saved_model = trained_model(corpus, parameters, work_dir, fresh=options.fresh, say=_say)
    model_bytes = sum(file.stat().st_size for file in saved_model.rglob("*") if file.is_file())

    _step("Split it", f"no part above {options.max_shard_bytes}; the SavedModel has {format_bytes(model_bytes)}")
    repository = work_dir / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    _tessera(
        "partition",
        str(saved_model),
        f"--repository={repository}",
        f"--model={_MODEL}",
        "--version=1",
        f"--max-shard-bytes={options.max_shard_bytes}",
    )

    _step(
        "Serve it",
        f"etcd, a router, and {options.shards} shard servers of at most {format_bytes(limit)} memory each: "
        + ("none of them could hold the model" if limit < model_bytes else "enough for the whole model here"),
    )
    arguments = [
        f"--repository={repository}",
        f"--cluster={_CLUSTER}",
        "--port=0",
        f"--shards={options.shards}",
        f"--server-memory-bytes={options.server_memory_bytes}",
    ]
    _say(f"$ tessera up {' '.join(arguments)}")
    with cluster.running(arguments, work_dir / "logs") as running:
        served = client.ServedModel(running.router, _MODEL)
        try:
            same = _compare(served, client.LocalModel(str(saved_model)), corpus)
            _measure(served, corpus)
        finally:
            served.close()
        _step("Where the model lives", "what the cluster says, and what the kernel says about each server's memory")
        _tessera("status", f"--cluster={_CLUSTER}")
        limited = _print_memory(running, limit)
    gone = [pid for pid in running.pids if Path(f"/proc/{pid}").exists()]
    _step("The end", f"{len(running.pids) - len(gone)} of {len(running.pids)} processes that were started are gone")
    return same and limited and not gone


def _compare(served: client.ServedModel, local: client.LocalModel, corpus: data.Corpus) -> bool:
    """Print answers of the cluster beside those of plain TensorFlow; return whether they agree."""
    _step("Ask it", "an unmodified TensorFlow Serving client, beside plain TensorFlow with the whole model")
    sample = np.random.default_rng(0).choice(len(corpus.held_out), min(_COMPARED_LINES, len(corpus.held_out)), False)
    lines = [corpus.held_out.lines[i] for i in sample]
    shown = list(zip(lines[:_SHOWN_LINES], sample[:_SHOWN_LINES], strict=True))
    rows = []
    for line, i in shown:
        ours, theirs = served.ask([line]), local.ask([line])
        same = "yes" if _equal(ours, theirs) else "NO"
        answers = [f"{answer.modules[0, 0]} {answer.scores[0, 0]:.6f}" for answer in (ours, theirs)]
        rows.append([_shortened(line, 46), corpus.modules[corpus.held_out.labels[i]], *answers, same])
    print(_indented(render(["line", "from", "Tessera", "TensorFlow", "same bits"], rows)), flush=True)

    largest, equal = 0.0, True
    for batch in _COMPARED_BATCHES:
        chunks = [lines[start : start + batch] for start in range(0, len(lines), batch)]
        ours = client.joined([served.ask(chunk) for chunk in chunks])
        theirs = client.joined([local.ask(chunk) for chunk in chunks])
        largest = max(largest, float(np.abs(ours.scores - theirs.scores).max()))
        equal = equal and _equal(ours, theirs)
    agree = largest <= _LARGEST_DIFFERENCE
    _say(
        f"largest difference over {len(lines)} lines, asked in requests of "
        f"{' and of '.join(map(str, _COMPARED_BATCHES))}: {largest:g}"
        + (" (equal in every bit)" if equal else " (NOT equal in every bit)")
        + ("" if agree else f"; more than {_LARGEST_DIFFERENCE:g}: the demo has failed")
    )
    return agree


def _measure(served: client.ServedModel, corpus: data.Corpus) -> None:
    _step("How good and how fast", "all answers come from the cluster; this one Python program is the client")
    truth = np.array(corpus.modules)[corpus.held_out.labels][:, np.newaxis]
    lines = corpus.held_out.lines
    hits = client.joined([served.ask(lines[i : i + 64]) for i in range(0, len(lines), 64)]).modules == truth
    majority = data.majority_accuracy(corpus.held_out, corpus.training.labels)
    _say(
        f"right module first: {hits[:, 0].mean():.1%}, among the first {hits.shape[1]}: {hits.any(axis=1).mean():.1%} "
        f"of {len(lines):,} held-out lines (always the commonest module: {majority:.1%})"
    )
    repeated = [lines[i % len(lines)] for i in range(_TIMED_REQUESTS)]
    taken = served.latencies_ms(repeated)
    p50, p99 = np.percentile(taken, [50, 99])
    _say(f"{len(taken):,} requests one after the other: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    rate = served.requests_per_s(lines[:_TIMED_REQUESTS], clients=8, duration_s=4.0)
    _say(f"8 client threads: {rate:,.0f} requests/s (a Python client is the limit; `make bench` measures the server)")


def _print_memory(running: cluster.Cluster, wanted_limit_bytes: int) -> bool:
    """Print the memory of every server; return whether the kernel holds each of them to the limit."""
    rows, limited = [], True
    for name, pid in running.server_pids.items():
        memory = cluster.memory(pid)
        limit = "none" if memory.limit_bytes is None else format_bytes(memory.limit_bytes)
        limited = limited and memory.limit_bytes == wanted_limit_bytes
        rows.append([name, pid, format_bytes(memory.resident_bytes), format_bytes(memory.mapped_bytes), limit])
    header = ["server", "pid", "resident", "address space", "limit of it"]
    print(_indented(render(header, rows, right=header[1:])), flush=True)
    if not limited:
        _say(f"not every server is limited to {format_bytes(wanted_limit_bytes)}: the demo has failed")
    return limited


def _tessera(*arguments: str) -> None:
    _say(f"$ tessera {' '.join(arguments)}")
    cluster.run(arguments)


def _equal(ours: client.Answer, theirs: client.Answer) -> bool:
    """Return whether both name the same modules with the same bits as scores."""
    same_scores = np.array_equal(ours.scores.view(np.uint32), theirs.scores.view(np.uint32))
    return same_scores and np.array_equal(ours.modules, theirs.modules)


def _step(title: str, what: str) -> None:
    print(f"\n== {title}: {what}", flush=True)


def _say(text: str) -> None:
    print(f"   {text}", flush=True)


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())


def _shortened(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _end(_signal: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that every `finally` runs."""
    raise KeyboardInterrupt
