"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("tensorflow", "grpcio", "numpy")


def describe() -> dict[str, str | int]:
    """Return the processor, cores, memory, kernel and versions of this machine."""
    memory_kb = _first_match(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "cpu": _first_match(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text()) or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(int(memory_kb or 0) / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def commit(checkout: Path) -> str:
    """Return the commit of `checkout`, with `+changes` if files differ from it; empty outside of a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", ":!bench/results")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _first_match(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""
