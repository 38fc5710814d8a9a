"""Dimensions of variable length: what the author of a model says of them, and how the ops take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from batching.leaves import Key, Leaf, position_of
from tessera.errors import InvalidArgumentError

_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Pad:
    """A dimension of variable length, padded so that requests of different lengths share a batch.

    The region has to give the same answers whatever follows a row's own length (by a mask, for example); nobody checks.

    Attributes:
        dim: the dimension, from 1 on.
        value: scalar that is put behind a row's own values.
        length_buckets: ascending lengths; a request is padded up to the next of them, one that is longer is batched
            only with its equals. Empty: up to the next power of two. All `Pad`s of a pair have the same.
    """

    dim: int
    value: Any
    length_buckets: Sequence[int] = ()


@dataclass(frozen=True)
class Trim:
    """A dimension of an output that is cut back to the request's own length.

    Attributes:
        dim: the dimension, from 1 on.
        like: key of the padded input of `batch` that has this length.
    """

    dim: int
    like: Key


def pad_attributes(inputs: list[Leaf], pads: list[Pad | None]) -> dict[str, list[Any]]:
    """Return the attributes of TesseraBatch: pad_dims, pad_values (TensorProtos) and length_buckets.

    Raises:
        InvalidArgumentError: a `Pad` does not fit its tensor, or another `Pad`; names the tensor.
    """
    if not any(pads):
        return {"pad_dims": [], "pad_values": [], "length_buckets": []}
    for leaf, pad in zip(inputs, pads, strict=True):
        _check_dim(leaf, pad, "pad")
    return {
        "pad_dims": [-1 if pad is None else pad.dim for pad in pads],
        "pad_values": [_pad_value(leaf, pad) for leaf, pad in zip(inputs, pads, strict=True)],
        "length_buckets": _length_buckets(inputs, pads),
    }


def trim_attributes(
    outputs: list[Leaf], trims: list[Trim | None], inputs: list[Leaf], pads: list[Pad | None]
) -> dict[str, list[int]]:
    """Return the attributes of TesseraUnbatch: trim_dims and trim_inputs.

    Raises:
        InvalidArgumentError: a `Trim` does not fit its tensor, or is like an input that is not padded; names it.
    """
    if not any(trims):
        return {"trim_dims": [], "trim_inputs": []}
    positions = []
    for leaf, trim in zip(outputs, trims, strict=True):
        _check_dim(leaf, trim, "trim")
        positions.append(0 if trim is None else position_of(trim.like, inputs, f"trim: {leaf.name}: like"))
        if trim is not None and pads[positions[-1]] is None:
            raise InvalidArgumentError(f"trim: {leaf.name}: like is {trim.like!r}, expected an input that is padded")
    return {"trim_dims": [-1 if trim is None else trim.dim for trim in trims], "trim_inputs": positions}


def _check_dim(leaf: Leaf, one: Pad | Trim | None, what: str) -> None:
    if one is None:
        return
    rank = leaf.tensor.shape.rank
    if type(one.dim) is not int or one.dim < 1 or (rank is not None and one.dim >= rank):
        limit = "" if rank is None else f", below {rank} (the rank)"
        raise InvalidArgumentError(
            f"{what}: {leaf.name}: dim is {one.dim!r}, expected a dimension from 1 on (0 is the rows){limit}"
        )


def _length_buckets(inputs: list[Leaf], pads: list[Pad | None]) -> list[int]:
    """Return what all pads agree on."""
    agreed: tuple[str, tuple[int, ...]] | None = None
    for leaf, pad in zip(inputs, pads, strict=True):
        if pad is None:
            continue
        buckets = tuple(pad.length_buckets)
        for i, length in enumerate(buckets):
            least = buckets[i - 1] + 1 if i else 1
            if type(length) is not int or not least <= length <= _MAX_INT64:
                raise InvalidArgumentError(
                    f"pad: {leaf.name}: length_buckets[{i}] is {length!r}, expected a whole number from {least} on "
                    "(lengths ascend)"
                )
        if agreed is not None and agreed[1] != buckets:
            raise InvalidArgumentError(
                f"pad: {leaf.name}: length_buckets is {buckets}, expected {agreed[1]} as for {agreed[0]}"
            )
        agreed = (leaf.name, buckets)
    return [] if agreed is None else list(agreed[1])


def _pad_value(leaf: Leaf, pad: Pad | None) -> Any:
    """Return a scalar TensorProto of the tensor's type; where nothing is padded its value means nothing."""
    dtype = leaf.tensor.dtype
    if pad is None:
        return tf.make_tensor_proto(b"" if dtype == tf.string else np.zeros((), dtype.as_numpy_dtype), dtype=dtype)
    # As a Python value, since make_tensor_proto casts NumPy's: 1.9 would be 1 for an int32.
    given = pad.value.item() if isinstance(pad.value, np.generic) else pad.value
    expected = f"pad: {leaf.name}: value is {pad.value!r}, expected a scalar of {dtype.name}"
    if isinstance(given, np.ndarray | tf.Tensor | list | tuple):
        raise InvalidArgumentError(expected)
    try:
        value = tf.make_tensor_proto(given, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{expected}: {error}") from None
    if dtype.is_integer and tf.make_ndarray(value).item() != given:  # -1 becomes 255 for a uint8
        raise InvalidArgumentError(expected)
    return value
