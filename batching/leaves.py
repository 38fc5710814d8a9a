"""The tensors of nested structures, with names for messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.python.util import nest

from tessera.errors import FailedPreconditionError, InvalidArgumentError

Key = int | str | tuple[int | str, ...]
"""Where a tensor is in a structure: position or dict key, a tuple of them where structures are nested; `()` or 0 for a
structure that is one tensor."""

_NOT_DENSE = (tf.dtypes.resource, tf.dtypes.variant)

T = TypeVar("T")


@dataclass(frozen=True)
class Leaf:
    """One tensor of a structure.

    Attributes:
        path: keys from the outermost structure inwards.
        name: the same for people, such as `tensors['ids'][0]`.
    """

    path: tuple[int | str, ...]
    name: str
    tensor: tf.Tensor


def leaves(structure: Any, name: str) -> list[Leaf]:
    """Return the tensors of `structure` in the order of `tf.nest.flatten`; `name` is what the caller calls it.

    Raises:
        InvalidArgumentError: something in it is no dense tensor (or NumPy array); names it.
    """
    found = []
    for path, value in nest.flatten_with_tuple_paths(structure):
        leaf_name = name + "".join(f"[{key!r}]" for key in path)
        found.append(Leaf(path, leaf_name, _dense(value, leaf_name)))
    return found


def _dense(value: Any, name: str) -> tf.Tensor:
    if isinstance(value, np.ndarray):
        value = tf.convert_to_tensor(value)
    if not isinstance(value, tf.Tensor):
        hint = "; use it inside of the layer's call()" if type(value).__name__ == "KerasTensor" else ""
        raise InvalidArgumentError(f"{name}: is a {type(value).__name__}, expected a dense tensor{hint}")
    if value.dtype in _NOT_DENSE:
        raise InvalidArgumentError(f"{name}: is of type {value.dtype.name}, expected a dense tensor")
    return value


def one_per_leaf(given: T | Mapping[Key, T] | None, tensors: list[Leaf], kind: type[T], what: str) -> list[T | None]:
    """Return what `given` says of each tensor, None for those that it does not name.

    Raises:
        InvalidArgumentError: a key names no tensor, or one twice, or something is no `kind`; names it.
    """
    if given is None:
        return [None] * len(tensors)
    if isinstance(given, kind):
        if len(tensors) != 1:
            raise InvalidArgumentError(f"{what}: is one {kind.__name__} for {len(tensors)} tensors, expected a mapping")
        return [given]
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{what}: is a {type(given).__name__}, expected a mapping to {kind.__name__}")
    result: list[T | None] = [None] * len(tensors)
    for key, value in given.items():
        position = position_of(key, tensors, what)
        if not isinstance(value, kind):
            raise InvalidArgumentError(f"{what}[{key!r}]: is {value!r}, expected a {kind.__name__}")
        if result[position] is not None:
            raise InvalidArgumentError(f"{what}[{key!r}]: {tensors[position].name} is named twice")
        result[position] = value
    return result


def position_of(key: Key, tensors: list[Leaf], what: str) -> int:
    """Return the position of the tensor that `key` names.

    Raises:
        InvalidArgumentError: there is none.
    """
    path = key if isinstance(key, tuple) else (key,)
    for position, leaf in enumerate(tensors):
        if path == (leaf.path or (0,)) or (path == () and leaf.path == ()):
            return position
    known = ", ".join(repr(_short(leaf.path)) for leaf in tensors)
    raise InvalidArgumentError(f"{what}: got the key {key!r}, expected one of {known}")


def _short(path: tuple[int | str, ...]) -> Key:
    return path[0] if len(path) == 1 else path or 0


def common_rows(tensors: list[Leaf]) -> int | None:
    """Return the number of rows that all tensors have, as far as it is known; None if it is not.

    Raises:
        InvalidArgumentError: a tensor is a scalar, or has another number of rows; names it.
    """
    first: tuple[str, int] | None = None
    for leaf in tensors:
        shape = leaf.tensor.shape
        if shape.rank == 0:
            raise InvalidArgumentError(f"{leaf.name}: is a scalar, expected rows in dimension 0")
        if shape.rank is None or shape[0] is None:
            continue
        if first is None:
            first = (leaf.name, shape[0])
        elif shape[0] != first[1]:
            raise InvalidArgumentError(
                f"{leaf.name}: has {shape[0]} rows, {first[0]} has {first[1]}, expected equally many"
            )
    return None if first is None else first[1]


def check_rows(tensors: list[Leaf], rows: int) -> None:
    """Raise FailedPreconditionError if a tensor with values has not `rows` rows."""
    for leaf in tensors:
        if leaf.tensor.shape.rank == 0 or leaf.tensor.shape[0] != rows:
            raise FailedPreconditionError(
                f"{leaf.name}: has the shape {leaf.tensor.shape}, expected {rows} rows, as many as the region's inputs"
            )
