"""What a server is told to serve: immutable values, whichever file, flag or request they came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from tessera.errors import InvalidArgumentError

SwitchOrder = Literal["new_first", "old_first"]
"""new_first loads a version before it unloads the one that it replaces (availability); old_first after (memory)."""

CLUSTER = "cluster"
"""Platform of a model that the cluster serves: its placement says which versions there are, and where they are."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Latest:
    """Serve the `count` largest versions.

    Raises:
        InvalidArgumentError: count is less than 1.
    """

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidArgumentError(
                f"model_version_policy.latest.num_versions: got {self.count}, expected 1 or more"
            )


@dataclass(frozen=True)
class All:
    """Serve every version that is there."""


@dataclass(frozen=True)
class Specific:
    """Serve these versions and no others.

    Raises:
        InvalidArgumentError: there are none, or one is negative.
    """

    versions: frozenset[int]

    def __post_init__(self) -> None:
        if not self.versions or min(self.versions) < 0:
            raise InvalidArgumentError(
                f"model_version_policy.specific.versions: got {sorted(self.versions)}, expected one or more from 0 on"
            )


VersionPolicy = Latest | All | Specific


@dataclass(frozen=True)
class TrafficSplit:
    """How requests that name no version are divided.

    Attributes:
        percent: version or label → its share; the sum is 100.
        sticky_header: metadata key or HTTP header whose value decides, so that a client stays where it is; empty: the
            request's client_id decides where there is one, else chance.

    Raises:
        InvalidArgumentError: the shares do not sum up to 100, or one is negative.
    """

    percent: Mapping[int | str, float]
    sticky_header: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "percent", _frozen(self.percent))
        shares = self.percent.values()
        if not (all(share >= 0 for share in shares) and abs(sum(shares) - 100) <= 1e-6):  # NaN is neither
            raise InvalidArgumentError(f"split.percent: got {dict(self.percent)}, expected shares that sum up to 100")


@dataclass(frozen=True)
class Shadow:
    """A copy of the traffic to another version, whose answers are compared and never returned.

    Attributes:
        version: version or label that gets the copies.
        percent: share of the requests that are copied.
        tolerance: relative difference of numbers that still counts as equal.

    Raises:
        InvalidArgumentError: percent is not within 0 to 100, or tolerance is negative.
    """

    version: int | str
    percent: float = 100.0
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise InvalidArgumentError(f"shadow.percent: got {self.percent:g}, expected 0 to 100")
        if not self.tolerance >= 0:
            raise InvalidArgumentError(f"shadow.tolerance: got {self.tolerance:g}, expected 0 or more")


@dataclass(frozen=True)
class RequestLogging:
    """Sampled requests and answers, written to files.

    Attributes:
        filename_prefix: where the files go: a path to which each file's own ending is appended.
        sampling_rate: share of the requests, 0 to 1.
        type: what collects them; empty is the only one there is, files of PredictionLog records.
        max_file_bytes, max_files: a file that has grown to this is closed and another begun; the oldest is deleted.

    Raises:
        InvalidArgumentError: sampling_rate is not within 0 to 1, or a bound is less than 1.
    """

    filename_prefix: str
    sampling_rate: float
    type: str = ""
    max_file_bytes: int = 1 << 28
    max_files: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.sampling_rate <= 1:
            raise InvalidArgumentError(f"logging_config.sampling_rate: got {self.sampling_rate:g}, expected 0 to 1")
        for name in ("max_file_bytes", "max_files"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"logging_config.{name}: got {getattr(self, name)}, expected 1 or more")


@dataclass(frozen=True)
class ModelConfig:
    """One model that is to be served. `check` says what is wrong with it, since that depends on the others.

    Attributes:
        base_path: directory whose numeric children are the versions.
        platform: name in the platform registry, or `CLUSTER`, which leaves base_path, versions, switch and flat without
            a meaning; empty (the configuration named none) is refused by `check`.
        labels: label → version.
        flat: base_path itself may be the model (as version 1), where it has no numeric children.
    """

    name: str
    base_path: Path
    platform: str = "tensorflow"
    versions: VersionPolicy = Latest()
    labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    switch: SwitchOrder = "new_first"
    split: TrafficSplit | None = None
    shadow: Shadow | None = None
    logging: RequestLogging | None = None
    flat: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _frozen(self.labels))


@dataclass(frozen=True)
class ServerConfig:
    """All models that a server is told of, in the order in which they were listed."""

    models: tuple[ModelConfig, ...] = ()

    @property
    def plain(self) -> tuple[ModelConfig, ...]:
        """Those whose versions lie under a base path."""
        return tuple(model for model in self.models if model.platform != CLUSTER)

    @property
    def clustered(self) -> tuple[ModelConfig, ...]:
        """Those that the cluster serves."""
        return tuple(model for model in self.models if model.platform == CLUSTER)

    def find(self, name: str) -> ModelConfig | None:
        """Return the model of that name, or None."""
        return next((model for model in self.models if model.name == name), None)


def check(new: ServerConfig, old: ServerConfig, platforms: Collection[str]) -> None:
    """Raise what is wrong with replacing `old` by `new`; `platforms` are the names in the registry.

    Raises:
        InvalidArgumentError: TensorFlow Serving's texts: a model without a name or listed twice, a relative path, a
            platform that is missing, unknown or changed. Ours: a field that means nothing for a model of the cluster.
    """
    names: set[str] = set()
    for model in new.models:
        if not model.name:
            raise InvalidArgumentError("ModelConfig: got an empty name, expected one")
        if model.name in names:
            raise InvalidArgumentError(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        if model.platform == CLUSTER:
            _check_clustered(model)
        elif not model.base_path.is_absolute():
            path = "" if model.base_path == Path() else str(model.base_path)
            raise InvalidArgumentError(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={path}"
            )
        if not model.platform:
            raise InvalidArgumentError(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        before = old.find(model.name)
        if before is not None and before.platform != model.platform:
            raise InvalidArgumentError(
                f"Illegal to change a model's platform. Model {model.name} is served on platform {before.platform}, "
                f"the new configuration says {model.platform}"
            )
        if model.platform not in platforms:
            raise InvalidArgumentError(f"Model {model.name} requests unsupported platform {model.platform}")


def _check_clustered(model: ModelConfig) -> None:
    """Refuse what a model of the cluster gets from its placement."""
    for name, given, absent in (
        ("base_path", model.base_path, Path()),
        ("model_version_policy", model.versions, Latest()),
        ("switch_order", model.switch, "new_first"),
    ):
        if given != absent:
            raise InvalidArgumentError(
                f"Model {model.name} is served on platform {CLUSTER}: {name}: got {given}, expected nothing, the "
                "placement says what is served"
            )


def _frozen(mapping: Mapping[_Key, _Value]) -> Mapping[_Key, _Value]:
    return MappingProxyType(dict(mapping))
