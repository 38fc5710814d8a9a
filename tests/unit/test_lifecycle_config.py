"""Configuration values: what is refused, with TensorFlow Serving's texts."""

from pathlib import Path

import pytest

from router.lifecycle.config import (
    CLUSTER,
    Latest,
    ModelConfig,
    RequestLogging,
    ServerConfig,
    Shadow,
    Specific,
    TrafficSplit,
    check,
)
from tessera.errors import InvalidArgumentError

_A = ModelConfig("a", Path("/models/a"))
_OLD = ServerConfig((_A,))


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ((_A, _A), "Illegal to list model a multiple times in config list"),
        (
            (ModelConfig("b", Path("models/b")),),
            "Expected model b to have an absolute path or URI; got base_path()=models/b",
        ),
        ((ModelConfig("b", Path()),), "Expected model b to have an absolute path or URI; got base_path()="),
        (
            (ModelConfig("b", Path("/b"), platform=""),),
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            "model name is b",
        ),
        ((ModelConfig("b", Path("/b"), platform="p"),), "Model b requests unsupported platform p"),
        (
            (ModelConfig("a", Path("/a"), platform="onnx"),),
            "Illegal to change a model's platform. Model a is served on platform tensorflow, the new configuration "
            "says onnx",
        ),
        ((ModelConfig("", Path("/a")),), "ModelConfig: got an empty name, expected one"),
    ],
)
def test_wrong_configurations_get_the_texts_of_tensorflow_serving(models: tuple[ModelConfig, ...], text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check(ServerConfig(models), _OLD, ["tensorflow", "onnx"])
    assert caught.value.message == text


def test_a_right_configuration_passes() -> None:
    check(ServerConfig((_A, ModelConfig("b", Path("/b"), platform="onnx"))), _OLD, ["tensorflow", "onnx"])
    assert _OLD.find("a") is _A
    assert _OLD.find("b") is None


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (ModelConfig("c", Path("/c"), CLUSTER), "base_path: got /c, expected nothing"),
        (ModelConfig("c", Path(), CLUSTER, Latest(2)), "model_version_policy: got Latest(count=2), expected nothing"),
        (ModelConfig("c", Path(), CLUSTER, switch="old_first"), "switch_order: got old_first, expected nothing"),
    ],
)
def test_what_the_placement_says_is_not_configured(model: ModelConfig, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check(ServerConfig((model,)), _OLD, ["tensorflow", CLUSTER])
    assert caught.value.message == f"Model c is served on platform cluster: {text}, the placement says what is served"


def test_models_of_the_cluster_need_a_cluster() -> None:
    config = ServerConfig((ModelConfig("c", Path(), CLUSTER, labels={"stable": 1}), _A))
    check(config, _OLD, ["tensorflow", CLUSTER])
    assert ([model.name for model in config.clustered], config.plain) == (["c"], (_A,))
    with pytest.raises(InvalidArgumentError, match="Model c requests unsupported platform cluster"):
        check(config, _OLD, ["tensorflow"])


def test_values_check_their_fields() -> None:
    with pytest.raises(InvalidArgumentError, match=r"latest.num_versions: got 0"):
        Latest(0)
    with pytest.raises(InvalidArgumentError, match=r"specific.versions: got \[\]"):
        Specific(frozenset())
    with pytest.raises(InvalidArgumentError, match=r"split.percent: got \{1: 60, 2: 60\}"):
        TrafficSplit({1: 60, 2: 60})
    with pytest.raises(InvalidArgumentError, match=r"split.percent"):
        TrafficSplit({1: 120, 2: -20})
    with pytest.raises(InvalidArgumentError, match=r"shadow.percent: got 101"):
        Shadow(1, 101)
    with pytest.raises(InvalidArgumentError, match=r"shadow.tolerance"):
        Shadow(1, 1, -1)
    with pytest.raises(InvalidArgumentError, match=r"logging_config.sampling_rate: got 2"):
        RequestLogging("/logs/a", 2)
    with pytest.raises(InvalidArgumentError, match=r"logging_config.max_files: got 0"):
        RequestLogging("/logs/a", 1, max_files=0)


def test_values_cannot_be_changed_through_what_they_were_made_of() -> None:
    labels = {"stable": 1}
    model = ModelConfig("a", Path("/a"), labels=labels)
    labels["stable"] = 2
    assert model.labels == {"stable": 1}
    with pytest.raises(TypeError):
        model.labels["stable"] = 3  # type: ignore[index]
