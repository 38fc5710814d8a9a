"""`tensorflow.ProfilerService`: profiles of this process as TensorBoard and `tf.profiler` capture them.

Profile waits while it records: it wants a thread of its own (`serve_python(..., own_thread=True)`), which also makes
profiles wait for each other. The other two are answered at once.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from protos import profiler_pb2
from tessera.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, UnavailableError

PROFILE = "/tensorflow.ProfilerService/Profile"
TERMINATE = "/tensorflow.ProfilerService/Terminate"
MONITOR = "/tensorflow.ProfilerService/Monitor"

MAX_DURATION_S = 60.0
"""A recording takes memory for every operation that runs meanwhile."""

_log = logging.getLogger("router.profiler")
_MessageT = TypeVar("_MessageT", bound=Message)


class Recording(Protocol):
    """A profile that is being recorded: `_graph.Profiler`."""

    def collect(self) -> tuple[bytes, bool]:
        """End the recording; return a serialized XSpace, and whether it is empty."""
        ...


class ProfilerService:
    """Records profiles. Methods take and return serialized messages, and may be called on any thread."""

    def __init__(self, start: Callable[[bytes], Recording], figures: Callable[[], str]) -> None:
        """`start` begins a recording from a serialized ProfileOptions; `figures` is the text that Monitor answers."""
        self._start = start
        self._figures = figures
        self._lock = threading.Lock()
        self._sessions: dict[str, threading.Event] = {}
        self._closed = False

    def profile(self, request_bytes: bytes) -> bytes:
        """Record for the time that is asked for, or until `terminate`; answer the XSpace.

        Where the request names a repository, the XSpace is written there too, as TensorFlow does:
        ROOT/SESSION/HOST.xplane.pb.

        Raises:
            InvalidArgumentError: not a ProfileRequest, no duration or one above `MAX_DURATION_S`, or names that are no
                file names.
            AlreadyExistsError: the session is being recorded, or its file exists.
            UnavailableError: another profile is being recorded, the file cannot be written, or the server ends.
        """
        request = _parsed(profiler_pb2.ProfileRequest(), request_bytes)
        options = _parsed(profiler_pb2.ProfileOptions(), request.opts)
        duration_s = (options.duration_ms or request.duration_ms) / 1000
        if not 0 < duration_s <= MAX_DURATION_S:
            raise InvalidArgumentError(
                f"duration_ms: got {duration_s * 1000:g}, expected 1 to {MAX_DURATION_S * 1000:g}"
            )
        file = _file_of(request)
        with self._session(request.session_id) as ended:
            recording = self._start(request.opts)
            ended.wait(duration_s)
            xspace, is_empty = recording.collect()
        if file is not None:
            _write(file, xspace)
        return profiler_pb2.ProfileResponse(xspace=xspace, empty_trace=is_empty).SerializeToString()

    def terminate(self, request_bytes: bytes) -> bytes:
        """End a recording before its time; its caller gets what there is.

        Raises:
            InvalidArgumentError: not a TerminateRequest.
            NotFoundError: no such session is being recorded.
        """
        session = _parsed(profiler_pb2.TerminateRequest(), request_bytes).session_id
        with self._lock:
            ended = self._sessions.get(session)
        if ended is None:
            raise NotFoundError(f"session_id: got {session!r}, which is not being recorded")
        ended.set()
        return profiler_pb2.TerminateResponse().SerializeToString()

    def monitor(self, _: bytes) -> bytes:
        """Answer the figures of this process as text; whatever level is asked for."""
        return profiler_pb2.MonitorResponse(data=self._figures()).SerializeToString()

    def close(self) -> None:
        """End what is being recorded, and record no more; before the server stops."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions.values())
        for ended in sessions:
            ended.set()

    @contextlib.contextmanager
    def _session(self, session: str) -> Iterator[threading.Event]:
        ended = threading.Event()
        with self._lock:
            if self._closed:
                raise UnavailableError("the server is shutting down")
            if session in self._sessions:
                raise AlreadyExistsError(f"session_id: got {session!r}, which is being recorded")
            self._sessions[session] = ended
        try:
            yield ended
        finally:
            with self._lock:
                del self._sessions[session]


def _parsed(message: _MessageT, content: bytes) -> _MessageT:
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise InvalidArgumentError(f"{type(message).__name__}: cannot be parsed: {error}") from error
    return message


def _file_of(request: profiler_pb2.ProfileRequest) -> Path | None:
    """Return where the profile is to be written, None when nowhere; callers must not leave the repository."""
    if not request.repository_root:
        return None
    host = request.host_name or socket.gethostname()
    for field, name in (("session_id", request.session_id), ("host_name", host)):
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise InvalidArgumentError(f"{field}: got {name!r}, expected a file name")
    if not request.repository_root.startswith("/") or "\0" in request.repository_root:
        raise InvalidArgumentError(f"repository_root: got {request.repository_root!r}, expected an absolute path")
    return Path(request.repository_root) / request.session_id / f"{host}.xplane.pb"


def _write(file: Path, xspace: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as out:  # a caller must not be able to replace anything
            out.write(xspace)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{file}: exists") from error
    except OSError as error:
        raise UnavailableError(f"{file}: {error.strerror}") from error
    _log.info("profile of %d bytes in %s", len(xspace), file)
