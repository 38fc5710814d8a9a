"""How well a process follows the cluster, in Prometheus' form; the same for routers and shard servers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

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
    epochs = [
        ((name,), view.placement.epoch) for name, view in sorted(snapshot.models.items()) if view.placement is not None
    ]
    yield gauge("placement_epoch", "Epoch of the placement that is known as current.", ("model_name",), epochs)
