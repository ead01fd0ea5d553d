"""JAX and Grain: batches of HDF5 rows for Grain's pipelines, and sharded arrays. Needs both: ``pip install 'h5fast[grain]'``.

::

    import grain
    from h5fast.grain import BatchDataset, BatchSource, make_array

    pipeline = BatchDataset("train-*.h5", ("image", "label"), batch_size=256, epochs=10).map(augment)
    pipeline = grain.MapDataset.source(BatchSource("train.h5", ("image", "label"))).seed(0).shuffle().map(augment)
    array = make_array(file["image"], jax.sharding.NamedSharding(mesh, PartitionSpec("data")))

An element is a batch throughout: Grain asks for elements one by one, and a row at a time is the slowest way to read a file. It is
the one module that imports Grain and JAX. See ``docs/jax.md``.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from h5fast.loader import Loader
from h5fast.matrix import HDF5Matrix

try:
    import grain
    import jax
except ImportError as error:
    raise ImportError(f"h5fast.grain needs Grain and JAX, and cannot import them ({error}): pip install 'h5fast[grain]'") from error

__all__ = ["BatchDataset", "BatchSource", "make_array"]


class BatchSource:
    """Batches by number, for ``grain.MapDataset.source``: a random-access source whose elements are batches.

    Parameters
    ----------
    source, fields, batch_size:
        As :class:`h5fast.Loader` has them.
    shuffle:
        By default rows stay as they are stored, and Grain shuffles whole batches, each of which is read in one piece. Other orders
        are the loader's.
    epochs:
        So many epochs one after the other, each in its own order: element i is batch ``i % len`` of epoch ``i // len``.
    options:
        The other arguments of :class:`h5fast.Loader`: seed, rows, drop_last, shard, transform …

    Elements are a function of their number alone, whoever asks: any number of threads, in any order, in any process. Nothing is
    read ahead; Grain's threads do that. Its defaults are made for small elements: give
    ``to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))``, or 500 batches wait in memory.

    Raises what :class:`h5fast.Loader` raises.
    """

    def __init__(self, source: Any, fields: Any = None, batch_size: int = 256, *, shuffle: str | bool = False, epochs: int = 1,
                 **options: Any) -> None:
        if operator.index(epochs) < 1:
            raise ValueError(f"epochs must be at least 1, not {epochs}")
        self._arguments = (source, fields, batch_size)
        self._options = {"shuffle": shuffle, **options}
        self._epochs = epochs
        self._opened: tuple[int, Loader] | None = None
        self._steps = len(self._loader)

    @property
    def _loader(self) -> Loader:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            self._opened = opened = os.getpid(), Loader(*self._arguments, **self._options)
        return opened[1]

    def __len__(self) -> int:
        """Batches of all epochs."""
        return self._steps * self._epochs

    def __getitem__(self, index: int) -> Any:
        """A batch by its number, in the loader's form.

        Raises ``IndexError`` for one that there is not, ``CorruptChunkError`` and ``ReadError`` for data that cannot be read.
        """
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self):,}")
        epoch, step = divmod(number % len(self), self._steps)
        return self._loader.read(step, epoch)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what this process has open."""
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        """What it was made of: Grain compares it when it resumes."""
        return f"BatchSource({_described(self._arguments, self._options)}, epochs={self._epochs})"


