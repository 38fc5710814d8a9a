"""Rules of reductions, scans and choices along a dimension."""

from __future__ import annotations

from batching.dims import ONE, Dim, Dims
from batching.facts import OpFacts, Refused
from batching.rules import each_output, not_rows, positive, rule

_REDUCTIONS = ["Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm"]


@rule(*_REDUCTIONS)
def _reduce(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    axes = {positive(int(axis), len(rows)) for axis in facts.constant(1).reshape(-1)}
    if 0 in axes:
        raise Refused("mixes rows: reduces dimension 0")
    if facts.attr("keep_dims"):
        return [tuple(ONE if axis in axes else size for axis, size in enumerate(rows))]
    return [tuple(size for axis, size in enumerate(rows) if axis not in axes)]


@rule("ArgMax", "ArgMin")
def _arg(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    axis = not_rows(int(facts.constant(1)), len(rows), "chooses")
    return [tuple(size for position, size in enumerate(rows) if position != axis)]


@rule("Cumsum", "Cumprod", "CumulativeLogsumexp")
def _scan(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    not_rows(int(facts.constant(1)), len(rows), "adds up")
    return [rows]


@rule("TopK", "TopKV2")
def _top_k(facts: OpFacts) -> list[Dims]:
    rows = facts.rows(0)
    not_rows(-1, len(rows), "chooses")
    if facts.op.type == "TopK":
        count = Dim(int(facts.attr("k")))
    else:
        value = facts.shared(1).value
        count = value[0] if value and value[0] is not None else Dim(1, (f"{facts.op.name}#k",))
    return each_output(facts, (*rows[:-1], count))


@rule("InTopKV2")
def _in_top_k(facts: OpFacts) -> list[Dims]:
    facts.shared(2)
    rows, targets = facts.rows(0), facts.rows(1)
    if rows[0] != targets[0]:
        raise Refused("its inputs have different numbers of rows")
    return [targets]
