"""How platforms other than TensorFlow's describe their signatures to the native core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera.errors import FailedPreconditionError

SERVING_DEFAULT = "serving_default"
Shape = Sequence[int | None] | None
"""Dimensions, None or -1 for any; None instead of all of them when not even their number is known."""


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Attributes:
        dtype: as numpy names it, or "string" (arrays of dtype object with bytes).
        shape: see `Shape`.
    """

    dtype: str
    shape: Shape = None

    def native(self) -> tuple[str, list[int] | None]:
        """Return it as `_graph.Graph.foreign` takes it."""
        return self.dtype, None if self.shape is None else [-1 if size is None else size for size in self.shape]


@dataclass(frozen=True)
class Signature:
    """What a client may ask for under one name.

    Raises:
        FailedPreconditionError: there are no outputs.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not self.outputs:
            raise FailedPreconditionError("outputs: got none, expected one or more")

    def native(self) -> tuple[dict[str, tuple[str, list[int] | None]], dict[str, tuple[str, list[int] | None]]]:
        """Return it as `_graph.Graph.foreign` takes it."""
        inputs = {name: tensor.native() for name, tensor in self.inputs.items()}
        return inputs, {name: tensor.native() for name, tensor in self.outputs.items()}
