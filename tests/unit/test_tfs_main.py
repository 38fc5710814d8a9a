"""tensorflow_model_server's command line: what is printed where, how it exits, what the router is told."""

from pathlib import Path
from typing import Any

import pytest

from admin import cli
from router.configured import configured_models
from router.settings import RouterSettings
from router.tfs import main as tfs_main
from router.tfs.flag_table import TABLE
from router.tfs.flags import parse_flags
from router.tfs.own_flags import own_flags
from router.tfs.translate import Launch, translate
from support.golden import check_golden
from tessera.errors import InvalidArgumentError, TesseraError

BASE = "--model_base_path=/models/half"


def _translated(*arguments: str) -> tuple[Launch, list[str]]:
    warnings: list[str] = []
    parsed = parse_flags((*TABLE, *own_flags()), arguments)
    assert parsed.unknown == parsed.errors == ()
    return translate(parsed, warnings.append), warnings


def _settings(*arguments: str) -> RouterSettings:
    return _translated(BASE, *arguments)[0].settings


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """What was to be served; nothing is."""
    launches: list[Launch] = []

    def serve(launch: Launch) -> int:
        launches.append(launch)
        return 0

    monkeypatch.setattr(tfs_main, "serve", serve)
    monkeypatch.setattr(tfs_main, "set_up_logging", lambda *_: None)
    return launches


def test_the_defaults_are_those_of_tensorflow_serving() -> None:
    launch, warnings = _translated(BASE)
    settings = launch.settings
    assert (settings.listen, settings.unix_socket, settings.rest_listen) == ("0.0.0.0:8500", "", "")
    assert (settings.rest_timeout_s, settings.rest_cors, settings.metrics_path) == (30.0, False, "")
    assert (settings.model_poll_s, settings.load_retries, settings.load_retry_interval_s) == (1.0, 5, 60.0)
    assert (settings.request_batching, settings.batching_parameters_file) == (False, "")
    assert (settings.warmup, settings.profiler, settings.saved_model_tags) == (True, True, "serve")
    assert [(model.name, model.base_path) for model in configured_models(settings).models] == [
        ("default", Path("/models/half"))
    ]
    assert launch.certificates is None
    assert launch.policies is None
    assert warnings == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port=1"], {"listen": "0.0.0.0:1"}),
        (["--port=1", "--grpc_socket_path=/tmp/s"], {"listen": "0.0.0.0:1", "unix_socket": "/tmp/s"}),
        (["--port=0", "--grpc_socket_path=/tmp/s"], {"listen": "unix:/tmp/s", "unix_socket": ""}),
        (["--rest_api_port=8501"], {"rest_listen": "[::]:8501"}),
        (["--rest_api_timeout_in_ms=5000"], {"rest_timeout_s": 5.0}),
        (["--rest_api_enable_cors_support"], {"rest_cors": True}),
        (["--enable_batching"], {"request_batching": True}),
        (["--file_system_poll_wait_seconds=0"], {"model_poll_s": 0.0}),
        (["--load_retry_interval_micros=1500"], {"load_retry_interval_s": 0.0015}),
        (["--tensorflow_session_parallelism=3"], {"intra_op_threads": 3}),
        (["--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=2"], {"intra_op_threads": 2}),
        (["--saved_model_tags=serve,gpu"], {"saved_model_tags": "serve,gpu"}),
        (["--grpc_channel_arguments=grpc.max_connection_age_ms=2000"],
         {"grpc_channel_arguments": "grpc.max_connection_age_ms=2000"}),
        (["--enable_profiler=false"], {"profiler": False}),
        (["--enable_serialization_as_tensor_content"], {"tensor_content": True}),
        (["--memory_limit_bytes=1GiB"], {"memory_limit_bytes": 1 << 30}),
        (["--etcd=a:1,b:2", "--repository=/r", "--drain_timeout_s=2"],
         {"etcd": ("a:1", "b:2"), "repository": "/r", "drain_timeout_s": 2.0}),
    ],
)  # fmt: skip
def test_a_flag_becomes_a_setting(arguments: list[str], expected: dict[str, Any]) -> None:
    settings = _settings(*arguments)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_channel_arguments_are_numbers_where_they_can_be() -> None:
    settings = _settings("--grpc_channel_arguments=grpc.max_concurrent_streams=2,grpc.lb_policy_name=grpclb_policy")
    assert settings.channel_arguments() == {"grpc.max_concurrent_streams": 2, "grpc.lb_policy_name": "grpclb_policy"}


