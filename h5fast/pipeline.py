"""Batches made ahead by a thread, and how they are handed out.

The thread runs the engine, which holds no lock of Python's while it works; only fields that the engine cannot read, and
the user's own function, make it come back to Python for each batch.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from h5fast._feed import Feed
from h5fast.kept_rows import size_of

__all__ = ["Pipeline", "Stage", "Worker"]

Arrays = list[np.ndarray]
Stage = Callable[[int, Arrays, np.ndarray], tuple[Any, int]]
"""Makes a batch of its number, the engine's arrays and the items that are in them, and says how many rows it has: it may leave
out some."""

# Seconds that the end of the interpreter waits for a function of the user's that a thread is in.
_PATIENCE = 1.0
# Seconds after which a thread that waits for room sees that it was told to stop.
_LOOK_UP = 0.05


class Worker(threading.Thread):
    """The thread that fills batches. It knows neither pipeline nor iterator, so that these can be collected while it runs.

    Args:
        feed: what fills the batches
        stage: what is done to each of them in Python; None if nothing is
        room: bytes that what is made so may take before it is taken; one batch is made in any case
    """

    def __init__(self, feed: Feed, stage: Stage | None, room: int) -> None:
        super().__init__(daemon=True, name="h5fast loader")
        self._made: dict[int, tuple[Any, int, int]] = {}  # by place of the ring: what the stage made, its rows and bytes
        self._taken = threading.Condition()
        self._room = room
        self.failures: list[BaseException] = []
        self.is_complete = False  # it filled every batch that there was to fill
        self.is_in_python = False
        self._feed: Feed | None = feed  # None: it is done with it
        self._stage = stage
        self._process = os.getpid()

    def run(self) -> None:
        """Fills all there is to fill, whatever happens tells the taker."""
        feed, stage = self._feed, self._stage
        assert feed is not None
        try:
            if stage is None:
                feed.run()
            else:
                self._fill(feed, stage)
        except StopIteration as error:  # it would end the taker's loop, as if the epoch were over
            failure = RuntimeError("the loader's transform raised StopIteration")
            failure.__cause__ = error
            self.failures.append(failure)
        except BaseException as error:  # whatever it is, it is the taker who has to see it
            self.failures.append(error)
        finally:
            self.is_in_python = False
            self.is_complete = feed.is_complete
            feed.end()
            self._feed = self._stage = None

    def _fill(self, feed: Feed, stage: Stage) -> None:
        nbytes = 0  # of the batch made last
        while (place := feed.fill()) >= 0:
            arrays, step, items, _ = feed.batch(place)
            if len(items):
                self._wait_for_room(feed, nbytes)
                self.is_in_python = True
                batch, rows = stage(step, arrays, items)
                nbytes = _bytes_of(batch, arrays)
                self._made[place] = batch, rows, nbytes
                del batch
                self.is_in_python = False
            feed.publish()

    def _wait_for_room(self, feed: Feed, nbytes: int) -> None:
        """Until there is room for so many bytes more, or all is taken, or it is told to stop."""
        with self._taken:
            while self._made and sum(made[2] for made in list(self._made.values())) + nbytes > self._room and not feed.is_over:
                self._taken.wait(_LOOK_UP)

    def hand_over(self, place: int) -> tuple[Any, int]:
        """What was made of the batch at a place of the ring, and its rows. Nothing, of a batch that had none."""
        with self._taken:
            batch, rows, _ = self._made.pop(place, (None, 0, 0))
            self._taken.notify()
        return batch, rows

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or ended by itself: it will not begin another batch."""
        feed = self._feed
        return feed is None or feed.is_over

    def stop(self) -> None:
        """Ends the work as soon as it can be ended, without waiting for that."""
        feed = self._feed
        if feed is not None:
            feed.stop()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until it has ended, or this long; not at all in a process that was forked, or in the thread itself."""
        if os.getpid() == self._process and threading.current_thread() is not self and self.ident is not None:
            self.join(seconds)


class Pipeline:
    """Runs a feed in a thread of its own.

    Args:
        feed: what fills the batches
        stage: what is done to each of them in Python, in the thread; None if nothing is
        room: bytes that what is made so may take before it is taken
        allocate: makes the arrays of one place of the ring; None where taken arrays go back to it
    """

    def __init__(self, feed: Feed, stage: Stage | None, room: int, allocate: Callable[[], Arrays] | None) -> None:
        self.feed = feed
        self.worker = Worker(feed, stage, room)
        self._has_stage = stage is not None
        self._allocate = allocate
        self._holds = False  # the taker has a place of the ring
        self._process = os.getpid()

    def start(self) -> None:
        """Starts the thread."""
        self.worker.start()

    def take(self) -> tuple[Any, int, int] | None:
        """The next batch, how many rows it has, and how many are missing from it; None where there is none any more.

        Raises whatever the thread met, with its traceback. One thread at a time.
        """
        if os.getpid() != self._process:
            raise RuntimeError("this loader's thread stayed in the process that was forked: iterate anew in the child")
        if self._holds:
            self.feed.release()
            self._holds = False
        place = self.feed.take()
        if place < 0:
            self._raise_failure()
            return None
        batch, _, items, dropped = self.feed.batch(place)
        rows = len(items)
        if self._has_stage:
            batch, rows = self.worker.hand_over(place)
        if self._allocate is None:
            self._holds = True
        else:
            self.feed.provide(place, self._allocate())
            self.feed.release()
        return batch, rows, dropped + len(items) - rows

    def stop(self) -> None:
        """Ends the work as soon as it can be ended, without waiting for that."""
        self.feed.stop()

    def join(self) -> None:
        """Waits until the thread has ended."""
        self.worker.wait()

    def _raise_failure(self) -> None:
        if self.worker.failures:
            raise self.worker.failures.pop(0)
        self.feed.raise_failure()


def _bytes_of(batch: Any, arrays: Arrays) -> int:
    """Bytes of a batch that are not those of the engine's arrays, as far as can be told of what a function of the user's made."""
    if isinstance(batch, np.ndarray):
        return 0 if any(np.may_share_memory(batch, array) for array in arrays) else size_of(batch)
    if isinstance(batch, Mapping):
        return sum(_bytes_of(value, arrays) for value in batch.values())
    if isinstance(batch, (tuple, list)):
        return sum(_bytes_of(value, arrays) for value in batch)
    if all(hasattr(batch, part) for part in ("data", "indices", "indptr")):
        return sum(_bytes_of(getattr(batch, part), arrays) for part in ("data", "indices", "indptr"))
    nbytes = getattr(batch, "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0


@atexit.register
def _stop_all() -> None:
    """A thread at work in native code must not meet an interpreter that is being taken down."""
    workers = [thread for thread in threading.enumerate() if isinstance(thread, Worker)]
    for worker in workers:
        worker.stop()
    until = time.monotonic() + _PATIENCE
    for worker in workers:
        while worker.is_alive() and (not worker.is_in_python or time.monotonic() < until):
            worker.wait(0.01)
