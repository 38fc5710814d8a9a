"""What goes in and out of the lifecycle's decisions: bounds, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

from router.lifecycle.config import ModelConfig
from router.lifecycle.versions import Candidate


@dataclass(frozen=True)
class Limits:
    """How much may be done at once, and how often.

    Attributes:
        memory_bytes: of all plain models together, at the peak; 0: no limit.
        initial_loads: loads at once until every model of the first configuration was loaded or has failed.
        loads: loads at once after that.
        max_retries: how often a load that failed is tried again.
        retry_interval_s: time between two tries.
    """

    memory_bytes: int = 0
    initial_loads: int = 1
    loads: int = 1
    max_retries: int = 5
    retry_interval_s: float = 60.0


@dataclass(frozen=True)
class Load:
    """Load this version."""

    model: str
    version: int
    generation: int
    config: ModelConfig
    candidate: Candidate


@dataclass(frozen=True)
class Unload:
    """Free this version, which is no longer published, once no request uses it."""

    model: str
    version: int
    generation: int
    resident_bytes: int


@dataclass(frozen=True)
class Actions:
    """What to do now; `wake_s` is when to ask again if nothing happens before (None: no need to)."""

    unloads: tuple[Unload, ...]
    loads: tuple[Load, ...]
    wake_s: float | None


@dataclass(frozen=True)
class Published:
    """What requests to one model can reach: version → generation, label → version."""

    config: ModelConfig
    versions: dict[int, int]
    labels: dict[str, int]
