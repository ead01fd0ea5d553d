"""What reading a field in Python costs: chunks that were needed, chunks that were decoded, bytes that were read.

The engine counts its own fields itself; this counts what goes through Python for the others.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Costs"]


class Costs:
    """Counts since the epoch began.

    Args:
        chunks: how many there are of the dataset along its first axis
        across: how many of them hold one row
        is_decoded: whether reading a chunk means decoding it; else only bytes are counted
    """

    def __init__(self, chunks: int, across: int = 1, *, is_decoded: bool = True) -> None:
        self._count, self._across, self._is_decoded = chunks, across, is_decoded
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Starts counting anew."""
        self._touched: np.ndarray | None = None  # by chunk along the first axis
        self._decodes = self._bytes = 0

    def touch(self, chunks: np.ndarray) -> None:
        """Rows of these chunks were asked for, from the file or from what is kept of it."""
        if not self._is_decoded:
            return
        if self._touched is None:
            self._touched = np.zeros(self._count, bool)
        self._touched[chunks] = True

    def add(self, decodes: int, nbytes: int) -> None:
        """This was read."""
        self._decodes += decodes
        self._bytes += nbytes

    def costs(self) -> tuple[int, int, int]:
        """(chunks whose rows were asked for, chunks decoded, bytes read)."""
        touched = 0 if self._touched is None else int(np.count_nonzero(self._touched))
        return touched * self._across, self._decodes if self._is_decoded else 0, self._bytes
