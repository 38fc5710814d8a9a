from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from placement.slots import default_slots, rank, rank_costs, server_hashes, slot_of

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "slots.json").read_text())
names = st.text(min_size=1, max_size=40)


@pytest.mark.parametrize("vector", GOLDEN["slot_of"], ids=lambda v: f"{v['table'][:12]}-{v['bucket']}")
def test_slot_of_gives_the_golden_slots(vector: dict[str, Any]) -> None:
    assert slot_of(vector["table"], vector["bucket"], vector["slots"]) == vector["slot"]


@pytest.mark.parametrize("vector", GOLDEN["rank"], ids=lambda v: str(v["slot"]))
def test_ranks_give_the_golden_costs_bit_for_bit(vector: dict[str, Any]) -> None:
    ids = [server["id"] for server in vector["servers"]]
    weights = [server["weight"] for server in vector["servers"]]
    costs = rank_costs(server_hashes(ids), np.array(weights, dtype=np.float64), vector["slot"])
    assert [float(cost).hex() for cost in costs] == [server["cost"] for server in vector["servers"]]
    assert rank(ids, weights, vector["slot"]) == vector["order"]


def scalar_cost(server: str, weight: float, slot: int) -> float:
    """The definition of the module's text, without arrays."""
    h = xxhash.xxh64_intdigest(struct.pack("<QQ", xxhash.xxh64_intdigest(server.encode()), slot))
    mantissa, exponent = math.frexp(((h >> 11) + 0.5) / 2**53)
    t = (mantissa - 1) / (mantissa + 1)
    s, series = t * t, 1 / 17
    for k in range(15, 0, -2):
        series = series * s + 1 / k
    return -(exponent * 0.6931471805599453 + 2 * t * series) / weight


@given(names, st.integers(1, 1000), st.integers(0, 16383))
def test_arrays_follow_the_definition_and_the_logarithm_is_right(server: str, weight: int, slot: int) -> None:
    cost = float(rank_costs(server_hashes([server]), np.array([weight], dtype=np.float64), slot)[0])
    assert cost == scalar_cost(server, weight, slot)
    h = xxhash.xxh64_intdigest(struct.pack("<QQ", xxhash.xxh64_intdigest(server.encode()), slot))
    assert cost == pytest.approx(-math.log(((h >> 11) + 0.5) / 2**53) / weight, rel=1e-8)


@given(st.sets(names, min_size=1, max_size=8), names, st.integers(0, 4095))
def test_another_server_leaves_the_order_of_the_rest_alone(servers: set[str], other: str, slot: int) -> None:
    servers.discard(other)
    ids = sorted(servers)
    with_other = rank([*ids, other], [1.0] * (len(ids) + 1), slot)
    assert [server for server in with_other if server != other] == rank(ids, [1.0] * len(ids), slot)


def test_first_places_follow_weights() -> None:
    ids, weights = ["a", "b", "c"], [1.0, 2.0, 5.0]
    firsts = Counter(rank(ids, weights, slot)[0] for slot in range(16384))
    for server, weight in zip(ids, weights, strict=True):
        assert firsts[server] == pytest.approx(16384 * weight / 8, rel=0.06)


def test_slots_are_used_evenly() -> None:
    counts = Counter(slot_of("table", bucket, 4096) for bucket in range(4096 * 50))
    assert len(counts) == 4096
    assert max(counts.values()) < 100


def test_another_process_computes_the_same() -> None:
    code = "from placement.slots import *; print(slot_of('t', 7, 4096), rank(['a', 'b', 'c'], [1.0, 2.0, 3.0], 5))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "12", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert out.stdout.strip() == f"{slot_of('t', 7, 4096)} {rank(['a', 'b', 'c'], [1.0, 2.0, 3.0], 5)}"


def test_many_servers_get_more_slots() -> None:
    assert [default_slots(n) for n in (1, 64, 65, 1000)] == [4096, 4096, 16384, 16384]
