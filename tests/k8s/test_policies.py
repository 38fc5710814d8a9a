"""The expressions of the scale guard, evaluated by another implementation of CEL than the API server's."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.k8s_objects import Object, one, rendered
from support.k8s_tools import TOOLS

_EVALUATE = Path(__file__).parent / "tools" / "evaluate.py"
_ADMIN = "system:serviceaccount:tessera:tessera-admin"
_OTHER = "system:serviceaccount:other:tessera-admin"


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


@pytest.mark.parametrize(
    ("old", "new", "user", "text"),
    [
        (3, 3, "ana", None),
        (3, 5, "ana", None),
        (0, 3, "ana", None),
        (3, 2, _ADMIN, None),
        (5, 0, _ADMIN, None),
        (3, 2, "ana", "shard servers: got 2, expected 3 or more: drain the highest ones"),
        (3, 0, "ana", "shard servers: got 0, expected 3 or more"),
        (3, 2, _OTHER, "shard servers: got 2, expected 3 or more"),
    ],
)
def test_only_the_account_of_commands_takes_servers_out(old: int, new: int, user: str, text: str | None) -> None:
    request = {"namespace": "tessera", "operation": "UPDATE", "userInfo": {"username": user}}
    messages = _refused("tessera-scale-guard", object=_set(new), oldObject=_set(old), request=request)
    assert len(messages) == (text is not None)
    if text:
        assert messages[0].startswith(text)
