"""``BlockSampler`` and ``DistributedBlockSampler``: rows in an order that reads each chunk while its rows are wanted.

The orders are the loader's: a sampler is a loader that is asked for nothing but its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from h5fast.loader import Loader
from h5fast.matrix import HDF5Matrix
from h5fast.sizes import parse_bytes
from h5fast.torch.datasets import H5Dataset
from h5fast.torch.framework import Sampler, is_distributed, rank_and_world

__all__ = ["BlockSampler", "DistributedBlockSampler"]

# Places of an epoch that are looked up at a time.
_AT_ONCE = 4096
# Bytes that are enough for any loader; none takes them.
_PLENTY = 1 << 60


class BlockSampler(Sampler):
    """Numbers of rows for a map-style dataset, in random order, chunk by chunk.

    Parameters
    ----------
    data_source:
        An :class:`H5Dataset`; or the ``h5py.Dataset`` or :class:`h5fast.HDF5Matrix` that the rows of a dataset of your own
        come from; or anything with a length, whose rows are then as good as chunks of one row.
    shuffle, seed:
        As :class:`h5fast.Loader` has them. ``"block"``: chunks in random order, and the rows of as many as fit `memory` mixed.
    memory:
        How many bytes of decoded rows are mixed, and at least those of one chunk. The default is what HDF5 and h5fast keep decoded of a file, so that rows of
        one chunk find it decoded. Mix more where the file keeps more: ``h5fast.File(path, rdcc_nbytes=256 << 20)``.

    Each iteration is an epoch, the next one another; :meth:`set_epoch` sets which. The order is a function of seed and epoch
    alone. :meth:`state_dict` and :meth:`load_state_dict` resume behind the row that was given last.
    """

    def __init__(self, data_source: Any, *, shuffle: str | bool = "block", seed: Any = 0,
                 memory: int | float | str = "8 MiB") -> None:
        self._setup(data_source, shuffle, seed, memory, (0, 1), drop_last=False)

    def _setup(self, data_source: Any, shuffle: str | bool, seed: Any, memory: int | float | str, shard: tuple[int, int], *,
               drop_last: bool) -> None:
        source, fields, rows = _what_is_read(data_source)
        options = {"shuffle": shuffle, "seed": seed, "rows": rows, "prefetch": 1}
        # Beside what a loader takes for itself, to which it adds what it reads: this one is asked for its order alone.
        itself = Loader(source, fields, 1, **options, memory=_PLENTY).least_memory
        self._order = Loader(source, fields, 1, **options, memory=parse_bytes(memory) + itself)
        self._numbers = _numbers_of_ascending(data_source) if shuffle == "block" else None  # other orders keep that of the list
        self._rank, self._world = shard
        count = self._order.rows
        self._count = count // self._world if drop_last else -(-count // self._world)
        if self._count == 0:
            raise ValueError(f"{self._world} processes are more than the {count:,} rows that there are")
        self._next, self._begun = 0, 0  # epoch, and rows of it that were given before
        self._at: tuple[int, int] | None = None  # of the iteration that is under way: epoch, rows that were given

    def __len__(self) -> int:
        """Rows of an epoch, of this process."""
        return self._count

    def __iter__(self) -> Iterator[int]:
        """An epoch of row numbers. It is counted when its first row is asked for."""
        epoch, given = self._next, self._begun
        self._next, self._begun = epoch + 1, 0
        while given < self._count:
            for number in self._rows(epoch, given):
                given += 1
                self._at = epoch, given
                yield number

    def _rows(self, epoch: int, given: int) -> list[int]:
        """The next few rows behind so many."""
        first = self._rank * self._count + given
        places = np.arange(first, first + min(_AT_ONCE, self._count - given)) % self._order.rows
        low, high = int(places.min()), int(places.max()) + 1
        found = self._order.order(epoch, low, high)[places - low]
        rows: list[int] = (found if self._numbers is None else self._numbers[found]).tolist()
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration start at the beginning of this epoch."""
        self._next, self._begun, self._at = epoch, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands. Numbers and texts, which JSON can hold."""
        epoch, given = (self._next, self._begun) if self._at is None else self._at
        return {"epoch": epoch, "given": given, "rank": self._rank, "world": self._world, "order": self._order.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there: the next iteration gives the rest of that epoch, or the next one if nothing is left of it.

        Raises ``ValueError`` for the state of another sampler.
        """
        mine = {"rank": self._rank, "world": self._world}
        if any(state.get(name) != value for name, value in mine.items()):
            theirs = {name: state.get(name) for name in mine}
            raise ValueError(f"the state belongs to another sampler: it is of {theirs}, this one of {mine}")
        self._order.load_state_dict(state["order"])
        epoch, given = int(state["epoch"]), int(state["given"])
        self._next, self._begun = (epoch, given) if given < self._count else (epoch + 1, 0)
        self._at = None

    def __repr__(self) -> str:
        """How many rows of which."""
        return f"<h5fast.torch.{type(self).__name__}: {len(self):,} of the rows of {self._order!r}>"


class DistributedBlockSampler(BlockSampler):
    """A :class:`BlockSampler` for several processes: each takes a run of the epoch, so that no two decode the same chunks.

    Parameters
    ----------
    num_replicas, rank:
        How many processes, and which this is; None takes them from ``torch.distributed``.
    drop_last:
        Leave out the rows that do not divide evenly; else some come twice, so that all processes have as many.

    The other parameters are those of :class:`BlockSampler`; all processes must be given the same.

    Raises ``RuntimeError`` where not both of these are given, nor ``torch.distributed`` is initialised, ``ValueError`` for a rank that
    cannot be.
    """

    def __init__(self, data_source: Any, num_replicas: int | None = None, rank: int | None = None, *,
                 shuffle: str | bool = "block", seed: Any = 0, memory: int | float | str = "8 MiB",
                 drop_last: bool = False) -> None:
        if (num_replicas is None or rank is None) and not is_distributed():
            raise RuntimeError("DistributedBlockSampler needs torch.distributed.init_process_group(), or num_replicas= and rank=")
        here, there = rank_and_world()
        world = there if num_replicas is None else num_replicas
        which = here if rank is None else rank
        if not 0 <= which < world:
            raise ValueError(f"rank={which}: with num_replicas={world} it must be from 0 to {world - 1}")
        self._setup(data_source, shuffle, seed, memory, (which, world), drop_last=drop_last)


def _what_is_read(data_source: Any) -> tuple[Any, Any, Any]:
    """Source, fields and rows of a loader that has the chunks of these rows."""
    if isinstance(data_source, H5Dataset):
        return data_source.source, data_source.fields, data_source.rows
    if isinstance(data_source, (h5py.Dataset, HDF5Matrix)):
        return {"row": data_source}, "row", None
    return {"row": np.arange(len(data_source))}, "row", None


def _numbers_of_ascending(data_source: Any) -> np.ndarray | None:
    """Where rows were given as a list that does not ascend: what number each has there, from the first row in the file on."""
    if not isinstance(data_source, H5Dataset) or data_source.rows is None:
        return None
    numbers = np.concatenate(list(data_source.loader.epoch_rows(0)))
    order: np.ndarray = np.argsort(numbers, kind="stable")
    return None if (np.diff(numbers) >= 0).all() else order
