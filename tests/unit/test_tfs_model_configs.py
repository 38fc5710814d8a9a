"""ModelServerConfig → what the lifecycle takes."""

import contextlib
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from protos import model_server_config_pb2 as pb
from router.lifecycle.config import All, Latest, RequestLogging, ServerConfig, Shadow, Specific, TrafficSplit
from router.tfs.config_files import parse
from router.tfs.model_configs import read_server_config, server_config
from tessera.errors import InvalidArgumentError, TesseraError, UnimplementedError


def _config(model: str) -> ServerConfig:
    text = f"model_config_list {{ config {{ name: 'm' base_path: '/m' {model} }} }}"
    return server_config(parse(text, "text", pb.ModelServerConfig()))


def test_a_model_has_the_defaults_of_tensorflow_serving() -> None:
    (model,) = _config("model_platform: 'tensorflow'").models
    assert (model.name, model.base_path, model.platform, model.versions) == ("m", Path("/m"), "tensorflow", Latest(1))
    assert (dict(model.labels), model.switch, model.split, model.shadow, model.logging) == (
        {},
        "new_first",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest {}", Latest(1)),
        ("latest { num_versions: 3 }", Latest(3)),
        ("all {}", All()),
        ("specific { versions: 2 versions: 5 }", Specific(frozenset({2, 5}))),
    ],
)
def test_version_policies(policy: str, expected: object) -> None:
    assert _config(f"model_version_policy {{ {policy} }}").models[0].versions == expected


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("model_platform: 'onnxruntime'", "onnxruntime"), ("model_type: TENSORFLOW", "tensorflow"), ("", "")],
)
def test_platforms(platform: str, expected: str) -> None:
    assert _config(platform).models[0].platform == expected


def test_labels_split_shadow_order_and_logging() -> None:
    (model,) = _config(
        """
        version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }
        traffic_split { share { version: 1 percent: 90 } share { label: 'canary' percent: 10 } sticky_header: 'X-User' }
        shadow { label: 'canary' percent: 5 }
        switch_order: OLD_FIRST
        logging_config {
          log_collector_config { type: '' filename_prefix: '/logs/m' } sampling_config { sampling_rate: 0.5 }
          max_files: 3
        }"""
    ).models
    assert dict(model.labels) == {"stable": 1, "canary": 2}
    assert model.split == TrafficSplit({1: 90.0, "canary": 10.0}, "x-user")
    assert model.shadow == Shadow("canary", 5.0)
    assert model.switch == "old_first"
    assert model.logging == RequestLogging("/logs/m", 0.5, max_files=3)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("model_version_policy { specific {} }", "specific.versions"),
        ("traffic_split { share { version: 1 percent: 50 } }", "sum up to 100"),
        ("traffic_split { share { version: 1 percent: nan } }", "sum up to 100"),
        ("traffic_split { share { percent: 100 } }", "got neither version nor label"),
        ("traffic_split { share { version: 1 percent: 50 } share { version: 1 percent: 50 } }", "got 1 twice"),
        ("shadow { percent: 5 }", "shadow: got neither"),
        ("shadow { version: 2 percent: 101 }", "shadow.percent"),
        ("logging_config { sampling_config { sampling_rate: 2 } }", "sampling_rate"),
        ("model_type: TENSORFLOW model_platform: 'tensorflow'", "Illegal setting both"),
    ],
)
def test_what_cannot_be_names_the_model(model: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says) as caught:
        _config(model)
    assert caught.value.message.startswith("model m: ")


def test_a_custom_config_is_refused() -> None:
    with pytest.raises(UnimplementedError, match="custom_model_config"):
        server_config(parse("custom_model_config {}", "text", pb.ModelServerConfig()))


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "models.txt"
    path.write_text("model_config_list { config { name: 'a' base_path: '/a' } config { name: 'b' base_path: '/b' } }")
    assert [model.name for model in read_server_config(str(path)).models] == ["a", "b"]


@given(st.binary(max_size=200))
def test_any_bytes_of_a_reload_request_are_a_config_or_an_error(content: bytes) -> None:
    message = pb.ModelServerConfig()
    with contextlib.suppress(DecodeError, TesseraError):
        message.ParseFromString(content)
        server_config(message)
