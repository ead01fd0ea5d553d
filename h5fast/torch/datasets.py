"""``H5Dataset``: rows by number, a whole batch of them in one gather."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from h5fast.loader import Loader
from h5fast.torch.framework import Dataset, torch
from h5fast.torch.tensors import as_tensors, row_of, whole

__all__ = ["H5Dataset"]


class H5Dataset(Dataset):
    """Rows of HDF5 files, by number: a map-style dataset.

    Parameters
    ----------
    source, fields, rows:
        As :class:`h5fast.Loader` has them: a path, a pattern, a list, an open file, or a mapping; what a row is made of, a
        bare value, a tuple or a dict; which rows there are.
    transform:
        A function of one row. With it rows are made one by one, and collated in the usual way.

    ``dataset[i]`` is a row, its fields as tensors (a label is a tensor without axes), ``dataset[numbers]`` a batch of the rows
    with these numbers. ``DataLoader(dataset, batch_size=256)`` reads each batch whole, in one gather by native threads, since
    it calls ``__getitems__``; such a batch needs no collating, which both :func:`h5fast.torch.collate` and PyTorch's own
    ``default_collate`` know.

    It opens its files in each process for itself, when the first row is read there, so it works in workers that are forked,
    spawned or made by a fork server. It pickles with its arguments.

    Raises what :class:`h5fast.Loader` raises for a source or fields that cannot be, when it is made.
    """

    def __init__(self, source: Any, fields: Any = None, *, rows: Any = None,
                 transform: Callable[[Any], Any] | None = None) -> None:
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable, not {type(transform).__name__}")
        self.source, self.fields, self.rows, self.transform = source, fields, rows, transform
        self._opened: tuple[int, Loader] | None = None
        self._count = self.loader.rows

    @property
    def loader(self) -> Loader:
        """What reads the rows, in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), Loader(self.source, self.fields, 1, shuffle=False, rows=self.rows, prefetch=1)
        return self._opened[1]

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """A row by its number, or a batch of rows by a list, an array, a tensor, a mask or a slice.

        Raises ``IndexError`` for a row out of range, ``CorruptChunkError`` and ``ReadError`` for data that cannot be read.
        """
        if isinstance(index, torch.Tensor):
            index = index.numpy()
        if isinstance(index, slice) or np.ndim(index) > 0:
            return self._batch(index)
        row = row_of(as_tensors(self.loader.take([operator.index(index)])), 0)
        return row if self.transform is None else self.transform(row)

    def __getitems__(self, indices: list[int]) -> Any:
        """The batch of these rows, in one gather; with a transform, a list of the transformed rows."""
        return self._batch(indices)

    def _batch(self, indices: Any) -> Any:
        batch = as_tensors(self.loader.take(indices))
        if self.transform is None:
            return whole(batch)
        count = len(next(iter(batch.values())) if isinstance(batch, dict) else batch[0] if isinstance(batch, tuple) else batch)
        return [self.transform(row_of(batch, place)) for place in range(count)]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what this process has open."""
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        """The source and the number of rows."""
        return f"<h5fast.torch.H5Dataset of {self.source!r}: {len(self):,} rows>"
