"""Which blob is read again next, and what follows when it is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_server.scrubber import Scrubber, ScrubCounts, next_after
from tessera.errors import DataLossError


@dataclass
class _Holder:
    """A holder and its holdings at once, with blobs that are damaged, or given up while they are read."""

    blob_sizes: dict[str, int]
    damaged: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    checked: list[str] = field(default_factory=list)

    @property
    def holdings(self) -> _Holder:
        return self

    def check(self, digest: str, size_bytes: int) -> None:
        assert size_bytes == self.blob_sizes[digest]
        self.checked.append(digest)
        if digest in self.given_up:
            del self.blob_sizes[digest]
        if digest in self.damaged | self.given_up:
            raise DataLossError(f"blob {digest}: damaged")


def _scrubber(holder: Any, told: list[str], start_after: str = "") -> Scrubber:
    return Scrubber(holder, 60.0, lambda: told.append("damage"), start_after)


@given(
    st.dictionaries(st.text("0123456789abcdef", min_size=1), st.integers(0, 9), min_size=1), st.text("0123456789abcdef")
)
def test_every_blob_is_read_once_in_the_interval_wherever_it_begins(sizes: Mapping[str, int], start: str) -> None:
    holder = _Holder(dict(sizes))
    scrubber = _scrubber(holder, [], start)
    took_s = sum(scrubber.step() for _ in sizes)
    assert sorted(holder.checked) == sorted(sizes)
    assert took_s == pytest.approx(60.0)
    assert scrubber.counts == ScrubCounts(len(sizes), 0)


def test_a_damaged_blob_is_told_and_one_that_was_given_up_meanwhile_is_not() -> None:
    holder, told = _Holder({"a": 1, "b": 2, "c": 3}, damaged={"b"}, given_up={"c"}), list[str]()
    scrubber = _scrubber(holder, told)
    for expected in ([], ["damage"], ["damage"]):
        scrubber.step()
        assert told == expected
    assert scrubber.counts == ScrubCounts(3, 1)
    assert holder.checked == ["a", "b", "c"]


def test_nothing_to_read_is_looked_for_again() -> None:
    scrubber = _scrubber(_Holder({}), [])
    assert 0 < scrubber.step() <= 60.0
    assert scrubber.counts == ScrubCounts()
    assert next_after("a", ()) is None
    scrubber.stop(1.0)  # it was never started
