"""What verbs print: a table or sentence for people, JSON or YAML with the same values for programs."""

from __future__ import annotations

import argparse
import json
from typing import Any


def show(options: argparse.Namespace, content: Any, text: str) -> None:
    """Print `content` as `-o json|yaml` wants it, or else `text`, which says the same to people."""
    print(text if options.output == "table" else encoded(options.output, content))


def encoded(output: str, content: Any) -> str:
    """Return `content`, which consists of JSON's values, as "json" or "yaml"."""
    as_json = json.dumps(content, indent=2)
    if output == "json":
        return as_json
    import yaml  # no other verb has to wait for it

    # From the JSON, so that both have the same keys and values.
    return yaml.safe_dump(json.loads(as_json), sort_keys=False, allow_unicode=True).rstrip()
