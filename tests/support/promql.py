"""Which metrics and labels an expression of Prometheus names; not whether it means something: promtool says that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<range>\[[^\]]*\])
    |(?P<number>\d[\w.]*)
    |(?P<name>[A-Za-z_:][\w:]*)
    |(?P<sign>==|!=|=~|!~|<=|>=|[-+*/%^<>=(),{}])""",
    re.VERBOSE,
)
_OPERATORS = {"and", "or", "unless", "bool", "offset"}
_GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass(frozen=True)
class Names:
    """Metric → labels that its selectors name, and the labels of `by (…)`, `on (…)` and the like."""

    metrics: dict[str, set[str]]
    grouped: set[str]
    functions: set[str]


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        assert found, f"{expression}: not understood from {expression[at : at + 20]!r} on"
        at = found.end()
        if found.lastgroup:
            yield found.lastgroup, found.group()


def names(expression: str) -> Names:
    """Return what an expression names."""
    tokens = [*_tokens(expression), ("end", "")]
    result = Names({}, set(), set())
    at = 0
    while tokens[at][0] != "end":
        kind, text = tokens[at]
        at += 1
        if kind != "name":
            assert text != "{", f"{expression}: a selector without a metric"
        elif text in _GROUPINGS:
            at, labels = _labels(tokens, at, ")")
            result.grouped.update(labels)
        elif tokens[at][1] == "(" or tokens[at][1] in _GROUPINGS:
            result.functions.add(text)
        elif text not in _OPERATORS:
            used = result.metrics.setdefault(text, set())
            if tokens[at][1] == "{":
                at, labels = _labels(tokens, at, "}")
                used.update(labels)
    return result


def _labels(tokens: list[tuple[str, str]], at: int, end: str) -> tuple[int, list[str]]:
    """Return the names up to the closing sign, and where it goes on."""
    last = at
    while tokens[last][1] != end:
        assert tokens[last][0] != "end", f"{end} is missing"
        last += 1
    return last + 1, [text for kind, text in tokens[at:last] if kind == "name"]
