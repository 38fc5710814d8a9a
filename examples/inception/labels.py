"""The names of the classes: from a file of the reader, or made up."""

from __future__ import annotations

import json
from pathlib import Path

from tessera.errors import InvalidArgumentError

CLASSES = 1000

# In the order of ImageNet's classes as far as cats and dogs go: class 281, a tabby, is a grey cat.
_COLOURS = (
    "black", "grey", "white", "amber", "azure", "beige", "brown", "copper", "crimson", "cyan",
    "golden", "green", "indigo", "ivory", "olive", "orange", "pink", "purple", "silver", "violet",
)  # fmt: skip
_ANIMALS = (
    "shark", "robin", "finch", "owl", "newt", "gecko", "eagle", "quail", "crane", "hound",
    "terrier", "spaniel", "poodle", "wolf", "cat", "lion", "bear", "bee", "hare", "beaver",
    "horse", "bison", "camel", "otter", "badger", "sloth", "lemur", "panda", "eel", "bat",
    "crow", "deer", "dolphin", "donkey", "duck", "falcon", "ferret", "fox", "frog", "goat",
    "goose", "heron", "koala", "lynx", "mole", "moose", "mouse", "puffin", "seal", "stork",
)  # fmt: skip


def made_up_labels() -> list[str]:
    """Return 1,000 different names that mean nothing: for weights that have learned nothing."""
    return [f"{colour} {animal}" for animal in _ANIMALS for colour in _COLOURS]


def read_labels(path: Path) -> list[str]:
    """Return the names in a file: one a line, or the JSON object `{"0": ["n01440764", "tench"], …}` that Keras uses.

    Raises:
        InvalidArgumentError: neither of both, or not 1,000 names; names the file.
    """
    text = path.read_text("utf-8")
    names = _from_json(path, text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    if len(names) != CLASSES or not all(names):
        raise InvalidArgumentError(f"--labels {path}: got {sum(map(bool, names))} names, expected {CLASSES:,}")
    return names


def _from_json(path: Path, text: str) -> list[str]:
    try:
        content = json.loads(text)
        return [str(content[str(number)][1]).replace("_", " ") for number in range(len(content))]
    except (ValueError, KeyError, IndexError, TypeError):
        raise InvalidArgumentError(
            f'--labels {path}: not as expected, an object such as {{"0": ["n01440764", "tench"], …}}'
        ) from None
