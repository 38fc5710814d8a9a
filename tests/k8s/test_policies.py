"""The expressions of the scale guard, evaluated by another implementation of CEL than the API server's."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.k8s_objects import Object, one, rendered
from support.k8s_tools import TOOLS

_EVALUATE = Path(__file__).parent / "tools" / "evaluate.py"
_UPDATE = {"namespace": "tessera", "operation": "UPDATE"}
_ADMIN = {"userInfo": {"username": "system:serviceaccount:tessera:tessera-admin"}, **_UPDATE}
_HUMAN = {"userInfo": {"username": "ana"}, **_UPDATE}


def _refused(policy: str, **known: Any) -> list[str]:
    spec = one(rendered("prod"), "ValidatingAdmissionPolicy", policy)["spec"]
    done = subprocess.run(
        [TOOLS / "checks" / "bin" / "python", _EVALUATE],
        input=json.dumps({"policy": spec, **known}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    messages: list[str] = json.loads(done.stdout)
    return messages


def _set(servers: int) -> Object:
    return {"metadata": {"name": "tessera-shard"}, "spec": {"replicas": servers} if servers else {}}


def _number(text: str | None) -> Object:
    return {"metadata": {"name": "tessera-scale-guard"}, **({} if text is None else {"data": {"servers": text}})}


@pytest.mark.parametrize(
    ("old", "new", "number", "text"),
    [
        (3, 3, "3", None),
        (3, 3, "5", None),
        (3, 5, "5", None),
        (3, 4, "5", None),
        (5, 3, "3", None),
        (5, 4, "3", None),
        (1, 0, "0", None),
        (3, 2, "3", "shard servers: got 2, expected 3 or more: drain the highest ones"),
        (5, 2, "3", "shard servers: got 2, expected 3 or more"),
        (3, 0, "3", "shard servers: got 0, expected 3 or more"),
        (3, 4, "3", "shard servers: got 4, expected 3 or fewer: raise servers in the ConfigMap"),
        (3, 6, "5", "shard servers: got 6, expected 5 or fewer"),
        (3, 2, "5", "shard servers: got 2, expected 5 or more"),
    ],
)
def test_the_set_moves_towards_the_number_and_not_past_it(old: int, new: int, number: str, text: str | None) -> None:
    messages = _refused("tessera-scale-guard", object=_set(new), oldObject=_set(old), params=_number(number))
    assert len(messages) == (text is not None)
    if text:
        assert messages[0].startswith(text)


@pytest.mark.parametrize(
    ("old", "new", "request_", "text"),
    [
        ("3", "3", _HUMAN, None),
        ("3", "5", _HUMAN, None),
        ("9", "10", _HUMAN, None),
        ("3", "2", _ADMIN, None),
        (None, "3", _HUMAN, None),
        ("3", "2", _HUMAN, "servers: got 2, expected at least 3: only tessera k8s allow-scale lowers it"),
        ("10", "9", _HUMAN, "servers: got 9, expected at least 10"),
        ("3", "three", _ADMIN, "servers: expected a whole number"),
        ("3", "-1", _ADMIN, "servers: expected a whole number"),
        ("3", "", _ADMIN, "servers: expected a whole number"),
        ("3", None, _ADMIN, "servers: expected a whole number"),
    ],
)
def test_only_the_account_of_commands_lowers_the_number(
    old: str | None, new: str | None, request_: Any, text: str | None
) -> None:
    known = {"object": _number(new), "oldObject": _number(old), "request": request_}
    messages = _refused("tessera-scale-guard-number", **known)
    assert len(messages) == (text is not None)
    if text:
        assert messages[0].startswith(text)


@pytest.mark.parametrize(("new", "refused"), [("3", False), ("three", True)])
def test_a_number_that_is_made_is_one(new: str, refused: bool) -> None:
    known = {"object": _number(new), "oldObject": None, "request": {**_HUMAN, "operation": "CREATE"}}
    assert bool(_refused("tessera-scale-guard-number", **known)) is refused
