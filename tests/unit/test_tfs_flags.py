"""tensorflow_model_server's flags: syntax, defaults, what is unknown, what has no meaning here."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.tfs.flag_table import TABLE
from router.tfs.flags import Flag, parse_flags, usage, warnings_of

_SPECIFIED = (
    "port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support "
    "enable_batching batching_parameters_file enable_per_model_batching_parameters "
    "allow_version_labels_for_unavailable_models model_config_file model_config_file_poll_wait_seconds model_name "
    "model_base_path num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros "
    "file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism "
    "tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism tensorflow_session_config_file "
    "use_alts_credentials ssl_config_file platform_config_file per_process_gpu_memory_fraction saved_model_tags "
    "grpc_channel_arguments grpc_max_threads enable_model_warmup num_request_iterations_for_warmup version "
    "monitoring_config_file remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools "
    "num_tflite_interpreters_per_pool enable_signature_method_name_check xla_cpu_compilation_enabled "
    "xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file mixed_precision skip_initialize_tpu "
    "enable_grpc_healthcheck_service enable_serialization_as_tensor_content"
)
SPECIFIED = sorted(_SPECIFIED.split())


def test_every_flag_of_tensorflow_model_server_is_there() -> None:
    assert {flag.name for flag in TABLE if flag.group == 0} == set(SPECIFIED)
    assert len({flag.name for flag in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--port=8500", {"port": 8500}),
        ("--port=+1", {"port": 1}),
        ("--file_system_poll_wait_seconds=-1", {"file_system_poll_wait_seconds": -1}),
        ("--load_retry_interval_micros=9000000000", {"load_retry_interval_micros": 9_000_000_000}),
        ("--enable_batching", {"enable_batching": True}),
        ("--enable_batching=true", {"enable_batching": True}),
        ("--enable_model_warmup=false", {"enable_model_warmup": False}),
        ("--model_name=a=b", {"model_name": "a=b"}),
        ("--model_name=", {"model_name": ""}),
        ("--per_process_gpu_memory_fraction=0.5", {"per_process_gpu_memory_fraction": 0.5}),
    ],
)
def test_a_flag_is_understood(argument: str, expected: dict[str, object]) -> None:
    parsed = parse_flags(TABLE, [argument])
    assert parsed.given == expected
    assert parsed.unknown == parsed.errors == ()


@pytest.mark.parametrize(
    "argument",
    ["--port", "8500", "-port=1", "--no_such_flag=1", "--enable-batching", "--ports=1", "model", "--model_name", ""],
)
def test_what_is_no_flag_is_kept_aside(argument: str) -> None:
    parsed = parse_flags(TABLE, ["--port=1", argument, "--model_name=m"])
    assert parsed.given == {"port": 1, "model_name": "m"}
    assert parsed.unknown == (argument,)


def test_nothing_is_a_flag_after_two_dashes() -> None:
    assert parse_flags(TABLE, ["--port=1", "--", "--port=2"]).unknown == ("--", "--port=2")


@pytest.mark.parametrize(
    "argument",
    ["--port=", "--port=1x", "--port=1.5", "--port=2147483648", "--enable_batching=1", "--enable_batching=True",
     "--enable_batching=", "--per_process_gpu_memory_fraction=half"],
)  # fmt: skip
def test_a_value_of_another_kind_is_an_error_that_names_the_flag(argument: str) -> None:
    parsed = parse_flags(TABLE, [argument])
    assert parsed.given == {}
    name, _, value = argument.removeprefix("--").partition("=")
    assert parsed.errors == (f"Couldn't interpret value {value} for flag {name}.",)


def test_the_last_one_wins() -> None:
    assert parse_flags(TABLE, ["--port=1", "--port=2"]).given == {"port": 2}


@given(st.lists(st.one_of(st.text(), st.sampled_from([f"--{name}" for name in SPECIFIED]).map(lambda f: f + "=x"))))
def test_any_arguments_are_given_unknown_or_wrong(arguments: list[str]) -> None:
    parsed = parse_flags(TABLE, arguments)
    assert set(parsed.given) <= set(SPECIFIED)
    assert len(parsed.unknown) + len(parsed.errors) + len(parsed.given) <= len(arguments)
    assert set(parsed.unknown) <= set(arguments)


def test_a_flag_without_meaning_is_told_once_and_only_if_it_is_not_the_default() -> None:
    parsed = parse_flags(TABLE, ["--flush_filesystem_caches=false", "--flush_filesystem_caches=false", "--port=1"])
    (warning,) = warnings_of(TABLE, parsed)
    assert warning.startswith("--flush_filesystem_caches: has no meaning here: ")
    assert warnings_of(TABLE, parse_flags(TABLE, ["--flush_filesystem_caches=true"])) == []


def test_the_usage_names_every_flag_with_default_and_kind() -> None:
    text = usage([*TABLE, Flag("etcd", "string", "", "Ours.", group=1)], "server")
    assert text.startswith("usage: server\nFlags:\n")
    for flag in TABLE:
        assert re.search(rf"^\t--{flag.name}=\S+\s+{flag.kind}$", text, re.MULTILINE), flag.name
    assert '\t--saved_model_tags="serve"' in text
    assert "\t--enable_batching=false" in text
    assert text.index("does not have") < text.index("--etcd=")
