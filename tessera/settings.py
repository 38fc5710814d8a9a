"""Typed settings: a frozen dataclass per process, read from flags, environment variables and a TOML file.

Precedence: flag, then environment variable, then file, then default. One name in three spellings: the field
`retry_delay_s` of the router is `--retry-delay-s`, `TESSERA__ROUTER__RETRY_DELAY_S` and `retry_delay_s = …`.
The double underscores keep clear of the variables that Kubernetes makes from Service names.
Whatever is unknown or malformed is a `SettingsError` that names the place, the value and what was expected.
"""

from __future__ import annotations

import argparse
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NewType, TypeVar

from tessera.errors import SettingsError

ByteSize = NewType("ByteSize", int)
"""A number of bytes; in text with an optional unit: `1024`, `64KiB`, `256MiB`, `1.5GiB`, `2TB`."""

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", start=1)}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGTP", start=1)}
_UNITS["kB"] = 1000

S = TypeVar("S")


def setting(
    help_text: str,
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    metavar: str | None = None,
) -> Any:
    """Declare a field: its meaning with unit, its default (none: it must be given), its limits."""
    metadata = {"help": help_text, "choices": choices, "minimum": minimum, "metavar": metavar}
    return field(default=default, metadata=metadata) if default is not MISSING else field(metadata=metadata)


def parse_bytes(text: str) -> ByteSize:
    """Return the number of bytes that `text` says.

    Raises:
        SettingsError: `text` is not a number with one of the units B, KiB … PiB, kB … PB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise SettingsError(f"got {text!r}, expected bytes such as 1048576, 64KiB, 256MiB or 1.5GiB")
    return ByteSize(round(float(match[1]) * _UNITS[match[2]]))


def format_bytes(count: float) -> str:
    """Return `count` bytes as people write it: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


@dataclass(frozen=True)
class Option:
    """One field of a settings class, ready to be parsed."""

    name: str
    kind: Any
    spec: Field[Any]

    @property
    def flag(self) -> str:
        """The flag of a process that is started with `load`."""
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for the value in help texts."""
        given: str | None = self.spec.metadata["metavar"]
        if given or self.spec.metadata["choices"]:
            return given or "{" + ",".join(self.spec.metadata["choices"]) + "}"
        if self.kind is float and self.name.endswith("_s"):
            return "SECONDS"
        names = {int: "N", float: "X", bool: "{true,false}", ByteSize: "BYTES"}
        return names.get(self.kind, self.name.upper().split("_")[-1])

    @property
    def help(self) -> str:
        """The meaning, without the default."""
        text: str = self.spec.metadata["help"]
        return text

    @property
    def shown_default(self) -> str:
        """The default as text; empty when there is none, or when it is empty."""
        default = self.spec.default
        return "" if default is MISSING or default in (None, "", ()) else _show(self.kind, default)

    @property
    def repeated(self) -> bool:
        """Whether it may be given several times."""
        return typing.get_origin(self.kind) is tuple

    def parse(self, value: object, place: str) -> Any:
        """Convert text (flag, environment) or a TOML value; `place` is where it stands, for messages."""
        try:
            if self.repeated:
                texts = [_convert(str, item) for item in (value if isinstance(value, list) else [value])]
                return tuple(part for text in texts for part in text.split(",") if part)
            parsed = _convert(self.kind, value)
        except SettingsError as error:
            raise SettingsError(f"{place}: {error.message}") from None
        choices, minimum = self.spec.metadata["choices"], self.spec.metadata["minimum"]
        if choices and parsed not in choices:
            raise SettingsError(f"{place}: got {value!r}, expected one of {', '.join(choices)}")
        if minimum is not None and parsed is not None and parsed < minimum:
            raise SettingsError(f"{place}: got {value!r}, expected at least {minimum}")
        return parsed


def load(
    cls: type[S], process: str, argv: Sequence[str], environ: Mapping[str, str] | None = None, *, description: str = ""
) -> S:
    """Return the settings of `process` (for example "router") as an instance of the dataclass `cls`.

    `--config FILE` (or `TESSERA__<PROCESS>__CONFIG`) names the TOML file. `--help` prints all settings and exits.

    Raises:
        SettingsError: something is unknown, malformed or missing; names it.
    """
    environ = os.environ if environ is None else environ
    options = {option.name: option for option in options_of(cls)}
    prefix = f"TESSERA__{process.upper()}__"
    flags = _parse_flags(options, process, argv, prefix, description)
    values: dict[str, Any] = {}
    config_path = flags.pop("config", None) or environ.get(f"{prefix}CONFIG")
    if config_path is not None:
        for key, value in _read_file(config_path).items():
            if key not in options:
                raise SettingsError(f"{config_path}: unknown setting {key!r}; known: {', '.join(options)}")
            values[key] = options[key].parse(value, f"{config_path}: {key}")
    for key, value in environ.items():
        if key.startswith(prefix) and key != f"{prefix}CONFIG":
            name = key.removeprefix(prefix).lower()
            if name not in options:
                raise SettingsError(f"environment variable {key}: unknown setting; see --help")
            values[name] = options[name].parse(value, f"environment variable {key}")
    for name, value in flags.items():
        values[name] = options[name].parse(value, options[name].flag)
    missing = [option for option in options.values() if option.spec.default is MISSING and option.name not in values]
    if missing:
        raise SettingsError(f"{missing[0].flag} (or {prefix}{missing[0].name.upper()}) must be given")
    return cls(**values)


def options_of(cls: type[Any]) -> list[Option]:
    """Return the settings of a class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    return [Option(spec.name, hints[spec.name], spec) for spec in fields(cls)]


