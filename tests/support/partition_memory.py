"""Partitions a table several times larger than the memory the process may still take; prints sizes as JSON.

Usage: partition_memory.py DIRECTORY.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from partition import plan_package, write_package
from partition.split import MEMORY_BYTES
from tessera.repository import Repository

ROWS, ROW_BYTES = 1 << 20, 320
ALLOWED_BYTES = MEMORY_BYTES + (16 << 20)


def used_bytes() -> int:
    """Return the bytes that RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise AssertionError


def write_limited(directory: Path, source: Path, allowed_bytes: int) -> bool:
    """Write in a fork with a limit; return whether it succeeded."""
    plan = plan_package(source, max_shard_bytes=64 << 20)
    child = os.fork()
    if child == 0:
        limit = used_bytes() + allowed_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            write_package(plan, Repository(directory), model="m", version=1)
        except MemoryError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status == 0


def main() -> None:
    directory = Path(sys.argv[1])
    source = directory / "source"
    _large_model(source)
    assert write_limited(directory / "enough", source, ALLOWED_BYTES)
    fails_with = MEMORY_BYTES // 4
    assert not write_limited(directory / "scarce", source, fails_with)  # the limit does bind
    print(json.dumps({"table_bytes": ROWS * ROW_BYTES, "allowed_bytes": ALLOWED_BYTES, "fails_with_bytes": fails_with}))


def _large_model(path: Path) -> None:
    """Save a graph whose table has 320 MiB."""

    class Large(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            values = np.arange(ROWS * ROW_BYTES // 4, dtype=np.float32).reshape(ROWS, ROW_BYTES // 4)
            self.table = tf.Variable(values, name="table")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])  # type: ignore[untyped-decorator]
        def serve(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"rows": tf.gather(self.table, ids)}

    module = Large()
    tf.saved_model.save(module, str(path), signatures=module.serve)


main()
