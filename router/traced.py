"""What serves a model, over routes of its own that keep what lookups do: what `router.explain_service` asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cpp_ext import _graph, _rpc
from placement.records import PackageRef, Placement
from router.packages import LoadedPackage, RoutedVersion, native_versions, open_route


@dataclass(frozen=True)
class Traced:
    """What serves a model.

    Attributes:
        epoch: of the placement; 0 for a model without one.
        versions: all that serve.
        traffic: the model's split under its name, if it has one.
        labels: the model's labels under its name.
        routes: version → its route, and `digests` version → digest of its package; of those that have tables.
    """

    epoch: int
    versions: Sequence[_graph.Version]
    traffic: Mapping[str, _graph.TrafficSplit]
    labels: Mapping[str, Mapping[str, int]]
    routes: Mapping[int, _rpc.Route] = field(default_factory=dict)
    digests: Mapping[int, str] = field(default_factory=dict)


def trace_packages(
    fanout: _rpc.Fanout,
    placement: Placement,
    addresses: tuple[str, ...],
    packages: Sequence[tuple[PackageRef, LoadedPackage]],
    traffic: Mapping[str, _graph.TrafficSplit],
    labels: Mapping[str, Mapping[str, int]],
) -> Traced:
    """Return `packages`, which serve in `placement`, over routes of their own."""
    routes = {
        reference.version: route
        for reference, package in packages
        if (route := open_route(fanout, placement, reference, package.manifest, addresses, trace=True)) is not None
    }
    versions = [
        RoutedVersion(
            reference.version,
            package.graph,
            routes[reference.version].capsule() if reference.version in routes else None,
        )
        for reference, package in packages
    ]
    native = native_versions(versions, labels.get(placement.model, {}), ())
    digests = {reference.version: reference.digest for reference, _ in packages}
    return Traced(placement.epoch, native, traffic, labels, routes, digests)
