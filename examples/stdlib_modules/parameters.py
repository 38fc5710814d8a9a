"""What can be chosen about the demo's model; needs no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameters:
    """What the model and its training depend on, beside the text.

    Attributes:
        rows: Hash rows of the table.
        dim: Floats per row.
        top_k: How many modules an answer names.
        epochs: Passes over the training lines.
        batch_lines: Lines per training step.
        learning_rate: Adagrad's step.
        seed: Of the initial weights and of the order of the lines.
    """

    rows: int = 4_000_000
    dim: int = 32
    top_k: int = 5
    epochs: int = 4
    batch_lines: int = 256
    learning_rate: float = 1.0
    seed: int = 20

    @property
    def table_bytes(self) -> int:
        """The size of the table of n-grams."""
        return self.rows * self.dim * 4
