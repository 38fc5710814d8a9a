"""The records that routing needs, apart from the store: kept on disk, told by servers, and put together again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from placement.keys import Keys, Kind
from placement.records import CurrentRecord, MemberRecord
from placement.snapshot import ClusterSnapshot, ModelView, apply
from placement.store import Entry, Event
from tessera.errors import DataLossError

Records = Mapping[str, bytes]


@dataclass(frozen=True)
class Told:
    """What was heard of a model: its pointer, who said so, and its document; None for a model that was unloaded."""

    current: CurrentRecord
    by: str
    document: bytes | None


def routing_records(keys: Keys, snapshot: ClusterSnapshot) -> dict[str, bytes]:
    """Return key → value of pointers, their documents and members, as they are applied in `snapshot`.

    Of a model that is pinned to an older pointer than the store's, that is the older one.
    """
    records = {keys.member(server): member.record.to_bytes() for server, member in snapshot.members.items()}
    for model, view in snapshot.models.items():
        if view.current is not None:
            records[keys.current(model)] = view.current.to_bytes()
        if view.placement is not None:
            records[keys.placement(model, view.placement.epoch)] = view.placement.to_bytes()
    return records


def snapshot_of(keys: Keys, records: Records) -> ClusterSnapshot:
    """Return what `routing_records` said, as a snapshot whose members are not live."""
    events = [Event(key, Entry(key, value, 0, 0), 0) for key, value in sorted(records.items())]
    snapshot = apply(keys, ClusterSnapshot(), events)
    members = {server: replace(member, live=False) for server, member in snapshot.members.items()}
    return replace(snapshot, members=MappingProxyType(members))


def newest(keys: Keys, answers: Mapping[str, Records]) -> dict[str, Told]:
    """Return, for each model, what the highest (generation, epoch) of all answers says.

    Args:
        keys: of the cluster.
        answers: who said it → `routing_records`.

    Raises:
        DataLossError: a record is damaged, a document is missing, or two say different things under the same numbers.
    """
    best: dict[str, Told] = {}
    for by, records in sorted(answers.items()):
        for key, value in sorted(records.items()):
            parsed = keys.parse(key)
            if parsed is None or parsed.kind is not Kind.CURRENT:
                continue
            current = CurrentRecord.from_bytes(value, f"{key}, as {by} has it")
            document = records.get(keys.placement(parsed.model, current.epoch))
            if document is None and not current.unloaded:
                raise DataLossError(f"{key}: {by} names epoch {current.epoch} and does not have its document")
            known = best.get(parsed.model)
            numbers = current.generation, current.epoch
            if known is not None and numbers == (known.current.generation, known.current.epoch):
                if current.digest != known.current.digest:
                    raise DataLossError(
                        f"{key}: (generation, epoch) {numbers} has digest {known.current.digest} at {known.by} and "
                        f"{current.digest} at {by}"
                    )
            elif known is None or numbers > (known.current.generation, known.current.epoch):
                best[parsed.model] = Told(current, by, document)
    return best


def highest_generation(keys: Keys, answers: Mapping[str, Records]) -> int:
    """Return the highest generation that anybody names; 0 if nobody names any.

    Raises:
        DataLossError: a record is damaged.
    """
    pointers = [
        CurrentRecord.from_bytes(value, f"{key}, as {by} has it")
        for by, records in sorted(answers.items())
        for key, value in records.items()
        if (parsed := keys.parse(key)) is not None and parsed.kind is Kind.CURRENT
    ]
    return max((pointer.generation for pointer in pointers), default=0)


def merged(keys: Keys, answers: Mapping[str, Records]) -> dict[str, bytes]:
    """Return the routing records of all answers together: the newest of each model, and every member.

    A server's own word of itself counts more than what others say of it.

    Raises:
        DataLossError: as `newest`.
    """
    records: dict[str, bytes] = {}
    for by, one in sorted(answers.items()):
        for key, value in one.items():
            parsed = keys.parse(key)
            if parsed is None or parsed.kind is not Kind.MEMBER:
                continue
            if key not in records or MemberRecord.from_bytes(value, key).address == by:
                records[key] = value
    for model, told in newest(keys, answers).items():
        records[keys.current(model)] = told.current.to_bytes()
        if told.document is not None:
            records[keys.placement(model, told.current.epoch)] = told.document
    return records


def with_records(keys: Keys, snapshot: ClusterSnapshot, records: Records) -> tuple[ClusterSnapshot, list[str]]:
    """Return `snapshot` with the placements of `records` that are newer, and their models; unknown members join it.

    The raw entries stay as they are: what the store says next is compared with what it said last.

    Raises:
        DataLossError: a record is damaged, or a document is missing or another than its pointer's.
    """
    heard = snapshot_of(keys, records)
    if heard.problems:
        raise DataLossError("; ".join(heard.problems[key] for key in sorted(heard.problems)))
    models, newer = dict(snapshot.models), []
    for model, view in heard.models.items():
        known = models.get(model, ModelView())
        had = (known.current.generation, known.current.epoch) if known.current is not None else (0, 0)
        if view.current is not None and (view.current.generation, view.current.epoch) > had:
            models[model] = replace(known, current=view.current, placement=view.placement, target=None, base=None)
            newer.append(model)
    members = {**heard.members, **snapshot.members}
    return replace(snapshot, models=MappingProxyType(models), members=MappingProxyType(members)), newer
