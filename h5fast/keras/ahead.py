"""Batches of a loader by epoch and step, read ahead as long as they are asked for about in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from h5fast.keras.dealing import LOOKS
from h5fast.loader import Loader

__all__ = ["Ahead"]

# How far behind the batch that comes next one may be that is waited for: several threads that take the next ones meet out
# of turn. Those passed on the way are kept for whoever comes for them, so many at most.
_REACH = 4


class Ahead:
    """The loader's iterations, from which batches are taken by their number. Any thread may take.

    Args:
        loader: what reads
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._epoch, self._next = -1, 0  # of the iteration: which, and the step that it gives next
        self._batches: Iterator[Any] = iter(())
        self._passed: dict[int, Any] = {}  # by step: taken from the iteration on the way to a later one
        self._looked_at: dict[int, Any] = {}  # by step: given to Keras, which may have only looked at it

    def take(self, epoch: int, step: int, *, by_keras: bool, in_turn: bool) -> Any:
        """The batch of this step: what was read ahead, if it is asked for about in order, else read now.

        Args:
            by_keras: who takes it does not change it, and may take the first few once more
            in_turn: steps that are new come in order; else asking for step 0 begins the epoch again
        """
        with self._lock:
            if epoch > self._epoch:
                self._begin(epoch)
            if epoch == self._epoch:
                if step >= LOOKS:
                    self._looked_at.clear()
                for held in (self._looked_at, self._passed):
                    if step in held:
                        return held.pop(step)
                if step == 0 < self._next and not in_turn:
                    self._begin(epoch)
                if self._next <= step < self._next + _REACH:
                    batch = self._up_to(step)
                    if by_keras and step < LOOKS:
                        self._looked_at[step] = batch
                    return batch
        return self._loader.read(step, epoch)

    def _begin(self, epoch: int) -> None:
        self._end()
        self._loader.set_epoch(epoch)
        self._epoch, self._next, self._batches = epoch, 0, iter(self._loader)

    def _up_to(self, step: int) -> Any:
        while True:
            try:
                batch = next(self._batches)
            except BaseException:  # which ends it: what is left of the epoch is read batch by batch
                self._next = len(self._loader)
                raise
            self._next += 1
            if self._next == len(self._loader):
                next(self._batches, None)  # so that it ends, and its thread with it
            if self._next > step:
                return batch
            if len(self._passed) == _REACH:
                del self._passed[min(self._passed)]  # whoever wants it reads it
            self._passed[self._next - 1] = batch

    def _end(self) -> None:
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._batches = iter(())
        self._passed.clear()
        self._looked_at.clear()

    def stop(self) -> None:
        """Ends what is under way; whatever is taken next begins its epoch anew."""
        with self._lock:
            self._end()
            self._epoch = -1
