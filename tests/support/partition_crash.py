"""Kills a writer at each of its steps, then lets another finish; prints counts as JSON.

Usage: partition_crash.py SAVED_MODEL DIRECTORY. Each writer is a fork of this process, which has planned already.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from partition import PackagePlan, plan_package, write_package
from partition import split as split_module
from tessera.repository import Repository

STEPS = ((os, "write"), (os, "fsync"), (os, "open"), (os, "replace"), (os, "rename"), (os, "chmod"), (os, "rmdir"))


def write_in_child(plan: PackagePlan, root: Path, kill_at: int, reads: Path | None = None) -> tuple[int, int]:
    """Write in a fork that dies at step `kill_at` (0: never); return its wait status and the steps it made."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        steps = 0

        def counted(function: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        original_write = os.write
        for module, name in STEPS:
            setattr(module, name, counted(getattr(module, name)))
        if reads is not None:
            resume = split_module._resume
            split_module._resume = lambda *a: _note(resume(*a), reads)
        write_package(plan, Repository(root), model="m", version=1)
        original_write(writer, str(steps).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, int(text or 0)


def _note(result: Any, reads: Path) -> Any:
    if result is not None:
        with reads.open("a") as file:
            file.write("kept\n")
    return result


def main() -> None:
    source, directory = Path(sys.argv[1]), Path(sys.argv[2])
    plan = plan_package(source, max_shard_bytes=1 << 18)
    status, steps = write_in_child(plan, directory / "whole", 0)
    assert status == 0
    expected = Repository(directory / "whole").read_manifest("m", 1)
    kept = directory / "kept"
    kept.touch()
    points = visible = resumed = 0
    for kill_at in sorted({*range(1, steps + 1, max(1, steps // 12)), *range(steps - 9, steps + 1)}):
        root = directory / "killed"
        status, _ = write_in_child(plan, root, kill_at)
        assert os.WIFSIGNALED(status)
        repository = Repository(root)
        points += 1
        if repository.models():  # only once the rename has been done, and then complete
            manifest = repository.read_manifest("m", 1)
            repository.verify_files(manifest)
            complete = manifest == expected and all(
                repository.verify_blob(digest, size) for digest, size in manifest.blob_sizes().items()
            )
            visible += not complete
        status, _ = write_in_child(plan, root, 0, kept)
        same = status == 0 and repository.read_manifest("m", 1) == expected
        clean = not [path for path in root.rglob("*") if path.name.startswith(".")]
        resumed += same and clean
        shutil.rmtree(root)
    print(
        json.dumps(
            {
                "points": points,
                "visible_after_kill": visible,
                "resumed": resumed,
                "tables_kept_by_resume": len(kept.read_text().splitlines()),
            }
        )
    )


main()
