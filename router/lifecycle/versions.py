"""What the lifecycle knows of one model: configuration, what the disk shows, the state of each version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from router.catalog import VersionState
from router.lifecycle.config import All, Latest, ModelConfig, Specific, VersionPolicy
from tessera.errors import Code

MAX_ENDED = 16
"""Versions of a model that ended and are still told of in its status."""


@dataclass(frozen=True)
class Candidate:
    """A version on disk that can be loaded: complete, and not being written.

    Attributes:
        fingerprint: changes whenever a file of it does.
        resident_bytes, peak_bytes: memory that it needs once it is loaded, and at most while it is being loaded.
    """

    path: Path
    fingerprint: str
    resident_bytes: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class DiskView:
    """What a model's base path showed.

    Attributes:
        present: all versions that it has.
        ready: those that can be loaded, of those that were looked into.
        held: those that were not, since they were in memory, or being loaded, when the look began.
    """

    present: frozenset[int] = frozenset()
    ready: Mapping[int, Candidate] = field(default_factory=lambda: MappingProxyType({}))
    held: frozenset[int] = frozenset()


@dataclass
class Version:
    """One version of a model.

    Attributes:
        generation: number of the load that it stands for, 0 before the first; two loads of a version may be alive at
            once, the older of them being unloaded.
        candidate: what was loaded, or is to be.
        running: a load of `generation` is at work.
        failures: loads that failed since the version was last wanted anew.
        retry_at_s: when to try again; None: no retry is due.
        given_up: fingerprint of the files that could not be loaded, when no retry is left.
        refused: it is not loaded because there is not enough memory.
        ended: position in the order in which versions ended.
    """

    state: VersionState = VersionState.START
    code: Code = Code.OK
    message: str = ""
    generation: int = 0
    candidate: Candidate | None = None
    running: bool = False
    failures: int = 0
    retry_at_s: float | None = None
    given_up: str | None = None
    refused: bool = False
    ended: int = 0
    signature_defs: bytes = b""

    @property
    def available(self) -> bool:
        """Whether requests to it are answered."""
        return self.state == VersionState.AVAILABLE

    @property
    def settled(self) -> bool:
        """Whether it is available, or was given up or refused."""
        return self.available or self.given_up is not None or self.refused

    def fail(self, code: Code, message: str) -> None:
        """Note why it is not available."""
        self.code, self.message = code, message


@dataclass
class Model:
    """One model, as long as anything of it is of interest.

    Attributes:
        config: None: it is no longer served.
        disk: None: nobody has looked yet.
        was_ready: all wanted versions were available at some time.
    """

    name: str
    config: ModelConfig | None = None
    disk: DiskView | None = None
    versions: dict[int, Version] = field(default_factory=dict)
    was_ready: bool = False

    def available(self) -> set[int]:
        """Return the versions that answer requests."""
        return {number for number, version in self.versions.items() if version.available}

    def held(self) -> frozenset[int]:
        """Return the versions that are in memory, or on their way there: they need no look at their files."""
        return frozenset(number for number, one in self.versions.items() if one.available or one.running)

    def wanted(self) -> frozenset[int]:
        """Return the versions that the policy asks for, of those that the disk has."""
        if self.config is None or self.disk is None:
            return frozenset()
        usable = (self.held() | self.disk.ready.keys()) & self.disk.present
        return wanted(self.config.versions, usable)

    def has_nothing_to_load(self) -> bool:
        """Whether the disk was looked at and has no version that the policy asks for, not even an incomplete one."""
        return self.config is not None and self.disk is not None and not wanted(self.config.versions, self.disk.present)

    def missing(self) -> frozenset[int]:
        """Return the versions that the policy asks for and that do not answer, whether the disk has them or not."""
        expected = self.wanted()
        if self.config is not None and isinstance(self.config.versions, Specific):
            expected = self.config.versions.versions
        return expected - self.available()

    def labels(self) -> dict[str, int]:
        """Return the labels whose versions are available."""
        labels = self.config.labels if self.config is not None else {}
        available = self.available()
        return {label: version for label, version in labels.items() if version in available}

    def forget_ended(self, wanted: frozenset[int]) -> None:
        """Drop all but the last that ended; what is wanted stays, lest it be tried again and again."""
        ended = [n for n, one in self.versions.items() if one.state == VersionState.END and n not in wanted]
        for number in sorted(ended, key=lambda n: self.versions[n].ended)[: max(0, len(ended) - MAX_ENDED)]:
            del self.versions[number]


def wanted(policy: VersionPolicy, usable: frozenset[int]) -> frozenset[int]:
    """Return what `policy` asks for, of the versions that can be had."""
    match policy:
        case Latest(count):
            return frozenset(sorted(usable, reverse=True)[:count])
        case Specific(versions):
            return versions & usable
        case All():
            return usable
