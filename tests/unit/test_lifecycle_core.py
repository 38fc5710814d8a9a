"""What the lifecycle decides, one rule a test; `test_lifecycle_random.py` has what always holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from router.catalog import VersionState
from router.lifecycle.actions import Actions, Limits, Load, Unload
from router.lifecycle.config import All, Latest, ModelConfig, ServerConfig, Specific, VersionPolicy
from router.lifecycle.core import Core
from router.lifecycle.report import not_ready
from router.lifecycle.versions import MAX_ENDED, Candidate, DiskView
from tessera.errors import Code

_M = ModelConfig("m", Path("/models/m"))
_RETRY_S = 60.0


class _Driver:
    """A core with one model, whose loads end when the test says so."""

    def __init__(self, config: ModelConfig = _M, **limits: float) -> None:
        self.core = Core(Limits(**{"initial_loads": 8, "loads": 8, "max_retries": 1, **limits}))  # type: ignore[arg-type]
        self.now_s = 0.0
        self.loads: list[Load] = []
        self.unloads: list[Unload] = []
        self.core.configure(ServerConfig((config,)))

    def configure(self, *configs: ModelConfig) -> None:
        self.core.configure(ServerConfig(configs))

    def disk(self, *versions: int, model: str = "m", size: int = 10, files: str = "a", held: int = 0) -> None:
        ready = {n: Candidate(Path(f"/models/{model}/{n}"), f"{files}{n}", size, size + size // 2) for n in versions}
        ready.pop(held, None)
        self.core.saw(model, DiskView(frozenset(versions), ready, frozenset({held} & {*versions})))

    def step(self) -> Actions:
        actions = self.core.decide(self.now_s)
        self.loads += actions.loads
        self.unloads += actions.unloads
        return actions

    def load_all(self) -> None:
        """Let everything come to rest, all loads succeeding."""
        self.step()
        while self.loads or self.unloads:
            for load in self.loads:
                self.core.loaded(load)
            for unload in self.unloads:
                self.core.unloaded(unload)
            self.loads, self.unloads = [], []
            self.step()

    def fail(self, code: Code = Code.DATA_LOSS, message: str = "damaged") -> None:
        for load in self.loads:
            self.core.failed(load, code, message, self.now_s)
        self.loads = []

    def served(self, model: str = "m") -> list[int]:
        published = self.core.published().get(model)
        return list(published.versions) if published is not None else []

    def state(self, version: int, model: str = "m") -> VersionState:
        return self.core.models[model].versions[version].state


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Latest(), [5]),
        (Latest(2), [3, 5]),
        (Latest(9), [1, 3, 5]),
        (All(), [1, 3, 5]),
        (Specific(frozenset({1, 4})), [1]),
    ],
)
def test_policies(policy: VersionPolicy, expected: list[int]) -> None:
    driver = _Driver(replace(_M, versions=policy))
    driver.disk(1, 3, 5)
    driver.load_all()
    assert driver.served() == expected


def test_new_first_serves_the_old_version_until_the_new_one_is_there() -> None:
    driver = _Driver()
    driver.disk(1)
    driver.load_all()
    driver.disk(1, 2)
    actions = driver.step()
    assert [load.version for load in actions.loads] == [2]
    assert (driver.served(), actions.unloads) == ([1], ())
    driver.core.loaded(driver.loads.pop())
    actions = driver.step()
    assert [unload.version for unload in actions.unloads] == [1]
    assert driver.served() == [2]
    assert driver.state(1) == VersionState.UNLOADING
    driver.core.unloaded(actions.unloads[0])
    assert driver.state(1) == VersionState.END


def test_old_first_unloads_and_waits_until_the_memory_is_free() -> None:
    driver = _Driver(replace(_M, switch="old_first"))
    driver.disk(1)
    driver.load_all()
    driver.disk(1, 2)
    actions = driver.step()
    assert ([unload.version for unload in actions.unloads], actions.loads) == ([1], ())
    assert driver.served() == []
    assert driver.step().loads == ()
    driver.core.unloaded(actions.unloads[0])
    assert [load.version for load in driver.step().loads] == [2]


def test_old_first_keeps_the_old_version_when_the_new_one_will_never_fit() -> None:
    driver = _Driver(replace(_M, switch="old_first"), memory_bytes=20)
    driver.disk(1)
    driver.load_all()
    ready = {2: Candidate(Path("/models/m/2"), "b", 50, 50)}
    driver.core.saw("m", DiskView(frozenset({1, 2}), ready))
    assert driver.step().unloads == ()
    assert driver.served() == [1]


def test_deleting_the_newest_goes_back_and_deleting_all_changes_nothing() -> None:
    driver = _Driver()
    driver.disk(1, 2)
    driver.load_all()
    driver.disk(1)
    driver.load_all()
    assert driver.served() == [1]
    driver.disk()
    driver.load_all()
    assert driver.served() == [1]


def test_a_model_that_is_no_longer_configured_is_unloaded_and_told_of() -> None:
    driver = _Driver()
    driver.disk(1)
    driver.load_all()
    driver.configure()
    actions = driver.step()
    assert [unload.version for unload in actions.unloads] == [1]
    assert driver.core.published() == {}
    driver.core.unloaded(actions.unloads[0])
    assert driver.state(1) == VersionState.END


def test_failed_loads_are_tried_again_after_the_interval_and_then_given_up() -> None:
    driver = _Driver()
    driver.disk(1)
    driver.step()
    driver.fail()
    assert driver.step() == Actions((), (), _RETRY_S)
    assert driver.state(1) == VersionState.LOADING
    driver.now_s = _RETRY_S
    assert len(driver.step().loads) == 1
    driver.fail()
    assert driver.step() == Actions((), (), None)
    version = driver.core.models["m"].versions[1]
    assert (version.state, version.code, version.message) == (VersionState.END, Code.DATA_LOSS, "damaged")
    driver.now_s = 10 * _RETRY_S
    assert driver.step().loads == ()


def test_a_failure_counts_although_the_last_look_passed_the_version_over() -> None:
    driver = _Driver()
    driver.disk(1)
    driver.step()
    driver.disk(1, held=1)  # nobody looks into what is being loaded
    driver.fail()
    assert driver.step() == Actions((), (), _RETRY_S)
    driver.disk(1, held=1)
    assert driver.step() == Actions((), (), _RETRY_S)
    driver.now_s = _RETRY_S
    driver.step()
    driver.disk(1, held=1)
    driver.fail()
    assert driver.step() == Actions((), (), None)
    driver.disk(1)
    assert driver.step() == Actions((), (), None)


def test_a_version_that_was_given_up_is_tried_again_when_its_files_change_or_it_comes_back() -> None:
    driver = _Driver(max_retries=0)
    driver.disk(1)
    driver.step()
    driver.fail()
    driver.disk(1, files="b")
    assert len(driver.step().loads) == 1
    driver.fail()
    driver.disk()
    driver.step()
    driver.disk(1, files="b")
    assert len(driver.step().loads) == 1


def test_a_version_that_is_no_longer_wanted_is_not_tried_again() -> None:
    driver = _Driver()
    driver.disk(1)
    driver.step()
    driver.fail()
    driver.disk()
    assert driver.step() == Actions((), (), None)
    assert driver.state(1) == VersionState.END
    driver.now_s = _RETRY_S
    assert driver.step().loads == ()


def test_a_version_that_is_wanted_again_while_it_is_unloaded_loads_at_once() -> None:
    driver = _Driver(replace(_M, versions=Specific(frozenset({1}))))
    driver.disk(1, 2)
    driver.load_all()
    driver.configure(replace(_M, versions=Specific(frozenset({2}))))
    driver.step()
    driver.core.loaded(driver.loads.pop())
    unload = driver.step().unloads[0]
    driver.configure(replace(_M, versions=Specific(frozenset({1, 2}))))
    loads = driver.step().loads
    assert [load.version for load in loads] == [1]
    assert loads[0].generation != unload.generation
    driver.core.unloaded(unload)
    driver.core.loaded(loads[0])
    driver.step()
    assert driver.served() == [1, 2]


def test_a_load_that_is_no_longer_wanted_serves_if_nothing_else_does() -> None:
    driver = _Driver()
    driver.disk(1)
    first = driver.step().loads[0]
    driver.disk(1, 2)
    second = driver.step().loads[0]
    driver.core.loaded(first)
    assert driver.step().unloads == ()
    assert driver.served() == [1]
    driver.core.loaded(second)
    assert [unload.version for unload in driver.step().unloads] == [1]
    assert driver.served() == [2]


def test_memory_refuses_and_tries_again_when_it_is_freed() -> None:
    other = ModelConfig("other", Path("/models/other"))
    driver = _Driver(memory_bytes=30)
    driver.configure(_M, other)
    driver.disk(1, size=16)
    driver.load_all()
    driver.disk(7, model="other", size=20)
    assert driver.step().loads == ()
    version = driver.core.models["other"].versions[7]
    assert version.code == Code.RESOURCE_EXHAUSTED
    assert version.message == "Insufficient resources to load servable {name: other version: 7}"
    assert version.state == VersionState.END
    driver.configure(other)
    assert [unload.version for unload in driver.step().unloads] == [1]
    assert driver.core.used_bytes() == 16  # until nobody uses it
    driver.load_all()
    assert driver.served("other") == [7]
    assert driver.core.models["other"].versions[7].message == ""


def test_a_load_waits_for_the_peak_of_another_to_pass() -> None:
    driver = _Driver(replace(_M, versions=All()), memory_bytes=26)
    driver.disk(1, 2)
    load = driver.step().loads
    assert [one.version for one in load] == [2]
    assert driver.state(1) == VersionState.START
    driver.core.loaded(load[0])
    assert [one.version for one in driver.step().loads] == [1]


def test_the_first_configuration_loads_side_by_side_and_what_comes_later_does_not() -> None:
    driver = _Driver(replace(_M, versions=All()), initial_loads=2, loads=1)
    driver.disk(1, 2, 3)
    assert [load.version for load in driver.step().loads] == [3, 2]
    driver.load_all()
    driver.disk(1, 2, 3, 4, 5)
    assert [load.version for load in driver.step().loads] == [5]


def test_labels_point_to_available_versions_only() -> None:
    driver = _Driver(replace(_M, versions=All(), labels={"stable": 1, "canary": 2}))
    driver.disk(1)
    driver.load_all()
    assert driver.core.published()["m"].labels == {"stable": 1}
    driver.disk(1, 2)
    driver.load_all()
    assert driver.core.published()["m"].labels == {"stable": 1, "canary": 2}


def test_versions_that_ended_are_told_of_up_to_a_bound() -> None:
    driver = _Driver()
    for version in range(1, 40):
        driver.disk(version)
        driver.load_all()
    assert sorted(driver.core.models["m"].versions) == list(range(39 - MAX_ENDED, 40))


def test_readiness() -> None:
    driver = _Driver(max_retries=0)
    assert not_ready(driver.core) == ["model m: /models/m was not read yet"]
    driver.disk()
    driver.step()
    assert not_ready(driver.core) == ["model m: no version found under /models/m"]
    driver.disk(1)
    driver.step()
    assert not_ready(driver.core) == ["model m version 1: LOADING"]
    driver.load_all()
    assert not_ready(driver.core) == []
    driver.disk(1, 2)
    driver.step()
    driver.fail()
    driver.step()
    assert not_ready(driver.core) == []  # version 1 goes on
    driver.configure(_M, ModelConfig("n", Path("/n"), versions=Specific(frozenset({3}))))
    driver.disk(4, model="n")
    driver.step()
    assert not_ready(driver.core) == ["model n version 3: not on disk, or not complete"]


def test_another_base_path_keeps_what_serves_until_it_was_read() -> None:
    driver = _Driver()
    driver.disk(1)
    driver.load_all()
    driver.configure(replace(_M, base_path=Path("/elsewhere")))
    driver.step()
    assert driver.served() == [1]
    driver.disk(2)
    driver.load_all()
    assert driver.served() == [2]
