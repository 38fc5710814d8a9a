from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from shard_server.staging.progress import Progress
from shard_server.staging.queue import RETRY_DELAYS_S, StagingQueue
from shard_server.staging.rate_limit import BURST_S, RateLimit
from tessera.clock import ManualClock


def test_each_wanted_blob_is_taken_once_and_what_is_no_longer_wanted_is_not() -> None:
    queue = StagingQueue(ManualClock())
    queue.want({"a": 1, "b": 2, "c": 3})
    assert queue.take() == ("a", 1)
    queue.want({"a": 1, "c": 3})
    assert queue.take() == ("c", 3)
    assert queue.take() is None
    assert queue.pause_s() is None
    queue.done("a")
    queue.want({})
    assert not queue.is_wanted("c")
    queue.given_up("c")
    assert (queue.take(), dict(queue.left)) == (None, {})


def test_a_blob_that_was_given_up_and_is_wanted_again_is_taken_again() -> None:
    queue = StagingQueue(ManualClock())
    queue.want({"a": 1})
    assert queue.take()
    queue.want({})
    queue.want({"a": 1})
    assert queue.take() is None  # the thread that has it has not looked yet
    queue.given_up("a")
    assert queue.take() == ("a", 1)


def test_a_failed_blob_is_tried_again_after_pauses_that_grow_and_end() -> None:
    clock = ManualClock()
    queue = StagingQueue(clock)
    queue.want({"a": 1, "b": 1})
    for delay_s in (*RETRY_DELAYS_S, RETRY_DELAYS_S[-1]):
        assert queue.take() == ("a", 1)
        queue.failed("a", "no source")
        queue.want({"a": 1, "b": 1})  # a new snapshot makes nothing faster
        assert queue.pause_s() == delay_s
        assert queue.problem == "no source"
        if delay_s == RETRY_DELAYS_S[0]:
            assert queue.take() == ("b", 1)
        clock.advance(delay_s - 0.001)
        assert queue.take() is None
        clock.advance(0.001)
    queue.failed("b", "full")
    assert queue.problem == "no source (and 1 more blobs)"
    assert queue.take() == ("a", 1)
    queue.done("a")
    assert queue.problem == "full"
    queue.want({})
    assert queue.problem == ""


@given(st.lists(st.tuples(st.sampled_from("wtdgf"), st.sets(st.sampled_from("abcd"))), max_size=40))
def test_nothing_is_taken_twice_or_lost(steps: list[tuple[str, set[str]]]) -> None:
    clock = ManualClock()
    queue = StagingQueue(clock)
    taken: list[str] = []
    ends: dict[str, Callable[[str], None]] = {
        "d": queue.done,
        "g": queue.given_up,
        "f": lambda digest: queue.failed(digest, "x"),
    }
    for step, names in steps:
        if step == "w":
            queue.want(dict.fromkeys(names, 1))
        elif step == "t" and (one := queue.take()):
            assert one[0] not in taken
            taken.append(one[0])
        elif step in ends and taken:
            ends[step](taken.pop())
        clock.advance(0.5)
    for digest in taken:
        queue.given_up(digest)
    clock.advance(RETRY_DELAYS_S[-1])
    left = set(queue.left)
    while one := queue.take():
        queue.done(one[0])
        left.remove(one[0])
    assert left == set()
    assert not queue.left


def test_a_rate_is_kept_whoever_asks() -> None:
    clock = ManualClock()
    limit = RateLimit(100, clock)
    assert [limit.reserve(50) for _ in range(3)] == [0.0, 0.5, 1.0]
    clock.advance(10.0)
    assert limit.reserve(50) == 0.0  # what was not used is gone but for a moment
    assert round(limit.reserve(50), 6) == round(0.5 - BURST_S, 6)
    assert [RateLimit(0, clock).reserve(1 << 40) for _ in range(2)] == [0.0, 0.0]


def test_progress_counts_what_is_there_of_what_was_missing() -> None:
    clock = ManualClock()
    progress = Progress(clock, limit_bytes_per_s=7)
    progress.expect(0)
    assert progress.record().total_bytes == 0
    progress.expect(100)
    progress.begun("a", 10)  # from before a restart
    for _ in range(4):
        clock.advance(1.0)
        progress.fetched(10)
    progress.begun("a", 50)
    found = progress.record()
    assert (found.done_bytes, found.total_bytes, found.bytes_per_s, found.limit_bytes_per_s) == (50, 100, 10, 7)
    progress.expect(100)  # nothing is counted twice
    assert progress.record() == found
    progress.ended("a", 60)
    progress.expect(40)
    assert (progress.record().done_bytes, progress.record().total_bytes) == (60, 100)
    progress.begun("b", 40)
    progress.ended("b", 0)  # given up
    progress.expect(0)
    assert (progress.record().done_bytes, progress.record().total_bytes) == (60, 60)
    progress.expect(5)
    assert (progress.record().done_bytes, progress.record().total_bytes, progress.fetched_bytes) == (0, 5, 40)


def test_the_rate_forgets_what_was_long_ago() -> None:
    clock = ManualClock()
    progress = Progress(clock, 0)
    progress.expect(1 << 30)
    for _ in range(60):
        clock.advance(1.0)
        progress.fetched(100)
    for _ in range(60):
        clock.advance(1.0)
        progress.fetched(10)
    assert progress.record().bytes_per_s <= 20
