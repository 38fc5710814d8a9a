"""Decides which versions are loaded and unloaded, when and within which memory. Pure: no threads, no clock, no disk.

The caller reports what happened (`configure`, `saw`, `loaded`, `failed`, `unloaded`), then asks `decide` what to do,
and does it in this order: publish `published()`, unload, load. What `decide` returned counts as begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from router.catalog import VersionState
from router.lifecycle.actions import Actions, Limits, Load, Published, Unload
from router.lifecycle.config import ModelConfig, ServerConfig
from router.lifecycle.versions import DiskView, Model, Version
from tessera.errors import Code

MAX_REMOVED_MODELS = 64
"""Models that are no longer served and whose last states are still told."""


@dataclass
class Core:
    """The state of all plain models. Used by one thread.

    Attributes:
        others_bytes: memory within the limit that others use: packages of the cluster.
    """

    limits: Limits
    others_bytes: int = 0
    models: dict[str, Model] = field(default_factory=dict)
    initial: bool = True
    hidden: frozenset[str] = frozenset()
    _loading: dict[int, Load] = field(default_factory=dict)
    _unloading: dict[int, Unload] = field(default_factory=dict)
    _generations: int = 0
    _ended: int = 0

    def configure(self, config: ServerConfig, hidden: frozenset[str] = frozenset()) -> None:
        """Serve `config` from now on: unload models that it does not name; those in `hidden` are not yet published."""
        self.hidden = hidden
        named = {model.name for model in config.models}
        for name, model in self.models.items():
            if name not in named:
                model.config, model.disk, model.was_ready = None, None, False
        for wanted in config.models:
            model = self.models.pop(wanted.name, Model(wanted.name))
            if model.config is not None and model.config.base_path != wanted.base_path:
                model.disk = None  # what the other path showed is no answer
            model.config = wanted
            self.models[wanted.name] = (
                model  # at the end: models that were removed come first, the oldest of them first
            )
        removed = [model.name for model in self.models.values() if model.config is None and not self._alive(model)]
        for name in removed[: max(0, len(removed) - MAX_REMOVED_MODELS)]:
            del self.models[name]

    def saw(self, name: str, disk: DiskView) -> None:
        """Take what a look at the model's base path showed. A look that failed is not reported: the last one holds."""
        model = self.models.get(name)
        if model is None or model.config is None:
            return
        as_before = {
            number: version.candidate
            for number, version in model.versions.items()
            if number in disk.held and version.candidate is not None
        }
        model.disk = replace(disk, ready={**as_before, **disk.ready})  # a load may have failed while the look went on

    def loaded(self, load: Load, signature_defs: bytes = b"") -> None:
        """Note that a load has succeeded."""
        version = self._finish(load)
        version.state, version.signature_defs = VersionState.AVAILABLE, signature_defs
        version.fail(Code.OK, "")
        version.failures, version.retry_at_s = 0, None

    def failed(self, load: Load, code: Code, message: str, now_s: float) -> None:
        """Note that a load has failed; it is tried again while tries are left and the version is wanted."""
        version = self._finish(load)
        version.fail(code, message)
        version.failures += 1
        if version.failures <= self.limits.max_retries:
            version.retry_at_s = now_s + self.limits.retry_interval_s
        else:
            version.given_up, version.retry_at_s = load.candidate.fingerprint, None
            self._end(version)

    def unloaded(self, unload: Unload) -> None:
        """Note that the memory of an unloaded version is free again."""
        del self._unloading[unload.generation]
        version = self.models[unload.model].versions.get(unload.version)
        if version is not None and version.generation == unload.generation and version.state == VersionState.UNLOADING:
            self._end(version)

    def decide(self, now_s: float) -> Actions:
        """Begin what can be begun, and return it."""
        for model in self.models.values():
            self._aspire(model)
        unloads = [unload for model in self.models.values() for unload in self._unloads(model, now_s)]
        loads = list(self._loads(now_s))
        for model in self.models.values():
            model.forget_ended(model.wanted())
            if model.disk is not None and model.available() and not model.missing():
                model.was_ready = True
        served = [model for model in self.models.values() if model.config is not None]
        if served and all(self.settled(model) for model in served):
            self.initial = False
        return Actions(tuple(unloads), tuple(loads), self._wake_s())

    def published(self) -> dict[str, Published]:
        """Return what requests may reach."""
        return {
            model.name: Published(
                model.config,
                {number: model.versions[number].generation for number in sorted(model.available())},
                model.labels(),
            )
            for model in self.models.values()
            if model.config is not None and model.available() and model.name not in self.hidden
        }

    def settled(self, model: Model) -> bool:
        """Whether the model's base path was looked at and nothing of it is still to be loaded for the first time."""
        return model.disk is not None and all(
            number in model.versions and model.versions[number].settled for number in model.wanted()
        )

    def used_bytes(self) -> int:
        """Return the memory that is in use, counting what is being loaded at its peak."""
        return (
            self.others_bytes
            + sum(self._resident_bytes())
            + sum(load.candidate.peak_bytes for load in self._loading.values())
            + sum(unload.resident_bytes for unload in self._unloading.values())
        )

    def _resident_bytes(self) -> Iterator[int]:
        for model in self.models.values():
            for version in model.versions.values():
                if version.available and version.candidate is not None:
                    yield version.candidate.resident_bytes

    def _aspire(self, model: Model) -> None:
        """Bring the states of what is not in memory in line with what is wanted."""
        wanted = model.wanted()
        for number in sorted(wanted):
            version = model.versions.setdefault(number, Version())
            if model.disk is None or version.available or version.running:
                continue
            candidate = model.disk.ready[number]
            if version.given_up is not None and version.given_up == candidate.fingerprint:
                continue
            changed = version.candidate is not None and version.candidate.fingerprint != candidate.fingerprint
            gone = version.state in (VersionState.END, VersionState.UNLOADING) and not version.refused
            if changed or gone:  # a new start; what was refused keeps its reason until it is loaded
                model.versions[number] = version = Version(generation=version.generation, ended=version.ended)
            version.candidate = candidate
        for number, version in model.versions.items():
            waits = version.state in (VersionState.START, VersionState.LOADING) and not version.running
            if number not in wanted:
                version.given_up, version.retry_at_s, version.refused = None, None, False
                if waits:
                    self._end(version)

    def _unloads(self, model: Model, now_s: float) -> Iterator[Unload]:
        wanted, available = model.wanted(), model.available()
        surplus = available - wanted
        if model.config is not None and not wanted & available:
            # Nothing can take their place yet. Old first, they make room for what is about to be loaded.
            about_to = [number for number in wanted if self._due(model.versions[number], now_s)]
            if model.config.switch == "new_first" or not any(self._fits_after(model, n, surplus) for n in about_to):
                return
        for number in sorted(surplus):
            version = model.versions[number]
            assert version.candidate is not None
            version.state = VersionState.UNLOADING
            unload = Unload(model.name, number, version.generation, version.candidate.resident_bytes)
            self._unloading[unload.generation] = unload
            yield unload

    def _fits_after(self, model: Model, number: int, surplus: set[int]) -> bool:
        """Whether there will be memory for a version once `surplus` and all that is on its way out is gone."""
        freed = sum(c.resident_bytes for n in surplus if (c := model.versions[n].candidate) is not None)
        return self._will_fit(model.versions[number], freed)

    def _loads(self, now_s: float) -> Iterator[Load]:
        """Begin loads, the models in their order, of each the largest version first."""
        for model in self.models.values():
            config = model.config
            if config is None:
                continue
            wanted = model.wanted()
            if config.switch == "old_first" and self._old_ones_stay(model, wanted):
                continue
            for number in sorted(wanted, reverse=True):
                version = model.versions[number]
                if not self._due(version, now_s) or not self._admit(model.name, number, version):
                    continue
                if len(self._loading) >= (self.limits.initial_loads if self.initial else self.limits.loads):
                    return
                yield self._begin(model.name, number, version, config)

    def _old_ones_stay(self, model: Model, wanted: frozenset[int]) -> bool:
        """Whether anything of the model that is not wanted is still in memory."""
        return (
            any(number not in wanted for number in model.held())
            or any(unload.model == model.name for unload in self._unloading.values())
            or any(load.model == model.name and load.version not in wanted for load in self._loading.values())
        )

    def _due(self, version: Version, now_s: float) -> bool:
        if version.running or version.available or version.given_up is not None or version.candidate is None:
            return False
        return version.retry_at_s is None or version.retry_at_s <= now_s

    def _admit(self, name: str, number: int, version: Version) -> bool:
        """Whether there is memory for it now; if there is none, and none is on its way, it is refused."""
        assert version.candidate is not None
        if not self.limits.memory_bytes or self.used_bytes() + version.candidate.peak_bytes <= self.limits.memory_bytes:
            return True
        version.refused = not self._will_fit(version, 0)
        if version.refused:
            message = f"Insufficient resources to load servable {{name: {name} version: {number}}}"
            version.fail(Code.RESOURCE_EXHAUSTED, message)
            if version.state != VersionState.END:
                self._end(version)
        return False

    def _will_fit(self, version: Version, freed_bytes: int) -> bool:
        """Whether it fits once loads that run have ended, unloads too, and `freed_bytes` of other versions are gone."""
        if not self.limits.memory_bytes:
            return True
        assert version.candidate is not None
        later = self.others_bytes + sum(self._resident_bytes())
        later += sum(load.candidate.resident_bytes for load in self._loading.values())
        return later - freed_bytes + version.candidate.peak_bytes <= self.limits.memory_bytes

    def _begin(self, name: str, number: int, version: Version, config: ModelConfig) -> Load:
        assert version.candidate is not None
        self._generations += 1
        version.generation, version.running = self._generations, True
        version.state, version.refused, version.retry_at_s = VersionState.LOADING, False, None
        load = Load(name, number, version.generation, config, version.candidate)
        self._loading[load.generation] = load
        return load

    def _finish(self, load: Load) -> Version:
        del self._loading[load.generation]
        version = self.models[load.model].versions[load.version]
        assert version.running
        assert version.generation == load.generation
        version.running = False
        return version

    def _end(self, version: Version) -> None:
        self._ended += 1
        version.state, version.ended = VersionState.END, self._ended

    def _alive(self, model: Model) -> bool:
        return bool(model.held()) or any(unload.model == model.name for unload in self._unloading.values())

    def _wake_s(self) -> float | None:
        times = [
            version.retry_at_s
            for model in self.models.values()
            for version in model.versions.values()
            if version.retry_at_s is not None
        ]
        return min(times, default=None)
