"""The fan-out's side of `cpp_ext/base/abi.h` in Python: answers lookups without shards."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from support.fake_abi import ABI_VERSION, _capsule_new

_VOID = ctypes.c_void_p


class _Gather(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint32),
        ("id_width_bytes", ctypes.c_uint32),
        ("ids", _VOID),
        ("ids_count", ctypes.c_size_t),
        ("rows", _VOID),
    ]


_Done = ctypes.CFUNCTYPE(None, _VOID, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_Route = ctypes.CFUNCTYPE(None, _VOID)
_Count = ctypes.CFUNCTYPE(ctypes.c_uint32, _VOID)
_Shape = ctypes.CFUNCTYPE(None, _VOID, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_int64))
_Start = ctypes.CFUNCTYPE(_VOID, _VOID, ctypes.POINTER(_Gather), ctypes.c_size_t, ctypes.c_int64, _Done, _VOID)
_Lookup = ctypes.CFUNCTYPE(None, _VOID)
_NewerEpoch = ctypes.CFUNCTYPE(ctypes.c_uint64, _VOID)


class _FanoutApi(ctypes.Structure):
    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("retain_route", _Route),
        ("release_route", _Route),
        ("table_count", _Count),
        ("table_shape", _Shape),
        ("start", _Start),
        ("cancel", _Lookup),
        ("release_lookup", _Lookup),
        ("newer_epoch", _NewerEpoch),
    ]


class FakeFanout:
    """Answers lookups from arrays, in the way that `mode` says.

    Modes: "now" (inside `start`), "later" (on another thread), "hang" (only when cancelled), "fail"
    (with `code` and `message`). Lookups over the routes in `failing` fail whatever the mode; `newer_epochs` has, by
    route, what servers told of. `before_lookup` is called first in each lookup.
    The process can have one fan-out, so that tests share an instance and call `reset`.
    """

    def __init__(self) -> None:
        self._mu = threading.RLock()  # what is freed in between releases its routes here, too
        self._in_use = 0
        self.reset({})
        self._callbacks = (
            _Route(self._retain),
            _Route(self._release),
            _Count(lambda route: len(self.routes[route])),
            _Shape(self._shape),
            _Start(self._start),
            _Lookup(self._cancel),
            _Lookup(self._release_lookup),
            _NewerEpoch(lambda route: self.newer_epochs.get(route, 0)),
        )
        self._api = _FanoutApi(ABI_VERSION, *self._callbacks)
        self.capsule = _capsule_new(ctypes.addressof(self._api), b"tessera.fanout", None)

    def reset(self, routes: dict[int, list[np.ndarray[Any, Any]]], mode: str = "now") -> None:
        """Serve these tables by route number (≥ 1), when nothing is left of what was served before."""
        self.wait_until_unused()
        self.routes = routes
        self.mode = mode
        self.code, self.message = 14, "table t: no live server"
        self.failing: set[int] = set()
        self.newer_epochs: dict[int, int] = {}
        self.before_lookup: Callable[[], None] = lambda: None
        self.lookups: list[list[tuple[int, list[int]]]] = []
        self.deadlines: list[int] = []
        self.references: dict[int, int] = {}
        self.hanging: dict[int, Callable[[], None]] = {}
        self._dones: dict[int, tuple[Any, Any]] = {}
        self.unreleased = 0
        self._threads: list[threading.Thread] = []

    def route(self, number: int) -> Any:
        return _capsule_new(number, b"tessera.route", None)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)

    def wait_until_unused(self) -> None:
        """Return when all is released: native threads that do so call Python, which must not have ended."""
        end_s = time.monotonic() + 30
        while self._in_use:
            assert time.monotonic() < end_s, f"{self._in_use} routes and lookups are still in use"
            gc.collect()
            time.sleep(0.001)

    def _retain(self, route: int) -> None:
        with self._mu:
            self._in_use += 1
            self.references[route] = self.references.get(route, 0) + 1

    def _release(self, route: int) -> None:
        with self._mu:
            self._in_use -= 1
            self.references[route] = self.references.get(route, 0) - 1

    def _shape(self, route: int, table: int, rows: Any, row_bytes: Any) -> None:
        array = self.routes[route][table]
        rows[0] = array.shape[0]
        row_bytes[0] = array[0].nbytes

    def _start(self, route: int, gathers: Any, count: int, deadline_ns: int, done: Any, arg: int) -> int:
        self.before_lookup()
        copies = [(g.table, g.id_width_bytes, g.ids, g.ids_count, g.rows) for g in gathers[:count]]
        wanted = []
        for table, width, ids, ids_count, _ in copies:
            kind = ctypes.c_int64 if width == 8 else ctypes.c_int32
            wanted.append((table, list((kind * ids_count).from_address(ids))))
        with self._mu:
            self._in_use += 1
            self.unreleased += 1
            self.deadlines.append(deadline_ns)
            self.lookups.append(wanted)
            handle = len(self.lookups)

        def answer() -> None:
            for (table, numbers), (*_, rows) in zip(wanted, copies, strict=True):
                data = np.ascontiguousarray(self.routes[route][table][numbers]).tobytes()
                ctypes.memmove(rows, data, len(data))
            done(arg, 0, b"", 0)

        def fail(code: int, message: str) -> None:
            done(arg, code, message.encode(), len(message.encode()))

        if route in self.failing:
            fail(self.code, self.message)
        elif self.mode == "now":
            answer()
        elif self.mode == "later":
            thread = threading.Thread(target=answer)
            self._threads.append(thread)
            thread.start()
        elif self.mode == "hang":
            self._dones[handle] = (done, arg)
            self.hanging[handle] = lambda: fail(1, "cancelled")
        else:
            fail(self.code, self.message)
        return handle

    def fail_hanging(self) -> None:
        """Fail the lookups that hang, with `code` and `message`."""
        for handle in list(self.hanging):
            done, arg = self._dones[handle]
            del self.hanging[handle]
            done(arg, self.code, self.message.encode(), len(self.message.encode()))

    def _cancel(self, handle: int) -> None:
        end = self.hanging.pop(handle, None)
        if end is not None:
            end()

    def _release_lookup(self, handle: int) -> None:
        with self._mu:
            self._in_use -= 1
            self.unreleased -= 1
