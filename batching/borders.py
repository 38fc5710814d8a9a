"""The border of a set of ops: the tensors that go in and out, and the light ops that are needed again inside."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from batching.analysis import Analysis, Role
from batching.dims import N
from batching.facts import Kind

_SHAPE_OPS = frozenset({"Shape", "Size", "Rank"})


@dataclass(frozen=True)
class Border:
    """What surrounds a region. Names of tensors, but for `light`, which are names of ops.

    Attributes:
        inputs: rows that go in, each once.
        outputs: rows that come out, each once.
        light: ops that depend on shapes, to be repeated inside, inputs first.
        shapes: Shape, Size or Rank op of `light` → the tensor in or on the border to take the shape of instead of its
            own input; ops that are not there keep theirs.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    light: tuple[str, ...]
    shapes: dict[str, str]


def light_closure(analysis: Analysis, op: tf.Operation) -> list[tf.Operation]:
    """Return the light ops behind an op's inputs that are not the same for every request; the op's own come last."""
    result: dict[str, tf.Operation] = {}
    stack = [tensor for tensor in op.inputs if _depends_on_shapes(analysis, tensor)]
    while stack:
        tensor = stack.pop()
        before = tensor.op
        result.pop(before.name, None)
        result[before.name] = before
        if before.type not in _SHAPE_OPS:
            stack += [source for source in before.inputs if _depends_on_shapes(analysis, source)]
    return list(reversed(result.values()))


def _depends_on_shapes(analysis: Analysis, tensor: tf.Tensor) -> bool:
    return analysis.roles.get(tensor.op.name) is Role.LIGHT and analysis.facts[tensor.name].kind in (
        Kind.DIMS,
        Kind.COUNT,
    )


def light_sources(analysis: Analysis, op: tf.Operation) -> list[tf.Tensor]:
    """Return the tensors whose shapes an op needs through light ops."""
    return [light.inputs[0] for light in light_closure(analysis, op) if _needs_source(analysis, light)]


def _needs_source(analysis: Analysis, light: tf.Operation) -> bool:
    """Whether the value of a light op is not known without the tensor whose shape it takes."""
    if light.type not in _SHAPE_OPS:
        return False
    value = analysis.facts[light.outputs[0].name].value
    return value is None or any(size is None or not size.known for size in value)


def border(analysis: Analysis, inside: set[str]) -> Border:
    """Return the border of a set of ops for which `unusable` is empty."""
    inputs: dict[str, None] = {}
    sources: dict[str, tf.Tensor] = {}
    light: dict[str, None] = {}
    members = [op for op in analysis.order if op.name in inside]
    for op in members:
        for tensor in op.inputs:
            if analysis.facts[tensor.name].kind is Kind.ROWS and tensor.op.name not in inside:
                inputs[tensor.name] = None
        for repeated in light_closure(analysis, op):
            light[repeated.name] = None
            if _needs_source(analysis, repeated):
                sources[repeated.name] = repeated.inputs[0]
    shapes = {}
    for name, tensor in sources.items():
        if tensor.op.name in inside or tensor.name in inputs:
            continue
        same = [other for other in inputs if analysis.facts[other].dims == analysis.facts[tensor.name].dims]
        if same:
            shapes[name] = same[0]
        else:
            inputs[tensor.name] = None
    ordered = [op.name for op in analysis.order if op.name in light]
    return Border(tuple(inputs), _outputs(analysis, inside), tuple(ordered), shapes)


def _outputs(analysis: Analysis, inside: set[str]) -> tuple[str, ...]:
    """Return what others use; a light op outside takes the shape of its own tensor, if anybody needs it at all."""
    outputs: dict[str, None] = {}
    needed: set[str] = set()  # light ops
    level = analysis.level
    for op in reversed(analysis.order):
        if op.name in inside:
            continue
        light = analysis.roles[op.name] is Role.LIGHT
        if light and op.name not in needed and op.name not in level.kept and not _returned(analysis, op):
            continue
        for before in [tensor.op for tensor in op.inputs] + list(op.control_inputs):
            needed.add(before.name)
        outputs.update({tensor.name: None for tensor in op.inputs if tensor.op.name in inside})
    for op in analysis.order:
        if op.name in inside and (op.name in level.kept or _returned(analysis, op)):
            outputs.update({t.name: None for t in op.outputs if op.name in level.kept or t.name in level.results})
    return tuple(sorted(outputs))


def _returned(analysis: Analysis, op: tf.Operation) -> bool:
    return any(tensor.name in analysis.level.results for tensor in op.outputs)


def unusable(analysis: Analysis, inside: set[str]) -> set[str]:
    """Return ops that must not be in the set, with all that comes after them: their border would not be rows.

    A tensor can only cross the border if dimension 0 is exactly the rows.
    """
    if not inside:
        return set()
    edges = border(analysis, inside)
    wrong = set()
    for name in (*edges.inputs, *edges.outputs):
        fact = analysis.facts[name]
        if fact.kind is not Kind.ROWS or fact.dims is None or fact.dims[0] != N:
            wrong.add(name)
    if not wrong:
        return set()
    bad = {
        op.name
        for op in analysis.order
        if op.name in inside
        and any(tensor.name in wrong for tensor in [*op.inputs, *op.outputs, *light_sources(analysis, op)])
    }
    for op in analysis.order:  # inputs first, so one pass finds everything behind
        if op.name in inside and op.name not in bad:
            before = [tensor.op.name for tensor in [*op.inputs, *light_sources(analysis, op)]]
            if any(name in bad for name in before):
                bad.add(op.name)
    return bad