def test_one_port_for_both_leaves_rest_out_with_a_warning() -> None:
    launch, warnings = _translated(BASE, "--port=8500", "--rest_api_port=8500")
    assert launch.settings.rest_listen == ""
    assert warnings == ["--rest_api_port: is 8500 as --port is, expected another port; REST is not served"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        ([BASE, "--port=0"], "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set"),
        ([BASE, "--port=70000"], "--port: got 70000, expected 0 to 65535"),
        ([BASE, "--batching_parameters_file=/x"],
         "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."),
        ([BASE, "--enable_per_model_batching_parameters"], "needs --enable_batching"),
        ([BASE, "--use_alts_credentials"], "ALTS is not supported"),
        ([BASE, "--grpc_channel_arguments=x"], "got 'x', expected name=value"),
        ([BASE, "--ssl_config_file=/no/such/file"], "/no/such/file; No such file or directory"),
        (["--model_config_file=/no/such/file"], "/no/such/file; No such file or directory"),
        ([BASE, "--drain_timeout_s=soon"], "--drain_timeout_s: got 'soon', expected a number"),
        (["--etcd=a:1"], "--repository must be given with --etcd"),
    ],
)  # fmt: skip
def test_what_cannot_be_started_says_why(arguments: list[str], says: str) -> None:
    with pytest.raises(TesseraError) as caught:
        _translated(*arguments)
    assert says in caught.value.message


def test_a_platform_config_replaces_the_flags_of_batching_threads_tags_and_warm_up(tmp_path: Path) -> None:
    path = tmp_path / "platform.txt"
    path.write_text(
        """platform_configs { key: "tensorflow" value { source_adapter_config {
          [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] { legacy_config {
            batching_parameters { max_batch_size { value: 32 } }
            session_config { intra_op_parallelism_threads: 2 }
            saved_model_tags: "serve" saved_model_tags: "x"
          } } } } }"""
    )
    launch, _ = _translated(BASE, f"--platform_config_file={path}", "--tensorflow_session_parallelism=7")
    settings = launch.settings
    assert (settings.request_batching, settings.intra_op_threads, settings.tags()) == (True, 2, ("serve", "x"))
    assert not settings.warmup
    assert launch.policies is not None
    assert launch.policies.policies.policy_for("any", "any").max_batch_size == 32


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert tfs_main.main(["--version"]) == 0
    assert "TensorFlow Library: 2." in capsys.readouterr().out


def test_a_value_that_cannot_be_understood_ends_it_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert tfs_main.main([BASE, "--port=http"]) == 255
    streams = capsys.readouterr()
    assert streams.out.startswith("usage: tensorflow_model_server\n")
    assert streams.err == "Couldn't interpret value http for flag port.\n"


def test_an_unknown_argument_is_told_and_the_server_goes_on(
    capsys: pytest.CaptureFixture[str], launched: list[Launch]
) -> None:
    assert tfs_main.main([BASE, "--no_such_flag=1"]) == 0
    assert len(launched) == 1
    assert capsys.readouterr().out.startswith("unknown argument: --no_such_flag=1\nusage: tensorflow_model_server\n")


def test_a_flag_without_meaning_is_a_warning_of_one_line(
    caplog: pytest.LogCaptureFixture, launched: list[Launch]
) -> None:
    assert tfs_main.main([BASE, "--num_unload_threads=2"]) == 0
    assert [record.message for record in caplog.records] == [
        "--num_unload_threads: has no meaning here: a version is unloaded by its last user"
    ]
    assert len(launched) == 1


def test_what_cannot_be_started_is_told_on_stdout_with_exit_code_255(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("improper")
    assert tfs_main.main([f"--model_config_file={path}"]) == 255
    streams = capsys.readouterr()
    assert streams.out == f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{path}'\n"
    assert streams.err.startswith("Error parsing text-format tensorflow.serving.ModelServerConfig: 1:")


def test_tessera_serve_is_the_same(launched: list[Launch]) -> None:
    assert cli.main(["serve", BASE, "--port=1"]) == 0
    assert launched[0].settings.listen == "0.0.0.0:1"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--help"]) == 0
    check_golden("help_serve.txt", capsys.readouterr().out)


def test_an_error_of_the_settings_is_one_of_the_start() -> None:
    with pytest.raises(InvalidArgumentError):
        _translated("--etcd=a:1")
