"""Which servers are better not asked first: what records and leases say, as far as leases can be believed.

A lease is lost by a server that died, and just as well by etcd, which after a pause of its own ends the leases of
servers that are alive. One says nothing of the other. So leases are ignored where many ends came together: only what
requests meet counts then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from placement.membership import LEASE_TTL_S
from placement.records import MemberState
from placement.snapshot import ClusterSnapshot, ModelView

_log = logging.getLogger("placement.lease_trust")


@dataclass(frozen=True)
class Advice:
    """What came out.

    Attributes:
        avoided: servers that are better not asked while others hold the same rows.
        panicking: models whose leases are ignored, because most of their servers' ended together.
        settled: False while the advice may change without a new snapshot.
    """

    avoided: frozenset[str] = frozenset()
    panicking: frozenset[str] = frozenset()
    settled: bool = True


class LeaseTrust:
    """Judges one snapshot after the other; times are handed in. Not thread-safe.

    Attributes:
        panics: how often leases of a model began to be ignored.
    """

    def __init__(self, ttl_s: float = LEASE_TTL_S) -> None:
        self._ttl_s = ttl_s
        self._lost_s: dict[str, float] = {}
        self._panicking: frozenset[str] = frozenset()
        self.panics = 0

    def judge(self, snapshot: ClusterSnapshot, now_s: float, connected_for_s: float | None) -> Advice:
        """Return what is advised now.

        Args:
            snapshot: the newest.
            now_s: of a clock that never goes back.
            connected_for_s: for how long the store has been heard of without interruption; None while it is not.
        """
        self._lost_s = {
            server: self._lost_s.get(server, now_s) for server, member in snapshot.members.items() if not member.live
        }
        panicking = frozenset(name for name, view in snapshot.models.items() if self._is_panicking(name, view))
        for name in sorted(panicking - self._panicking):
            self.panics += 1
            _log.error("model %s: most of its servers have lost their leases together: leases are ignored", name)
        for name in sorted(self._panicking - panicking):
            _log.info("model %s: most of its servers have leases again", name)
        self._panicking = panicking
        # What a store that has just come back says of leases is about itself.
        fresh = connected_for_s is None or connected_for_s < 2 * self._ttl_s
        ignored = frozenset().union(*(_owners(snapshot.models[name]) for name in panicking))
        lost = frozenset() if fresh else self._lost_s.keys() - ignored
        unready = {s for s, member in snapshot.members.items() if member.record.state is not MemberState.SERVING}
        return Advice(frozenset(lost | unready), panicking, settled=not (fresh and self._lost_s))

    def _is_panicking(self, name: str, view: ModelView) -> bool:
        owners = _owners(view)
        lost_s = sorted(self._lost_s[server] for server in owners if server in self._lost_s)
        most = len(owners) // 2 + 1
        if len(lost_s) < most:
            return False
        together = any(lost_s[i + most - 1] - lost_s[i] <= self._ttl_s for i in range(len(lost_s) - most + 1))
        return together or name in self._panicking


def _owners(view: ModelView) -> frozenset[str]:
    return frozenset(server for placement in view.held for server in placement.servers)
