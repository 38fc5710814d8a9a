"""Chooses regions: sets of ops that act row by row, convex (no path leaves and comes back), with work in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import tensorflow as tf

from batching.analysis import Analysis, Role
from batching.borders import Border, border, light_sources, unusable
from batching.facts import Kind
from batching.level import predecessors
from batching.weight import is_heavy, row_bytes, work

_IDLE = frozenset({"Identity", "IdentityN"})


@dataclass(frozen=True)
class Region:
    """A set of ops to be batched.

    Attributes:
        ops: names of the ops that act row by row, inputs first.
        border: what goes in and out, and which light ops it needs inside.
        users: signatures that need it; ("body",) in a loop.
        work: estimated multiplications for one row.
        heavy: names of the ops that are worth it.
    """

    ops: tuple[str, ...]
    border: Border
    users: frozenset[str]
    work: int
    heavy: tuple[str, ...]


def find_regions(analysis: Analysis, *, remote: frozenset[str], allowed: Callable[[str], bool]) -> list[Region]:
    """Return disjoint regions, the one with the most work first.

    Args:
        analysis: of a level.
        remote: names of the variables whose rows will be looked up on servers.
        allowed: whether an op of that name may be in a region.
    """
    candidates = {
        op.name for op in analysis.order if analysis.roles[op.name] is Role.ROWS and allowed(op.name)
    } - _half_usable(analysis)
    best: list[Region] = []
    for forward in (True, False):
        found = _regions(analysis, candidates, remote, forward)
        if sum(region.work for region in found[:1]) > sum(region.work for region in best[:1]):
            best = found
    return best


def _half_usable(analysis: Analysis) -> set[str]:
    """Return ops with an output that is no rows and is used: it could not leave the region."""
    used = {tensor.name for op in analysis.order for tensor in op.inputs}
    return {
        op.name
        for op in analysis.order
        if analysis.roles[op.name] is Role.ROWS
        and any(t.name in used and analysis.facts[t.name].kind is not Kind.ROWS for t in op.outputs)
    }


def _regions(analysis: Analysis, candidates: set[str], remote: frozenset[str], forward: bool) -> list[Region]:
    """Cut the candidates into convex groups, and each group into valid regions."""
    found: list[Region] = []
    rejected: set[str] = set()
    while True:
        stages = _stages(analysis, candidates - rejected, forward)
        groups = _connected(analysis, stages)
        invalid = set().union(*(unusable(analysis, group) for group in groups)) if groups else set()
        if not invalid:
            break
        rejected |= invalid
    for group in groups:
        trimmed = _trimmed(analysis, group, remote)
        heavy = [op.name for op in analysis.order if op.name in trimmed and is_heavy(op, analysis.facts, remote)]
        if heavy and not unusable(analysis, trimmed):
            ordered = [op for op in analysis.order if op.name in trimmed]
            found.append(
                Region(
                    ops=tuple(op.name for op in ordered),
                    border=border(analysis, trimmed),
                    users=analysis.level.users[ordered[0].name],
                    work=sum(work(op, analysis.facts) for op in ordered),
                    heavy=tuple(heavy),
                )
            )
    return sorted(found, key=lambda region: (-region.work, region.ops[0]))


def _stages(analysis: Analysis, candidates: set[str], forward: bool) -> dict[str, int]:
    """Return candidate → how often a path to it (forward) or from it leaves the candidates.

    Two candidates of one stage have no path between them that leaves: a path that left comes back at a later stage.
    """
    followers: dict[str, list[str]] = defaultdict(list)
    before: dict[str, list[str]] = defaultdict(list)
    for op in analysis.order:
        if analysis.roles[op.name] is Role.LIGHT:
            continue
        sources = [p.name for p in predecessors(op) if analysis.roles.get(p.name, Role.LIGHT) is not Role.LIGHT]
        sources += [tensor.op.name for tensor in light_sources(analysis, op)]
        for name in sources:
            followers[name].append(op.name)
            before[op.name].append(name)
    order = [op.name for op in analysis.order if analysis.roles[op.name] is not Role.LIGHT]
    stages: dict[str, int] = {}
    for name in order if forward else reversed(order):
        inside = name in candidates
        stages[name] = max(
            (
                stages[other] + (not inside and other in candidates)
                for other in (before if forward else followers)[name]
                if other in stages
            ),
            default=0,
        )
    return {name: stage for name, stage in stages.items() if name in candidates}


def _connected(analysis: Analysis, stages: dict[str, int]) -> list[set[str]]:
    """Return the ops of one stage and the same users that hang together, by an edge or by a common input."""
    parent = {name: name for name in stages}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    users = analysis.level.users
    readers: dict[tuple[str, int, frozenset[str]], str] = {}
    for op in analysis.order:
        if op.name not in stages:
            continue
        for tensor in [*op.inputs, *light_sources(analysis, op)]:
            before = tensor.op.name
            if before in stages and stages[before] == stages[op.name] and users[before] == users[op.name]:
                parent[root(before)] = root(op.name)
            elif analysis.facts[tensor.name].kind is Kind.ROWS:
                key = (tensor.name, stages[op.name], users[op.name])
                parent[root(readers.setdefault(key, op.name))] = root(op.name)
    groups: dict[str, set[str]] = defaultdict(set)
    for name in stages:
        groups[root(name)].add(name)
    return list(groups.values())


def _trimmed(analysis: Analysis, group: set[str], remote: frozenset[str]) -> set[str]:
    """Leave out ops at both ends, as long as fewer bytes go in and out without them, or they do nothing anyway."""
    inside = set(group)
    changed = True
    while changed:
        changed = False
        for op in _ends(analysis, inside):
            if is_heavy(op, analysis.facts, remote):
                continue
            smaller = inside - {op.name}
            now, then = _bytes(analysis, inside), _bytes(analysis, smaller)
            if (then < now or (then == now and op.type in _IDLE)) and not unusable(analysis, smaller):
                inside = smaller
                changed = True
                break
    return inside


def _ends(analysis: Analysis, inside: set[str]) -> Iterable[tf.Operation]:
    """Return the ops without predecessors inside, then those without followers inside."""
    members = [op for op in analysis.order if op.name in inside]
    needed = {tensor.op.name for op in members for tensor in [*op.inputs, *light_sources(analysis, op)]}
    first = [op for op in members if not any(t.op.name in inside for t in [*op.inputs, *light_sources(analysis, op)])]
    last = [op for op in reversed(members) if op.name not in needed]
    return [*last, *first]


def _bytes(analysis: Analysis, inside: set[str]) -> int:
    if not inside:
        return 0
    edges = border(analysis, inside)
    tensors = [analysis.level.graph.get_tensor_by_name(name) for name in (*edges.inputs, *edges.outputs)]
    return sum(row_bytes(tensor, analysis.facts[tensor.name]) for tensor in tensors)
