"""Batches made ahead by a thread, and the iterator that hands them out.

The thread runs the engine, which holds no lock of Python's while it works; only fields that the engine cannot read, and
the user's own function, make it come back to Python for each batch.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from h5fast._feed import Feed

__all__ = ["Pipeline", "Stage"]

Arrays = list[np.ndarray]
Stage = Callable[[Arrays, np.ndarray], Any]
"""Makes a batch of the engine's arrays and of the items that are in them."""

# Pipelines whose threads are to be stopped before the interpreter goes.
_running: weakref.WeakSet[Pipeline] = weakref.WeakSet()


class Pipeline:
    """Runs a feed in a thread of its own, from the first :meth:`take` on.

    Args:
        feed: what fills the batches
        stage: what is done to each of them in Python, in the thread; None if nothing is
        allocate: makes the arrays of one place of the ring; None where taken arrays go back to it
    """

    def __init__(self, feed: Feed, stage: Stage | None, allocate: Callable[[], Arrays] | None) -> None:
        self.feed = feed
        self._stage = stage
        self._allocate = allocate
        self._made: dict[int, Any] = {}
        self._failures: list[BaseException] = []
        self._holds = False  # the taker has a place of the ring
        self._process = os.getpid()
        self._thread = threading.Thread(target=_work, args=(feed, stage, self._made, self._failures), daemon=True,
                                        name="h5fast loader")
        _running.add(self)
        self._thread.start()

    def take(self) -> tuple[Any, np.ndarray, int] | None:
        """The next batch, its items, and how many rows are missing from it; None where there is none any more.

        Raises whatever the thread met, with its traceback.
        """
        if os.getpid() != self._process:
            raise RuntimeError("this loader's thread stayed in the process that was forked: iterate anew in the child")
        if self._holds:
            self.feed.release()
            self._holds = False
        place = self.feed.take()
        if place < 0:
            self._finish()
            return None
        arrays, _, items, dropped = self.feed.batch(place)
        batch = arrays if self._stage is None else self._made.pop(place)
        if self._allocate is None:
            self._holds = True
        else:
            items = items.copy()
            self.feed.provide(place, self._allocate())
            self.feed.release()
        return batch, items, dropped

    def stop(self) -> None:
        """Ends the work as soon as it can be ended, without waiting for that."""
        self.feed.stop()

    def join(self) -> None:
        """Waits until the thread has ended."""
        if os.getpid() == self._process:
            self._thread.join()

    def _finish(self) -> None:
        self.join()
        if self._failures:
            raise self._failures[0]
        self.feed.raise_failure()


def _work(feed: Feed, stage: Stage | None, made: dict[int, Any], failures: list[BaseException]) -> None:
    """The thread's work. It knows neither pipeline nor iterator, so that these can be collected while it runs."""
    try:
        if stage is None:
            feed.run()
            return
        while (place := feed.fill()) >= 0:
            arrays, _, items, _ = feed.batch(place)
            made[place] = stage(arrays, items)
            feed.publish()
    except BaseException as error:  # whatever it is, it is the taker who has to see it
        failures.append(error)
    finally:
        feed.end()


@atexit.register
def _stop_all() -> None:
    """A thread at work in native code must not meet an interpreter that is being taken down."""
    for pipeline in list(_running):
        pipeline.stop()
        pipeline.join()
