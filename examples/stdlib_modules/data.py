"""The demo's text: lines of the Python standard library, each with the module that it comes from.

Every machine that runs Tessera has this text. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# No code to tell apart: data tables, generated files, wheels, collections of small programs, tests.
_SKIPPED_MODULES = frozenset(
    {"antigravity", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this", "turtledemo"}
)
_SKIPPED_FOLDERS = frozenset({"test", "tests", "__pycache__", "site-packages", "dist-packages"})
_MIN_LINE_CHARS = 12
_MAX_LINE_CHARS = 200


@dataclass(frozen=True)
class Examples:
    """Lines and, for each, the position of its module in `Corpus.modules`."""

    lines: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Corpus:
    """The text, split in two; no line of `held_out` is in `training`, also not from another module."""

    modules: list[str]
    training: Examples
    held_out: Examples


def read_corpus(stdlib: Path, *, max_modules: int, max_lines_per_module: int, held_out_percent: int) -> Corpus:
    """Return the lines of the `max_modules` largest modules below `stdlib`.

    Deterministic for one version of the library: files are read in sorted order, and a line's own hash decides on
    which side it falls and, in modules with more than `max_lines_per_module`, whether it is kept.

    Args:
        stdlib: The folder of the standard library, see `stdlib_folder`.
        max_modules: How many modules (or packages) to tell apart.
        max_lines_per_module: At most so many distinct lines of each.
        held_out_percent: How much of the text training never sees, 1 to 50.

    Raises:
        ValueError: `stdlib` holds fewer than two modules.
    """
    by_module = {name: _distinct_lines(files) for name, files in _module_files(stdlib)}
    largest = sorted(by_module, key=lambda name: (-len(by_module[name]), name))[:max_modules]
    if len(largest) < 2:
        raise ValueError(f"stdlib: {stdlib} holds {len(largest)} Python modules, expected the standard library")
    modules = sorted(largest)
    training, held_out = Examples([], []), Examples([], [])
    for label, name in enumerate(modules):
        for line in sorted(by_module[name], key=_line_hash)[:max_lines_per_module]:
            side = held_out if is_held_out(line, held_out_percent) else training
            side.lines.append(line)
            side.labels.append(label)
    return Corpus(modules, training, held_out)


def stdlib_folder() -> Path:
    """Return where this interpreter's standard library lies."""
    return Path(sysconfig.get_path("stdlib"))


def is_held_out(line: str, percent: int) -> bool:
    """Return whether training must not see `line`; depends on nothing but the text."""
    return int.from_bytes(_line_hash(line)[8:16], "little") % 100 < percent


def majority_accuracy(examples: Examples, guess: Sequence[int]) -> float:
    """Return how often the most frequent label of `guess` is right on `examples`: what a model has to beat."""
    most_frequent = max(sorted(set(guess)), key=guess.count)
    return examples.labels.count(most_frequent) / len(examples)


def _line_hash(line: str) -> bytes:
    return hashlib.blake2b(line.encode(), digest_size=16).digest()


def _module_files(stdlib: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield every top-level module or package with its files."""
    for path in sorted(stdlib.iterdir()):
        name = path.stem
        if name in _SKIPPED_MODULES or name in _SKIPPED_FOLDERS or name.startswith("_sysconfigdata"):
            continue
        if path.is_file() and path.suffix == ".py":
            yield name, [path]
        elif (path / "__init__.py").is_file():
            files = sorted(path.rglob("*.py"))
            yield name, [f for f in files if not _SKIPPED_FOLDERS.intersection(f.relative_to(stdlib).parts)]


def _distinct_lines(files: Sequence[Path]) -> set[str]:
    """Return the lines that say enough to be told apart, without their indentation."""
    lines: set[str] = set()
    for file in files:
        for line in file.read_text("utf-8", errors="replace").splitlines():
            text = line.strip()
            if _MIN_LINE_CHARS <= len(text) <= _MAX_LINE_CHARS and any(c.isalpha() for c in text):
                lines.add(text)
    return lines
