"""Makes up the inputs of a request from a signature alone."""

from __future__ import annotations

import random
from typing import Any

from admin.tensors import dtype_name
from protos import serving_pb2
from tessera.errors import InvalidArgumentError

_MAX_VALUES = 1_000_000


def random_inputs(
    signature: serving_pb2.SignatureDef, *, batch: int, max_int: int, rng: random.Random
) -> dict[str, Any]:
    """Return input → nested lists; unknown sizes are `batch`, integers below `max_int`.

    Raises:
        InvalidArgumentError: a type that nothing can be made up for, or too many values; names the input.
    """
    inputs = {}
    for alias, info in sorted(signature.inputs.items()):
        shape = [batch] if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim]
        shape = [batch if size < 0 else size for size in shape]
        count = 1
        for size in shape:
            count *= size
        if count > _MAX_VALUES:
            raise InvalidArgumentError(f"input {alias}: {count} values, expected at most {_MAX_VALUES}; see --batch")
        inputs[alias] = _nested(shape, alias, dtype_name(info.dtype), max_int, rng)
    return inputs


def _nested(shape: list[int], alias: str, dtype: str, max_int: int, rng: random.Random) -> Any:
    if shape:
        return [_nested(shape[1:], alias, dtype, max_int, rng) for _ in range(shape[0])]
    if dtype.startswith("float"):
        return rng.uniform(-1.0, 1.0)
    if dtype.startswith(("int", "uint")):
        return rng.randrange(min(max_int, 127 if dtype in ("int8", "uint8") else max_int))
    if dtype == "bool":
        return rng.random() < 0.5
    if dtype == "string":
        return f"word-{rng.randrange(max_int)}"
    raise InvalidArgumentError(f"input {alias}: nothing can be made up for {dtype}; give INPUTS")
