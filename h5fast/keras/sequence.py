"""``HDF5Sequence``: batches from HDF5 files in the form that ``fit``, ``evaluate`` and ``predict`` take on every backend."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable
from typing import Any

from h5fast.keras.ahead import Ahead
from h5fast.keras.dealing import Dealing
from h5fast.keras.framework import keras, legacy_sequence
from h5fast.keras.pairing import Pairs, paired
from h5fast.loader import Loader

__all__ = ["HDF5DataGenerator", "HDF5Sequence"]


class HDF5Sequence(keras.utils.PyDataset):
    """Batches of rows of HDF5 datasets, read ahead by native threads: ``model.fit(HDF5Sequence(x, y), epochs=10)``.

    Parameters
    ----------
    x, y, sample_weight:
        An ``HDF5Matrix``, a ``Dataset``, an array, or a list or dict of these for models with several inputs or outputs. With
        `source`: names of datasets, or :class:`h5fast.Field`, which may cast, scale or crop. A batch is ``(x,)``, ``(x, y)``
        or ``(x, y, sample_weight)``, in types and structure as given.
    batch_size:
        Rows of a batch; the last one of a pass may have fewer.
    shuffle:
        ``"exact"`` or True, ``"block"``, ``"batches"`` (or ``"batch"``), False: see :class:`h5fast.Loader`. For ``evaluate``
        and ``predict``, pass False. What ``fit`` is told about shuffling does not change it.
    source:
        Files that x, y and sample_weight name datasets of: a path, a pattern, a list of them, or an open file.
    seed, drop_last, rows, weights, shard, memory, threads, prefetch:
        As of :class:`h5fast.Loader`.
    transform:
        A function of a batch, ``(x, y)``, run ahead in the loader's thread; what it returns is what the model gets.
    workers, use_multiprocessing, max_queue_size:
        Accepted, and left to those who pass them to others than Keras 3. Keras' own pools are not used: native threads
        read ahead without them, and they give some rows of an epoch twice and others not (docs/keras.md).

    While Keras runs an epoch, batches come in the loader's order whatever index is asked for, and each once a pass; by hand,
    ``sequence[i]`` is batch i of the pass. ``on_epoch_end()`` goes to the next pass, in another order, except in the middle
    of one that ``steps_per_epoch`` divides. Sequences pickle, if what they read does.

    Raises what :class:`h5fast.Loader` raises, before any row is read; ``TypeError`` for an x, y or sample_weight that is
    none of the above, ``ValueError`` for sample_weight without y.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> HDF5Sequence:
        """A sequence of Keras 2 as well, if the program has imported tf_keras: that looks at the class."""
        kind: Any = cls
        made: HDF5Sequence = object.__new__(_for_legacy(kind, legacy_sequence()))
        return made

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int = 32,
        shuffle: str | bool = True,
        *,
        source: Any = None,
        transform: Callable[[Any], Any] | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(workers=workers, use_multiprocessing=use_multiprocessing, max_queue_size=max_queue_size)
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable, not {type(transform).__name__}")
        unknown = set(options) - _OPTIONS
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        self._pairs, self._transform = paired(x, y, sample_weight, source), transform
        self._options = {"batch_size": batch_size, "shuffle": shuffle, **options}
        self._open(0)

    def _open(self, number: int) -> None:
        """Makes what does not pickle. Passes begin with this number."""
        self._loader = _loader(self._pairs, self._transform, self._options)
        self._ahead = Ahead(self._loader)
        self._dealing = Dealing(len(self._loader), number=number)
        self._process = os.getpid()

    # What Keras asks for.

    def __len__(self) -> int:
        """Batches of a pass."""
        return len(self._loader)

    @property
    def num_batches(self) -> int:
        """Batches of a pass, for Keras, which asks when it begins to go through them. Everyone else asks ``len()``."""
        self._dealing.anew()
        return len(self._loader)

    def __getitem__(self, index: int) -> Any:
        """A batch of the pass under way. Raises ``IndexError`` for one that there is not, and what reading raises."""
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"batch {place} of {len(self):,}")
        return self._answer(place % len(self))[2]

    def _answer(self, index: int) -> tuple[int, int, Any]:
        """(epoch of the loader, step of it, batch) that an index stands for."""
        if os.getpid() != self._process:  # a fork: locks may be held by threads that it does not have
            number = self._dealing.number
            return number, index, self._paired(self._loader.read(index, number))
        number, step, by_keras, in_turn = self._dealing.step(index)
        return number, step, self._paired(self._ahead.take(number, step, by_keras=by_keras, in_turn=in_turn))

    def _paired(self, fields: Any) -> Any:
        """A batch as the model gets it, of one of the loader's."""
        return self._pairs.batch(fields) if self._transform is None else fields

    def on_epoch_begin(self) -> None:
        """Keras begins an epoch."""
        self._dealing.begin()

    def on_epoch_end(self) -> None:
        """The next pass, in another order; or, in the middle of a pass that Keras divides into epochs, nothing."""
        self._dealing.end()

    @property
    def workers(self) -> int:
        """1: Keras makes no threads or processes of its own."""
        return 1

    @property
    def use_multiprocessing(self) -> bool:
        """False: Keras makes no threads or processes of its own."""
        return False

    # What else it is.

    @property
    def batch_size(self) -> int:
        """Rows of a full batch."""
        return self._loader.batch_size

    @property
    def samples(self) -> int:
        """Rows of a pass."""
        return self._loader.rows

    @property
    def loader(self) -> Loader:
        """The loader behind it, for ``plan()`` and ``stats()``."""
        return self._loader

    @property
    def epoch(self) -> int:
        """The pass that is under way, or comes next: its order is that of the loader's epoch of this number."""
        return self._dealing.number

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of a pass, to resume training, say. Raises ``ValueError`` for a negative one."""
        self._loader.set_epoch(epoch)
        self._ahead.stop()
        self._dealing.set(epoch)

    def close(self) -> None:
        """Stops reading ahead and frees the memory. Taking a batch afterwards is a ``ValueError``."""
        self._loader.close()
        self._ahead.stop()

    def __repr__(self) -> str:
        """Batches, and the loader that makes them."""
        return f"<{self._class().__name__} of {len(self):,} batches, pass {self.epoch}, from {self._loader!r}>"

    # Copies in other processes.

    def _class(self) -> type[HDF5Sequence]:
        """Its class, as it can be imported."""
        return next(one for one in type(self).__mro__ if one.__dict__.get("_joined") is None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as what it was made of; the copy opens the files again, and begins with the pass under way."""
        made = {name: value for name, value in self.__dict__.items() if name not in _NOT_PICKLED}
        return _copy, (self._class(), made, self._dealing.number)


