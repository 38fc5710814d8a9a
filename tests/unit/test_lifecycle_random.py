"""What always holds of the lifecycle's decisions, over random histories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.catalog import VersionState
from router.lifecycle.actions import Limits, Load, Unload
from router.lifecycle.config import All, Latest, ModelConfig, ServerConfig, Specific
from router.lifecycle.core import MAX_REMOVED_MODELS, Core
from router.lifecycle.versions import MAX_ENDED, Candidate, DiskView
from tessera.errors import Code

_NAMES = ("a", "b")
_VERSIONS = st.integers(1, 4)
_POLICIES = st.one_of(
    st.builds(Latest, st.integers(1, 2)), st.just(All()), st.builds(Specific, st.frozensets(_VERSIONS, min_size=1))
)
_LIMIT = 60
_SIZES = st.fixed_dictionaries({}, optional={number: st.integers(8, 40) for number in range(1, 5)})


@st.composite
def _configs(draw: Any, names: tuple[str, ...] = ()) -> ServerConfig:
    names = names or draw(st.sampled_from((_NAMES, _NAMES, _NAMES[:1], _NAMES[1:], ())))
    return ServerConfig(
        tuple(
            ModelConfig(
                name,
                Path("/models") / name,
                versions=draw(_POLICIES),
                labels=draw(st.dictionaries(st.sampled_from(("stable", "canary")), _VERSIONS)),
                switch=draw(st.sampled_from(("new_first", "old_first"))),
            )
            for name in names
        )
    )


class _Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = Core(Limits(_LIMIT, initial_loads=3, loads=2, max_retries=1, retry_interval_s=10))
        self.now_s = 0.0
        self.loads: list[Load] = []
        self.unloads: list[Unload] = []
        self.before: dict[str, set[int]] = {}
        self.files = 0
        self.held: dict[str, frozenset[int]] = {}

    @initialize(config=_configs(_NAMES), a=_SIZES, b=_SIZES)
    def begin(self, config: ServerConfig, a: dict[int, int], b: dict[int, int]) -> None:
        self.configure(config)
        self.look("a", a, set())
        self.look("b", b, set())

    @rule(config=_configs())
    def configure(self, config: ServerConfig) -> None:
        self.core.configure(config)
        self._step()

    @rule(name=st.sampled_from(_NAMES), sizes=_SIZES, half=st.sets(_VERSIONS))
    def look(self, name: str, sizes: dict[int, int], half: set[int]) -> None:
        self.files += 1
        ready = {
            number: Candidate(Path(f"/models/{name}/{number}"), f"{number} {self.files % 2}", size, size + size // 2)
            for number, size in sizes.items()
            if number not in self.held.get(name, ())
        }
        self.core.saw(name, DiskView(frozenset(sizes) | half, ready, self.held.get(name, frozenset())))
        self.held = {model.name: model.held() for model in self.core.models.values()}  # as the next look begins
        self._step()

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), succeeds=st.booleans())
    def end_load(self, data: st.DataObject, succeeds: bool) -> None:
        load = self.loads.pop(data.draw(st.integers(0, len(self.loads) - 1)))
        if succeeds:
            self.core.loaded(load)
        else:
            self.core.failed(load, Code.DATA_LOSS, "damaged", self.now_s)
        self._step()

    @precondition(lambda self: self.unloads)
    @rule(data=st.data())
    def end_unload(self, data: st.DataObject) -> None:
        self.core.unloaded(self.unloads.pop(data.draw(st.integers(0, len(self.unloads) - 1))))
        self._step()

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        self._step()

    def _step(self) -> None:
        before = {name: set(published.versions) for name, published in self.core.published().items()}
        actions = self.core.decide(self.now_s)
        assert actions.wake_s is None or actions.wake_s > self.now_s or self._bound()
        after = {name: set(published.versions) for name, published in self.core.published().items()}
        for unload in actions.unloads:
            assert unload.version not in after.get(unload.model, set())
        for name, versions in before.items():
            config = self.core.models[name].config
            if config is not None and config.switch == "new_first":
                assert after.get(name), f"{name} had {versions}, and nothing took their place"
            kept = self.core.models[name].wanted() & versions
            assert kept <= after.get(name, set()), "what is wanted and serves was taken away"
        for load in actions.loads:
            assert load.version in self.core.models[load.model].wanted()
            if load.config.switch == "old_first":
                held = self.core.models[load.model].held()
                assert held <= self.core.models[load.model].wanted(), "old first, but an old one is in memory"
        self.loads += actions.loads
        self.unloads += actions.unloads
        again = self.core.decide(self.now_s)
        assert not again.loads
        assert not again.unloads

    def _bound(self) -> bool:
        """Whether something other than time holds a retry up."""
        return bool(self.loads or self.unloads) or self.core.used_bytes() > 0

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.core.used_bytes() <= _LIMIT

    @invariant()
    def loads_are_bounded(self) -> None:
        assert len(self.loads) <= 3

    @invariant()
    def labels_are_available(self) -> None:
        for published in self.core.published().values():
            assert set(published.labels.values()) <= published.versions.keys()

    @invariant()
    def what_is_told_is_bounded(self) -> None:
        assert len(self.core.models) <= len(_NAMES) + MAX_REMOVED_MODELS
        for model in self.core.models.values():
            ended = [one for one in model.versions.values() if one.state == VersionState.END]
            assert len(ended) <= MAX_ENDED + len(model.wanted())

    def teardown(self) -> None:
        """In the end everything that is wanted and fits is served, and nothing else."""
        for _ in range(100):
            while self.loads:
                self.core.loaded(self.loads.pop())
                self._step()
            while self.unloads:
                self.core.unloaded(self.unloads.pop())
                self._step()
            self.now_s += 100
            self._step()
            if not self.loads and not self.unloads:
                break
        assert not self.loads
        assert not self.unloads
        for model in self.core.models.values():
            available = model.available()
            assert model.config is not None or not available
            for number in model.wanted() - available:
                version = model.versions[number]
                assert version.given_up is not None or version.refused or not self._room(number, model.name), (
                    f"{model.name} {number} is still {version.state.name}"
                )
            if model.wanted() & available:
                assert available <= model.wanted()

    def _room(self, number: int, name: str) -> bool:
        candidate = self.core.models[name].versions[number].candidate
        return candidate is not None and self.core.used_bytes() + candidate.peak_bytes <= _LIMIT


_Histories.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestHistories = _Histories.TestCase
