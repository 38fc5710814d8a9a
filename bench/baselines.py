"""Builds and runs the C++ baselines of bench/cpp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.load import SERVER_CPU
from tessera.errors import FailedPreconditionError, InternalError

CHECKOUT = Path(__file__).resolve().parents[1]
_BUILD_TIMEOUT_S = 1800.0
_RUN_TIMEOUT_S = 300.0


class Baselines:
    """The programs in a build directory, built when first needed. Building takes a minute or two."""

    def __init__(self, build_dir: Path) -> None:
        self._build_dir = build_dir
        self._configured = False

    def binary(self, name: str) -> Path:
        """Return the path of the program `name`, up to date with its source.

        Raises:
            FailedPreconditionError: it cannot be built; the message has the end of the output.
        """
        if not self._configured:
            _run_build(
                [
                    *(_tool("cmake"), "-S", str(CHECKOUT), "-B", str(self._build_dir), "-G", "Ninja"),
                    *("-DCMAKE_BUILD_TYPE=Release", "-DTESSERA_BENCHMARKS=ON", f"-DPython_EXECUTABLE={sys.executable}"),
                    f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
                ]
            )
            self._configured = True
        _run_build([_tool("cmake"), "--build", str(self._build_dir), "--target", name])
        found = [path for path in self._build_dir.rglob(name) if path.is_file()]
        if len(found) != 1:
            raise FailedPreconditionError(f"{name}: got {len(found)} such files in {self._build_dir}, expected one")
        return found[0]

    def run_json(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run a program on the servers' core and return the JSON object that it prints.

        Raises:
            InternalError: it failed or printed something else.
        """
        command = ["taskset", "-c", str(SERVER_CPU), str(self.binary(name)), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_RUN_TIMEOUT_S)
        try:
            if done.returncode == 0:
                return dict(json.loads(done.stdout))
        except ValueError:
            pass
        raise InternalError(f"{' '.join(command)}: exit code {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")


def _tool(name: str) -> str:
    """Return the build tool of this virtual environment."""
    return str(Path(sys.executable).parent / name)


def _run_build(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S)
    if done.returncode != 0:
        raise FailedPreconditionError(f"{' '.join(command)}: failed: {(done.stdout + done.stderr)[-2000:]}")
