"""How the tasks of one batched region are batched: the values, and what is right of them.

The native core (`_graph.BatchPolicy`) takes the same fields under the same names and checks them alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.errors import InvalidArgumentError

PADDINGS = ("pad_up", "batch_down", "min_cost")
MAX_IN_FLIGHT = 64
"""Each batch in flight may hold a thread."""
MIN_WEIGHT, MAX_WEIGHT = 1e-3, 1e3
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_MICROS = _MAX_INT64 // 1000  # counted in nanoseconds


@dataclass(frozen=True)
class Policy:
    """How one region is batched; sizes are in rows.

    Attributes:
        max_batch_size: rows of a batch at most; larger inputs are split.
        allowed_batch_sizes: sizes that a batch may have, ascending, the last is `max_batch_size`. Empty: all, so that
            no rows are added.
        batch_timeout_micros: how long a task may wait for others although the device is free; 0: never.
        max_enqueued_rows: rows that may wait; a task beyond them is refused with UNAVAILABLE.
        max_enqueued_bytes: bytes of inputs that may wait; a task beyond them is refused with RESOURCE_EXHAUSTED.
        max_in_flight_batches: batches that run at once; 0: as many as the device's lane finds best.
        priority: 0 is served first.
        weight: share of the device's time while other regions want it too.
        padding: what to do with rows that make no allowed size: "pad_up" to the next larger one, "batch_down" to the
            next smaller one and let the others wait, "min_cost" what took less time a row so far.
        split_large_inputs: whether a whole request of more rows than `max_batch_size` is split; if not it is refused.
            The inputs of a region are always split.

    Raises:
        InvalidArgumentError: a field is wrong; names it, what it is and what was expected.
    """

    max_batch_size: int = 64
    allowed_batch_sizes: tuple[int, ...] = ()
    batch_timeout_micros: int = 0
    max_enqueued_rows: int = 4096
    max_enqueued_bytes: int = 256 << 20
    max_in_flight_batches: int = 0
    priority: int = 0
    weight: float = 1.0
    padding: str = "pad_up"
    split_large_inputs: bool = True

    def __post_init__(self) -> None:
        """Check all fields."""
        _check_whole("max_batch_size", self.max_batch_size, 1, _MAX_INT64)
        self._check_allowed_batch_sizes()
        _check_whole("batch_timeout_micros", self.batch_timeout_micros, 0, _MAX_MICROS)
        _check_whole("max_enqueued_rows", self.max_enqueued_rows, 1, _MAX_INT64)
        _check_whole("max_enqueued_bytes", self.max_enqueued_bytes, 1, _MAX_INT64)
        _check_whole("max_in_flight_batches", self.max_in_flight_batches, 0, MAX_IN_FLIGHT)
        _check_whole("priority", self.priority, 0, _MAX_INT32)
        weight: object = self.weight
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise InvalidArgumentError(
                f"weight: got {weight!r}, expected a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
            )
        if self.padding not in PADDINGS:
            raise InvalidArgumentError(f"padding: got {self.padding!r}, expected one of {', '.join(PADDINGS)}")
        if not isinstance(self.split_large_inputs, bool):
            raise InvalidArgumentError(f"split_large_inputs: got {self.split_large_inputs!r}, expected true or false")

    def _check_allowed_batch_sizes(self) -> None:
        sizes: object = self.allowed_batch_sizes
        if not isinstance(sizes, tuple):
            raise InvalidArgumentError(f"allowed_batch_sizes: got {sizes!r}, expected a list of whole numbers")
        least = 1
        for i, size in enumerate(sizes):
            _check_whole(f"allowed_batch_sizes[{i}]", size, least, _MAX_INT64, " (they ascend)" if i else "")
            least = size + 1
        if sizes and sizes[-1] != self.max_batch_size:
            raise InvalidArgumentError(
                f"allowed_batch_sizes: the last is {sizes[-1]}, expected max_batch_size, which is {self.max_batch_size}"
            )


def _check_whole(field: str, value: object, least: int, most: int, why: str = "") -> None:
    if type(value) is not int or not least <= value <= most:
        limit = f"from {least} on" if most >= _MAX_INT32 else f"from {least} to {most}"
        if type(value) is int and value > most:
            limit = f"at most {most}"
        raise InvalidArgumentError(f"{field}: got {value!r}, expected a whole number {limit}{why}")
