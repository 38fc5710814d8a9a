"""Looks rows up through the C interface of the fan-out, as the op library does, from Python."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cpp_ext import _rpc
from support import fake_abi, fake_fanout
from tessera.errors import Code

Array = np.ndarray[Any, Any]


class Lookup:
    """One lookup: starts when made, is released when it has ended.

    Args:
        fanout: whose interface is used.
        route: a `TESSERA_ROUTE_CAPSULE`; may be dropped once this is made.
        gathers: (table, ids (int32 or int64), float32 columns of the table).
        timeout_s: None: no deadline.
    """

    def __init__(
        self,
        fanout: _rpc.Fanout,
        route: Any,
        gathers: Sequence[tuple[int, Array, int]],
        *,
        timeout_s: float | None = 10.0,
    ) -> None:
        self._capsule = fanout.capsule()
        self._api = fake_fanout._FanoutApi.from_address(fake_abi._capsule_pointer(self._capsule, b"tessera.fanout"))
        assert self._api.abi_version == fake_abi.ABI_VERSION
        self._ids = [np.ascontiguousarray(ids) for _, ids, _ in gathers]
        self.rows = [np.full((ids.size, dim), np.nan, np.float32) for _, ids, dim in gathers]
        items = [
            fake_fanout._Gather(table, ids.itemsize, ids.ctypes.data, ids.size, rows.ctypes.data)
            for (table, _, _), ids, rows in zip(gathers, self._ids, self.rows, strict=True)
        ]
        self._ended = threading.Event()
        self.ends = 0
        self.code = Code.UNKNOWN
        self.message = ""
        self._done = fake_fanout._Done(self._on_done)
        deadline_ns = fake_abi.NO_DEADLINE if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        pointer = fake_abi._capsule_pointer(route, b"tessera.route")
        array = (fake_fanout._Gather * len(items))(*items)
        self._handle = self._api.start(pointer, array, len(items), deadline_ns, self._done, None)

    def cancel(self) -> None:
        self._api.cancel(self._handle)

    def wait(self, timeout_s: float = 20.0) -> Lookup:
        """Wait for the end, which must come within `timeout_s`."""
        assert self._ended.wait(timeout_s), "the lookup did not end"
        if self._handle is not None:
            self._api.release_lookup(self._handle)
            self._handle = None
        return self

    def _on_done(self, _: int, code: int, message: bytes, message_bytes: int) -> None:
        self.ends += 1
        self.code = Code(code)
        self.message = message[:message_bytes].decode() if message_bytes else ""
        self._ended.set()
