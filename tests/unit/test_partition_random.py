"""Random models: splitting every table that can be split changes no bit of any answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from partition import plan_package, write_package
from support.packages import run_saved_model, to_plain_saved_model
from support.random_models import SIGNATURES, random_inputs, random_model
from tessera.repository import Repository


@given(st.integers(0, 10**6))
@example(0)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_splitting_changes_no_bit(seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source, plain = Path(directory, "source"), Path(directory, "plain")
        random_model(seed, source)
        rows = plan_package(source, max_shard_bytes=1 << 30).rows
        tables = [row.name for row in rows if row.reason == "the model fits whole"]
        assert len(tables) == len(rows)  # every variable of these models is a table
        repository = Repository(Path(directory, "repository"))
        plan = plan_package(source, max_shard_bytes=1 << 30, split=tables)
        manifest = write_package(plan, repository, model="m", version=1)
        assert len(manifest.tables) == len(tables)
        to_plain_saved_model(repository, manifest, plain)
        for signature in SIGNATURES:
            samples = random_inputs(seed)
            expected = run_saved_model(source, signature, samples)
            found = run_saved_model(plain, signature, samples)
            for one, other in zip(expected, found, strict=True):
                assert {key: value.tobytes() for key, value in one.items()} == {
                    key: value.tobytes() for key, value in other.items()
                }
