"""The codec reads and writes TensorProto as TensorFlow does: every dtype, every form, damaged input."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2

from cpp_ext import _graph
from support import small_models  # noqa: F401  (sets TensorFlow's environment)
from tessera.errors import InvalidArgumentError

pytestmark = pytest.mark.native

EXPERIMENTAL = ["int4", "uint4", "float8_e5m2", "float8_e4m3fn"]
NUMBERS = [
    *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool),
    *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    *(tf.qint8, tf.quint8, tf.qint16, tf.quint16, tf.qint32),
    *(getattr(tf.dtypes.experimental, name) for name in EXPERIMENTAL),
]


def recode(proto: tensor_pb2.TensorProto, content: bool = False) -> tensor_pb2.TensorProto:
    return tensor_pb2.TensorProto.FromString(_graph.recode_tensor(proto.SerializeToString(), tensor_content=content))


def values_of(dtype: tf.DType, shape: list[int]) -> Any:
    rng = np.random.default_rng(7)
    raw = rng.integers(-3, 4, size=shape) if not dtype.is_unsigned else rng.integers(0, 8, size=shape)
    if dtype.is_complex:
        return (raw + 1j * rng.normal(size=shape)).astype(dtype.as_numpy_dtype)
    return raw.astype(np.float32).astype(dtype.as_numpy_dtype)


def same(a: tensor_pb2.TensorProto, b: tensor_pb2.TensorProto) -> None:
    x, y = tf.make_ndarray(a), tf.make_ndarray(b)
    assert (a.dtype, x.shape) == (b.dtype, y.shape)
    assert x.tolist() == y.tolist()


@pytest.mark.parametrize("shape", [[], [1], [5], [2, 3], [0], [2, 0, 3], [4, 1, 2]], ids=str)
@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda d: d.name)
def test_every_dtype_survives_both_forms(dtype: tf.DType, shape: list[int]) -> None:
    proto = tf.make_tensor_proto(values_of(dtype, shape), dtype=dtype, shape=shape)
    typed, content = recode(proto), recode(proto, content=True)
    assert typed.tensor_content == b""
    same(proto, typed)
    same(proto, content)
    same(typed, recode(typed, content=True))
    same(content, recode(content))


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda d: d.name)
def test_tensorflows_own_parser_reads_our_typed_form(dtype: tf.DType) -> None:
    values = values_of(dtype, [3, 2])
    typed = recode(tf.make_tensor_proto(values, dtype=dtype))
    assert typed.tensor_content == b""
    parsed = tf.io.parse_tensor(typed.SerializeToString(), dtype)
    assert parsed.numpy().astype(dtype.as_numpy_dtype).tolist() == values.tolist()


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_strings(values: list[bytes]) -> None:
    proto = tf.make_tensor_proto(np.array(values, dtype=object), dtype=tf.string, shape=[len(values)])
    assert list(recode(proto).string_val) == values
    content = recode(proto, content=True)
    assert list(recode(content).string_val) == values


FIELDS = {
    "int_val": 3,
    "int64_val": 9,
    "float_val": 1,
    "double_val": 2,
    "bool_val": 10,
    "uint64_val": 23,
    "string_val": 7,
}


@given(
    st.sampled_from(sorted(FIELDS)),
    st.lists(st.integers(0, 100), max_size=6),
    st.lists(st.integers(0, 4), max_size=3),
)
def test_short_form_repeats_the_last_value_as_tensorflow_does(field: str, numbers: list[int], shape: list[int]) -> None:
    dtype = FIELDS[field]
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    values: list[Any] = list(numbers)
    if field == "string_val":
        values = [str(n).encode() for n in numbers]
    elif field == "bool_val":
        values = [bool(n % 2) for n in numbers]
    getattr(proto, field).extend(values)
    parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(dtype)).numpy()
    ours = tf.make_ndarray(recode(proto))
    assert np.asarray(parsed).shape == ours.shape
    assert np.asarray(parsed).tolist() == ours.tolist()


def test_unpacked_and_mixed_fields_are_read() -> None:
    head = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32)
    head.tensor_shape.dim.add(size=4)
    # int_val = 7: unpacked 300, packed [1, -1], unpacked 2; and an unknown field 99
    body = b"\x38\xac\x02" + b"\x3a\x0b\x01" + b"\xff" * 9 + b"\x01" + b"\x38\x02" + b"\x98\x06\x05"
    out = tensor_pb2.TensorProto.FromString(_graph.recode_tensor(head.SerializeToString() + body))
    assert list(out.int_val) == [300, 1, -1, 2]


def bad(dims: list[int], **fields: Any) -> bytes:
    proto = tensor_pb2.TensorProto(**fields)
    proto.tensor_shape.SetInParent()
    for size in dims:
        proto.tensor_shape.dim.add(size=size)
    return bytes(proto.SerializeToString())


UNKNOWN = tensor_pb2.TensorProto(dtype=1)
UNKNOWN.tensor_shape.unknown_rank = True


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (bad([-1], dtype=1), r"tensor_shape\.dim\[0\]\.size: got -1"),
        (bad([1 << 40, 1 << 40], dtype=1), r"tensor_shape\.dim\[1\]\.size: the number of elements overflows"),
        (bad([1 << 62], dtype=1), "tensor_shape: the number of bytes overflows"),
        (bad([1 << 40], dtype=1, float_val=[1.0]), "a repeated value may stand for at most"),
        (bad([1 << 40], dtype=7), "a repeated value may stand for at most"),
        (bad([1] * 255, dtype=1), "more than 254 dims"),
        (
            bad([2], dtype=1, tensor_content=b"1234567"),
            "tensor_content: has 7 bytes, expected 8 for 2 elements of float",
        ),
        (bad([1], dtype=7, tensor_content=b"\x05abc"), "tensor_content: strings are longer"),
        (bad([1], dtype=7, tensor_content=b"\x01abc"), "tensor_content: has bytes after its last string"),
        (bad([1], dtype=0), "dtype: 0 is not"),
        (bad([1], dtype=20), "dtype: 20 is not"),
        (bad([1], dtype=101), "dtype: 101 is not"),
        (bad([1], dtype=77), "dtype: 77 is not"),
        (UNKNOWN.SerializeToString(), "unknown_rank"),
        (bad([1], dtype=1) + b"\x2a\x03abc", "field 5: 3 bytes are not a multiple of 4"),
        (b"\x08", "TensorProto: "),
    ],
)
def test_hostile_tensors_are_refused_by_field(proto: bytes, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        _graph.recode_tensor(proto)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*NUMBERS, tf.string]), st.integers(0, 2**32), st.booleans())
def test_damaged_tensors_are_read_or_refused_but_never_worse(dtype: tf.DType, seed: int, content: bool) -> None:
    rng = random.Random(seed)
    array = np.array([b"abc", b"", b"defg"], dtype=object) if dtype == tf.string else values_of(dtype, [3])
    good = bytearray(recode(tf.make_tensor_proto(array, dtype=dtype), content).SerializeToString())
    for _ in range(100):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            _graph.recode_tensor(bytes(damaged))
        except InvalidArgumentError:
            continue
