import argparse
from typing import Any

import pytest

from admin import cli, status_command
from admin.arguments import byte_size, json_object
from admin.up_command import cpu_set
from tessera.errors import Code, InvalidArgumentError, SettingsError, TesseraError, error_class

_EXIT_CODES = {
    Code.INVALID_ARGUMENT: 2,
    Code.NOT_FOUND: 3,
    Code.FAILED_PRECONDITION: 4,
    Code.ALREADY_EXISTS: 4,
    Code.DEADLINE_EXCEEDED: 5,
    Code.ABORTED: 75,
}


def _run_with(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> int:
    def run(_: argparse.Namespace) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(status_command, "run", run)
    return cli.main(["status"])


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_every_error_has_an_exit_code_and_its_message_goes_to_stderr(
    code: Code, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_with(monkeypatch, error_class(code)("blob ab: is gone")) == _EXIT_CODES.get(code, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "tessera: blob ab: is gone\n"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (None, 0),
        (0, 0),
        (1, 1),
        (KeyboardInterrupt(), 130),
        (SettingsError("--etcd-ca x: no such file"), 2),
        (TesseraError("something"), 1),
    ],
)
def test_results_and_other_ends(outcome: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run_with(monkeypatch, outcome) == code


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        _run_with(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "the following arguments are required: VERB"),
        ("stats", "invalid choice: 'stats'"),
        ("status --colour", "unrecognized arguments: --colour"),
        ("status -o xml", "invalid choice: 'xml'"),
        ("status --etc x", "unrecognized arguments: --etc"),
        ("partition m --repository r --model x --max-shard-bytes 3MB/s", "--max-shard-bytes: got '3MB/s'"),
        ("up --repository r --port x", "argument --port: invalid int value: 'x'"),
        ("up --repository r --router-cpus a", "argument --router-cpus: got 'a', expected core numbers such as 0,1"),
        (
            "up --repository r --no-batching --batching-policy-file f",
            "--batching-policy-file: not allowed with argument --no-batching",
        ),
        (
            "up --repository r --batching-parameters-file f --batching-policy-file f",
            "--batching-policy-file: not allowed with argument --batching-parameters-file",
        ),
        ("model", "the following arguments are required: VERB"),
    ],
)
def test_wrong_usage_names_what_is_wrong(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(line.split())
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("up --repository r --shards -1", "--shards: got -1, expected at least 0"),
        ("up --repository r --shards 2 --replicas 3", "--replicas: got 3, expected 1 to 2, the number of --shards"),
        ("up --repository r --replicas 0", "--replicas: got 0, expected 1 to 2"),
        ("up --repository r --port 70000", "--port: got 70000, expected 0 to 65535"),
        ("up --repository r --metrics-port 70000", "--metrics-port: got 70000, expected 0 to 65535"),
        ("up --repository r --max-in-flight-batches -1", "--max-in-flight-batches: got -1, expected at least 0"),
        (
            "up --repository r --batching-policy-file /no",
            "--batching-policy-file: /no; No such file or directory",
        ),
        ("status --window-s -1", "--window-s: got -1, expected 0 to 3600"),
        ("status --router-cert c", "--router-ca must be given with --router-cert"),
        ("status --router-ca a --router-cert c", "--router-cert and --router-key: expected both or none"),
        ("status --router-ca /no", "--router-ca /no: No such file or directory"),
        ("up --repository r --in-process --server-memory-bytes 1GiB", "--server-memory-bytes: cannot be given with"),
        ("predict m [1]", "INPUTS: got [1], expected a JSON object"),
        ("predict m {", "INPUTS: not JSON"),
        ("partition x --repository r --model a/b --max-shard-bytes 1MiB", "model: got 'a/b'"),
        ("partition x --repository r --model a --version -3 --max-shard-bytes 1MiB", "version: got -3"),
    ],
)
def test_wrong_values_are_refused_before_anything_starts(
    line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    assert says in capsys.readouterr().err


def test_a_repository_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("up --repository /nowhere", "model load m --repository /nowhere"):
        assert cli.main([*line.split(), *(["--port=0"] if line.startswith("up") else [])]) == 3
        assert "repository /nowhere: no such directory" in capsys.readouterr().err
    assert cli.main(["verify", "--repository=/nowhere", "--model=m"]) == 3
    assert "model 'm' version 1: no package in /nowhere" in capsys.readouterr().err


def test_argument_types() -> None:
    assert byte_size("1.5GiB") == 3 << 29
    with pytest.raises(argparse.ArgumentTypeError, match="got '7 apples', expected bytes such as"):
        byte_size("7 apples")
    assert cpu_set("0,2") == {0, 2}
    for wrong in ("", "0,", "a", "-1", "0-3"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected core numbers such as 0,1"):
            cpu_set(wrong)
    assert json_object('{"x": [1]}', "INPUTS") == {"x": [1]}
    with pytest.raises(InvalidArgumentError, match="standard input: not JSON"):
        json_object("", "standard input")
