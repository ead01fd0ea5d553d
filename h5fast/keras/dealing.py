"""Which batch of the loader answers which index that Keras asks for. Arithmetic: nothing is read here, and no Keras needed.

``fit`` shuffles the indices of a ``PyDataset`` by itself, so a sequence whose index i is batch i would be read in an order
that nobody knows beforehand: nothing could be read ahead, and what to keep of decoded chunks would be guesswork. A sequence
therefore deals: while Keras runs an epoch, whatever index is new gets the batch that the loader has next. Keras asks for each
index once a pass, so each batch is used once, and in the order that the loader knows. To those who ask in order, as
``evaluate`` and ``predict`` do, index i is batch i, provided that it is known where they begin: Keras asks how many batches
there are whenever it begins to go through them.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

__all__ = ["LOOKS", "Dealing", "Dealt"]

#: Batches that Keras takes to look at, before it begins to go through all of them: one to build a model, or two to see the
#: types with tensorflow.
LOOKS = 2


class Dealt(NamedTuple):
    """What an index stands for.

    Attributes:
        number: of the pass: the loader's epoch
        step: the batch of it
        by_keras: Keras asks, and may ask again after a look
        in_turn: it is dealt, so new steps come in order; else it was asked for by its own number
    """

    number: int
    step: int
    by_keras: bool
    in_turn: bool


class Dealing:
    """Indices of batches to steps of epochs, a pass after the other. Any thread may ask.

    While Keras runs an epoch indices are dealt; else, and if Keras did not begin to go through them, index i is step i. What is
    left of a pass that was dealt out of order is dealt between epochs, too: tensorflow asks ahead.

    Args:
        count: batches of a pass
        number: of the first pass
    """

    def __init__(self, count: int, *, number: int = 0) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._in_epoch = False  # of Keras: on_epoch_begin was called, and on_epoch_end was not yet
        self._start(number)

    def _start(self, number: int) -> None:
        self._number = number
        self._steps: dict[int, int] = {}  # of the indices that were asked for in this pass
        self._is_begun = False  # Keras began to go through the indices of this pass
        self._is_new = False  # and asked for none since, nor ended an epoch
        self._is_dealt = False
        self._is_in_order = True  # every index is that of its step, so far
        self._is_used = False  # Keras ended an epoch that took some of it

    @property
    def number(self) -> int:
        """Of the pass that is under way, or comes next."""
        return self._number

    def step(self, index: int) -> Dealt:
        """What this index stands for."""
        with self._lock:
            if not self._steps:
                self._is_dealt = self._in_epoch and self._is_begun
            self._is_new = False
            next_step = len(self._steps)
            if self._is_dealt and not self._in_epoch and self._is_in_order and index != next_step:
                step = index  # someone else asks, in the middle of a pass
            else:
                step = self._steps.setdefault(index, next_step if self._is_dealt else index)
                self._is_in_order &= step == index
            return Dealt(self._number, step, self._is_begun, self._is_dealt)

    def anew(self) -> None:
        """Keras begins to go through the indices, all of them.

        If it only looked at some before, it is still this pass, from its first step on; else the next one. A pass that
        someone goes through by hand is left to them until an epoch begins.
        """
        with self._lock:
            if self._steps and self._is_look:
                self._steps.clear()
                self._is_in_order = True
            elif self._steps and self._is_dealt:
                self._start(self._number + 1)
            self._is_begun = self._is_new = True

    @property
    def _is_look(self) -> bool:
        is_complete = self._in_epoch and len(self._steps) == self._count
        return self._is_begun and not self._is_used and len(self._steps) <= LOOKS and not is_complete

    def begin(self) -> None:
        """Keras begins an epoch.

        The one before may have been broken off without a word; and what was asked for by hand is no part of what comes now.
        """
        with self._lock:
            if self._steps and (self._in_epoch or not self._is_dealt):
                self._start(self._number + 1)
            self._in_epoch = True

    def end(self) -> None:
        """Keras ends an epoch, or someone wants another order.

        With ``steps_per_epoch`` the next epoch goes on with what is left of this pass; and after a look Keras ends an epoch
        that it has not begun, when it is about to begin one.
        """
        with self._lock:
            goes_on = self._is_new or (self._in_epoch and len(self._steps) < self._count)
            self._in_epoch = self._is_new = False
            self._is_used = bool(self._steps)
            if not goes_on:
                self._start(self._number + 1)

    def set(self, number: int) -> None:
        """Goes to the beginning of a pass."""
        with self._lock:
            self._start(number)
