from dataclasses import dataclass
from pathlib import Path

import pytest

from tessera.errors import SettingsError
from tessera.settings import ByteSize, format_bytes, load, parse_bytes, setting


@dataclass(frozen=True)
class _Settings:
    repository: str = setting("where")
    retry_delay_s: float = setting("seconds", 0.05, minimum=0.0)
    memory_bytes: ByteSize = setting("bytes", ByteSize(0))
    endpoints: tuple[str, ...] = setting("several", ())
    verbose: bool = setting("say more", False)
    mode: str = setting("how", "map", choices=("map", "copy"))
    limit: int | None = setting("maybe", None)


def _load(*argv: str, **environ: str) -> _Settings:
    return load(_Settings, "router", argv, environ)


def test_flag_wins_over_environment_wins_over_file_wins_over_default(tmp_path: Path) -> None:
    config = tmp_path / "router.toml"
    config.write_text('repository = "/file"\nretry_delay_s = 1\nmemory_bytes = "3MiB"\nendpoints = ["a:1", "b:2"]\n')
    found = _load("--config", str(config), "--repository=/flag", TESSERA__ROUTER__RETRY_DELAY_S="2.5")
    assert found == _Settings("/flag", 2.5, ByteSize(3 << 20), ("a:1", "b:2"))


def test_booleans_repeated_flags_and_lists() -> None:
    found = _load("--repository", "r", "--verbose", "--endpoints", "a:1", "--endpoints", "b:2", "--limit", "3")
    assert found.verbose
    assert found.endpoints == ("a:1", "b:2")
    assert found.limit == 3
    assert _load("--repository=r", "--endpoints=a:1,b:2").endpoints == ("a:1", "b:2")
    assert _load("--repository=r", TESSERA__ROUTER__ENDPOINTS="a:1,b:2").endpoints == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("argv", "environ", "says"),
    [
        (["--repository=r", "--retries=3"], {}, "--retries"),
        (["--repository=r", "--retry-delay=3"], {}, "--retry-delay"),  # no abbreviations
        (["--repository=r", "--retry-delay-s=soon"], {}, "--retry-delay-s: got 'soon', expected a number"),
        (["--repository=r", "--retry-delay-s=-1"], {}, "--retry-delay-s: got '-1', expected at least 0"),
        (["--repository=r", "--mode=swap"], {}, "--mode: got 'swap', expected one of map, copy"),
        (["--repository=r", "--verbose=yes"], {}, "--verbose: got 'yes', expected true or false"),
        (["--repository=r", "--memory-bytes=3MB/s"], {}, "--memory-bytes: got '3MB/s'"),
        (["--repository=r"], {"TESSERA__ROUTER__COLOUR": "red"}, "TESSERA__ROUTER__COLOUR: unknown setting"),
        (["--repository=r"], {"TESSERA__ROUTER__LIMIT": "x"}, "TESSERA__ROUTER__LIMIT: got 'x'"),
        ([], {}, "--repository (or TESSERA__ROUTER__REPOSITORY) must be given"),
    ],
)
def test_what_is_unknown_or_malformed_is_named(argv: list[str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(_Settings, "router", argv, environ)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [("colour = 'red'", "unknown setting 'colour'"), ("retry_delay_s = 'x'", "retry_delay_s: got 'x'"), ("=", "TOML")],
)
def test_files_are_checked_like_flags(tmp_path: Path, content: str, says: str) -> None:
    config = tmp_path / "router.toml"
    config.write_text(content)
    with pytest.raises(SettingsError) as caught:
        _load("--repository=r", "--config", str(config))
    assert says in caught.value.message
    assert str(config) in caught.value.message


def test_variables_of_other_processes_and_of_kubernetes_are_left_alone() -> None:
    found = _load("--repository=r", TESSERA_ROUTER_PORT="tcp://10.0.0.1:8500", TESSERA__SHARD_SERVER__MODE="copy")
    assert found.mode == "map"


def test_bytes_round_trip_through_what_people_write() -> None:
    assert parse_bytes("1.5GiB") == 3 << 29
    assert parse_bytes("10kB") == 10_000
    assert parse_bytes("7") == 7
    assert format_bytes(3 << 29) == "1.5 GiB"
    assert format_bytes(512) == "512 B"