#: Options that go to the loader as they are. What to do about damaged chunks is not among them: Keras wants a batch.
_OPTIONS = {"seed", "drop_last", "rows", "weights", "shard", "memory", "threads", "prefetch"}
_NOT_PICKLED = {"_loader", "_ahead", "_dealing", "_process"}


def _copy(cls: type[HDF5Sequence], made: dict[str, Any], number: int) -> HDF5Sequence:
    sequence = cls.__new__(cls)
    sequence.__dict__.update(made)
    sequence._open(number)
    return sequence


@functools.cache
def _for_legacy(cls: Any, legacy: Any) -> Any:
    if legacy is None or issubclass(cls, legacy):
        return cls
    return type(cls.__name__, (cls, legacy), {"_joined": True, "__module__": cls.__module__, "__doc__": cls.__doc__})


def _loader(pairs: Pairs, transform: Callable[[Any], Any] | None, options: dict[str, Any]) -> Loader:
    """The loader of these pairs; where there are fewer rows than a batch has, of one batch of them all."""
    prepare = None if transform is None else functools.partial(_transformed, pairs, transform)
    try:
        return Loader(pairs.source, pairs.fields, transform=prepare, **options)
    except ValueError:
        if options.get("drop_last"):
            raise
        rows = Loader(pairs.source, pairs.fields, 1, rows=options.get("rows")).rows
        if not rows < options["batch_size"]:
            raise
        return Loader(pairs.source, pairs.fields, transform=prepare, **{**options, "batch_size": rows})


def _transformed(pairs: Pairs, transform: Callable[[Any], Any], fields: dict[str, Any]) -> Any:
    return transform(pairs.batch(fields))


class HDF5DataGenerator(HDF5Sequence):
    """The well-known generator class over one file: ``HDF5DataGenerator("train.h5", batch_size=32)``.

    It is an :class:`HDF5Sequence` of the datasets `data` and `labels` of `hdf5_file` (a path, a pattern, a list of them, or
    an open file), and takes its options.
    """

    def __init__(self, hdf5_file: Any, batch_size: int = 32, shuffle: str | bool = True, data: Any = "data",
                 labels: Any = "labels", **options: Any) -> None:
        super().__init__(data, labels, batch_size=batch_size, shuffle=shuffle, source=hdf5_file, **options)
