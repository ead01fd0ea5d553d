"""Which batch of the loader answers which index that Keras asks for. Arithmetic: nothing is read here, and no Keras needed.

``fit`` shuffles the indices of a ``PyDataset`` by itself, so a sequence whose index i is batch i would be read in an order
that nobody knows beforehand: nothing could be read ahead, and what to keep of decoded chunks would be guesswork. A shuffled
sequence therefore deals: while Keras runs an epoch, whatever index is new gets the batch that the loader has next. Keras asks
for each index once a pass, so each batch is used once, and in the order that the loader knows.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

__all__ = ["Dealing", "Dealt"]


class Dealt(NamedTuple):
    """What an index stands for.

    Attributes:
        number: of the pass: the loader's epoch
        step: the batch of it
        by_keras: an epoch of Keras asks
        in_turn: it is dealt, so new steps come in order; else it was asked for by its own number
    """

    number: int
    step: int
    by_keras: bool
    in_turn: bool


class Dealing:
    """Indices of batches to steps of epochs, a pass after the other. Any thread may ask.

    Args:
        count: batches of a pass
        deals: whether a pass that Keras runs is dealt; else, and whenever someone else asks, index i is step i
        number: of the first pass
    """

    def __init__(self, count: int, *, deals: bool, number: int = 0) -> None:
        self._count, self._deals = count, deals
        self._lock = threading.Lock()
        self._in_epoch = False  # of Keras: on_epoch_begin was called, and on_epoch_end was not yet
        self._start(number)

    def _start(self, number: int) -> None:
        self._number = number
        self._steps: dict[int, int] = {}  # of the indices that were asked for in this pass
        self._by_hand = False  # the first of them was asked for outside an epoch of Keras

    @property
    def number(self) -> int:
        """Of the pass that is under way, or comes next."""
        return self._number

    def step(self, index: int) -> Dealt:
        """What this index stands for."""
        with self._lock:
            if not self._steps:
                self._by_hand = not self._in_epoch
            in_turn = self._deals and not self._by_hand
            step = self._steps.setdefault(index, len(self._steps) if in_turn else index)
            return Dealt(self._number, step, self._in_epoch, in_turn)

    def begin(self) -> None:
        """Keras begins an epoch.

        The one before may have been broken off without a word; and what was asked for by hand is no part of what comes now.
        """
        with self._lock:
            if self._in_epoch or self._by_hand:
                self._start(self._number + 1)
            self._in_epoch = True

    def end(self) -> None:
        """Keras ends an epoch, or someone wants another order.

        With ``steps_per_epoch`` the next epoch goes on with what is left of this pass; so does the first one after Keras has
        looked at a batch to build the model.
        """
        with self._lock:
            goes_on = self._in_epoch and len(self._steps) < self._count
            self._in_epoch = False
            if not goes_on:
                self._start(self._number + 1)

    def set(self, number: int) -> None:
        """Goes to the beginning of a pass."""
        with self._lock:
            self._start(number)
