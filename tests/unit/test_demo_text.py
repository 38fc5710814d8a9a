"""The demo's text: deterministic, and split without overlap."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.stdlib_modules import data


def _read(stdlib: Path, **changed: int) -> data.Corpus:
    settings = {"max_modules": 10, "max_lines_per_module": 1000, "held_out_percent": 20} | changed
    return data.read_corpus(stdlib, **settings)


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    for name, count in {"small": 40, "middle": 80, "large": 160}.items():
        tmp_path.joinpath(f"{name}.py").write_text("\n".join(f"    value_{i} = {name}({i})" for i in range(count)))
    shared = "\n".join(f"import shared_between_modules_{i}" for i in range(50))
    package = tmp_path / "package"
    package.joinpath("test").mkdir(parents=True)
    package.joinpath("__init__.py").write_text(shared)
    package.joinpath("test", "test_it.py").write_text("this_line_is_of_a_test = True")
    tmp_path.joinpath("other.py").write_text(shared)
    tmp_path.joinpath("idlelib").mkdir()
    tmp_path.joinpath("idlelib", "__init__.py").write_text("this_module_is_skipped = True")
    return tmp_path


def test_the_same_text_every_time(stdlib: Path) -> None:
    assert _read(stdlib) == _read(stdlib)


def test_no_held_out_line_is_in_training(stdlib: Path) -> None:
    corpus = _read(stdlib)
    assert corpus.held_out.lines
    assert not set(corpus.training.lines) & set(corpus.held_out.lines)
    assert len(corpus.training) + len(corpus.held_out) == 40 + 80 + 160 + 50 + 50


def test_tests_and_skipped_modules_are_left_out(stdlib: Path) -> None:
    corpus = _read(stdlib)
    assert corpus.modules == ["large", "middle", "other", "package", "small"]
    assert not [line for line in corpus.training.lines + corpus.held_out.lines if line.startswith("this_")]


def test_the_largest_modules_are_kept_and_cut(stdlib: Path) -> None:
    corpus = _read(stdlib, max_modules=2, max_lines_per_module=60)
    assert corpus.modules == ["large", "middle"]
    labels = corpus.training.labels + corpus.held_out.labels
    assert [labels.count(0), labels.count(1)] == [60, 60]
    assert corpus.held_out.lines, "cutting must not take all of one side"


def test_a_folder_without_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected the standard library"):
        _read(tmp_path)


def test_majority_is_the_most_frequent_training_label() -> None:
    held_out = data.Examples(["a", "b", "c", "d"], [0, 1, 1, 2])
    assert data.majority_accuracy(held_out, [1, 1, 0]) == 0.5


@given(st.text(max_size=60), st.integers(1, 50))
def test_more_percent_hold_out_a_superset(line: str, percent: int) -> None:
    assert data.is_held_out(line, percent) <= data.is_held_out(line, percent + 1)


def test_about_the_stated_share_is_held_out() -> None:
    assert 800 < sum(data.is_held_out(f"line {i}", 10) for i in range(10_000)) < 1200
