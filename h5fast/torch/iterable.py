"""``H5IterableDataset``: the loader's batches, read ahead by native threads, in a process or shared out among workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from h5fast.loader import Loader
from h5fast.torch.epochs import Beginning, WorkerEpochs
from h5fast.torch.framework import IterableDataset, get_worker_info, rank_and_world
from h5fast.torch.tensors import as_tensors

__all__ = ["H5IterableDataset"]


class H5IterableDataset(IterableDataset):
    """Whole batches, for ``DataLoader(dataset, batch_size=None)``; each iteration is an epoch.

    Parameters
    ----------
    source, fields, batch_size:
        As :class:`h5fast.Loader` has them.
    shard:
        (rank, world); None takes them from ``torch.distributed``, if it is initialised.
    options:
        The other arguments of :class:`h5fast.Loader`: shuffle, seed, rows, weights, drop_last, memory, transform …

    Batches have the loader's form, their arrays as tensors. Without workers, native threads of this process read and decode
    ahead; that is the fast way. Worker processes serve a `transform` that keeps Python busy: each takes every n-th batch, so that
    together, in turn, they give the batches that one process would have given, each row once. Each worker has its own `memory`.

    Epochs are counted as the loader counts them, also where workers are made anew for each one. :meth:`set_epoch` sets what the
    next one is. ``state_dict()`` and ``load_state_dict()`` of the dataset, and of its iterators as torchdata's
    ``StatefulDataLoader`` uses them, resume in the middle of an epoch without reading what was read.

    Raises what :class:`h5fast.Loader` raises, when it is made.
    """

    def __init__(self, source: Any, fields: Any = None, batch_size: int = 256, *, shard: tuple[int, int] | None = None,
                 **options: Any) -> None:
        if "worker" in options:
            raise TypeError("worker= is the DataLoader's to say: num_workers=")
        self._arguments = (source, fields, batch_size)
        self._options = {**options, "shard": rank_and_world() if shard is None else shard}
        self._epochs = WorkerEpochs()
        self._opened: tuple[int, Loader] | None = None
        self._length = len(self.loader)

    @property
    def loader(self) -> Loader:
        """What gives the batches, in this process: for ``plan()`` and ``stats()``."""
        if self._opened is None or self._opened[0] != os.getpid():
            info = get_worker_info()
            worker = (0, 1) if info is None else (info.id, info.num_workers)
            self._opened = os.getpid(), Loader(*self._arguments, **self._options, worker=worker)
        return self._opened[1]

    def __len__(self) -> int:
        """Batches of an epoch of this process, by all its workers together."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """An epoch of batches."""
        return _Batches(self.loader, None if get_worker_info() is None else self._epochs)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration start at the beginning of this epoch, in workers, too."""
        self.loader.set_epoch(epoch)
        self._epochs.restart(Beginning(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands, behind the batch that it took last; see :meth:`h5fast.Loader.state_dict`.

        It does not know what workers took: only torchdata's ``StatefulDataLoader`` does.
        """
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there, in workers, too. Raises ``ValueError`` for the state of another dataset, seed or order."""
        self.loader.load_state_dict(state)
        if get_worker_info() is None:  # a worker resumes by itself
            self._epochs.restart(Beginning(*(state[name] for name in Beginning._fields)))

    def close(self) -> None:
        """Stops what is under way in this process, and frees the memory."""
        self.loader.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what this process has open."""
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        """The loader's."""
        return f"<h5fast.torch.H5IterableDataset of {self.loader!r}>"


class _Batches:
    """One iteration.

    Args:
        loader: what gives the batches
        epochs: tells which epoch this is; None where the loader counts them itself
    """

    def __init__(self, loader: Loader, epochs: WorkerEpochs | None) -> None:
        self._loader, self._epochs = loader, epochs
        self._beginning = None if epochs is None else epochs.begin()
        self._resumed = self._has_ended = False
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        if self._has_ended:
            raise StopIteration
        if self._batches is None:
            self._go_to_beginning()
            self._batches = iter(self._loader)
        try:
            return as_tensors(next(self._batches))
        except StopIteration:
            self._has_ended = True
            raise

    def _go_to_beginning(self) -> None:
        """Where the loader does not count epochs itself, and was not resumed."""
        beginning = self._beginning
        if beginning is None or self._resumed:
            return
        self._loader.set_epoch(beginning.epoch)
        if beginning.taken:
            self._loader.load_state_dict({**self._loader.state_dict(), **beginning._asdict()})

    def state_dict(self) -> dict[str, Any]:
        """Where this iteration stands. Of one whose batches were all taken, that nothing of it is left."""
        if self._batches is None:
            self._go_to_beginning()
        state = self._loader.state_dict()
        is_complete = self._batches is not None and state["epoch"] > self._loader.stats()["epoch"]
        return {"loader": state, "epoch": None if self._beginning is None else self._beginning.epoch, "ended": self._has_ended or is_complete}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there; the loader, from there on."""
        self._loader.load_state_dict(state["loader"])
        self._batches, self._resumed, self._has_ended = None, True, state["ended"]
        if self._epochs is not None and state["epoch"] is not None:
            self._beginning = Beginning(state["epoch"])
            self._epochs.correct(state["epoch"])
