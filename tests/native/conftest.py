"""Fixtures of the tests that need the compiled modules."""

from collections.abc import Iterator
from typing import Any

import pytest

from cpp_ext import _rpc
from support.rpc_calls import HoldingHandler, MakeServer


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
