"""Shard servers of this process with known tables, for the tests of the fan-out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cpp_ext import _rpc
from protos import data_plane_pb2 as pb
from support.fanout_client import Lookup
from support.held_tables import DIGEST, EPOCH, LOOKUP, MODEL, VERSION, KnownTable, publish
from support.rpc_calls import HoldingHandler
from tessera.errors import Code

SLOTS = 64


def ids_of(*ids: int) -> np.ndarray[Any, Any]:
    return np.array(ids, np.int64)


def answer(content: bytes) -> bytes:
    return bytes(pb.LookupResponse(rows=content).SerializeToString())


@dataclass
class Shards:
    """Servers that each hold every table whole, unless a test publishes otherwise."""

    tables: Sequence[KnownTable]
    stack: contextlib.ExitStack
    stores: list[_rpc.TableStore] = field(default_factory=list)
    servers: list[_rpc.Server] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            store = _rpc.TableStore()
            publish(store, [table.held() for table in self.tables])
            server = _rpc.Server(address="127.0.0.1:0", pollers=1)
            server.serve_tables(store)
            self._start(server)
            self.stores.append(store)

    def add_silent(self) -> HoldingHandler:
        """Add a server that takes lookups and leaves the answer to the test."""
        handler = HoldingHandler()
        server = _rpc.Server(address="127.0.0.1:0", pollers=1)
        server.serve_native(LOOKUP, handler.capsule)
        self._start(server)
        self.stack.callback(handler.close)
        self.stores.append(_rpc.TableStore())
        return handler

    def _start(self, server: _rpc.Server) -> None:
        self.addresses.append(f"127.0.0.1:{server.start()}")
        self.servers.append(server)
        self.stack.callback(server.stop)

    def fanout(self, server: _rpc.Server | None = None, **settings: Any) -> _rpc.Fanout:
        fanout = _rpc.Fanout(server, **settings)
        self.stack.callback(fanout.stop)
        return fanout

    def route(self, fanout: _rpc.Fanout, slots: Sequence[Sequence[int]] | None = None, **changes: Any) -> Any:
        """Return a route's capsule; without `slots` they go round the servers, one replica each."""
        count = len(self.addresses)
        settings: dict[str, Any] = {
            "model": MODEL,
            "version": VERSION,
            "epoch": EPOCH,
            "package_digest": DIGEST,
            "targets": [_rpc.Target(server_id=f"s{i}", address=self.addresses[i]) for i in range(count)],
            "slots": [[slot % count] for slot in range(SLOTS)] if slots is None else slots,
            "tables": [table.routed() for table in self.tables],
        }
        return fanout.route(**settings | changes).capsule()

    def both(self) -> list[tuple[int, np.ndarray[Any, Any], int]]:
        """Return gathers of both tables, with repetitions and both widths."""
        rng = np.random.default_rng(5)
        return [
            (0, rng.integers(0, 1000, 300), 8),
            (1, rng.integers(0, 50, 40).astype(np.int32), 3),
            (0, rng.integers(0, 1000, 20).astype(np.int32), 8),
        ]

    def check(self, lookup: Lookup, gathers: Sequence[tuple[int, np.ndarray[Any, Any], int]]) -> None:
        assert (lookup.code, lookup.message, lookup.ends) == (Code.OK, "", 1)
        for (table, ids, _), rows in zip(gathers, lookup.rows, strict=True):
            np.testing.assert_array_equal(rows, self.tables[table].values[ids])
