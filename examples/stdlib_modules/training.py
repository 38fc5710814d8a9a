"""Trains the demo's model, or finds the one that an earlier run trained."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow as tf

from examples.stdlib_modules import data, model
from examples.stdlib_modules.parameters import Parameters

MODEL_PREFIX = "model-"


def trained_model(
    corpus: data.Corpus, parameters: Parameters, work_dir: Path, *, fresh: bool, say: Callable[[str], None]
) -> Path:
    """Return the SavedModel's folder in `work_dir`, training first unless the same model is there already.

    Cost: about 30 s of two cores and 2.5 GB of memory for four million rows; nothing when it is there.
    """
    folder = work_dir / f"{MODEL_PREFIX}{cache_key(corpus, parameters)}"
    if folder.is_dir() and not fresh:
        say(f"the model of an earlier run is in {folder} (--fresh trains again)")
        return folder
    for old in work_dir.glob(f"{MODEL_PREFIX}*"):  # each is as large as the table
        shutil.rmtree(old)
    partial = work_dir / f"{MODEL_PREFIX}partial"
    train(corpus.modules, corpus.training, parameters, say=say).save(str(partial))
    partial.rename(folder)
    say(f"saved as a SavedModel in {folder}")
    return folder


def train(
    modules: list[str], training: data.Examples, parameters: Parameters, *, say: Callable[[str], None]
) -> model.ModuleClassifier:
    """Return a trained model; the same one every time for equal arguments on one machine."""
    started = time.monotonic()
    classifier = model.ModuleClassifier(modules, parameters)
    bags = classifier.bags(training.lines)
    say(f"{len(bags.ids):,} n-grams in {len(training):,} lines fall on {len(np.unique(bags.ids)):,} rows")
    trainer = model.Trainer(classifier, parameters)
    labels, order = np.array(training.labels, np.int32), np.random.default_rng(parameters.seed)
    steps = -(-len(labels) // parameters.batch_lines)
    for epoch in range(parameters.epochs):
        total = 0.0
        for number, batch in enumerate(model.batches(bags, labels, parameters.batch_lines, order), start=1):
            total += float(trainer.step(*batch))
            if sys.stdout.isatty() and number % 20 == 0:
                print(f"\r   pass {epoch + 1}: {number * 100 // steps} %", end="\r", flush=True)
        elapsed_s = time.monotonic() - started
        say(
            f"pass {epoch + 1} of {parameters.epochs}: mean loss {total / steps:.2f}, {elapsed_s:.0f} s since the start"
        )
    return classifier


def cache_key(corpus: data.Corpus, parameters: Parameters) -> str:
    """Return a name for everything that decides what training makes: text, parameters, code, TensorFlow."""
    digest = hashlib.sha256(repr((asdict(parameters), corpus.modules, tf.__version__)).encode())
    for source in (data, model):
        digest.update(Path(str(source.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    for line, label in zip(corpus.training.lines, corpus.training.labels, strict=True):
        digest.update(f"{label} {line}\n".encode())
    return digest.hexdigest()[:16]
