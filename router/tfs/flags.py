"""`tensorflow_model_server`'s flags in its syntax: `--name=value`, and `--name` alone for what is true or false.

Pure: text in, values out. What is unknown is kept aside, since tensorflow_model_server reports it and goes on.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["int32", "int64", "bool", "string", "float"]
Value = int | bool | str | float | None

_BITS = {"int32": 31, "int64": 63}
_HELP_COLUMNS = 120


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        default: None: this machine decides, as the help says.
        ignored: why it has no meaning here; empty when it has one.
        group: 0 for TensorFlow Serving's own, 1 for ours.
    """

    name: str
    kind: Kind
    default: Value
    help: str
    ignored: str = ""
    group: int = 0

    def parse(self, text: str) -> Value:
        """Return the value that `text` says.

        Raises:
            ValueError: it is none of this kind.
        """
        if self.kind == "string":
            return text
        if self.kind == "bool":
            return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)
        if self.kind == "float":
            return float(text)
        if not re.fullmatch(r"\s*[+-]?\d+", text):
            _refuse(text)
        number = int(text)
        limit = 1 << _BITS[self.kind]
        return number if -limit <= number < limit else _refuse(text)

    def shown(self) -> str:
        """Return `--name=default`, as the usage text shows it."""
        if self.default is None:
            return f"--{self.name}=auto"
        if self.kind == "string":
            return f'--{self.name}="{self.default}"'
        return f"--{self.name}={str(self.default).lower() if self.kind == 'bool' else self.default}"


def _refuse(text: str) -> Value:
    raise ValueError(text)


@dataclass(frozen=True)
class ParsedFlags:
    """What a command line says.

    Attributes:
        given: name → value, only of flags that were given; the last one wins.
        unknown: arguments that are no flag, in their order.
        errors: one line for each flag whose value could not be understood.
    """

    given: Mapping[str, Value]
    unknown: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def parse_flags(table: Iterable[Flag], arguments: Sequence[str]) -> ParsedFlags:
    """Parse `arguments` (without the program's name); never raises."""
    by_name = {flag.name: flag for flag in table}
    given: dict[str, Value] = {}
    unknown: list[str] = []
    errors: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            unknown += arguments[position:]
            break
        name, separator, text = argument.removeprefix("--").partition("=")
        flag = by_name.get(name) if argument.startswith("--") else None
        if flag is None or not (separator or flag.kind == "bool"):
            unknown.append(argument)
            continue
        try:
            given[name] = flag.parse(text if separator else "true")
        except ValueError:
            errors.append(f"Couldn't interpret value {text} for flag {name}.")
    return ParsedFlags(given, tuple(unknown), tuple(errors))


def warnings_of(table: Iterable[Flag], parsed: ParsedFlags) -> list[str]:
    """Return one line for each flag that was given, differs from its default, and has no meaning here."""
    return [
        f"--{flag.name}: has no meaning here: {flag.ignored}"
        for flag in table
        if flag.ignored and flag.name in parsed.given and parsed.given[flag.name] != flag.default
    ]


def usage(table: Iterable[Flag], program: str) -> str:
    """Return the text of --help: a line with the default and the kind, then the meaning."""
    lines = [f"usage: {program}"]
    titles = ("Flags:", "Flags that tensorflow_model_server does not have:")
    for group, title in enumerate(titles):
        flags = [flag for flag in table if flag.group == group]
        lines += [title] if flags else []
        for flag in flags:
            meaning = f"{flag.help} Has no meaning here: {flag.ignored}." if flag.ignored else flag.help
            lines.append(f"\t{flag.shown():<33}\t{flag.kind}")
            lines += textwrap.wrap(meaning, _HELP_COLUMNS - 20, initial_indent="\t\t", subsequent_indent="\t\t")
    return "\n".join(lines) + "\n"
