"""tensorflow_model_server's configuration files: what is read, and what is said about wrong ones."""

from pathlib import Path

import pytest

from router.tfs import config_files
from tessera.errors import InvalidArgumentError, NotFoundError


def _file(directory: Path, text: str) -> str:
    path = directory / "file.txt"
    path.write_text(text)
    return str(path)


def test_a_model_server_config(tmp_path: Path) -> None:
    text = """
        model_config_list {
          config: {
            name: "half"
            base_path: "/models/half"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 2 versions: 3 } }
            version_labels { key: 'stable' value: 2 }
          }
        }"""
    (model,) = config_files.read_model_server_config(_file(tmp_path, text)).model_config_list.config
    assert model.name == "half"
    assert list(model.model_version_policy.specific.versions) == [2, 3]
    assert dict(model.version_labels) == {"stable": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("improper {}", '1:1: Message type "tensorflow.serving.ModelServerConfig" has no field named "improper".'),
        ("model_config_list {\n  config { name: 3 } }", "2:18"),
        ("model_config_list {", "1:"),
    ],
)
def test_a_wrong_text_is_told_as_protobuf_tells_it(tmp_path: Path, text: str, says: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(config_files.TextProtoError) as caught:
        config_files.read_model_server_config(path)
    assert caught.value.message == f"Invalid protobuf file: '{path}'"
    assert caught.value.detail.startswith("Error parsing text-format tensorflow.serving.ModelServerConfig: " + says)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no_such_file; No such file or directory"):
        config_files.read_model_server_config(str(tmp_path / "no_such_file"))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgumentError, match="byte 0 is not UTF-8"):
        config_files.read_model_server_config(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("prometheus_config { enable: false path: '/x' }", ""),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: true, path: '/monitoring/x' }", "/monitoring/x"),
    ],
)
def test_where_prometheus_reads(tmp_path: Path, text: str, expected: str) -> None:
    assert config_files.read_metrics_path(_file(tmp_path, text)) == expected


def test_a_metrics_path_begins_with_a_slash(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="path: got 'x', expected it to begin with /"):
        config_files.read_metrics_path(_file(tmp_path, "prometheus_config { enable: true path: 'x' }"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server_cert: 'c'", "server_key is missing"),
        ("server_key: 'k'", "server_cert is missing"),
        ("server_key: 'k' server_cert: 'c' client_verify: true", "client_verify needs custom_ca"),
    ],
)
def test_half_of_tls_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        config_files.read_ssl_config(_file(tmp_path, text))


def test_threads_of_a_session_config_with_fields_that_are_not_known_here(tmp_path: Path) -> None:
    text = "intra_op_parallelism_threads: 3 gpu_options { allow_growth: true } log_device_placement: true"
    assert config_files.read_intra_op_threads(_file(tmp_path, text)) == 3


ADAPTER = "type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig"


def test_a_platform_config_names_types_as_tensorflow_serving_does(tmp_path: Path) -> None:
    text = f"""
        platform_configs {{
          key: "tensorflow"
          value {{ source_adapter_config {{ [{ADAPTER}] {{ legacy_config {{
            batching_parameters {{ max_batch_size {{ value: 128 }} allowed_batch_sizes: [64, 128] }}
            session_config {{ intra_op_parallelism_threads: 2 gpu_options {{ allow_growth: true }} }}
            saved_model_tags: "serve" saved_model_tags: "gpu"
            enable_model_warmup: true
          }} }} }} }}
        }}"""
    found = config_files.read_platform_config(_file(tmp_path, text))
    assert found.batching_parameters.max_batch_size.value == 128
    assert found.session_config.intra_op_parallelism_threads == 2
    assert list(found.saved_model_tags) == ["serve", "gpu"]
    assert found.enable_model_warmup
    assert "max_batch_size" in config_files.batching_text(found.batching_parameters)


def test_a_platform_config_without_tensorflow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no entry 'tensorflow', expected one; got \['other'\]"):
        config_files.read_platform_config(_file(tmp_path, "platform_configs { key: 'other' value {} }"))


def test_what_tensorflow_serving_itself_writes_is_read() -> None:
    """The messages are wire-compatible, and the texts that its own classes print are understood."""
    upstream = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    from protos import model_server_config_pb2

    theirs = upstream.ModelServerConfig()
    model = theirs.model_config_list.config.add(name="m", base_path="/m", model_platform="tensorflow")
    model.model_version_policy.all.SetInParent()
    model.version_labels["canary"] = 7
    model.logging_config.sampling_config.sampling_rate = 0.25
    model.logging_config.log_collector_config.filename_prefix = "/logs/m"
    ours = model_server_config_pb2.ModelServerConfig()
    ours.ParseFromString(theirs.SerializeToString())
    assert text_format.MessageToString(ours) == text_format.MessageToString(theirs)
    assert config_files.parse(text_format.MessageToString(theirs), "text", type(ours)()) == ours
