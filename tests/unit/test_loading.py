import os
from pathlib import Path

import pytest

from admin.loading import owner, wanted_models
from tessera.errors import InvalidArgumentError, NotFoundError
from tessera.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    for package in ("ranker/1", "ranker/2", "ranker/10", "words/3"):
        (tmp_path / "packages" / package).mkdir(parents=True)
        (tmp_path / "packages" / package / "manifest.json").touch()
    return Repository(tmp_path)


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ([], {"ranker": [10], "words": [3]}),
        (["ranker"], {"ranker": [10]}),
        (["ranker:1"], {"ranker": [1]}),
        (["ranker:2,1,2"], {"ranker": [1, 2]}),
        (["words", "ranker:1,10"], {"words": [3], "ranker": [1, 10]}),
    ],
)
def test_selectors(repository: Repository, selectors: list[str], expected: dict[str, list[int]]) -> None:
    assert wanted_models(repository, selectors) == expected


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("rankr", "has no model rankr; it has ranker, words"),
        ("rankr:1", "has no model rankr; it has ranker, words"),
        ("ranker:4", "has no version 4 of model ranker; it has 1, 2, 10"),
        ("ranker:1,4", "has no version 4 of model ranker"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(repository: Repository, selector: str, says: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        wanted_models(repository, [selector])
    assert says in caught.value.message


@pytest.mark.parametrize("selector", ["ranker:", "ranker:x", "ranker:1,", "ranker:1.5"])
def test_malformed_selectors_are_named(repository: Repository, selector: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wanted_models(repository, [selector])
    assert f"got {selector!r}, expected NAME or NAME:VERSION,VERSION" in caught.value.message


def test_a_model_that_is_named_twice_is_refused(repository: Repository) -> None:
    with pytest.raises(InvalidArgumentError, match="ranker: named twice"):
        wanted_models(repository, ["ranker:1", "ranker:2"])


def test_an_empty_and_a_missing_repository_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no packages; make one with `tessera partition`"):
        wanted_models(Repository(tmp_path), [])
    with pytest.raises(NotFoundError, match="elsewhere: no such directory"):
        wanted_models(Repository(tmp_path / "elsewhere"), [])


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 65_532)  # whom no line of /etc/passwd names, as in a container
    assert owner().startswith("65532@")
