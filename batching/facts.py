"""What the analysis knows of a tensor, and what the rules of single ops are given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from batching.dims import Dim, Dims, static_dims

# A tensor of more elements is no shape, and its value is not looked at.
MAX_VALUE_ELEMENTS = 64


class Kind(Enum):
    """On what the value of a tensor depends."""

    INVARIANT = "the same for every request"
    DIMS = "depends only on dimensions that are the same for all rows of a batch"
    COUNT = "depends on dimensions, the number of rows among them; its value is known"
    ROWS = "dimension 0 is the rows, and row i depends on row i only"
    OTHER = "anything else"


@dataclass(frozen=True)
class Fact:
    """One tensor.

    Attributes:
        kind: see `Kind`.
        dims: its shape, None if not even the rank is known.
        value: for small integer tensors, the elements in order where they are known.
    """

    kind: Kind
    dims: Dims | None
    value: tuple[Dim | None, ...] | None = None

    @property
    def light(self) -> bool:
        """Whether it can be had again inside of a region from the shapes of the region's own tensors."""
        return self.kind in (Kind.INVARIANT, Kind.DIMS, Kind.COUNT)


class Refused(Exception):  # noqa: N818 (a verdict, not an error: it never leaves this package)
    """An op does not act row by row; the text says why."""


class OpFacts:
    """One op with the facts of its inputs, as rules see it."""

    def __init__(self, op: tf.Operation, inputs: list[Fact]) -> None:
        """`inputs` are in the order of `op.inputs`."""
        self.op = op
        self.inputs = inputs

    def attr(self, name: str) -> Any:
        """Return an attribute."""
        return self.op.get_attr(name)

    def dims(self, position: int) -> Dims:
        """Return the shape of an input, whose rank must be known."""
        dims = self.inputs[position].dims
        if dims is None:
            raise Refused(f"the rank of input {position} is not known")
        return dims

    def is_rows(self, position: int) -> bool:
        """Whether an input is rows."""
        return self.inputs[position].kind is Kind.ROWS

    def rows(self, position: int) -> Dims:
        """Return the shape of an input that must be rows."""
        if not self.is_rows(position):
            raise Refused(f"input {position} has no rows")
        return self.dims(position)

    def shared(self, position: int) -> Fact:
        """Return the fact of an input that must be the same for all rows."""
        fact = self.inputs[position]
        if fact.kind is Kind.COUNT:
            raise Refused(f"mixes rows: input {position} depends on their number")
        if fact.kind not in (Kind.INVARIANT, Kind.DIMS):
            raise Refused(f"input {position} differs from row to row")
        return fact

    def constant(self, position: int) -> np.ndarray[Any, Any]:
        """Return the value of an input that must be a constant."""
        known = self.shared(position).value
        value = tensor_util.constant_value(self.op.inputs[position])
        if value is None and known is not None and all(size is not None and size.known for size in known):
            value = np.array([size.factor for size in known if size is not None])
        if value is None:
            raise Refused(f"input {position} is not constant")
        return np.asarray(value)

    def value(self, position: int) -> tuple[Dim | None, ...]:
        """Return the elements of an input that must be made of numbers and dimensions."""
        value = self.inputs[position].value
        if value is None:
            raise Refused(f"input {position} is not known")
        return value

    def output(self, position: int, first: Dim) -> Dims:
        """Return the shape that TensorFlow infers for an output, whose dimension 0 is `first`."""
        tensor = self.op.outputs[position]
        if tensor.shape.rank is None:
            raise Refused("the rank of its output is not known")
        if tensor.shape.rank == 0:
            raise Refused("its output is a scalar")
        size = tensor.shape.as_list()[0]
        if size is not None:
            raise Refused(f"dimension 0 of its output is always {size}")
        return (first, *static_dims(tensor.shape.as_list(), tensor.name)[1:])
