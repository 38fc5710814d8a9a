"""`tensorflow.ProfilerService` without TensorFlow: durations, sessions, files."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from protos import profiler_pb2
from router.profiler_service import MAX_DURATION_S, ProfilerService
from tessera.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, UnavailableError


class FakeRecording:
    def __init__(self, options: bytes) -> None:
        self._options = options

    def collect(self) -> tuple[bytes, bool]:
        return b"xspace of " + self._options, not self._options


def request(duration_ms: int = 1, **fields: Any) -> bytes:
    opts = profiler_pb2.ProfileOptions(duration_ms=duration_ms).SerializeToString()
    return profiler_pb2.ProfileRequest(opts=opts, **fields).SerializeToString()


def terminate(session: str) -> bytes:
    return profiler_pb2.TerminateRequest(session_id=session).SerializeToString()


def service(start: Callable[[bytes], Any] = FakeRecording) -> ProfilerService:
    return ProfilerService(start, lambda: "42 requests")


def test_the_options_reach_the_recording_as_they_came_and_its_xspace_the_caller() -> None:
    opts = profiler_pb2.ProfileOptions(duration_ms=1).SerializeToString() + b"\x28\x01"  # version = 1
    answer = service().profile(profiler_pb2.ProfileRequest(opts=opts).SerializeToString())
    assert profiler_pb2.ProfileResponse.FromString(answer) == profiler_pb2.ProfileResponse(xspace=b"xspace of " + opts)


def test_an_empty_profile_says_so() -> None:
    answer = service().profile(profiler_pb2.ProfileRequest(duration_ms=1).SerializeToString())
    assert profiler_pb2.ProfileResponse.FromString(answer).empty_trace


@pytest.mark.parametrize("duration_ms", [0, int(MAX_DURATION_S * 1000) + 1])
def test_a_recording_without_an_end_or_too_long_is_refused(duration_ms: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"duration_ms: got {duration_ms}"):
        service().profile(request(duration_ms))


@pytest.mark.parametrize("method", ["profile", "terminate"])
def test_bytes_that_are_no_message_are_refused(method: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be parsed"):
        getattr(service(), method)(b"\xff\xff")


@pytest.mark.parametrize("end", ["terminate", "close"])
def test_a_recording_ends_before_its_time(end: str) -> None:
    started = threading.Event()

    def start(options: bytes) -> FakeRecording:
        started.set()
        return FakeRecording(options)

    tested = service(start)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(tested.profile, request(50_000, session_id="s"))
        assert started.wait(10)
        with pytest.raises(AlreadyExistsError, match="session_id: got 's'"):
            tested.profile(request(session_id="s"))
        with pytest.raises(NotFoundError, match="session_id: got 't'"):
            tested.terminate(terminate("t"))
        if end == "terminate":
            tested.terminate(terminate("s"))
        else:
            tested.close()
            with pytest.raises(UnavailableError, match="shutting down"):
                tested.profile(request())
        assert profiler_pb2.ProfileResponse.FromString(running.result(10)).xspace
    with pytest.raises(NotFoundError):
        tested.terminate(terminate("s"))


def test_a_session_that_fails_may_be_recorded_again() -> None:
    def fail(_: bytes) -> FakeRecording:
        raise UnavailableError("busy")

    tested = service(fail)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="busy"):
            tested.profile(request(session_id="s"))


def test_a_profile_is_written_to_the_repository_once(tmp_path: Path) -> None:
    ask = request(repository_root=f"{tmp_path}/plugins/profile", session_id="s", host_name="h:8500")
    service().profile(ask)
    written = tmp_path / "plugins" / "profile" / "s" / "h:8500.xplane.pb"
    assert written.read_bytes().startswith(b"xspace of ")
    with pytest.raises(AlreadyExistsError, match=r"h:8500\.xplane\.pb: exists"):
        service().profile(ask)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id", ""),
        ("session_id", ".."),
        ("session_id", "a/b"),
        ("host_name", "../h"),
        ("host_name", "h\0"),
        ("repository_root", "relative"),
    ],
)
def test_names_that_leave_the_repository_are_refused(tmp_path: Path, field: str, value: str) -> None:
    fields: dict[str, Any] = {"repository_root": str(tmp_path), "session_id": "s", "host_name": "h"} | {field: value}
    with pytest.raises(InvalidArgumentError, match=re.escape(f"{field}: got {value!r}")):
        service().profile(request(**fields))
    assert not list(tmp_path.iterdir())


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="file/s"):
        service().profile(request(repository_root=f"{tmp_path}/file", session_id="s", host_name="h"))


def test_monitor_answers_the_figures() -> None:
    assert profiler_pb2.MonitorResponse.FromString(service().monitor(b"")).data == "42 requests"
