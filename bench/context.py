"""What the cases share: durations, folders, models, baselines."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import models
from bench.baselines import Baselines
from tessera.errors import InternalError

MAX_SHARD_BYTES = "8MiB"
_PARTITION_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Durations:
    """How long everything is measured.

    Attributes:
        rounds: Runs of each point; medians are reported.
        run_s: Seconds of each run.
        warm_up_s: Seconds of load before the first run of each point.
    """

    rounds: int = 3
    run_s: float = 2.0
    warm_up_s: float = 1.0

    @classmethod
    def quick(cls) -> Durations:
        """Return durations that show that everything works; the numbers mean little."""
        return cls(rounds=1, run_s=0.3, warm_up_s=0.2)


class Context:
    """One run of the benchmarks; models and packages are made when first needed and kept in `work_dir`."""

    def __init__(self, work_dir: Path, durations: Durations) -> None:
        self.work_dir = work_dir
        self.durations = durations
        self.baselines = Baselines(work_dir / "native")
        self.log_dir = work_dir / "logs"
        self._models_dir = work_dir / "models" / models.source_key()
        for folder in (self._models_dir, self.log_dir):
            folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def tiny(self) -> Path:
        """The SavedModel of `models.HalfPlusTwo`."""
        return models.save(models.HalfPlusTwo, self._models_dir / "half_plus_two")

    @functools.cached_property
    def recommender(self) -> Path:
        """The SavedModel of `models.Recommender`, 333 MB."""
        return models.save(models.Recommender, self._models_dir / "recommender")

    @functools.cached_property
    def repository(self) -> Path:
        """A repository with the recommender, every table split."""
        self.partition_recommender()
        return self._repository

    @property
    def _repository(self) -> Path:
        return self.work_dir / "repository"

    def partition_recommender(self) -> float:
        """Make the repository anew and return the seconds that `tessera partition` took."""
        shutil.rmtree(self._repository, ignore_errors=True)
        command = [
            *(sys.executable, "-m", "admin", "partition", str(self.recommender), f"--repository={self._repository}"),
            *("--model=recommender", "--version=1", f"--max-shard-bytes={MAX_SHARD_BYTES}"),
        ]
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PARTITION_TIMEOUT_S)
        if done.returncode != 0:
            raise InternalError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-1000:]}")
        return time.monotonic() - start


def say(text: str) -> None:
    """Tell what is being done, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
