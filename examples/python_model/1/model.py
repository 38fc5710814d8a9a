"""A model of platform `python`: scores texts by the words in them. The contract is docs/platforms.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tessera.errors import InvalidArgumentError

Array = np.ndarray[Any, Any]


class Scorer:
    """Scores texts.

    Attributes:
        signatures: what clients may ask for; shapes have None where any size is welcome.
    """

    signatures: ClassVar[dict[str, Any]] = {
        "serving_default": {
            "inputs": {"text": ("string", [None])},
            "outputs": {"score": ("float32", [None])},
        }
    }

    def __init__(self, words: dict[str, float]) -> None:
        self._words = words

    def predict(self, signature: str, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return the score of each text. Called by several threads at once; what it raises is the request's error."""
        return {"score": np.array([self._score(i, text) for i, text in enumerate(inputs["text"])], np.float32)}

    def _score(self, i: int, text: bytes) -> float:
        try:
            words = re.findall(r"\w+", text.decode().lower())
        except UnicodeDecodeError:
            raise InvalidArgumentError(f"text: element {i} is not UTF-8") from None
        return sum(self._words.get(word, 0.0) for word in words)


def load(directory: Path) -> Scorer:
    """Return the model; `directory` is the version's, with whatever files the model brings."""
    lines = (directory / "words.txt").read_text("utf-8").splitlines()
    return Scorer({word: float(score) for word, score in (line.split() for line in lines)})
