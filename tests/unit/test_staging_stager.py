"""The threads that fetch: real files, sources in memory. Conditions are waited for, nothing depends on speed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from shard_server.staging.blob_dir import BlobDir
from shard_server.staging.origin import Source
from shard_server.staging.rate_limit import RateLimit
from shard_server.staging.stager import Stager
from support.blobs import FakeSource, blobs_of, digest_of, failing, put, sizes_of
from tessera.errors import DataLossError, ResourceExhaustedError, UnavailableError

CHUNK = 64
BLOBS = blobs_of(*(bytes([number]) * (100 + number) for number in range(20)))


class Staging:
    """A stager with its directory; counts the calls of `on_change`."""

    def __init__(self, root: Path) -> None:
        self.dir = BlobDir(root)
        self.changes = threading.Semaphore(0)
        self.stager = Stager(self.dir, self.changes.release, parallel=3, limit=RateLimit(0), chunk_bytes=CHUNK)

    def want(self, blobs: dict[str, bytes], *sources: Source) -> None:
        self.dir.need(sizes_of(blobs))
        missing = {digest: size for digest, size in sizes_of(blobs).items() if not self.dir.is_verified(digest)}
        self.stager.want(missing, lambda digest: sources)

    def bring(self, blobs: dict[str, bytes], *sources: Source) -> None:
        self.want(blobs, *sources)
        wait_until(lambda: all(map(self.dir.is_verified, blobs)))
        assert all(self.dir.path(digest).read_bytes() == content for digest, content in blobs.items())

    def close(self) -> None:
        self.stager.stop(30.0)
        self.dir.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    staging = Staging(tmp_path)
    yield staging
    staging.close()


def test_everything_that_is_missing_comes_and_nothing_else(tmp_path: Path) -> None:
    source = FakeSource("s", BLOBS)
    there, wanted = dict(list(BLOBS.items())[:5]), dict(list(BLOBS.items())[:12])
    put(tmp_path, there)
    staging = Staging(tmp_path)
    try:
        staging.bring(wanted, source)
        assert {digest for digest, _ in source.asked} == wanted.keys() - there.keys()
        assert staging.changes.acquire(timeout=30)
        progress = staging.stager.progress()
        assert progress.done_bytes == progress.total_bytes == sum(map(len, wanted.values()))
        fetched = wanted.keys() - there.keys()
        assert staging.stager.counts().fetched_bytes == sum(len(wanted[digest]) for digest in fetched)
        assert staging.stager.problem == ""
    finally:
        staging.close()


def test_what_is_damaged_at_one_source_comes_from_the_next_and_is_told(staging: Staging) -> None:
    content = b"right" * 100
    digest = digest_of(content)
    wrong = FakeSource("liar", {digest: b"wrong" * 100})
    short = FakeSource("short", {digest: content[:300]})
    right = FakeSource("honest", {digest: content})
    staging.bring({digest: content}, wrong, short, right)
    assert "short" in staging.stager.progress().problem
    assert staging.stager.counts().problems == 2
    assert f"blob {digest}: ends after 300 bytes" in staging.stager.progress().problem
    assert right.asked[0] == (digest, 0)  # nothing of what the others said is kept


def test_a_source_that_fails_half_way_is_gone_on_from_by_the_next(staging: Staging) -> None:
    content = bytes(range(256)) * 2
    digest = digest_of(content)

    def break_off(digest: str, offset: int) -> None:
        if offset >= 2 * CHUNK:
            raise UnavailableError("broken: cut off")

    broken = FakeSource("broken", {digest: content}, break_off)
    right = FakeSource("right", {digest: content})
    staging.bring({digest: content}, broken, right)
    assert right.asked[0] == (digest, 2 * CHUNK)
    assert staging.stager.progress().problem == "broken: cut off"
    # For a while the broken one is asked last.
    staging.bring({digest: content} | blobs_of(b"new"), FakeSource("broken", {}), FakeSource("r", blobs_of(b"new")))
    assert not [one for one in broken.asked if one[0] == digest_of(b"new")]


def test_a_damaged_beginning_of_an_earlier_process_is_not_blamed_on_the_source(tmp_path: Path) -> None:
    content = b"x" * 300
    digest = digest_of(content)
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / digest).write_bytes(b"y" * 100)
    staging = Staging(tmp_path)
    try:
        source = FakeSource("s", {digest: content})
        staging.bring({digest: content}, source)
        assert [offset for _, offset in source.asked][:1] == [100]
        assert (digest, 0) in source.asked
        assert staging.stager.progress().problem == ""
    finally:
        staging.close()


def test_a_damaged_file_in_the_directory_is_fetched_again(tmp_path: Path) -> None:
    put(tmp_path, {digest_of(b"right"): b"wrong"})
    staging = Staging(tmp_path)
    try:
        staging.bring(blobs_of(b"right"), FakeSource("s", blobs_of(b"right")))
        assert "has SHA-256" in staging.stager.progress().problem
    finally:
        staging.close()


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ([], "no source is known"),
        ([FakeSource("a", {})], "a: blob .* is not there"),
        ([FakeSource("a", {}, failing(UnavailableError("a: away"))), FakeSource("b", {})], "a: away; b: blob"),
        ([FakeSource("a", {}, failing(ResourceExhaustedError("a: too many wait")))], "a: too many wait"),
        ([FakeSource("a", {}, failing(DataLossError("a: cannot be read")))], "a: cannot be read"),
    ],
)
def test_a_blob_that_no_source_has_is_a_problem_that_says_what_each_said(
    staging: Staging, sources: Sequence[FakeSource], says: str
) -> None:
    staging.want(blobs_of(b"wanted"), *sources)
    assert staging.changes.acquire(timeout=30)
    wait_until(lambda: bool(staging.stager.problem))
    assert re.search(says, staging.stager.problem)
    # It is tried again, and found.
    staging.bring(blobs_of(b"wanted"), FakeSource("late", blobs_of(b"wanted")))
    wait_until(lambda: staging.stager.problem == "")


def test_a_bug_of_a_source_ends_no_thread(staging: Staging) -> None:
    def fail(digest: str, offset: int) -> None:
        raise ValueError("not of Tessera")

    staging.want(blobs_of(b"wanted"), FakeSource("a", {}, fail))
    wait_until(lambda: "ValueError" in staging.stager.problem)
    staging.bring(blobs_of(b"wanted"), FakeSource("b", blobs_of(b"wanted")))


def test_what_is_no_longer_wanted_ends_at_the_next_chunk_and_leaves_nothing(staging: Staging) -> None:
    content = b"z" * 10 * CHUNK
    digest = digest_of(content)
    reached, go_on = threading.Event(), threading.Event()

    def hold(digest: str, offset: int) -> None:
        if offset == CHUNK:
            reached.set()
            assert go_on.wait(30)

    source = FakeSource("s", {digest: content}, hold)
    staging.want({digest: content}, source)
    assert reached.wait(30)
    assert staging.stager.progress().done_bytes == CHUNK
    staging.want({})
    go_on.set()
    wait_until(lambda: not list((staging.dir.root / "partial").iterdir()))
    assert max(offset for _, offset in source.asked) == CHUNK
    assert staging.dir.used_bytes == 0
    staging.bring(blobs_of(b"other"), FakeSource("t", blobs_of(b"other")))


def test_a_stop_is_not_missed_by_a_thread_that_is_about_to_wait(tmp_path: Path) -> None:
    for number in range(20):
        staging = Staging(tmp_path / str(number))
        staging.want(blobs_of(b"x"), FakeSource("s", blobs_of(b"x")))
        staging.close()
        assert not any(thread.is_alive() for thread in staging.stager._threads)


def test_a_stop_keeps_what_was_begun(tmp_path: Path) -> None:
    content = b"z" * 10 * CHUNK
    digest = digest_of(content)
    reached, go_on = threading.Event(), threading.Event()

    def hold(digest: str, offset: int) -> None:
        if offset == 3 * CHUNK:
            reached.set()
            assert go_on.wait(30)

    staging = Staging(tmp_path)
    staging.want({digest: content}, FakeSource("s", {digest: content}, hold))
    assert reached.wait(30)
    stopping = threading.Thread(target=staging.close)
    stopping.start()
    wait_until(staging.stager._stopping.is_set)
    go_on.set()
    stopping.join(30)
    begun_bytes = (tmp_path / "partial" / digest).stat().st_size
    assert begun_bytes == 4 * CHUNK
    again = Staging(tmp_path)
    try:
        source = FakeSource("s", {digest: content})
        again.bring({digest: content}, source)
        assert source.asked[0] == (digest, begun_bytes)
    finally:
        again.close()
