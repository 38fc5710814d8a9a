"""How well a process follows the cluster, in Prometheus' form; the same for routers and shard servers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from placement.coverage import fewest_ready_owners
from placement.snapshot import ClusterSnapshot
from placement.view import ViewReading
from tessera.metric_families import counter, gauge


def view_metrics(reading: ViewReading) -> Iterator[Metric]:
    """Yield what is known of the cluster, and how old it is."""
    snapshot, status = reading.snapshot, reading.status
    text = "1 while the last exchange with etcd went well."
    yield gauge("store_connected", text, (), [((), int(status.connected))])
    ages = [] if status.last_contact_age_s is None else [((), status.last_contact_age_s)]
    yield gauge("store_last_contact_age_seconds", "Time since etcd was last heard of; absent before.", (), ages)
    relists = [((reason,), count) for reason, count in sorted(status.relists.items())]
    yield counter("store_relists", "Full listings of the cluster's records, by reason.", ("reason",), relists)
    text = "Records of the cluster that cannot be read or applied now; the log names them."
    yield gauge("store_problems", text, (), [((), len(snapshot.problems))])
    yield from _placements(snapshot)
    operations = [
        ((name, one.kind, "STOPPED" if one.stopped else one.state.value), 1)
        for name, view in sorted(snapshot.models.items())
        if (one := view.operation) is not None and one.active
    ]
    text = "1 for the state that the change of a model's placement is in, while one is under way."
    yield gauge("operation_state", text, ("model_name", "kind", "state"), operations)


def _placements(snapshot: ClusterSnapshot) -> Iterator[Metric]:
    placements = [
        (name, view.placement) for name, view in sorted(snapshot.models.items()) if view.placement is not None
    ]
    epochs = [((name,), placement.epoch) for name, placement in placements]
    yield gauge("placement_epoch", "Epoch of the placement that is known as current.", ("model_name",), epochs)
    split = [(name, placement) for name, placement in placements if placement.servers]
    replicas = [((name,), placement.replicas) for name, placement in split]
    yield gauge("placement_replicas", "Servers that each slot of it should have.", ("model_name",), replicas)
    owners = [((name,), fewest_ready_owners(snapshot, placement)) for name, placement in split]
    text = "Ready servers of the slot of it that has the fewest."
    yield gauge("placement_ready_owners", text, ("model_name",), owners)
