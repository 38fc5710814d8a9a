"""TensorFlow Serving's batching parameters (its `--batching_parameters_file`) as a policy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from batching.policy import MAX_IN_FLIGHT, Policy
from protos import batching_parameters_pb2
from tessera.errors import InvalidArgumentError
from tessera.files import read_text

TENSORFLOW_DEFAULTS = Policy(max_batch_size=1000, max_enqueued_rows=10 * 1000, split_large_inputs=False)
"""What TensorFlow Serving does where its file says nothing. It bounds the queue by batches, here their rows count."""
_DEFAULT_ENQUEUED_BATCHES = 10


def load_parameters(path: str | Path, *, tensorflow_defaults: bool = False) -> tuple[Policy, list[str]]:
    """Read the file; see `parse_parameters`.

    Raises:
        NotFoundError, InvalidArgumentError: it cannot be read, or is wrong.
    """
    return parse_parameters(read_text(path), str(path), tensorflow_defaults=tensorflow_defaults)


def parse_parameters(text: str, place: str, *, tensorflow_defaults: bool = False) -> tuple[Policy, list[str]]:
    """Return the policy that the protobuf text means, and warnings; `place` stands for the file in messages.

    What the text does not say is as in `Policy()`, or with `tensorflow_defaults` as in TensorFlow Serving.

    Raises:
        InvalidArgumentError: the text is wrong; names file, line and field.
    """
    message = batching_parameters_pb2.BatchingParameters()
    try:
        text_format.Parse(text, message)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(_parse_message(error, place)) from None
    return _Reader(message, text, place, tensorflow_defaults).policy()


class _Reader:
    """Turns one message into a policy."""

    def __init__(self, message: Any, text: str, place: str, tensorflow_defaults: bool) -> None:
        self._message, self._text, self._place = message, text, place
        self._tensorflow_defaults = tensorflow_defaults
        self._defaults = TENSORFLOW_DEFAULTS if tensorflow_defaults else Policy()
        self._warnings: list[str] = []

    def policy(self) -> tuple[Policy, list[str]]:
        """Return the policy and the warnings."""
        values: dict[str, Any] = {}
        self._sizes(values)
        timeout = self._number("batch_timeout_micros", 0)
        if timeout is not None:
            values["batch_timeout_micros"] = timeout
        batches = self._number("max_enqueued_batches", 1)
        if batches is None and self._tensorflow_defaults:
            batches = _DEFAULT_ENQUEUED_BATCHES
        if batches is not None:
            values["max_enqueued_rows"] = batches * values.get("max_batch_size", self._defaults.max_batch_size)
        if self._message.HasField("enable_large_batch_splitting"):
            values["split_large_inputs"] = self._message.enable_large_batch_splitting.value
        threads = self._number("num_batch_threads", 1)
        if threads is not None:
            values["max_in_flight_batches"] = min(threads, MAX_IN_FLIGHT)
            if threads > MAX_IN_FLIGHT:
                self._warn("num_batch_threads", f"{threads} is taken as {MAX_IN_FLIGHT}, the most batches in flight")
        self._without_meaning()
        try:
            return replace(self._defaults, **values), self._warnings
        except InvalidArgumentError as error:
            field = re.match(r"\w+", error.message)
            known = {"max_enqueued_rows": "max_enqueued_batches"}
            name = known.get(field[0], field[0]) if field else ""
            raise InvalidArgumentError(f"{self._where(name)}: {error.message}") from None

    def _sizes(self, values: dict[str, Any]) -> None:
        """Read max_batch_size, max_execution_batch_size and allowed_batch_sizes."""
        largest = self._number("max_batch_size", 1)
        executed = self._number("max_execution_batch_size", 1)
        allowed = tuple(self._message.allowed_batch_sizes)
        if executed is not None:
            # There, the first is of what one client sends; here larger inputs are always split.
            if largest is not None and executed > largest:
                raise InvalidArgumentError(
                    f"{self._where('max_execution_batch_size')}: max_execution_batch_size: got {executed}, expected at "
                    f"most max_batch_size, which is {largest}"
                )
            largest = executed
            if allowed and allowed[-1] > executed:
                allowed = tuple(size for size in allowed if size <= executed)
                self._warn("allowed_batch_sizes", f"those above max_execution_batch_size ({executed}) are left out")
        if largest is not None:
            values["max_batch_size"] = largest
        values["allowed_batch_sizes"] = allowed

    def _without_meaning(self) -> None:
        message = self._message
        if message.HasField("thread_pool_name"):
            self._warn("thread_pool_name", "has no meaning here: all regions of a device share its lane")
        if message.pad_variable_length_inputs:
            self._warn(
                "pad_variable_length_inputs",
                "has no meaning here: requests of different lengths run in different batches, or the model says what "
                "is padded (batching.Pad)",
            )

    def _number(self, field: str, least: int) -> int | None:
        """Return the value, None if the field is not there."""
        if not self._message.HasField(field):
            return None
        value: int = getattr(self._message, field).value
        if value < least:
            raise InvalidArgumentError(
                f"{self._where(field)}: {field}: got {value}, expected a whole number from {least} on"
            )
        return value

    def _warn(self, field: str, what: str) -> None:
        self._warnings.append(f"{self._where(field)}: {field}: {what}")

    def _where(self, field: str) -> str:
        """Return file and line of the first mention of a field."""
        for number, line in enumerate(self._text.splitlines(), 1):
            if re.search(rf"\b{field}\b", line.split("#", 1)[0]):
                return f"{self._place}:{number}"
        return self._place


def _parse_message(error: Exception, place: str) -> str:
    """Return what the parser says, with the file in front of its line and column."""
    text = " ".join(str(error).split()) or "is nested too deeply"
    position = re.match(r"(\d+):(\d+) : ", text)
    if position is None:
        return f"{place}: {text}"
    return f"{place}:{position[1]}:{position[2]}: {text[position.end() :]}"
