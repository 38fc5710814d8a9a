"""Changes of placement on virtual time over a store that delays, loses, repeats and forgets; a seed repeats its run."""

import os

import pytest

from support.simulation import Simulation

SEEDS = int(os.environ.get("TESSERA_SEEDS", "40"))
"""`TESSERA_SEEDS=10000 pytest tests/unit/test_reshard_simulated.py` for a night."""
BLOCK = 10


@pytest.mark.timeout(0 if SEEDS > 1000 else 120)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_request_fails_and_everything_ends_whatever_the_store_does(first: int) -> None:
    ended = []
    for seed in range(first, first + BLOCK):
        try:
            run = Simulation(seed).run()
        except BaseException:
            print(f"seed {seed}: Simulation({seed}).run()")
            raise
        assert run.failures == [], f"seed {seed}"
        assert run.requests > 20, f"seed {seed}"
        ended += run.states
    assert ended


@pytest.mark.timeout(0 if SEEDS > 1000 else 120)
@pytest.mark.parametrize("first", range(0, SEEDS // 4, BLOCK))
def test_with_controllers_that_are_killed_it_is_the_same_and_they_end_what_commands_left(first: int) -> None:
    ended = []
    for seed in range(first, first + BLOCK):
        try:
            run = Simulation(seed, controllers=2).run()
        except BaseException:
            print(f"seed {seed}: Simulation({seed}, controllers=2).run()")
            raise
        assert run.failures == [], f"seed {seed}"
        assert run.requests > 20, f"seed {seed}"
        ended += run.states
    assert ended
