"""The demo's model, with tiny parameters: n-grams, training, and the saved signature."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from examples.stdlib_modules import data, model, training
from examples.stdlib_modules.parameters import Parameters

_MODULES = ["alpha", "beta", "gamma"]
_TINY = Parameters(rows=4096, dim=8, top_k=2, epochs=4, batch_lines=16)


def _examples(first: int, count: int) -> data.Examples:
    """Lines that say in two of their words which module they are from; the commonest module has half of them."""
    labels = [(0, 0, 1, 2)[i % 4] for i in range(first, first + count)]
    words = [("open_file", "close"), ("matrix", "solve"), ("socket", "send")]
    numbered = zip(labels, range(first, first + count), strict=True)
    return data.Examples([f"x{i} = {words[k][0]}({i}).{words[k][1]}()" for k, i in numbered], labels)


@pytest.fixture(scope="module")
def trained() -> model.ModuleClassifier:
    return training.train(_MODULES, _examples(0, 320), _TINY, say=lambda _: None)


def _accuracy(classifier: model.ModuleClassifier, examples: data.Examples) -> float:
    best = classifier.classify(tf.constant(examples.lines))["module"].numpy()[:, 0].astype(str)
    return float((best == np.array(_MODULES)[examples.labels]).mean())


def test_training_beats_the_majority(trained: model.ModuleClassifier) -> None:
    held_out = _examples(1000, 80)
    assert data.majority_accuracy(held_out, _examples(0, 320).labels) == 0.5
    assert _accuracy(trained, held_out) > 0.9


def test_training_twice_gives_the_same_bits(trained: model.ModuleClassifier) -> None:
    again = training.train(_MODULES, _examples(0, 320), _TINY, say=lambda _: None)
    for first, second in zip(trained.variables, again.variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=first.name)


def test_training_leaves_unused_rows_as_they_were(trained: model.ModuleClassifier) -> None:
    fresh = model.ModuleClassifier(_MODULES, _TINY)
    used = np.unique(fresh.bags(_examples(0, 320).lines).ids)
    changed = (trained.ngrams.numpy() != fresh.ngrams.numpy()).any(axis=1)
    assert set(np.flatnonzero(changed)) <= set(used)
    assert changed.sum() > 0.9 * len(used)
    assert np.unique(fresh.ngrams.numpy(), axis=0).shape[0] == _TINY.rows, "equal rows would be stored once"


def _expected_ngrams(line: str) -> list[str]:
    """The n-grams as the model's description says them, in plain Python."""
    words = re.findall(r"[A-Za-z0-9_]+|[^\sA-Za-z0-9_]", line)
    grams = ["word " + " ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)]
    text = f"^{line}$"
    return grams + [text[i : i + n] for n in (3, 4, 5) for i in range(len(text) - n + 1)]


def test_ngrams_of_a_batch_are_those_of_each_line(trained: model.ModuleClassifier) -> None:
    lines = ["return self.x[0]", "", "a", "if not (value or default):"]
    bags = trained.bags(lines)
    assert bags.starts[0] == 0
    assert bags.starts[-1] == len(bags.ids)
    for i, line in enumerate(lines):
        expected = tf.strings.to_hash_bucket_fast(tf.constant(_expected_ngrams(line), tf.string), _TINY.rows).numpy()
        assert sorted(bags.ids[bags.starts[i] : bags.starts[i + 1]]) == sorted(expected), line


def test_batches_cover_every_line_once() -> None:
    bags = model.Bags(ids=np.array([7, 7, 3, 9, 3, 1]), starts=np.array([0, 3, 3, 5, 6]))
    labels = np.array([10, 11, 12, 13], np.int32)
    seen = {}
    for rows, which, line_of, batch_labels in model.batches(bags, labels, 3, np.random.default_rng(1)):
        assert list(rows) == sorted(set(rows))
        for position, label in enumerate(batch_labels):
            seen[int(label)] = list(rows[which[line_of == position]])
    assert seen == {10: [7, 7, 3], 11: [], 12: [9, 3], 13: [1]}


def test_the_saved_model_answers_without_this_code(trained: model.ModuleClassifier, tmp_path: Path) -> None:
    trained.save(str(tmp_path / "saved"))
    signature = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    lines = tf.constant(["y = matrix(3).solve()", "", "socket(1)"])
    outputs, direct = signature(line=lines), trained.classify(lines)
    assert outputs["module"].shape == (3, 2)
    np.testing.assert_array_equal(outputs["module"].numpy(), direct["module"].numpy())
    np.testing.assert_array_equal(outputs["score"].numpy(), direct["score"].numpy())
    one_by_one = [signature(line=lines[i : i + 1])["score"].numpy()[0] for i in range(3)]
    np.testing.assert_allclose(outputs["score"].numpy(), one_by_one, atol=1e-6)


def test_a_model_is_trained_once_for_the_same_parameters(tmp_path: Path) -> None:
    corpus = data.Corpus(_MODULES, _examples(0, 40), _examples(1000, 8))
    tiny = Parameters(rows=64, dim=2, epochs=1)
    said: list[str] = []

    def folder(parameters: Parameters, *, fresh: bool = False) -> Path:
        return training.trained_model(corpus, parameters, tmp_path, fresh=fresh, say=said.append)

    first = folder(tiny)
    assert (first / "saved_model.pb").is_file()
    said.clear()
    assert folder(tiny) == first
    assert len(said) == 1
    assert "earlier run" in said[0]
    said.clear()
    assert folder(tiny, fresh=True) == first
    assert len(said) > 1
    other = folder(Parameters(rows=128, dim=2, epochs=1))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [other], "an old model takes the space of a table"
