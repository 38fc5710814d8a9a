"""The messages that are there twice, for this process's own use and as server reflection describes them, agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

import protos
from protos import model_server_config_pb2, serving_pb2

_OURS = 1000
"""Fields from here on are Tessera's own."""
_LOOSE = {descriptor_pb2.FieldDescriptorProto.TYPE_ENUM: descriptor_pb2.FieldDescriptorProto.TYPE_INT32}
_BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


def _messages(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for message in content:
        name = prefix + message.name
        yield name, message
        yield from _messages(message.nested_type, f"{name}.")


def _described() -> dict[str, Any]:
    path = Path(protos.__file__).parent / "api_descriptors.binpb"
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file
    return {
        name: message
        for file in files
        if file.package == "tensorflow.serving"
        for name, message in _messages(file.message_type)
    }


def _wire_type(field: Any) -> int:
    kind: int = _LOOSE.get(field.type, field.type)
    return _MESSAGE if kind == _BYTES and field.name in ("config", "example_list") else kind


@pytest.mark.parametrize("module", [serving_pb2, model_server_config_pb2])
def test_what_is_there_twice_agrees(module: Any) -> None:
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    described, compared = _described(), 0
    for name, message in _messages(file.message_type):
        if name not in described or message.options.map_entry:
            continue
        fields = {field.name: field for field in described[name].field}
        for field in message.field:
            if field.number >= _OURS:
                continue
            other = fields[field.name]
            assert (field.number, field.label, _wire_type(field)) == (other.number, other.label, _wire_type(other)), (
                f"{name}.{field.name}"
            )
            compared += 1
    assert compared > 20
