"""Fixtures of the tests that need the compiled modules."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpp_ext import _rpc
from support.held_tables import KnownTable
from support.rpc_calls import HoldingHandler, MakeServer
from support.shards import Shards


@pytest.fixture
def handler() -> HoldingHandler:
    return HoldingHandler()


@pytest.fixture
def make_server(handler: HoldingHandler) -> Iterator[MakeServer]:
    """Make servers on a free port; they are stopped when the test ends."""
    servers: list[_rpc.Server] = []

    def make(**settings: Any) -> _rpc.Server:
        every: dict[str, Any] = {"address": "127.0.0.1:0", "pollers": 1} | settings
        servers.append(_rpc.Server(**every))
        return servers[-1]

    yield make
    handler.close()
    for server in servers:
        server.stop()


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[Shards]:
    tables = [
        KnownTable(tmp_path, "users", rows=1000, dim=8, buckets=31),
        KnownTable(tmp_path, "items", rows=50, dim=3, buckets=5, first=5000.0),
    ]
    with contextlib.ExitStack() as stack:
        yield Shards(tables, stack)
