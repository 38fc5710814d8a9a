"""Fetches the blobs that a server lacks, several at a time, on threads that stand back for lookups.

Memory is bounded by a chunk a thread. A blob comes from the first source that has it whole. When it is damaged there,
or the source fails, the next one is asked, and the log and the server's record tell of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from placement.records import StagingRecord
from shard_server.staging.blob_dir import BlobDir
from shard_server.staging.origin import Source
from shard_server.staging.partial_blob import PartialBlob
from shard_server.staging.progress import Progress
from shard_server.staging.queue import StagingQueue
from shard_server.staging.rate_limit import RateLimit
from shard_server.staging.service import CHUNK_BYTES, stand_back
from tessera.clock import Clock, SystemClock
from tessera.errors import (
    AbortedError,
    DataLossError,
    NotFoundError,
    ResourceExhaustedError,
    TesseraError,
    UnavailableError,
)

_log = logging.getLogger("shard_server.staging")

_DISTRUST_S = 10.0
"""How long a source that did not answer is asked last."""


@dataclass(frozen=True)
class StagingCounts:
    """Bytes that were read from sources, and how often something was wrong with one (damage, silence, refusal)."""

    fetched_bytes: int = 0
    problems: int = 0


SourcesOf = Callable[[str], Sequence[Source]]


class _SourceError(Exception):
    """A source could not be read."""

    def __init__(self, error: TesseraError) -> None:
        super().__init__(error.message)
        self.error = error


class Stager:
    """See the module. Thread-safe; `stop` ends it.

    Args:
        blob_dir: where blobs go.
        on_change: is called, on any thread, when nothing is missing any more, and when `problem` changes.
        parallel: blobs that are fetched at once.
        limit: bytes per second of all together.
        chunk_bytes: what is asked for at once.
        clock: for rates, pauses and distrust.
    """

    def __init__(
        self,
        blob_dir: BlobDir,
        on_change: Callable[[], None],
        *,
        parallel: int,
        limit: RateLimit,
        chunk_bytes: int = CHUNK_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._dir, self._on_change, self._limit, self._chunk_bytes = blob_dir, on_change, limit, chunk_bytes
        self._clock = clock or SystemClock()
        self._parallel = parallel
        self._queue = StagingQueue(self._clock)
        self._progress = Progress(self._clock, limit.bytes_per_s)
        self._sources_of: SourcesOf = lambda digest: ()
        self._distrusted: dict[str, float] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def want(self, blobs: Mapping[str, int], sources_of: SourcesOf) -> None:
        """Fetch these blobs (digest → bytes) that are not there, and nothing else; returns at once.

        `sources_of` returns where a blob may be had, best first; it is called on other threads.

        Raises:
            ResourceExhaustedError: there is no memory for a thread that fetches.
        """
        with self._changed:
            if self._stopping.is_set():
                return
            self._queue.want(blobs)
            self._sources_of = sources_of
            self._progress.expect(sum(self._queue.left.values()))
            if blobs and not self._threads:
                for number in range(self._parallel):
                    # Daemons: one that hangs on a dead file system must not keep the process.
                    thread = threading.Thread(target=self._run, name=f"staging-{number}", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError as error:
                        if self._threads:  # fewer will do
                            break
                        raise ResourceExhaustedError(f"memory: there is none for fetching blobs: {error}") from error
                    self._threads.append(thread)
            self._changed.notify_all()

    @property
    def problem(self) -> str:
        """Why a blob could not be had from any source; it is tried again. Empty: nothing is wrong."""
        with self._changed:
            return self._queue.problem

    def counts(self) -> StagingCounts:
        """Return what was counted since the start."""
        with self._changed:
            return StagingCounts(self._progress.fetched_bytes, self._progress.problems)

    def progress(self) -> StagingRecord:
        """Return how far it is."""
        with self._changed:
            return self._progress.record()

    def stop(self, timeout_s: float) -> None:
        """End after the chunks that are on their way, at most `timeout_s` later; what was begun stays on the disk."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        deadline_s = self._clock.monotonic_s() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - self._clock.monotonic_s()))

    def _run(self) -> None:
        stand_back()
        while True:
            with self._changed:
                if self._stopping.is_set():  # under the lock: what is told between a look and the wait would be lost
                    return
                taken = self._queue.take()
                if taken is None:
                    self._changed.wait(self._queue.pause_s())
                    continue
                sources_of = self._sources_of
            self._stage(*taken, sources_of)

    def _stage(self, digest: str, size_bytes: int, sources_of: SourcesOf) -> None:
        problem = ""
        try:
            self._bring(digest, size_bytes, sources_of)
        except AbortedError:
            with self._changed:
                self._queue.given_up(digest)
                self._progress.ended(digest, 0)
            return
        except TesseraError as error:
            problem = error.message
        except Exception as error:  # noqa: BLE001 (a bug, or a library's, must not end the thread)
            _log.exception("blob %s", digest)
            problem = f"blob {digest}: {type(error).__name__}"
        with self._changed:
            before = self._queue.problem
            self._progress.ended(digest, 0 if problem or not self._queue.is_wanted(digest) else size_bytes)
            if problem:
                self._queue.failed(digest, problem)
            else:
                self._queue.done(digest)
            changed = self._queue.problem != before or not self._queue.left
        if problem:
            _log.warning("%s; it is tried again", problem)
        if changed:
            self._on_change()

    def _bring(self, digest: str, size_bytes: int, sources_of: SourcesOf) -> None:
        """Make the blob be there, verified.

        Raises:
            AbortedError: it is no longer wanted, or everything ends.
            UnavailableError: no source has it now; says what each said. Or the disk does not take it.
            ResourceExhaustedError: there is no room for it.
        """
        if self._dir.is_verified(digest):
            return
        if self._dir.has(digest, size_bytes):
            try:
                self._dir.verify(digest, size_bytes)
                return
            except (NotFoundError, DataLossError) as error:
                self._report(f"{error.message}; fetching it again")
        with self._dir.coming(digest, size_bytes) as blob:
            self._fetch(blob, self._in_order(sources_of(digest)))

    def _fetch(self, blob: PartialBlob, sources: Sequence[Source]) -> None:
        problems = [] if sources else ["no source is known"]
        for source in sources:
            for _ in range(2):
                begun = blob.offset > 0  # by another source, or an earlier process: either may be at fault
                try:
                    self._copy(blob, source)
                    blob.finish()
                    return
                except _SourceError as failed:
                    problems.append(failed.error.message)
                    self._distrust(source, failed.error)
                    break
                except DataLossError as error:
                    blob.restart()
                    problems.append(f"{source.name}: {error.message}")
                    if not begun:
                        self._report(f"damaged at {source.name}: {error.message}")
                        break
        raise UnavailableError(f"blob {blob.digest}: cannot be had: {'; '.join(problems)}")

    def _copy(self, blob: PartialBlob, source: Source) -> None:
        """Append what is missing; nothing is verified yet."""
        with self._changed:
            self._progress.begun(blob.digest, blob.offset)
        while blob.offset < blob.size_bytes:
            length = min(self._chunk_bytes, blob.size_bytes - blob.offset)
            if self._stopping.wait(self._limit.reserve(length)) or not self._queue.is_wanted(blob.digest):
                raise AbortedError(f"blob {blob.digest}: is not fetched any more")
            try:
                chunk = source.read(blob.digest, blob.offset, length)
            except TesseraError as error:
                raise _SourceError(error) from error
            if not chunk:
                raise DataLossError(f"blob {blob.digest}: ends after {blob.offset} bytes, expected {blob.size_bytes}")
            blob.write(chunk)
            with self._changed:
                self._progress.fetched(len(chunk))
                self._progress.begun(blob.digest, blob.offset)

    def _in_order(self, sources: Sequence[Source]) -> list[Source]:
        """Return the sources, those last that did not answer lately."""
        now_s = self._clock.monotonic_s()
        with self._changed:
            self._distrusted = {name: until_s for name, until_s in self._distrusted.items() if until_s > now_s}
            return sorted(sources, key=lambda source: source.name in self._distrusted)

    def _distrust(self, source: Source, error: TesseraError) -> None:
        if isinstance(error, NotFoundError):
            return  # it answers; it has dropped the blob, or not got it yet
        with self._changed:
            self._distrusted[source.name] = self._clock.monotonic_s() + _DISTRUST_S
        self._report(error.message)

    def _report(self, problem: str) -> None:
        _log.warning("%s", problem)
        with self._changed:
            self._progress.tell(problem)
