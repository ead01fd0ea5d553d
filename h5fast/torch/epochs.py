"""Which epoch the workers of a ``DataLoader`` are in: a number that they agree on, whoever looks first.

Workers are made anew for each epoch, or live on and begin again; the process that made them does not tell them which epoch it
is. But all workers of one iteration have one base seed, and begin as often as each other. The two together are a key; the keys
stand in shared memory in the order in which they came up, and the place of a key is the number of its epoch.

Who gives each epoch the same seed (``torch.manual_seed(0)`` before each), and makes its workers anew, gets the same epoch again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from h5fast._claim import claim
from h5fast.torch.framework import get_worker_info, torch

__all__ = ["Beginning", "WorkerEpochs"]

# Epochs that can be told apart before set_epoch() starts the list anew: half a MiB, of which only what is used takes memory.
_PLACES = 1 << 16
# What stands in front of the list: the epoch of its first key, and where in that epoch the iteration begins.
_HEAD = 3


class Beginning(NamedTuple):
    """Where an iteration begins.

    Attributes:
        epoch: which it is
        taken, window: of the state that it resumes; 0 of one that begins at the beginning
    """

    epoch: int
    taken: int = 0
    window: int = 0


class WorkerEpochs:
    """The epochs of a dataset's workers. Copies that are passed to workers share the memory; other copies have their own.

    It needs no lock: a key is written in one piece, where the list ends, unless another one was written there meanwhile.
    """

    def __init__(self) -> None:
        self._shared = torch.zeros(_HEAD + _PLACES, dtype=torch.int64).share_memory_()
        self._begun = 0  # iterations that this process began, as a worker

    def restart(self, beginning: Beginning) -> None:
        """The next iteration begins there, those behind it with the epochs that follow."""
        self._shared.zero_()
        self._shared[:_HEAD] = torch.tensor(beginning)

    def begin(self) -> Beginning:
        """Where this worker begins its next iteration.

        Raises:
            RuntimeError: more epochs than can be told apart.
        """
        number, self._begun = self._begun, self._begun + 1
        place = self._place(number)
        first = Beginning(*self._shared[:_HEAD].tolist())
        return first if place == 0 else Beginning(first.epoch + place)

    def correct(self, epoch: int) -> None:
        """The iteration that was begun last is this epoch: it was resumed."""
        self._shared[:_HEAD] = torch.tensor(Beginning(epoch - self._place(self._begun - 1)))

    def _place(self, number: int) -> int:
        """Where the key of this worker's iteration with this number stands; it is put there if it is new."""
        info = get_worker_info()
        place = claim(self._shared.numpy()[_HEAD:], (hash((info.seed - info.id, number)) & (2**62 - 1)) | 1)
        if place < 0:
            raise RuntimeError(f"{_PLACES:,} epochs without a set_epoch(): call it, to start the list of epochs anew")
        return place

    def __getstate__(self) -> dict[str, Any]:
        """The shared memory; how often this process began is its own."""
        return {"_shared": self._shared, "_begun": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Memory that came as a copy is shared with the workers of this process."""
        self.__dict__.update(state)
        self._shared = self._shared.share_memory_()
