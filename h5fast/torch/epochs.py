"""Which epoch the workers of a ``DataLoader`` are in: a number that they agree on, whoever looks first.

Workers are made anew for each epoch, or live on and begin again; the process that made them does not tell them which epoch it
is. But all workers of one iteration have one base seed, and begin as often as each other. The two together are a key; the keys
stand in shared memory in the order in which they came up, and the place of a key is the number of its epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from h5fast.torch.framework import get_worker_info, torch

__all__ = ["WorkerEpochs"]

# Epochs that can be told apart before set_epoch() starts the list anew: half a MiB, of which only what is used takes memory.
_PLACES = 1 << 16


class WorkerEpochs:
    """The epochs of a dataset's workers. Copies that are passed to workers share the memory; other copies have their own.

    Writing needs no lock: a key is written where the list ends, in one piece, and workers that do so at once write the same.
    """

    def __init__(self) -> None:
        self._shared = torch.zeros(1 + _PLACES, dtype=torch.int64).share_memory_()
        self._begun = 0  # iterations that this process began, as a worker

    def restart(self, epoch: int) -> None:
        """The next iteration is this epoch."""
        self._shared.zero_()
        self._shared[0] = epoch

    def begin(self) -> int:
        """The number of the epoch that this worker begins.

        Raises:
            RuntimeError: more epochs than can be told apart.
        """
        number, self._begun = self._begun, self._begun + 1
        return int(self._shared[0]) + self._place(number)

    def correct(self, epoch: int) -> None:
        """The iteration that was begun last is this epoch: it was resumed."""
        self._shared[0] = epoch - self._place(self._begun - 1)

    def _place(self, number: int) -> int:
        """Where the key of this worker's iteration with this number stands; it is put there if it is new."""
        info = get_worker_info()
        key = np.int64((hash((info.seed - info.id, number)) & (2**62 - 1)) | 1)
        keys = self._shared.numpy()[1:]
        seen = keys.copy()  # once: a key that another worker writes between two looks is neither there nor is its place free
        found = np.flatnonzero((seen == key) | (seen == 0))
        if not len(found):
            raise RuntimeError(f"{_PLACES:,} epochs without a set_epoch(): call it, to start the list of epochs anew")
        keys[found[0]] = key
        return int(found[0])

    def __getstate__(self) -> dict[str, Any]:
        """The shared memory; how often this process began is its own."""
        return {"_shared": self._shared, "_begun": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Memory that came as a copy is shared with the workers of this process."""
        self.__dict__.update(state)
        self._shared = self._shared.share_memory_()
