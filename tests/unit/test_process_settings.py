"""The settings of the two processes: what they refuse, and that every spelling of every field works."""

import socket
from dataclasses import fields
from pathlib import Path

import pytest

from router.settings import RouterSettings
from shard_server.settings import ShardServerSettings
from tessera.errors import SettingsError
from tessera.process_settings import read_file, with_port
from tessera.settings import load

_SERVER = ["--server-id=s0", "--advertise=10.0.0.5:8600", "--etcd=e:2379", "--repository=/models"]


def _router(*argv: str, **environ: str) -> RouterSettings:
    return load(RouterSettings, "router", argv, environ)


def _server(*argv: str, **environ: str) -> ShardServerSettings:
    return load(ShardServerSettings, "shard_server", argv, environ)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "--etcd, --saved-model, --model or --model-config-file must be given"),
        (["--etcd=e:2379"], "--repository must be given with --etcd"),
        (["--saved-model=a=b", "--retry-delay-s=0"], "--retry-delay-s: got '0', expected at least 0.001"),
        (["--saved-model=a=b", "--max-message-bytes=1kb"], "--max-message-bytes: got '1kb', expected bytes"),
        (["--saved-model=a=b", "--log-level=debug"], "--log-level: got 'debug', expected one of DEBUG, INFO"),
        (["--saved-model=a=b", "stray"], "stray"),
        (["--saved-model=a=b", "--tls-cert=c"], "--tls-key must be given with --tls-cert"),
        (["--saved-model=a=b", "--tls-key=k"], "--tls-cert must be given with --tls-key"),
        (["--saved-model=a=b", "--tls-client-ca=c"], "--tls-cert must be given with --tls-client-ca"),
        (["--saved-model=a=b", "--shard-tls-cert=c"], "--shard-tls-key must be given with --shard-tls-cert"),
        (
            ["--saved-model=a=b", "--batching-policy-file=f", "--batching-parameters-file=f"],
            "--batching-policy-file and --batching-parameters-file: expected only one of them",
        ),
        (
            ["--saved-model=a=b", "--batching-policy-file=f", "--enable-batching=false"],
            "--enable-batching must be given with --batching-policy-file",
        ),
        (
            ["--saved-model=a=b", "--batching-parameters-file=f", "--enable-batching=false"],
            "--enable-batching must be given with --batching-parameters-file",
        ),
        (["--saved-model=a=b", "--max-in-flight-batches=-1"], "--max-in-flight-batches: got '-1', expected at least 0"),
        (["--saved-model=a=b", "--metrics-port=65536"], "--metrics-port: got 65536, expected 0 to 65535"),
        (
            ["--saved-model=a=b", "--metrics-port=0", "--listen=unix:/tmp/r"],
            "--metrics-port: needs the host of --listen, got --listen=unix:/tmp/r",
        ),
        (
            ["--saved-model=a=b", "--shard-tls-cert=c", "--shard-tls-key=k"],
            "--shard-tls-ca must be given with --shard-tls-cert",
        ),
    ],
)
def test_a_router_refuses(argv: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _router(*argv)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--etcd=e", "--repository=r"], "--server-id (or TESSERA__SHARD_SERVER__SERVER_ID) must be given"),
        (["--server-id=s", "--repository=r"], "--etcd must be given"),
        (["--server-id=s", "--repository=r", "--etcd=e"], "--advertise must be given: --listen 0.0.0.0:8600"),
        (["--server-id=s", "--repository=r", "--etcd=e", "--listen=[::]:1"], "--advertise must be given"),
        ([*_SERVER, "--memory-limit-bytes=40MiB"], "--memory-limit-bytes: got 40.0 MiB, expected 0 or at least 320.0"),
        ([*_SERVER, "--etcd-cert=c", "--etcd-key=k"], "--etcd-ca must be given with --etcd-cert"),
        ([*_SERVER, "--etcd-key=k", "--etcd-ca=a"], "--etcd-cert must be given with --etcd-key"),
        ([*_SERVER, "--blob-dir-bytes=1GiB"], "--blob-dir must be given with --blob-dir-bytes"),
        ([*_SERVER, "--repository=s3://b/m"], "--blob-dir must be given with --repository s3://b/m: only files are"),
        (
            [*_SERVER, "--staging-bytes-per-s=1KiB"],
            "--staging-bytes-per-s: got 1.0 KiB, expected 0 or at least 1.0 MiB",
        ),
        ([*_SERVER, "--staging-parallel=0"], "--staging-parallel: got '0', expected at least 1"),
        ([*_SERVER, "--peer-tls-cert=c", "--peer-tls-key=k"], "--peer-tls-ca must be given with --peer-tls-cert"),
        ([*_SERVER, "--peer-tls-ca=a", "--peer-tls-key=k"], "--peer-tls-cert must be given with --peer-tls-key"),
        ([*_SERVER, "--metrics-port=65536"], "--metrics-port: got 65536, expected 0 to 65535"),
        (
            [*_SERVER, "--metrics-port=0", "--listen=unix:/tmp/s"],
            "--metrics-port: needs the host of --listen, got --listen=unix:/tmp/s",
        ),
        ([*_SERVER, "--verify-blobs=no"], "--verify-blobs: got 'no', expected one of content, size"),
    ],
)
def test_a_shard_server_refuses(argv: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _server(*argv)
    assert says in caught.value.message


def test_a_listen_address_with_a_host_is_its_own_advertisement() -> None:
    assert _server("--server-id=s", "--repository=r", "--etcd=e", "--listen=10.0.0.5:8600").advertise == ""


@pytest.mark.parametrize(
    ("argv", "bound", "expected"),
    [
        ([], "0.0.0.0:8500", f"{socket.gethostname()}:8500"),
        ([], "[::]:8500", f"{socket.gethostname()}:8500"),
        ([], ":8500", f"{socket.gethostname()}:8500"),
        ([], "10.0.0.5:8500", "10.0.0.5:8500"),
        ([], "unix:/run/router", "unix:/run/router"),
        (["--advertise=router.example:1"], "0.0.0.0:8500", "router.example:1"),
    ],
)
def test_a_router_registers_an_address_that_means_something_elsewhere(
    argv: list[str], bound: str, expected: str
) -> None:
    assert _router("--saved-model=a=b", *argv).advertised(bound) == expected


def test_flags_environment_and_file_are_the_same(tmp_path: Path) -> None:
    by_flag = _router("--etcd=a:1,b:2", "--repository=/models", "--retry-delay-s=0.1", "--onednn")
    by_environment = _router(
        TESSERA__ROUTER__ETCD="a:1,b:2",
        TESSERA__ROUTER__REPOSITORY="/models",
        TESSERA__ROUTER__RETRY_DELAY_S="0.1",
        TESSERA__ROUTER__ONEDNN="true",
    )
    config = tmp_path / "router.toml"
    config.write_text('etcd = ["a:1", "b:2"]\nrepository = "/models"\nretry_delay_s = 0.1\nonednn = true\n')
    assert by_flag == by_environment == _router(f"--config={config}") == _router(TESSERA__ROUTER__CONFIG=str(config))


@pytest.mark.parametrize("settings", [RouterSettings, ShardServerSettings])
def test_every_setting_says_what_it_means(settings: type) -> None:
    for field in fields(settings):
        help_text = field.metadata["help"]
        assert len(help_text) > 15, field.name
        if field.name.endswith("_s") and not field.name.endswith("_per_s"):
            assert "seconds" in help_text, field.name


def test_a_file_that_cannot_be_read_is_named_with_its_flag(tmp_path: Path) -> None:
    settings = _router("--saved-model=a=b", f"--tls-cert={tmp_path / 'none.pem'}", "--tls-key=k")
    with pytest.raises(SettingsError, match=r"--tls-cert .*none\.pem: No such file"):
        settings.read_file("tls_cert")
    assert settings.read_file("tls_client_ca") == b""
    (tmp_path / "key.pem").write_bytes(b"key")
    assert read_file(str(tmp_path / "key.pem"), "--etcd-key") == b"key"


def test_the_bound_port_replaces_the_one_that_was_asked_for() -> None:
    assert with_port("127.0.0.1:0", 4711) == "127.0.0.1:4711"
    assert with_port("[::1]:0", 4711) == "[::1]:4711"
    assert with_port("unix:/run/router", 0) == "unix:/run/router"
