"""A version directory that is still being copied is not complete, whatever of it is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from router.platforms import find_platform, variables, wire
from router.platforms.saved_model import TensorFlowPlatform
from tessera.errors import NotFoundError

platform = TensorFlowPlatform()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.weights = tf.Variable(tf.random.uniform([64, 32]))
            vocabulary = tmp_path_factory.mktemp("assets") / "words.txt"
            vocabulary.write_text("a\nb\n")
            self.words = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    str(vocabulary),
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                -1,
            )

        @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32), tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def serve(self, x: tf.Tensor, word: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x @ self.weights, "number": self.words.lookup(word)}

    path = tmp_path_factory.mktemp("model") / "1"
    model = Model()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve})
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "1"))


def test_a_whole_directory_is_complete(saved: Path) -> None:
    assert platform.is_complete(saved)


def test_every_file_cut_off_anywhere_makes_it_incomplete(copy: Path) -> None:
    files = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
    for name in files:
        file = copy / name
        content = file.read_bytes()
        for size in sorted({0, 1, len(content) // 3, len(content) // 2, len(content) - 1}):
            file.write_bytes(content[:size])
            assert not platform.is_complete(copy), f"{name} cut to {size} bytes"
        file.unlink()
        assert not platform.is_complete(copy), f"{name} is not there"
        file.write_bytes(content)
    assert platform.is_complete(copy)


def test_an_asset_or_all_variables_missing_makes_it_incomplete(copy: Path) -> None:
    shutil.rmtree(copy / "assets")
    assert not platform.is_complete(copy)
    shutil.rmtree(copy / "variables")
    assert not platform.is_complete(copy)


def test_a_directory_that_is_not_there_is_not_complete(tmp_path: Path) -> None:
    assert not platform.is_complete(tmp_path / "none")


def test_the_estimate_holds_the_weights(saved: Path) -> None:
    estimate = platform.estimate(saved)
    assert estimate.resident_bytes >= 64 * 32 * 4
    assert estimate.peak_bytes >= estimate.resident_bytes
    with pytest.raises(NotFoundError, match=r"no saved_model\.pb in"):
        platform.estimate(saved / "none")


def test_the_index_names_the_data_files_with_their_sizes(saved: Path) -> None:
    (path, size), *more = variables.data_files(saved / "variables" / "variables").items()
    assert not more
    assert path.stat().st_size == size


def test_fields_of_a_message_that_is_cut_off_are_refused() -> None:
    whole = tf.train.Example(
        features=tf.train.Features(feature={"a": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 300]))})
    ).SerializeToString()
    assert [field for field, _, _ in wire.spans(whole, 0, len(whole))] == [1]
    for size in range(1, len(whole)):
        with pytest.raises(ValueError, match=r"byte|field"):
            list(wire.spans(whole[:size], 0, size))


def test_it_is_found_by_its_entry_point() -> None:
    assert isinstance(find_platform("m", "tensorflow"), TensorFlowPlatform)
