"""--grpc_channel_arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpp_ext.channel_arguments import INTEGERS, parse_channel_arguments
from tessera.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("grpc.keepalive_time_ms=10000", {"grpc.keepalive_time_ms": 10000}),
        (" grpc.max_metadata_size = 1 ,, grpc.x=y,", {"grpc.max_metadata_size": 1, "grpc.x": "y"}),
        ("grpc.max_receive_message_length=-1", {"grpc.max_receive_message_length": -1}),
        ("a=2147483647,b=2147483648,c=-2147483648", {"a": 2**31 - 1, "b": "2147483648", "c": -(2**31)}),
        ("a=,b=x=y,c=1.5,d=--1,e=²", {"a": "", "b": "x=y", "c": "1.5", "d": "--1", "e": "²"}),
    ],
)
def test_values_that_are_integers_become_integers(text: str, expected: dict[str, int | str]) -> None:
    assert parse_channel_arguments(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpc.keepalive_time_ms", r"got 'grpc\.keepalive_time_ms', expected name=value"),
        ("=5", "got '=5', expected name=value"),
        ("a=1,a=2", "a is given twice"),
        ("grpc.keepalive_time_ms=10s", r"grpc\.keepalive_time_ms: got '10s', expected a 32-bit integer"),
        ("grpc.max_metadata_size=2147483648", r"grpc\.max_metadata_size: .* 32-bit integer"),
    ],
)
def test_an_argument_that_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^--grpc_channel_arguments: {message}"):
        parse_channel_arguments(text)


@given(st.dictionaries(st.from_regex(r"\A[a-z._]{1,20}\Z"), st.integers(-(2**31), 2**31 - 1)))
def test_what_was_written_is_read(arguments: dict[str, int]) -> None:
    assert parse_channel_arguments(",".join(f"{name}={value}" for name, value in arguments.items())) == arguments


def test_the_integers_are_arguments_of_grpc() -> None:
    assert all(name.startswith("grpc.") and name == name.lower() for name in INTEGERS)
