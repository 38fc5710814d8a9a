"""Reads the commands of a tutorial from its Markdown, and runs them as a reader would, with what it says they print.

A command is a line that begins with `$ ` in a block ```` ```console ````; a backslash continues it, and the lines after
it are what it prints, in this order, perhaps with others between; `…` stands for anything. Words after `console`:

* none: run it and wait for its end;
* `server`: in a terminal of its own until the next heading `## `; the first line shown is waited for;
* `full`, `quick`: only one of both is run, as the whole tutorial is;
* `setup`, `network`, `docker`, `cluster`: needs what a test does not have; it is only parsed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from admin.processes import bound_to_parent

ROOT = Path(__file__).parents[2]
KINDS = {"server", "full", "quick", "setup", "network", "docker", "cluster"}
ONLY_PARSED = {"setup", "network", "docker", "cluster"}

_BLOCK = re.compile(r"^```console *([a-z ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STEP_TIMEOUT_S = 400.0
_STOP_TIMEOUT_S = 60.0
# The kernel gives none of these to outgoing connections.
_PORTS = range(20_000, 30_000)


@dataclass(frozen=True)
class Command:
    """One command: its text in one line, and patterns of what it prints."""

    text: str
    prints: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A block of commands, and the number of the section that it stands in."""

    section: int
    kinds: frozenset[str]
    commands: tuple[Command, ...]


def blocks(markdown: str) -> list[Block]:
    """Return the blocks of a tutorial in their order."""
    found = []
    for match in _BLOCK.finditer(markdown):
        section = len(re.findall(r"^## ", markdown[: match.start()], re.MULTILINE))
        found.append(Block(section, frozenset(match[1].split()), tuple(_commands(match[2]))))
    return found


def _commands(text: str) -> Iterator[Command]:
    lines = text.replace("\\\n", " ").splitlines()
    assert lines, "an empty block"
    assert lines[0].startswith("$ "), f"a block begins with what is printed: {lines[0]}"
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        prints = tuple(line for line in lines[start + 1 : end] if line.strip(" …"))
        yield Command(re.sub(r" +", " ", lines[start][2:]), prints)


def missing(prints: tuple[str, ...], output: str) -> str | None:
    """Return the first pattern that `output` lacks, after those before it; None if it has all."""
    lines = iter(output.splitlines())
    for pattern in prints:
        # Columns are as wide as their content: any space stands for any number of them.
        parts = [r"\s+".join(map(re.escape, part.split(" "))) for part in re.split(" *… *", pattern.strip())]
        wanted = re.compile(r"\s*" + r".*".join(parts) + r"\s*")
        if not any(wanted.fullmatch(line) for line in lines):
            return pattern
    return None


@dataclass
class _Server:
    command: Command
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class Reader:
    """Follows a tutorial in a directory of its own."""

    directory: Path
    _ports: dict[str, str] = field(default_factory=dict)
    _servers: list[_Server] = field(default_factory=list)

    def follow(self, tutorial: Path, *, quick: bool) -> int:
        """Run every block that can be run; return how many commands that were."""
        section = run = 0
        for block in blocks(tutorial.read_text("utf-8")):
            if block.kinds & (ONLY_PARSED | ({"full"} if quick else {"quick"})):
                continue
            if block.section != section:
                self.stop_servers()
                section, self._ports = block.section, _two_ports()
            for command in block.commands:
                self._serve(command) if "server" in block.kinds else self._run(command)
                run += 1
        self.stop_servers()
        return run

    def stop_servers(self) -> None:
        """Press Ctrl-C in each terminal, the last first, and look at what was printed."""
        while self._servers:
            server = self._servers.pop()
            server.process.send_signal(signal.SIGINT)
            try:
                code = server.process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
                raise
            output = server.log.read_text("utf-8", "replace")
            assert code in (0, 128 + signal.SIGINT, -signal.SIGINT), (
                f"{server.command.text}: exit code {code}\n{output}"
            )
            lacking = missing(server.command.prints, output)
            assert lacking is None, f"{server.command.text}\nlacks: {lacking}\nprinted:\n{output}"

    def kill(self) -> None:
        """End whatever still runs."""
        for server in self._servers:
            with suppress(ProcessLookupError):
                server.process.kill()
            server.process.wait()

    def _run(self, command: Command) -> None:
        started_s = time.monotonic()
        variables = self.directory.parent / "variables"
        # A reader's shell keeps what was exported.
        script = f"[ ! -e {variables} ] || . {variables}\n{self._here(command.text)}\nexport -p > {variables}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.directory, env=self._environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=_STEP_TIMEOUT_S, check=False,
        )  # fmt: skip
        print(f"$ {command.text}   # {time.monotonic() - started_s:.1f} s\n{done.stdout}")
        assert done.returncode == 0, f"{command.text}: exit code {done.returncode}\n{done.stdout}"
        lacking = missing(tuple(map(self._here, command.prints)), done.stdout)
        assert lacking is None, f"{command.text}\nlacks: {lacking}\nprinted:\n{done.stdout}"

    def _serve(self, command: Command) -> None:
        """Start a command and wait for the first line that it is said to print."""
        log = self.directory.parent / f"server-{len(self._servers)}.log"
        variables = self.directory.parent / "variables"
        command = Command(self._here(command.text), tuple(map(self._here, command.prints)))
        script = f"set -eu; [ ! -e {variables} ] || . {variables}; exec {command.text}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                bound_to_parent(["bash", "-c", script]),
                cwd=self.directory, env=self._environ(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip
        self._servers.append(_Server(command, process, log))
        deadline = time.monotonic() + _STEP_TIMEOUT_S
        while missing(command.prints[:1], text := log.read_text("utf-8", "replace")):
            assert process.poll() is None, f"{command.text}: ended\n{text}"
            assert time.monotonic() < deadline, f"{command.text}: lacks {command.prints[0]}\n{text}"
            time.sleep(0.05)
        print(f"$ {command.text}   # running")

    def _here(self, text: str) -> str:
        """Return `text` with ports that are free here."""
        return re.sub(r"\b850[01]\b", lambda match: self._ports[match[0]], text)

    def _environ(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        path = f"{Path(sys.executable).parent}:{environ['PATH']}"
        return environ | {"PATH": path, "XDG_RUNTIME_DIR": str(self.directory.parent), "PYTHONUNBUFFERED": "1"}


@contextmanager
def reader(directory: Path) -> Iterator[Reader]:
    """Give a reader a directory that looks like a clone; nothing that he starts outlives the `with` block."""
    clone = directory / "clone"
    clone.mkdir()
    for name in ("examples", "k8s", "Dockerfile"):
        if (ROOT / name).exists():
            (clone / name).symlink_to(ROOT / name)
    made = Reader(clone, _two_ports())
    try:
        yield made
    finally:
        made.kill()


def _two_ports() -> dict[str, str]:
    found: list[str] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(str(port))
        if len(found) == 2:
            return dict(zip(("8500", "8501"), found, strict=True))
    raise AssertionError(f"no two free ports from {_PORTS.start} to {_PORTS.stop - 1}")
