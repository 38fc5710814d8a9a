"""Looks at base paths: which versions there are, which can be loaded, and what is warned of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import pytest

from router.lifecycle.config import All, Latest, ModelConfig, Specific, VersionPolicy
from router.lifecycle.disk import INCOMPLETE_S, SETTLE_S, Look, Looker
from router.platforms.base import MemoryEstimate, Platform
from tessera.clock import ManualClock
from tessera.errors import NotFoundError


class _Platform:
    """A version is complete once it has a file `done`."""

    name = "fake"

    def is_complete(self, path: Path) -> bool:
        return (path / "done").exists()

    def estimate(self, path: Path) -> MemoryEstimate:
        if not (path / "done").exists():
            raise NotFoundError("no such file")
        return MemoryEstimate(7, 9)


class _Clock(ManualClock):
    """Its wall clock never passes the times of files, so that only waiting makes them settle."""

    def wall_s(self) -> float:
        return 0.0


class _Model:
    def __init__(self, base: Path, policy: VersionPolicy | None = None, *, flat: bool = False) -> None:
        self.base, self.clock = base, _Clock()
        config = ModelConfig("m", base, versions=policy or Latest(), flat=flat)
        self.looker = Looker(config, cast(Platform, _Platform()), self.clock)

    def add(self, name: str, *, done: bool = True) -> Path:
        path = self.base / name
        path.mkdir(parents=True)
        (path / "weights").write_bytes(b"12345")
        if done:
            (path / "done").touch()
        return path

    def look(self, *held: int) -> Look:
        return self.looker.look(frozenset(held))

    def ready(self, *held: int) -> dict[int, str]:
        """Return version → name of its directory, after it had time to settle."""
        self.look(*held)
        self.clock.advance(SETTLE_S)
        view = self.look(*held).view
        assert view is not None
        return {number: candidate.path.name for number, candidate in view.ready.items()}


def test_numeric_directories_are_versions(tmp_path: Path) -> None:
    model = _Model(tmp_path, All())
    for name in ("1", "00000123", "v2", "3.5", "-4", "9" * 30, "assets"):
        model.add(name)
    (tmp_path / "7").touch()
    assert model.ready() == {1: "1", 123: "00000123"}
    assert model.look().warnings == ()


def test_of_two_that_are_equal_as_numbers_one_is_used(tmp_path: Path) -> None:
    model = _Model(tmp_path)
    model.add("5")
    model.add("05")
    assert model.ready() == {5: "05"}
    text = f"servable m: 05 and 5 under {tmp_path} are the same version; 05 is used"
    assert model.look().warnings == (text,)


def test_a_base_path_that_is_not_there_or_empty_is_warned_of(tmp_path: Path) -> None:
    look = _Model(tmp_path / "none").look()
    assert look.view is None
    expected = f"Could not find base path {tmp_path}/none for servable m with error No such file or directory"
    assert look.warnings == (expected,)
    look = _Model(tmp_path).look()
    assert look.view is not None
    assert look.view.present == frozenset()
    assert look.warnings == (
        f"No versions of servable m found under base path {tmp_path}. Did you forget to name your leaf directory as a "
        "number (eg. '/1/')?",
    )


def test_a_specific_version_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    model = _Model(tmp_path, Specific(frozenset({1, 2})))
    model.add("1")
    model.add("3")
    assert model.ready() == {1: "1"}
    assert model.look().warnings == (
        f"Version 2 of servable m, which the configuration asks for, was not found under base path {tmp_path}",
    )


def test_only_what_may_have_to_be_loaded_is_looked_into(tmp_path: Path) -> None:
    model = _Model(tmp_path, Latest(2))
    for name in ("1", "2", "3", "4"):
        model.add(name)
    assert model.ready() == {3: "3", 4: "4"}
    assert model.ready(4) == {3: "3"}
    assert model.ready(3, 4) == {}
    assert model.ready(1, 2) == {3: "3", 4: "4"}


def test_a_version_is_loaded_once_its_files_settle(tmp_path: Path) -> None:
    model = _Model(tmp_path)
    path = model.add("1")
    first = model.look()
    assert first.view is not None
    assert (dict(first.view.ready), first.unsettled) == ({}, True)
    model.clock.advance(SETTLE_S)
    (path / "weights").write_bytes(b"more")
    assert model.look().unsettled
    model.clock.advance(SETTLE_S / 2)
    assert model.look().unsettled
    model.clock.advance(SETTLE_S)
    last = model.look()
    assert last.view is not None
    assert not last.unsettled
    candidate = last.view.ready[1]
    assert (candidate.path, candidate.resident_bytes, candidate.peak_bytes) == (path, 7, 9)


def test_a_half_copied_version_waits_and_the_one_before_it_serves(tmp_path: Path) -> None:
    model = _Model(tmp_path)
    model.add("1")
    path = model.add("2", done=False)
    assert model.ready() == {1: "1"}
    (path / "done").touch()
    assert model.look().unsettled
    assert model.ready() == {2: "2"}


def test_what_stays_incomplete_is_loaded_in_the_end_so_that_the_load_says_what_is_wrong(tmp_path: Path) -> None:
    model = _Model(tmp_path)
    path = model.add("1", done=False)
    assert model.ready() == {}
    model.clock.advance(INCOMPLETE_S)
    view = model.look().view
    assert view is not None
    assert view.ready[1].resident_bytes >= (path / "weights").stat().st_size
    before = view.ready[1].fingerprint
    (path / "weights").write_bytes(b"123456")
    assert model.ready() == {}
    model.clock.advance(INCOMPLETE_S)
    view = model.look().view
    assert view is not None
    assert view.ready[1].fingerprint != before


def test_files_that_were_written_long_ago_need_no_second_look(tmp_path: Path) -> None:
    model = _Model(tmp_path)
    path = model.add("1")

    class _Later(ManualClock):
        def wall_s(self) -> float:
            return max(file.stat().st_ctime for file in path.iterdir()) + 3600

    model.looker.clock = _Later()
    view = model.look().view
    assert view is not None
    assert set(view.ready) == {1}


def test_a_version_that_goes_away_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Model(tmp_path, All())
    model.add("1")
    model.add("2")
    original = model.looker._versions

    def versions() -> tuple[dict[int, Path], list[str]]:
        found = original()
        shutil.rmtree(tmp_path / "2", ignore_errors=True)
        return found

    monkeypatch.setattr(model.looker, "_versions", versions)
    assert model.ready() == {1: "1"}


def test_a_flat_model_is_its_own_version_one(tmp_path: Path) -> None:
    model = _Model(tmp_path, flat=True)
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "done").touch()
    assert model.ready() == {1: tmp_path.name}
    none = _Model(tmp_path / "none", flat=True).look()
    assert none.view is not None
    assert not none.view.present
