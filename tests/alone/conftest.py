"""The fan-out that all tests of this folder share: a process can have one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cpp_ext import _graph
from support.fake_fanout import FakeFanout


@pytest.fixture(scope="session")
def the_fanout() -> Iterator[FakeFanout]:
    """Answers lookups from arrays; tests `reset` it."""
    fanout = FakeFanout()
    _graph.configure(fanout=fanout.capsule)
    yield fanout
    fanout.wait_until_unused()
