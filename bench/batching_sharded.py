"""The case that compares the recommender over four servers, batched by `tessera partition`, with it unsharded."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench import models, servers
from bench.context import MAX_SHARD_BYTES, Context, say
from bench.load import Target, interleaved, median
from bench.report import Row
from tessera.errors import InternalError

_CONCURRENCY, _SHARDS = 32, 4
_PARTITION_TIMEOUT_S = 900.0


def sharded(context: Context) -> list[Row]:
    """Requests per second at concurrency 32 over four servers with batches, against everything in one router without.

    All on one core; see bench/README.md.
    """
    repository = _partition(context)
    with servers.running(context.log_dir) as started:
        places = {
            "unsharded": started.router("recommender", context.recommender),
            "sharded_batched": started.cluster(repository, _SHARDS),
        }
        request = models.request(context.recommender, "recommender", models.recommender_inputs(1))
        targets = {name: _target(place, request) for name, place in places.items()}
        durations = context.durations
        say(f"{', '.join(targets)} at concurrency {_CONCURRENCY}")
        points = interleaved(
            targets,
            _CONCURRENCY,
            rounds=durations.rounds,
            duration_s=durations.run_s,
            warm_up_s=durations.warm_up_s,
        )
        for place in places.values():
            _target(place, request)  # still right after the load
    medians = {name: median(runs) for name, runs in points.items()}
    return [
        Row(
            name="sharded_batched_vs_unsharded",
            value=medians["sharded_batched"].requests_per_s,
            unit=f"requests/s at concurrency {_CONCURRENCY}, {_SHARDS} servers",
            baseline="unsharded, unbatched",
            baseline_value=medians["unsharded"].requests_per_s,
            goal=0.9,
            detail={
                f"{name}.{key}": round(value, 2)
                for name, point in medians.items()
                for key, value in (
                    ("requests_per_s", point.requests_per_s),
                    ("p50_us", point.p50_us),
                    ("p99_us", point.p99_us),
                    ("cpu_us", point.cpu_us),
                )
            },
        )
    ]


def _partition(context: Context) -> Path:
    repository = context.work_dir / "repository-batched"
    shutil.rmtree(repository, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "admin", "partition", str(context.recommender), f"--repository={repository}"),
        *("--model=recommender", "--version=1", f"--max-shard-bytes={MAX_SHARD_BYTES}", "--batch=auto"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PARTITION_TIMEOUT_S)
    if done.returncode != 0:
        raise InternalError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-1000:]}")
    return repository


def _target(place: servers.Started, request: models.Request) -> Target:
    check = functools.partial(models.check_response, expected=request.expected)
    return servers.target(place, servers.PREDICT, request.wire, check)


CASES: dict[str, Callable[[Context], list[Row]]] = {"batch_sharded": sharded}
