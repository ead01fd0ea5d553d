"""One epoch of a loader, as the loop sees it: the iterator, and what it has done so far.

An iteration starts its thread at the first ``next()``. However it ends (exhausted, closed, forgotten, by an error), its
thread is told to stop, and nothing of it is held any more but a few numbers.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from h5fast._feed import Feed
from h5fast.pipeline import Pipeline

__all__ = ["Begun", "Costing", "Epoch", "Run", "no_stats"]

# Seconds after which whoever waits for its turn sees whether it waits for itself.
_LOOK_UP = 0.05


def no_stats() -> dict[str, Any]:
    """The statistics of an epoch that did not begin."""
    return {"epoch": 0, "rows": 0, "batches": 0, "dropped": 0, "chunks": 0, "decodes": 0, "bytes_read": 0, "peak_bytes": 0,
            "wait_consumer_s": 0.0, "wait_readers_s": 0.0, "fields": {}}


class Costing(Protocol):
    """What counts the costs of a field."""

    def costs(self) -> tuple[int, int, int]:
        """(chunks that the epoch took a row of, chunks decoded, bytes read) so far."""


class Run:
    """What an iteration has done so far. It outlives the iteration, and knows neither it nor the loader.

    Args:
        number: of the epoch
        begun: rows of it that were done with before, of all processes together
        per_batch: rows of a batch of all processes together
        steps: batches that are to come
        feed: what fills them
        columns: the fields that are read from files, by name
        held: bytes that the loader may hold for it
    """

    def __init__(self, number: int, begun: int, per_batch: int, steps: int, feed: Feed, columns: Mapping[str, Costing],
                 held: int) -> None:
        self.number, self.begun = number, begun
        self.batches = self.rows = self.dropped = 0
        self._per_batch, self._steps = per_batch, steps
        self._feed: Feed | None = feed
        self._columns, self._held = columns, held
        self._done = 0  # batches of the schedule, also those of which no row was left
        self._last_seen: dict[str, Any] = {}

    def count(self, rows: int, dropped: int) -> None:
        """One more batch was taken."""
        self._done += 1
        self.batches += rows > 0
        self.rows += rows
        self.dropped += dropped

    @property
    def is_complete(self) -> bool:
        """Whether all batches were taken."""
        return self._done == self._steps

    @property
    def taken(self) -> int:
        """Rows of the epoch that are done with, of all processes together."""
        return self.begun + self._done * self._per_batch

    def stats(self) -> dict[str, Any]:
        """See :meth:`h5fast.Loader.stats`."""
        found = no_stats()
        found.update(self._last_seen if self._feed is None else self._costs(self._feed))
        found.update(epoch=self.number, rows=self.rows, batches=self.batches, dropped=self.dropped)
        return found

    def let_go(self) -> None:
        """Holds nothing of the feed any more, if that is over."""
        if self._feed is not None and self._feed.is_over:
            self._last_seen, self._feed, self._columns = self._costs(self._feed), None, {}

    def _costs(self, feed: Feed) -> dict[str, Any]:
        fields = {}
        for name, column in self._columns.items():
            chunks, decodes, read = column.costs()
            fields[name] = {"chunks": chunks, "decodes": decodes, "bytes_read": read}
        kinds = ("chunks", "decodes", "bytes_read")
        found: dict[str, Any] = {kind: sum(field[kind] for field in fields.values()) for kind in kinds}
        found["wait_readers_s"], found["wait_consumer_s"] = feed.waits()
        return {**found, "fields": fields, "peak_bytes": self._held + feed.nbytes}


@dataclass(frozen=True)
class Begun:
    """What an iteration has once it began.

    Attributes:
        run: what it has done so far
        pipeline: where its batches come from
        shape: makes a batch, in the form that was asked for, of what the pipeline hands out
    """

    run: Run
    pipeline: Pipeline
    shape: Callable[[Any], Any]


class Epoch:
    """One iteration. It starts at the first ``next()``, and ends when it is exhausted, closed or forgotten.

    Several threads may take batches of it in turn.

    Args:
        begin: takes the next epoch of the loader; it keeps the loader alive
    """

    def __init__(self, begin: Callable[[], Begun]) -> None:
        self._begin = begin
        self._begun: Begun | None = None
        self._is_closed = False
        self._forgotten: weakref.finalize[[], Epoch] | None = None
        self._taking = threading.Lock()

    def __iter__(self) -> Epoch:
        return self

    def __next__(self) -> Any:
        self._refuse_itself()
        while not self._taking.acquire(timeout=_LOOK_UP):
            self._refuse_itself()  # the thread that makes the first batch may be here before it is known
        try:
            if self._is_closed:
                raise StopIteration
            try:
                return self._next(self._begun or self._started())
            except BaseException:  # without waiting: the thread may be in a function of the user's that takes its time
                self._end()
                raise
        finally:
            self._taking.release()

    def _refuse_itself(self) -> None:
        begun = self._begun
        if begun is not None and threading.current_thread() is begun.pipeline.worker:
            raise RuntimeError("a transform or allocator of a loader asked for the batch that it is to make")

    def _next(self, begun: Begun) -> Any:
        while True:
            taken = begun.pipeline.take()
            if taken is None:
                if begun.run.is_complete:
                    begun.pipeline.join()
                elif not self._is_closed:
                    raise ValueError("this loader was closed in the middle of an epoch")
                raise StopIteration
            batch, rows, dropped = taken
            begun.run.count(rows, dropped)
            if rows:  # of a batch all of whose chunks are damaged there is nothing to hand out
                return begun.shape(batch)

    def _started(self) -> Begun:
        self._begun = begun = self._begin()
        # Not the pipeline's: that may know the loader, which would then live as long as this.
        self._forgotten = weakref.finalize(self, begun.pipeline.feed.stop)
        if self._is_closed:  # meanwhile, by another thread, which did not know what there was to stop
            begun.pipeline.stop()
        return begun

    def _end(self) -> Pipeline | None:
        """Tells the thread to stop, and forgets it."""
        self._is_closed = True
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        if self._forgotten is not None:
            self._forgotten.detach()
        begun.pipeline.stop()
        begun.run.let_go()
        return begun.pipeline

    def close(self) -> None:
        """Ends it, and waits until its thread has. Whoever waits for a batch gets none. May be called again."""
        pipeline = self._end()
        if pipeline is not None:
            pipeline.join()
