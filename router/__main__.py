"""`python -m router`: runs one router until SIGTERM."""

from __future__ import annotations

import sys

from router.batch_policies import check_policy_file
from router.configured import configured_models
from router.settings import RouterSettings
from router.start import run
from tessera.errors import SettingsError, TesseraError
from tessera.process import exit_on_settings_error
from tessera.settings import load
from tessera.telemetry import set_up_logging


def main() -> int:
    """Return the exit code."""
    try:
        settings = load(RouterSettings, "router", sys.argv[1:], description=__doc__ or "")
        check_policy_file(settings)
        configured_models(settings)
    except SettingsError as error:
        return exit_on_settings_error("router", error)
    except TesseraError as error:  # of the file
        return exit_on_settings_error("router", SettingsError(f"--model-config-file: {error.message}"))
    set_up_logging(settings.log_format, settings.log_level)
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
