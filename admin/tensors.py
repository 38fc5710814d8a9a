"""JSON values ↔ tensors of the Predict API, for `tessera predict`."""

from __future__ import annotations

from typing import Any

import numpy as np

from protos import serving_pb2
from tessera.errors import InvalidArgumentError

# DataType number → (name, numpy dtype, typed field). Types that numpy cannot name travel as typed fields only.
_TYPES: dict[int, tuple[str, Any, str]] = {
    1: ("float32", np.float32, "float_val"),
    2: ("float64", np.float64, "double_val"),
    3: ("int32", np.int32, "int_val"),
    4: ("uint8", np.uint8, "int_val"),
    5: ("int16", np.int16, "int_val"),
    6: ("int8", np.int8, "int_val"),
    7: ("string", object, "string_val"),
    9: ("int64", np.int64, "int64_val"),
    10: ("bool", np.bool_, "bool_val"),
    17: ("uint16", np.uint16, "int_val"),
    19: ("float16", np.float16, "half_val"),
    22: ("uint32", np.uint32, "uint32_val"),
    23: ("uint64", np.uint64, "uint64_val"),
}


def dtype_name(dtype: int) -> str:
    """Return the name of a TensorFlow DataType number."""
    return _TYPES[dtype][0] if dtype in _TYPES else f"DataType {dtype}"


def to_tensor(alias: str, value: object, dtype: int) -> serving_pb2.Tensor:
    """Return `value` (a number, string, boolean or nested lists of them) as a tensor of `dtype`.

    Raises:
        InvalidArgumentError: ragged, of another type, or a type that JSON has no form for; names the input.
    """
    if dtype not in _TYPES:
        raise InvalidArgumentError(f"input {alias}: {dtype_name(dtype)} has no JSON form")
    name, numpy_type, typed_field = _TYPES[dtype]
    array = _array(value, numpy_type)
    if array is None:
        raise InvalidArgumentError(f"input {alias}: got {value!r}, expected {name} values of one shape")
    tensor = serving_pb2.Tensor(dtype=dtype)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    flat = array.ravel()
    if numpy_type is object:
        tensor.string_val.extend(item.encode() for item in flat)
    elif typed_field == "half_val":
        tensor.half_val.extend(flat.view(np.uint16).tolist())
    else:
        getattr(tensor, typed_field).extend(flat.tolist())
    return tensor


def from_tensor(tensor: serving_pb2.Tensor) -> Any:
    """Return a tensor as nested lists; bytes that are UTF-8 become strings, others their hexadecimal form."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype not in _TYPES:
        return f"<{dtype_name(tensor.dtype)} of shape {shape}>"
    _, numpy_type, typed_field = _TYPES[tensor.dtype]
    if tensor.tensor_content:
        flat = np.frombuffer(tensor.tensor_content, numpy_type)
    elif numpy_type is object:
        flat = np.array([_text(item) for item in tensor.string_val], dtype=object)
    elif typed_field == "half_val":
        flat = np.array(tensor.half_val, np.uint16).view(np.float16)
    else:
        flat = np.array(getattr(tensor, typed_field), numpy_type)
    return flat.reshape(shape).tolist()


def _array(value: object, numpy_type: Any) -> Any:
    """Return `value` as an array of exactly the values given, or None if they do not fit the type."""
    try:
        array = np.array(value, dtype=object if numpy_type is object else None)
    except ValueError:  # ragged
        return None
    if numpy_type is object:
        return array if all(isinstance(item, str) for item in array.ravel()) else None
    target = np.dtype(numpy_type)
    accepted = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[target.kind]
    if array.size and array.dtype.kind not in accepted:
        return None
    if array.size and target.kind in "iu":
        limits = np.iinfo(target)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            return None
    return array.astype(target)


def _text(item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item.hex()
