"""Changes of all kinds, one after the other at random, under an open loop of requests with checked answers."""

from __future__ import annotations

import os
import random

import pytest

from placement.records import Placement
from support.command_line import tessera_here
from support.open_load import OpenLoad
from support.proxied_cluster import ProxiedCluster
from support.resharding import flags, found, reshard_command
from support.running import ClusterFactory
from support.small_model import MODEL, SmallModel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

_CHANGES = int(os.environ.get("TESSERA_FAULT_CHANGES", "20"))
_SEED = int(os.environ.get("TESSERA_FAULT_SEED", "1"))
_SERVERS = ("server-0", "server-1", "server-2", "server-3")


def _random_change(rng: random.Random, placement: Placement) -> list[str]:
    """Return the flags of a change that is possible with what serves now."""
    servers, replicas = placement.servers, placement.replicas
    absent = [server for server in _SERVERS if server not in servers]
    possible = [f"--relayout={12288 - placement.slots}", "--rebalance", f"--replicas={3 - replicas}"]
    possible += [f"--add={rng.choice(absent)}"] if absent else []
    possible += [f"--remove={rng.choice(servers)}"] if len(servers) > 2 else []
    if replicas == 1:
        target = rng.randrange(len(servers))
        first = rng.choice([slot for slot, owners in enumerate(placement.slot_servers) if target not in owners])
        possible += [f"--move=slots={first}-{_last(placement, first, target)},to={servers[target]}"]
    return [rng.choice(possible)]


def _last(placement: Placement, first: int, target: int) -> int:
    """Return the last of the slots from `first` on that the server `target` has not."""
    last = first
    while last + 1 < placement.slots and target not in placement.slot_servers[last + 1]:
        last += 1
    return last


def test_changes_of_all_kinds_in_a_loop(start_cluster: ClusterFactory, small_model: SmallModel) -> None:
    cluster = start_cluster(make=ProxiedCluster, shards=4, replicas=2, versions=(1,))
    assert isinstance(cluster, ProxiedCluster)
    rng = random.Random(_SEED)
    known = [f"--repository={small_model.repository}", "--yes", *flags(cluster)]
    version, done = 1, 0
    with OpenLoad({"router": cluster.router_address}, small_model, serving=frozenset({1})) as load:
        load.wait_for_answers(50)
        with load.fault("10", f"{_CHANGES} changes: servers, replicas, slots, moves, rollouts (seed {_SEED})") as fault:
            while done < _CHANGES:
                placement = found(cluster).current_placement
                assert placement is not None
                if rng.random() < 0.25:
                    version = 3 - version
                    load.serving = frozenset({1, 2})
                    change = ["model", "rollout", MODEL, str(version), *known]
                else:
                    flag = _random_change(rng, placement)
                    change = reshard_command(cluster, "start", *flag)
                changed = tessera_here(*change)
                assert changed.returncode == 0, (change, changed.stdout, changed.stderr)
                done += "nothing to change" not in changed.stdout + changed.stderr
                load.wait_for_answers(25)
                load.serving = frozenset({version})
                assert load.failures == [], change
            fault.recovered()
        load.wait_for_answers(50)
    assert load.failures == []
    after = found(cluster)
    assert after.current_placement is not None
    held = {name: member.bytes_used for name, member in after.members.items()}
    planned = tessera_here(*reshard_command(cluster, "plan", "--rebalance"))
    assert planned.returncode == 0, planned.stderr
    assert all(held[name] == 0 for name in held.keys() - set(after.current_placement.servers)), held
    checked = tessera_here("cluster", "check", f"--repository={small_model.repository}", "--rows=500", *flags(cluster))
    assert checked.returncode == 0, checked.stdout + checked.stderr