def _parse_flags(
    options: Mapping[str, Option], process: str, argv: Sequence[str], prefix: str, description: str
) -> dict[str, Any]:
    """Return the flags that were given, as text (or a list of texts for repeated ones)."""
    parser = _Parser(
        prog=f"python -m {process}",
        description=description,
        allow_abbrev=False,
        epilog=f"Every setting also has an environment variable ({prefix}NAME) and a key in the --config file.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings, named as the flags with underscores")
    for option in options.values():
        default = option.spec.default
        text = option.help.replace("%", "%%")
        if default is MISSING:
            text += " (must be given)"
        elif option.shown_default:
            text += f" (default: {option.shown_default})"
        parser.add_argument(
            option.flag,
            dest=option.name,
            metavar=option.metavar,
            default=argparse.SUPPRESS,
            help=text,
            action="append" if option.repeated else "store",
            nargs="?" if option.kind is bool else None,
            const="true" if option.kind is bool else None,
        )
    given = vars(parser.parse_args(list(argv)))
    return {name: value for name, value in given.items() if value is not None}


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that every wrong setting leaves by the same door."""

    def error(self, message: str) -> typing.NoReturn:
        raise SettingsError(message)


def _read_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: not a TOML file: {error}") from error


def _convert(kind: Any, value: object) -> Any:
    if isinstance(kind, types.UnionType):  # `T | None`
        kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    if kind is bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        raise SettingsError(f"got {value!r}, expected true or false")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(f"got {value!r}, expected {_kind_name(kind)}")
    if kind is ByteSize:
        return parse_bytes(str(value))
    if kind is str:
        if not isinstance(value, str):
            raise SettingsError(f"got {value!r}, expected text")
        return value
    try:
        if kind is int and isinstance(value, float):
            raise ValueError
        return kind(value)
    except ValueError:
        raise SettingsError(f"got {value!r}, expected {_kind_name(kind)}") from None


def _kind_name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", ByteSize: "a number of bytes"}.get(kind, str(kind))


def _show(kind: Any, value: Any) -> str:
    if kind is ByteSize:
        return format_bytes(value)
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
