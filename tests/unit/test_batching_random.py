"""Random graphs: every region that is found acts row by row, and the pairs change no bit of any answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from batching.apply import with_pairs
from batching.plan import find
from batching.probe import Probe
from batching.verify import check_rows
from partition.batched import ModelValues, model_graph
from support.batch_search import answers, check_pairs, functional_model
from support.random_rows import random_rows_inputs, random_rows_model


@given(st.integers(0, 10**6))
@example(0)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_regions_of_random_graphs(seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        random_rows_model(seed, Path(directory))
        model = functional_model(Path(directory))
        graph = model_graph(model)
        plan = find(graph)
        values = ModelValues(model).read
        found = {name: (part, region) for part in plan.walk() for name, region in part.regions.items()}
        for part, region in found.values():
            with Probe(part, region, values) as probe:
                assert check_rows(probe) == ""
        after = with_pairs(graph.graph_def, plan, frozenset(found))
        assert check_pairs(after) == len(found)
        for inputs in random_rows_inputs(seed):
            expected = answers(model, graph.graph_def, "serving_default", inputs)
            batched = answers(model, after, "serving_default", inputs)
            assert {key: value.tobytes() for key, value in expected.items()} == {
                key: value.tobytes() for key, value in batched.items()
            }
