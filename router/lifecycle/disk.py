"""Looks at a model's base path: which versions it has, and which of them can be loaded. Blocks; for a helper thread."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from router.lifecycle.config import All, Latest, ModelConfig, Specific
from router.lifecycle.versions import Candidate, DiskView
from router.platforms.base import MemoryEstimate, Platform
from tessera.clock import Clock
from tessera.errors import TesseraError

SETTLE_S = 0.5
"""A version whose files have not changed for this long is not being written, as far as anyone can see."""
INCOMPLETE_S = 10.0
"""A version that is not complete and has not changed for this long is loaded nevertheless: the load says what is wrong.

Were it never tried, a damaged file would look like a copy that goes on for ever."""
MAX_FILES = 100_000
"""Files of one version that are looked at."""

_LARGEST_VERSION = (1 << 63) - 1
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Look:
    """What one look showed.

    Attributes:
        view: None: the base path cannot be read, and what was known of it holds.
        unsettled: files change, or have just changed: look again soon.
        warnings: what an operator should know, in TensorFlow Serving's words where it has them.
    """

    view: DiskView | None
    unsettled: bool = False
    warnings: tuple[str, ...] = ()


@dataclass
class _Files:
    """The files of a version as they were when they last changed."""

    fingerprint: str
    since_s: float
    candidate: Candidate | None = None


@dataclass
class Looker:
    """Looks at one model again and again. Used by one thread at a time.

    Args:
        platform: says whether a version is complete, and what it takes.
    """

    config: ModelConfig
    platform: Platform
    clock: Clock
    _files: dict[int, _Files] = field(default_factory=dict)

    def look(self, held: frozenset[int]) -> Look:
        """Look once. Versions in `held` are in memory: nobody needs to know whether their files are complete.

        Cost: reads the directory, and the names, sizes and times of the files of versions that may have to be loaded;
        their content when that has changed.
        """
        base = self.config.base_path
        try:
            directories, warnings = self._versions()
        except OSError as error:
            text = f"Could not find base path {base} for servable {self.name} with error {error.strerror or error}"
            return Look(DiskView() if self.config.flat else None, warnings=(text,))
        ready: dict[int, Candidate] = {}
        asked: set[int] = set()
        unsettled = False
        for number, path in self._asked(directories, held, ready):
            candidate, changing = self._inspect(number, path)
            asked.add(number)
            unsettled |= changing
            if candidate is not None:
                ready[number] = candidate
        self._files = {number: files for number, files in self._files.items() if number in asked}
        view = DiskView(frozenset(directories), MappingProxyType(ready), held & directories.keys())
        return Look(view, unsettled, tuple(warnings))

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    def _versions(self) -> tuple[dict[int, Path], list[str]]:
        """Return version → directory, and what is odd about them.

        Raises:
            OSError: the base path cannot be read.
        """
        base, warnings = self.config.base_path, []
        if self.config.flat and ((base / "saved_model.pb").is_file() or (base / "saved_model.pbtxt").is_file()):
            return {1: base}, []
        found: dict[int, Path] = {}
        with os.scandir(base) as entries:
            names = sorted(entry.name for entry in entries if _NUMBER.fullmatch(entry.name) and entry.is_dir())
        for name in names:
            number = int(name)
            if number > _LARGEST_VERSION:
                continue
            if number in found:
                warnings.append(
                    f"servable {self.name}: {found[number].name} and {name} under {base} are the same version; "
                    f"{found[number].name} is used"
                )
                continue
            found[number] = base / name
        if not found:
            warnings.append(
                f"No versions of servable {self.name} found under base path {base}. Did you forget to name your leaf "
                "directory as a number (eg. '/1/')?"
            )
        if isinstance(self.config.versions, Specific) and found:
            warnings += [
                f"Version {number} of servable {self.name}, which the configuration asks for, was not found under base "
                f"path {base}"
                for number in sorted(self.config.versions.versions - found.keys())
            ]
        return found, warnings

    def _asked(
        self, directories: dict[int, Path], held: frozenset[int], ready: dict[int, Candidate]
    ) -> Iterator[tuple[int, Path]]:
        """Yield the versions to look into; `ready`, which grows meanwhile, tells when there are enough."""
        policy = self.config.versions
        for number in sorted(directories, reverse=True):
            match policy:
                case Latest(count):
                    newer_held = sum(1 for one in held if one > number and one in directories)
                    if newer_held + len(ready) >= count:
                        return
                case Specific(versions):
                    if number not in versions:
                        continue
                case All():
                    pass
            if number not in held:
                yield number, directories[number]

    def _inspect(self, number: int, path: Path) -> tuple[Candidate | None, bool]:
        """Return (what can be loaded, or None; whether to look again soon)."""
        try:
            fingerprint, size_bytes, changed_s = _fingerprint(path)
        except OSError:
            return None, True  # it goes away, or changes under our eyes
        now_s = self.clock.monotonic_s()
        files = self._files.get(number)
        if files is None or files.fingerprint != fingerprint:
            age_s = self.clock.wall_s() - changed_s  # a look that comes long after the last write need not wait
            files = self._files[number] = _Files(fingerprint, now_s - max(0.0, age_s))
        if files.candidate is not None:
            return files.candidate, False
        unchanged_s = now_s - files.since_s
        if unchanged_s < SETTLE_S:
            return None, True
        if unchanged_s < INCOMPLETE_S and not self._is_complete(path):
            return None, True
        estimate = self._estimate(path, size_bytes)
        files.candidate = Candidate(path, fingerprint, estimate.resident_bytes, estimate.peak_bytes)
        return files.candidate, False

    def _is_complete(self, path: Path) -> bool:
        try:
            return self.platform.is_complete(path)
        except (OSError, ValueError, TesseraError):
            return False

    def _estimate(self, path: Path, size_bytes: int) -> MemoryEstimate:
        try:
            return self.platform.estimate(path)
        except (OSError, ValueError, TesseraError):  # the load will say what is wrong
            return MemoryEstimate(size_bytes, size_bytes)


def _fingerprint(path: Path) -> tuple[str, int, float]:
    """Return (text that changes when a file does, bytes of all files, when one of them last changed: wall clock).

    Raises:
        OSError: it cannot be read.
    """
    parts: list[str] = []
    size_bytes, changed_s = 0, 0.0
    for entry_path, info in _walk(path):
        parts.append(f"{entry_path}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}")
        size_bytes += info.st_size
        changed_s = max(changed_s, info.st_ctime)  # unlike the time of modification, nobody sets it
    return "\n".join(parts), size_bytes, changed_s


def _walk(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    pending, seen = [path], 0
    while pending:
        directory = pending.pop()
        yield str(directory), directory.stat()
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                seen += 1
                if seen > MAX_FILES:
                    return
                if entry.is_dir():
                    pending.append(Path(entry.path))
                else:
                    yield entry.path, entry.stat()
