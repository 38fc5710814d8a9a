from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.plan import (
    BUCKETS_PER_SHARD,
    MAX_BUCKETS_PER_PACKAGE,
    MIN_BUCKET_BYTES,
    TARGET_BUCKETS,
    Candidate,
    bucket_count,
    plan,
)
from tessera.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

MIB = 1 << 20


def candidate(name: str, rows: int, row_bytes: int, *obstacles: str) -> Candidate:
    return Candidate(name, "int8", (rows, row_bytes), rows * row_bytes, 0 if obstacles else 1, obstacles)


candidates_of_a_model = st.lists(
    st.builds(
        lambda name, rows, row_bytes, obstacle: candidate(name, rows, row_bytes, *([obstacle] if obstacle else [])),
        st.integers(0, 10**6).map(lambda number: f"v{number}"),
        st.integers(1, 10**7),
        st.integers(1, 5000),
        st.sampled_from(["", "", "MatMul needs all of it"]),
    ),
    max_size=12,
    unique_by=lambda c: c.name,
)


@given(candidates_of_a_model, st.integers(16, 1 << 34), st.integers(0, 1 << 20))
@settings(max_examples=300, deadline=None)
def test_every_plan_keeps_its_promises(candidates: list[Candidate], limit: int, other: int) -> None:
    try:
        decisions = plan(candidates, max_shard_bytes=limit, other_root_bytes=other)
    except FailedPreconditionError:
        # Right if it does not fit although all is split that can be, or if that makes too many buckets.
        stays = other + sum(c.bytes for c in candidates if c.obstacles or c.shape[1] > limit // BUCKETS_PER_SHARD)
        splits = [c for c in candidates if not c.obstacles and c.shape[1] <= limit // BUCKETS_PER_SHARD]
        even = any(c.shape[0] % 2 == 0 and 2 * c.shape[1] > limit // BUCKETS_PER_SHARD for c in splits)
        assert stays > limit or even or sum(bucket_count(c, limit) for c in splits) > MAX_BUCKETS_PER_PACKAGE
        return
    assert [decision.candidate for decision in decisions] == candidates
    root = other + sum(d.candidate.bytes for d in decisions if not d.split)
    assert root <= limit
    for decision in decisions:
        if decision.split:
            assert not decision.candidate.obstacles
            assert decision.buckets % 2 == 1
            assert decision.buckets <= decision.candidate.shape[0]
            assert decision.bucket_bytes * BUCKETS_PER_SHARD <= limit
    if other + sum(c.bytes for c in candidates) <= limit:
        assert not any(decision.split for decision in decisions)
    # The order in which variables are found decides nothing.
    assert plan(candidates[::-1], max_shard_bytes=limit, other_root_bytes=other) == decisions[::-1]


@given(st.integers(1, 10**8), st.integers(1, 10**5), st.integers(16 * 10**5, 1 << 40))
@settings(deadline=None)
def test_buckets_are_odd_fit_the_limit_and_are_not_tiny(rows: int, row_bytes: int, limit: int) -> None:
    table = candidate("t", rows, row_bytes)
    buckets = bucket_count(table, limit)
    assert buckets % 2 == 1
    assert 1 <= buckets <= rows
    largest = -(-rows // buckets) * row_bytes
    if buckets < rows - 1:
        assert largest <= limit // BUCKETS_PER_SHARD
    if buckets > 3 and largest < limit // BUCKETS_PER_SHARD // 3:
        assert largest * 3 >= MIN_BUCKET_BYTES or buckets >= rows - 1 or row_bytes * 3 > MIN_BUCKET_BYTES
    if limit // BUCKETS_PER_SHARD >= -(-table.bytes // TARGET_BUCKETS) and row_bytes * TARGET_BUCKETS <= table.bytes:
        assert buckets <= 2 * TARGET_BUCKETS + 1


def test_a_model_that_fits_stays_whole_unless_named() -> None:
    tables = [candidate("a/table", 1000, 4), candidate("b/table", 1000, 4)]
    assert [d.buckets for d in plan(tables, max_shard_bytes=MIB)] == [0, 0]
    assert [d.buckets for d in plan(tables, max_shard_bytes=MIB, split=["a/*"])] == [1, 0]


def test_large_tables_are_split_and_small_ones_only_as_needed() -> None:
    tables = [candidate("large", 1 << 20, 64), *(candidate(f"small{i}", 1000 + i, 1000) for i in range(3))]
    decisions = plan(tables, max_shard_bytes=32 * MIB)
    assert [d.split for d in decisions] == [True, False, False, False]
    assert decisions[0].buckets == 65
    tight = plan(tables, max_shard_bytes=16 * 1010 * 1000, other_root_bytes=16 * 1010 * 1000 - 2_002_000)
    assert [d.split for d in tight] == [True, False, False, True]  # the largest small one went


def test_what_cannot_be_split_is_said() -> None:
    tied = candidate("tied", 1 << 20, 64, "MatMul 'logits' needs all of it")
    with pytest.raises(FailedPreconditionError, match=r"'tied' of 67108864 bytes: MatMul 'logits' needs all of it"):
        plan([tied, candidate("small", 10, 4)], max_shard_bytes=MIB)
    with pytest.raises(FailedPreconditionError, match="'tied' cannot be split: MatMul"):
        plan([tied], max_shard_bytes=1 << 30, split=["tied"])
    with pytest.raises(FailedPreconditionError, match="the graph itself has 2097152 bytes"):
        plan([], max_shard_bytes=MIB, other_root_bytes=2 * MIB)
    with pytest.raises(FailedPreconditionError, match="rows are too large"):
        plan([candidate("wide", 10, 1 << 20)], max_shard_bytes=8 * MIB)


def test_overrides_are_checked() -> None:
    tables = [candidate("a", 1 << 20, 4), candidate("b", 1 << 10, 4)]
    with pytest.raises(NotFoundError, match="keep: 'c\\*' fits no variable, expected one of: a, b"):
        plan(tables, max_shard_bytes=MIB, keep=["c*"])
    with pytest.raises(InvalidArgumentError, match="both name a"):
        plan(tables, max_shard_bytes=MIB, keep=["a"], split=["*"])
    with pytest.raises(InvalidArgumentError, match="max_shard_bytes: got 0"):
        plan(tables, max_shard_bytes=0)
    with pytest.raises(FailedPreconditionError, match="'a' of 4194304 bytes: named by keep"):
        plan(tables, max_shard_bytes=MIB, keep=["a"])


def test_too_many_buckets_are_refused() -> None:
    with pytest.raises(FailedPreconditionError, match="buckets, expected at most 500000; raise it"):
        plan([candidate("a", 1 << 30, 4)], max_shard_bytes=1 << 16)
