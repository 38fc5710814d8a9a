"""A server's side of `cpp_ext/base/abi.h` in Python: calls a handler without a server."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ABI_VERSION = 4
NO_DEADLINE = (1 << 63) - 1

_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype = ctypes.py_object
_capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

_VOID = ctypes.c_void_p
_OnCancel = ctypes.CFUNCTYPE(None, _VOID)
_Free = ctypes.CFUNCTYPE(None, _VOID)
_Request = ctypes.CFUNCTYPE(_VOID, _VOID, ctypes.POINTER(ctypes.c_size_t))
_Deadline = ctypes.CFUNCTYPE(ctypes.c_int64, _VOID)
_Metadata = ctypes.CFUNCTYPE(_VOID, _VOID, _VOID, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t))
_Notify = ctypes.CFUNCTYPE(None, _VOID, _OnCancel, _VOID)
_PushBack = ctypes.CFUNCTYPE(None, _VOID, ctypes.c_int64)
_Finish = ctypes.CFUNCTYPE(None, _VOID, ctypes.c_int, _VOID, ctypes.c_size_t, _VOID, ctypes.c_size_t, _Free, _VOID)


class _CallApi(ctypes.Structure):
    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("request", _Request),
        ("deadline_ns", _Deadline),
        ("metadata", _Metadata),
        ("notify_on_cancel", _Notify),
        ("push_back", _PushBack),
        ("finish", _Finish),
    ]


_Handle = ctypes.CFUNCTYPE(None, _VOID, ctypes.POINTER(_CallApi), _VOID)


class _Handler(ctypes.Structure):
    _fields_ = [("abi_version", ctypes.c_uint32), ("context", _VOID), ("handle", _Handle), ("burst", _VOID)]


@dataclass
class Call:
    """One call in progress or ended."""

    request: Any
    deadline_ns: int
    metadata: dict[bytes, Any] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    on_cancel: Callable[[], None] | None = None
    push_back_ms: int | None = None
    code: int = -1
    message: str = ""
    response: bytes = b""


class HandlerClient:
    """Calls a `TESSERA_HANDLER_CAPSULE` as a server would."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule  # keeps the handler alive
        self._handler = _Handler.from_address(_capsule_pointer(capsule, b"tessera.handler"))
        assert self._handler.abi_version == ABI_VERSION
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._mu = threading.Lock()
        self._api = _CallApi(
            ABI_VERSION,
            _Request(self._request),
            _Deadline(self._deadline),
            _Metadata(self._metadata),
            _Notify(self._notify),
            _PushBack(self._push_back),
            _Finish(self._finish),
        )

    def start(
        self, request: bytes, *, timeout_s: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> Call:
        deadline_ns = NO_DEADLINE if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        sent = {
            key.encode(): ctypes.create_string_buffer(v := value.encode(), len(v))
            for key, value in (metadata or {}).items()
        }
        call = Call(ctypes.create_string_buffer(request, len(request)), deadline_ns, sent)
        with self._mu:
            key = self._next
            self._next += 1
            self._calls[key] = call
        self._handler.handle(self._handler.context, ctypes.byref(self._api), key)
        return call

    def call(
        self, request: bytes, *, timeout_s: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> Call:
        call = self.start(request, timeout_s=timeout_s, metadata=metadata)
        assert call.ended.wait(30), "the handler did not finish the call"
        return call

    def _request(self, key: int, size: Any) -> int:
        call = self._calls[key]
        size[0] = len(call.request)
        return ctypes.addressof(call.request)

    def _deadline(self, key: int) -> int:
        return self._calls[key].deadline_ns

    def _metadata(self, key: int, name: int, name_size: int, size: Any) -> int | None:
        value = self._calls[key].metadata.get(ctypes.string_at(name, name_size))
        if value is None:
            return None
        size[0] = len(value)
        return ctypes.addressof(value)

    def _notify(self, key: int, on_cancel: Any, arg: int) -> None:
        self._calls[key].on_cancel = lambda: on_cancel(arg)

    def _push_back(self, key: int, delay_ms: int) -> None:
        self._calls[key].push_back_ms = delay_ms

    def _finish(
        self, key: int, code: int, message: int, message_size: int, response: int, size: int, free: Any, arg: int
    ) -> None:
        call = self._calls.pop(key)
        call.code = code
        call.message = ctypes.string_at(message, message_size).decode() if message_size else ""
        call.response = ctypes.string_at(response, size) if size else b""
        if free:
            free(arg)
        call.ended.set()
