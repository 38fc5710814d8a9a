"""Policy files: what they mean, and that every mistake is told with file, table (or line) and field."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.parameters_file import TENSORFLOW_DEFAULTS, parse_parameters
from batching.policy import Policy
from batching.policy_file import Entry, PolicyFile, load_batching_parameters_file, load_policy_file, parse_policy_file
from tessera.errors import InvalidArgumentError, NotFoundError
from tessera.files import MAX_FILE_BYTES

POLICIES = """
[default]
max_batch_size = 32

[[policy]]
model = "ranker"
region = "*/lstm/*"
max_batch_size = 128
allowed_batch_sizes = [8, 32, 128]
batch_timeout_micros = 250
max_enqueued_rows = 1000
max_enqueued_bytes = "1.5GiB"
max_in_flight_batches = 2
priority = 1
weight = 3
padding = "min_cost"

[[policy]]
model = "rank*"
region = "*"
max_enqueued_bytes = 1000
"""


def test_the_first_match_holds_and_what_an_entry_does_not_say_is_as_in_default() -> None:
    policies = parse_policy_file(POLICIES, "p.toml")
    first = Policy(128, (8, 32, 128), 250, 1000, 3 << 29, 2, 1, 3.0, "min_cost")
    assert policies.policy_for("ranker", "serve/lstm/while/batch") == first
    assert policies.policy_for("ranker", "serve/batch") == Policy(32, max_enqueued_bytes=1000)
    assert policies.policy_for("ranked", "serve/lstm/while/batch") == Policy(32, max_enqueued_bytes=1000)
    assert policies.policy_for("Ranker", "serve/batch") == Policy(32)


def test_an_empty_file_is_all_defaults() -> None:
    assert parse_policy_file("", "p.toml") == PolicyFile() == PolicyFile(Policy(), ())
    assert PolicyFile().policy_for("m", "r") == Policy()


ENTRY = '[[policy]]\nmodel = "m"\nregion = "r"\n'

WRONG = {
    "max_batchsize = 3": "unknown field 'max_batchsize', expected some of max_batch_size",
    "max_batch_size = 0": "max_batch_size: got 0, expected a whole number from 1 on",
    "max_batch_size = 1.0": "max_batch_size: got 1.0, expected a whole number",
    "max_batch_size = true": "max_batch_size: got True, expected a whole number",
    "max_batch_size = 10_000_000_000_000_000_000": "max_batch_size: got 1000000.*, expected a whole number at most",
    'max_batch_size = "64"': "max_batch_size: got '64', expected a whole number",
    "allowed_batch_sizes = 64": "allowed_batch_sizes: got 64, expected a list",
    "allowed_batch_sizes = [0, 64]": r"allowed_batch_sizes\[0\]: got 0, expected a whole number from 1 on",
    "allowed_batch_sizes = [8, 8, 64]": r"allowed_batch_sizes\[1\]: got 8, expected a whole number from 9 on",
    "allowed_batch_sizes = [8, 32]": "allowed_batch_sizes: the last is 32, expected max_batch_size, which is 64",
    "batch_timeout_micros = -1": "batch_timeout_micros: got -1, expected a whole number from 0 on",
    "max_enqueued_rows = 0": "max_enqueued_rows: got 0",
    "max_enqueued_bytes = 0": "max_enqueued_bytes: got 0",
    'max_enqueued_bytes = "1 GiBi"': "max_enqueued_bytes: got '1 GiBi', expected bytes such as",
    f'max_enqueued_bytes = "{"9" * 400}"': "max_enqueued_bytes: got '9+', expected less",
    "max_in_flight_batches = 65": "max_in_flight_batches: got 65, expected a whole number at most 64",
    "priority = -1": "priority: got -1",
    "weight = 0": "weight: got 0, expected a number from 0.001 to 1000",
    "weight = nan": "weight: got nan",
    "weight = true": "weight: got True",
    'padding = "up"': "padding: got 'up', expected one of pad_up, batch_down, min_cost",
    "padding = 1": "padding: got 1",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_value_is_told_with_its_table(line: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^p\.toml: \[default\]: {WRONG[line]}"):
        parse_policy_file("[default]\n" + line, "p.toml")
    with pytest.raises(InvalidArgumentError, match=rf"^p\.toml: \[\[policy\]\] 2: {WRONG[line]}"):
        parse_policy_file(f'[[policy]]\nmodel = "other"\nregion = "r"\n{ENTRY}{line}', "p.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nx = y", "is no TOML: .*line 2"),
        ("[defaults]\n", "unknown table 'defaults', expected"),
        ("default = 1", "default: got 1, expected the table"),
        ("[policy]\n", "policy: got {}, expected tables"),
        ("policy = [1]", r"policy: got \[1\], expected tables"),
        ('[[policy]]\nregion = "r"\n', r"\[\[policy\]\] 1: model: got nothing, expected a name, or a glob"),
        ('[[policy]]\nmodel = "m"\nregion = ""\n', r"\[\[policy\]\] 1: region: got ''"),
        ("[[policy]]\nmodel = 1\n", r"\[\[policy\]\] 1: model: got 1"),
        (ENTRY + ENTRY, r"\[\[policy\]\] 2: model 'm' and region 'r' are those of an entry before"),
        ('[default]\nmodel = "m"\n', r"\[default\]: unknown field 'model'"),
        pytest.param("x = " + "[" * 100_000, "is nested too deeply", id="nested"),
        pytest.param("x = " + "1" * 5000, "is no TOML", id="digits"),
    ],
)
def test_a_wrong_file_is_told(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^p.toml: {message}"):
        parse_policy_file(text, "p.toml")


def test_sizes_that_do_not_fit_what_default_says_are_told() -> None:
    text = "[default]\nmax_batch_size = 32\nallowed_batch_sizes = [8, 32]\n" + ENTRY + "max_batch_size = 64\n"
    with pytest.raises(InvalidArgumentError, match=r"\[\[policy\]\] 1: allowed_batch_sizes: the last is 32"):
        parse_policy_file(text, "p.toml")


@pytest.mark.parametrize("load", [load_policy_file, load_batching_parameters_file])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, load: Any) -> None:
    path = tmp_path / "p"
    with pytest.raises(NotFoundError, match=f"^{path}; No such file"):
        load(path)
    path.write_bytes(b"# \xff")
    with pytest.raises(InvalidArgumentError, match=f"^{path}: byte 2 is not UTF-8"):
        load(str(path))
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidArgumentError, match=f"^{path}: is over {MAX_FILE_BYTES} bytes"):
        load(path)
    path.write_bytes(b"# nothing")
    assert load(path) in (PolicyFile(), (PolicyFile(), []))


def test_reading_policies_does_not_bring_tensorflow_in() -> None:
    code = "import batching, batching.policy_file, sys; print('tensorflow' in sys.modules, 'cpp_ext' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


sizes = st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=5, unique=True).map(sorted)


@st.composite
def some_policies(draw: st.DrawFn) -> Policy:
    allowed = tuple(draw(sizes))
    return Policy(
        max_batch_size=allowed[-1],
        allowed_batch_sizes=draw(st.sampled_from([(), allowed])),
        batch_timeout_micros=draw(st.integers(0, (2**63 - 1) // 1000)),
        max_enqueued_rows=draw(st.integers(1, 2**63 - 1)),
        max_enqueued_bytes=draw(st.integers(1, 2**63 - 1)),
        max_in_flight_batches=draw(st.integers(0, 64)),
        priority=draw(st.integers(0, 2**31 - 1)),
        weight=draw(st.floats(1e-3, 1e3)),
        padding=draw(st.sampled_from(["pad_up", "batch_down", "min_cost"])),
    )


names = st.text("abz*?[]!-/_.", min_size=1, max_size=6)


@st.composite
def some_files(draw: st.DrawFn) -> PolicyFile:
    keys = draw(st.lists(st.tuples(names, names), max_size=3, unique=True))
    return PolicyFile(draw(some_policies()), tuple(Entry(*key, draw(some_policies())) for key in keys))


def _toml(policies: PolicyFile) -> str:
    def lines(policy: Policy) -> str:
        fields = dataclasses.asdict(policy) | {"allowed_batch_sizes": list(policy.allowed_batch_sizes)}
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())

    entries = (f"[[policy]]\nmodel = '{e.model}'\nregion = '{e.region}'\n{lines(e.policy)}" for e in policies.entries)
    return "[default]\n" + lines(policies.default) + "".join(entries)


@given(some_files())
def test_what_is_written_is_read(policies: PolicyFile) -> None:
    assert parse_policy_file(_toml(policies), "p.toml") == policies


def _mutated(data: st.DataObject, text: str) -> str:
    at = data.draw(st.integers(0, len(text)))
    size = data.draw(st.integers(0, 8))
    put = data.draw(
        st.text(st.sampled_from("[]{}=\"'\n:#,.0123456789-+eE\\ \t\0λ_abx"), max_size=6) | st.text(max_size=3)
    )
    return text[:at] + put + text[at + size :]


@given(st.data())
def test_a_damaged_file_is_read_or_refused_but_nothing_else(data: st.DataObject) -> None:
    text = _mutated(data, POLICIES)
    try:
        policies = parse_policy_file(text, "p.toml")
    except InvalidArgumentError as error:
        assert error.message.startswith("p.toml: ")  # noqa: PT017
    else:
        assert isinstance(policies.policy_for("ranker", "x"), Policy)


PARAMETERS = """# of a server: max_batch_size { value: 1 }
max_batch_size { value: 128 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 10 }
num_batch_threads { value: 4 }
allowed_batch_sizes: 32
allowed_batch_sizes: 128
"""


def test_tensorflow_servings_parameters_are_a_policy() -> None:
    policy = Policy(128, (32, 128), 5000, max_enqueued_rows=1280, max_in_flight_batches=4)
    assert parse_parameters(PARAMETERS, "b.txt") == (policy, [])


def test_the_file_is_the_policy_of_every_region(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text(PARAMETERS)
    policies, warnings = load_batching_parameters_file(path)
    assert policies.policy_for("any", "region") == parse_parameters(PARAMETERS, "b.txt")[0]
    assert warnings == []


def test_parameters_without_meaning_are_warned_of_with_their_line() -> None:
    more = 'thread_pool_name { value: "p" }\npad_variable_length_inputs: true\n'
    policy, warnings = parse_parameters(more + "num_batch_threads { value: 100 }", "b.txt")
    assert policy == Policy(max_in_flight_batches=64)
    assert [warning.split(":")[:3] for warning in warnings] == [
        ["b.txt", "3", " num_batch_threads"],
        ["b.txt", "1", " thread_pool_name"],
        ["b.txt", "2", " pad_variable_length_inputs"],
    ]


def test_whether_large_requests_are_split_is_what_the_file_says() -> None:
    for value in (True, False):
        text = f"enable_large_batch_splitting {{ value: {str(value).lower()} }}\npad_variable_length_inputs: false"
        assert parse_parameters(text, "b.txt") == (Policy(split_large_inputs=value), [])
    assert parse_parameters("enable_large_batch_splitting {}", "b.txt") == (Policy(split_large_inputs=False), [])


def test_what_the_file_leaves_out_may_be_as_in_tensorflow_serving() -> None:
    assert parse_parameters("", "b.txt", tensorflow_defaults=True) == (TENSORFLOW_DEFAULTS, [])
    policy, _ = parse_parameters("max_batch_size { value: 32 }", "b.txt", tensorflow_defaults=True)
    assert policy == Policy(32, max_enqueued_rows=320, split_large_inputs=False)


def test_the_size_that_is_executed_is_the_size_of_a_batch() -> None:
    policy, warnings = parse_parameters(PARAMETERS + "max_execution_batch_size { value: 32 }", "b.txt")
    assert (policy.max_batch_size, policy.allowed_batch_sizes, policy.max_enqueued_rows) == (32, (32,), 320)
    assert warnings == ["b.txt:6: allowed_batch_sizes: those above max_execution_batch_size (32) are left out"]
    with pytest.raises(
        InvalidArgumentError, match=r"b.txt:8: max_execution_batch_size: got 129, expected at most max_"
    ):
        parse_parameters(PARAMETERS + "max_execution_batch_size { value: 129 }", "b.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batchsize { value: 1 }", r'b.txt:1:1: .* has no field named "max_batchsize"'),
        ("\nmax_batch_size: 1", r"b.txt:2:17: "),
        ("max_batch_size { value: 1 } max_batch_size { value: 2 }", 'b.txt:1:.*multiple "max_batch_size"'),
        ('max_batch_size { value: "x" }', "b.txt:1:25: "),
        ("max_batch_size { value: 18446744073709551616 }", "b.txt:1:25: .*out of range"),
        (
            "# max_batch_size\nmax_batch_size { value: 0 }",
            "b.txt:2: max_batch_size: got 0, expected a whole number from 1",
        ),
        ("\nbatch_timeout_micros { value: -1 }", "b.txt:2: batch_timeout_micros: got -1"),
        ("num_batch_threads {}", "b.txt:1: num_batch_threads: got 0"),
        (
            "allowed_batch_sizes: [8, 16]",
            "b.txt:1: allowed_batch_sizes: the last is 16, expected max_batch_size, which",
        ),
        (f"max_enqueued_batches {{ value: {2**62} }}", "b.txt:1: max_enqueued_rows: got"),
        ("# nothing\n\nmax_execution_batch_size { value: -4 }", "b.txt:3: max_execution_batch_size: got -4"),
    ],
)
def test_wrong_parameters_are_told_with_file_line_and_field(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        parse_parameters(text, "b.txt")


@given(st.data())
def test_damaged_parameters_are_read_or_refused_but_nothing_else(data: st.DataObject) -> None:
    text = _mutated(data, PARAMETERS)
    try:
        policy, _ = parse_parameters(text, "b.txt")
    except InvalidArgumentError as error:
        assert error.message.startswith("b.txt:")  # noqa: PT017
    else:
        assert isinstance(policy, Policy)
