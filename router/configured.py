"""The plain models that the settings name."""

from __future__ import annotations

from pathlib import Path

from router.lifecycle.config import ModelConfig, ServerConfig
from router.settings import RouterSettings
from router.tfs.model_configs import read_server_config
from tessera.errors import SettingsError


def configured_models(settings: RouterSettings) -> ServerConfig:
    """Return those of --saved-model, of --model, then those of --model-config-file.

    Raises:
        SettingsError: an entry is not NAME=DIR.
        NotFoundError, InvalidArgumentError: the file is not there, or wrong.
    """
    models = [
        *(_model("--saved-model", entry, flat=True) for entry in settings.saved_model),
        *(_model("--model", entry, flat=False) for entry in settings.model),
    ]
    if settings.model_config_file:
        models += read_server_config(settings.model_config_file).models
    return ServerConfig(tuple(models))


def _model(flag: str, entry: str, *, flat: bool) -> ModelConfig:
    name, separator, directory = entry.partition("=")
    if not (name and separator and directory):
        raise SettingsError(f"{flag}: got {entry!r}, expected NAME=DIR")
    return ModelConfig(name, Path(directory).absolute(), flat=flat)
