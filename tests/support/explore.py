"""Walks through every state that a world can reach, shortest paths first; finds what must not happen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Explored:
    """What was found.

    Attributes:
        states: how many different states there are.
        violation: what went wrong; empty: nothing.
        trace: the steps that lead there, in order.
        stuck: states from which no final one can be reached.
    """

    states: int
    violation: str = ""
    trace: tuple[str, ...] = ()
    stuck: int = 0


class ViolationError(Exception):
    """Raised by a world while it makes the successors of a state: something that must never happen."""


def explore(
    start: S,
    successors: Callable[[S], Iterable[tuple[str, S]]],
    is_final: Callable[[S], bool],
    *,
    limit: int = 1_000_000,
) -> Explored:
    """Return what is reachable from `start`.

    Args:
        start: the first state.
        successors: yields (name of the step, state after it); raises ViolationError with what went wrong in the state.
        is_final: states that have to stay reachable from every state.
        limit: how many states are too many; the world is to be made smaller then.

    Cost: one dictionary entry a state, one integer a step.
    """
    states: list[S] = [start]
    number: dict[S, int] = {start: 0}
    came: list[tuple[int, str]] = [(-1, "")]
    before: list[list[int]] = [[]]
    for index, state in enumerate(states):  # grows meanwhile
        try:
            for name, after in successors(state):
                known = number.get(after)
                if known is None:
                    known = number[after] = len(states)
                    states.append(after)
                    came.append((index, name))
                    before.append([])
                before[known].append(index)
        except ViolationError as violation:
            return Explored(len(states), str(violation), _trace(came, index))
        assert len(states) <= limit, f"more than {limit} states"
    return Explored(len(states), stuck=len(states) - _count_that_end(states, before, is_final))


def _trace(came: list[tuple[int, str]], index: int) -> tuple[str, ...]:
    steps = []
    while came[index][0] >= 0:
        steps.append(came[index][1])
        index = came[index][0]
    return tuple(reversed(steps))


def _count_that_end(states: list[S], before: list[list[int]], is_final: Callable[[S], bool]) -> int:
    reached = {index for index, state in enumerate(states) if is_final(state)}
    todo = list(reached)
    while todo:
        for index in before[todo.pop()]:
            if index not in reached:
                reached.add(index)
                todo.append(index)
    return len(reached)
