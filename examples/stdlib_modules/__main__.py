"""`python -m examples.stdlib_modules`: see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from examples.stdlib_modules.parameters import Parameters

_WORK_DIR = Path(__file__).resolve().parents[2] / ".demo"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.stdlib_modules",
        description="Trains a model with a very large table, splits it, serves it from servers that are each too small "
        "for it, and compares the answers with plain TensorFlow's.",
    )
    parser.add_argument("--fresh", action="store_true", help="train again even if the model of an earlier run is there")
    parser.add_argument("--rows", type=int, default=Parameters.rows, help="rows of the table (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=4, help="shard servers (default: %(default)s)")
    parser.add_argument("--max-shard-bytes", default="160MiB", help="largest part of the table (default: %(default)s)")
    parser.add_argument(
        "--server-memory-bytes", default="448MiB", help="address space of each shard server (default: %(default)s)"
    )
    parser.add_argument("--work-dir", type=Path, default=_WORK_DIR, help="model, package, logs (default: %(default)s)")
    return parser.parse_args()


def _prepare_tensorflow(log_path: Path) -> None:
    """Set up what must be set before TensorFlow is imported.

    Its oneDNN kernels round otherwise than the ones that Tessera uses by default, and the demo compares bits. Its C++
    code writes several lines about missing GPUs to file descriptor 2 whatever its settings: they go to a file, and
    Python's stderr keeps the terminal.
    """
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    terminal = os.dup(2)
    with log_path.open("wb") as log:
        os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(terminal, "w", buffering=1)


if __name__ == "__main__":
    options = _options()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    _prepare_tensorflow(options.work_dir / "tensorflow.log")
    from examples.stdlib_modules.demo import main

    sys.exit(main(options))