class BatchDataset(grain.IterDataset):
    """Batches as the loader makes them, ahead and with what it keeps of decoded rows: a ``grain.IterDataset``.

    Parameters
    ----------
    source, fields, batch_size, options:
        As :class:`h5fast.Loader` has them.
    epochs:
        How many epochs an iteration has, each in another order; None has no end.

    Every iterator begins with the first epoch and has its own loader. ``get_state()`` is what JSON can hold; ``set_state()``
    resumes in the middle of an epoch, without reading what was read. Workers of Grain's share the batches in turn, but are not
    needed: native threads read.

    Raises what :class:`h5fast.Loader` raises.
    """

    def __init__(self, source: Any, fields: Any = None, batch_size: int = 256, *, epochs: int | None = 1, **options: Any) -> None:
        super().__init__()
        if epochs is not None and operator.index(epochs) < 1:
            raise ValueError(f"epochs must be at least 1 or None, not {epochs}")
        self._arguments = (source, fields, batch_size)
        self._options = options
        self._epochs = epochs
        Loader(*self._arguments, **self._options)  # what is wrong is told here

    def __iter__(self) -> Any:
        """An iterator over the batches of all epochs."""
        return _BatchIterator(Loader(*self._arguments, **self._options), self._epochs)

    def set_slice(self, sl: slice, sequential_slice: bool = False) -> None:
        """Gives every n-th batch alone: what Grain tells each of its worker processes."""
        if sequential_slice or sl.stop is not None:
            raise ValueError(f"h5fast shares batches out in turn, not as {sl} in runs")
        self._options = {**self._options, "worker": (sl.start or 0, sl.step or 1)}

    def __repr__(self) -> str:
        """What it was made of."""
        return f"BatchDataset({_described(self._arguments, self._options)}, epochs={self._epochs})"


def _described(arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Arguments as they are written, and functions by their names: their addresses are others in another process."""
    written = [*arguments, *options.values()]
    texts = [getattr(value, "__qualname__", None) or repr(value) for value in written]
    names = ["" for _ in arguments] + [f"{name}=" for name in options]
    return ", ".join(name + text for name, text in zip(names, texts))


class _BatchIterator(grain.DatasetIterator):
    """An iteration of a :class:`BatchDataset`."""

    def __init__(self, loader: Loader, epochs: int | None) -> None:
        super().__init__()
        self._loader, self._epochs = loader, epochs
        self._batches: Iterator[Any] | None = None

    def __next__(self) -> Any:
        while True:
            if self._batches is None:
                if self._epochs is not None and self._loader.epoch >= self._epochs or not len(self._loader):
                    raise StopIteration
                self._batches = iter(self._loader)
            try:
                return next(self._batches)
            except StopIteration:
                self._batches = None

    def get_state(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def set_state(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)
        self._batches = None

    def close(self) -> None:
        self._loader.close()
        super().close()


def make_array(data: Any, sharding: Any, *, dtype: Any = None) -> Any:
    """A ``jax.Array`` of a whole dataset, sharded over devices; each process reads what its own devices hold, and only that.

    Parameters
    ----------
    data:
        An h5fast or h5py ``Dataset``, or an :class:`h5fast.HDF5Matrix`, which takes a range of rows and may normalize them.
    sharding:
        A ``jax.sharding.Sharding`` of its shape.
    dtype:
        Type of the array; None is that of the data, as JAX has it (float64 becomes float32, unless it is told otherwise).

    What several devices hold alike is read once. Raises what JAX raises for a sharding that does not fit, what reading raises, and
    ``ValueError`` for whole numbers that the type cannot hold: JAX has int32 for int64, unless it is told otherwise.
    """
    if not isinstance(data, (h5py.Dataset, HDF5Matrix)):
        raise TypeError(f"make_array reads a dataset or an HDF5Matrix, not {type(data).__name__}")
    wanted = jax.dtypes.canonicalize_dtype(np.dtype(data.dtype if dtype is None else dtype).newbyteorder("="))
    read: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        bounds = tuple(axis.indices(size)[:2] for axis, size in zip(index, data.shape))
        if bounds not in read:
            read[bounds] = _exactly(data[tuple(slice(*bound) for bound in bounds)], wanted, data)
        return read[bounds]

    return jax.make_array_from_callback(data.shape, sharding, part)


def _exactly(values: Any, dtype: np.dtype, data: Any) -> np.ndarray:
    """Values in another type. Raises ``ValueError`` for whole numbers that would become others."""
    stored = np.asarray(values)
    made = np.asarray(stored, dtype, order="C")
    if stored.dtype.kind in "iu" and dtype.kind in "iu" and not np.can_cast(stored.dtype, dtype) and not (made == stored).all():
        raise ValueError(f"{data!r} holds whole numbers that {dtype} does not: jax.config.update('jax_enable_x64', True) lets JAX "
                         "have int64, and dtype='float32' rounds them")
    return made
