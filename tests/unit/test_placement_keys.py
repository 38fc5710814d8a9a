from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.keys import Keys, Kind, Parsed
from tessera.errors import InvalidArgumentError

KEYS = Keys("prod")

GOLDEN = {
    KEYS.meta: ("/tessera/prod/meta", Parsed(Kind.META)),
    KEYS.server("s1"): ("/tessera/prod/servers/s1", Parsed(Kind.SERVER, id="s1")),
    KEYS.member("s1"): ("/tessera/prod/members/s1", Parsed(Kind.MEMBER, id="s1")),
    KEYS.router("r.1"): ("/tessera/prod/routers/r.1", Parsed(Kind.ROUTER, id="r.1")),
    KEYS.current("m"): ("/tessera/prod/models/m/current", Parsed(Kind.CURRENT, model="m")),
    KEYS.operation("m"): ("/tessera/prod/models/m/op", Parsed(Kind.OPERATION, model="m")),
    KEYS.placement("m", 7): (
        "/tessera/prod/models/m/placements/00000000000000000007",
        Parsed(Kind.PLACEMENT, model="m", epoch=7),
    ),
    KEYS.ready("m", 7, "s1"): (
        "/tessera/prod/models/m/ready/00000000000000000007/s1",
        Parsed(Kind.READY, id="s1", model="m", epoch=7),
    ),
    KEYS.controller: ("/tessera/prod/controller", Parsed(Kind.CONTROLLER)),
    KEYS.lock("m"): ("/tessera/prod/locks/m", Parsed(Kind.LOCK, model="m")),
    KEYS.audit(1700000000000, "ab12"): (
        "/tessera/prod/audit/00000001700000000000-ab12",
        Parsed(Kind.AUDIT, id="00000001700000000000-ab12"),
    ),
}


@pytest.mark.parametrize(("built", "golden", "parsed"), [(k, g, p) for k, (g, p) in GOLDEN.items()])
def test_keys_are_the_golden_ones_and_parse_back(built: str, golden: str, parsed: Parsed) -> None:
    assert built == golden
    assert KEYS.parse(built) == parsed


@pytest.mark.parametrize(
    "key",
    [
        "/tessera/other/meta",
        "/tessera/prod/",
        "/tessera/prod/members/",
        "/tessera/prod/members/a/b",
        "/tessera/prod/models/m/placements/7",
        "/tessera/prod/models/m/placements/99999999999999999999",
        "/tessera/prod/models/m/something",
        "/tessera/prod/models/../current",
        "/tessera/prod/later/thing",
        "",
    ],
)
def test_other_keys_are_none(key: str) -> None:
    assert KEYS.parse(key) is None


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "ü", "a" * 129, "a\n"])
def test_a_name_that_cannot_be_in_a_key_is_refused(name: str) -> None:
    for build in (KEYS.server, KEYS.member, KEYS.router, KEYS.current, KEYS.lock, Keys):
        with pytest.raises(InvalidArgumentError, match="expected 1 to 128"):
            build(name)


@given(st.text(max_size=60))
def test_parse_never_fails(text: str) -> None:
    KEYS.parse("/tessera/prod/" + text)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_placements_sort_as_their_epochs(a: int, b: int) -> None:
    assert (KEYS.placement("m", a) < KEYS.placement("m", b)) == (a < b)


def test_epochs_out_of_range_are_refused() -> None:
    for epoch in (-1, 2**63):
        with pytest.raises(InvalidArgumentError, match="epoch"):
            KEYS.placement("m", epoch)
