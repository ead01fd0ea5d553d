"""tf.data: batches of HDF5 rows as a ``tf.data.Dataset``. Needs TensorFlow: ``pip install 'h5fast[tensorflow]'``.

::

    from h5fast.tensorflow import dataset

    batches = dataset("train-*.h5", ("image", "label"), batch_size=256)
    model.fit(batches.map(augment).prefetch(2), epochs=10)

Native threads read and decode ahead; TensorFlow is handed each batch on the memory in which it lies. It is the one module that
imports TensorFlow. See ``docs/tensorflow.md``.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from h5fast.loader import Loader

try:
    import tensorflow as tf
except ImportError as error:
    raise ImportError(
        f"h5fast.tensorflow needs TensorFlow, and it cannot be imported ({error}): pip install 'h5fast[tensorflow]'"
    ) from error

__all__ = ["dataset"]

# TensorFlow takes memory over without a copy where it lies on such an address.
_ALIGNMENT = 64


def dataset(source: Any, fields: Any = None, batch_size: int = 256, **options: Any) -> Any:
    """The batches of an epoch; each iteration, and each round of ``repeat()``, is the next epoch, in another order.

    Parameters
    ----------
    source, fields, batch_size, options:
        As :class:`h5fast.Loader` has them: shuffle, seed, rows, weights, drop_last, shard, memory, transform … Or a loader of your
        own as `source`, and nothing else.

    Returns
    -------
    A ``tf.data.Dataset``. Its elements have the loader's form: a tensor, a tuple, or a dict. Their shapes are static but for the
    first axis, and that too where all batches are full (``drop_last=True``, or rows that divide evenly). Its cardinality is the
    number of batches; unknown where batches may be left out (``on_error="skip"``, a loader that was resumed). Strings become
    ``tf.string``.

    Raises what :class:`h5fast.Loader` raises; ``TypeError`` for rows that no tensor can be made of: arrays of different lengths,
    sparse matrices, structures. Data that cannot be read raises TensorFlow's error in the loop, with h5fast's message in it.
    """
    if not isinstance(source, Loader):
        loader = Loader(source, fields, batch_size, **options)
    elif fields is None and not options:
        loader = source
    else:
        raise TypeError("a loader has fields and options of its own; leave them out")
    sample = loader.take([0])
    specs = [_spec(name, value, loader.batch_size if loader.are_full else None) for name, value in _named(sample)]
    epochs = _Epochs(loader, specs)

    def batch_of(epoch: Any) -> Any:
        tensors = tf.numpy_function(epochs.next, [epoch], [spec.dtype for spec in specs])
        for tensor, spec in zip(tensors, specs):
            tensor.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(sample, tensors)

    def batches_of(start: Any) -> Any:
        epoch = tf.ensure_shape(tf.numpy_function(epochs.begin, [start], tf.int64), [2])
        batches = tf.data.Dataset.range(epoch[1]).map(lambda step: batch_of(epoch))
        if loader.on_error == "skip":  # there may be fewer
            batches = batches.take_while(lambda *batch: tf.shape(tf.nest.flatten(batch)[0])[0] > 0)
        return batches

    every = tf.data.Dataset.range(1).flat_map(batches_of)
    if loader.on_error == "skip" or loader.remaining != len(loader):
        return every
    return every.apply(tf.data.experimental.assert_cardinality(len(loader)))


class _Epochs:
    """The iterations that are under way, for functions that TensorFlow calls: it may iterate several at once.

    Args:
        loader: whose epochs they are
        specs: of the tensors of a batch
    """

    def __init__(self, loader: Loader, specs: list[Any]) -> None:
        self._loader = loader
        self._dtypes = [object if spec.dtype == tf.string else np.dtype(spec.dtype.as_numpy_dtype) for spec in specs]
        self._shapes = [(0, *spec.shape[1:]) for spec in specs]
        self._under_way: dict[int, Iterator[Any]] = {}
        self._has_begun: set[int] = set()
        self._number = itertools.count()

    def begin(self, start: Any) -> np.ndarray:
        """Begins an iteration; its number, and how many batches it has.

        TensorFlow takes over the memory of what this returns, and lets go of it with the iteration: that is how the end of one
        that was given up is known.
        """
        number = next(self._number)
        owner = np.empty(3 * _ALIGNMENT, np.uint8)
        first = -owner.ctypes.data % _ALIGNMENT
        epoch: np.ndarray = owner[first:first + 16].view(np.int64)
        epoch[:] = number, self._loader.remaining
        self._under_way[number] = iter(self._loader)
        weakref.finalize(owner, self._end, number)
        return epoch

    def next(self, epoch: np.ndarray) -> list[np.ndarray]:
        """The next batch of an iteration."""
        number = int(epoch[0])
        self._has_begun.add(number)
        try:
            batch = next(self._under_way[number])
        except StopIteration:
            if self._loader.on_error != "skip":
                raise RuntimeError("the loader ended before its last batch") from None
            return [np.empty(shape, dtype) for shape, dtype in zip(self._shapes, self._dtypes)]
        return [np.ascontiguousarray(value, dtype) for value, dtype in zip(tf.nest.flatten(batch), self._dtypes)]

    def _end(self, number: int) -> None:
        # Of one that gave no batch yet TensorFlow has let go of a copy's original: it is not over.
        if number in self._has_begun:
            self._has_begun.discard(number)
            self._under_way.pop(number, None)


def _named(sample: Any) -> list[tuple[str, np.ndarray]]:
    """The arrays of a batch in TensorFlow's order, with what they are called."""
    values = [np.asarray(value) if not hasattr(value, "tocsr") else value for value in tf.nest.flatten(sample)]
    names = sorted(sample) if isinstance(sample, dict) and len(sample) == len(values) else [str(n) for n in range(len(values))]
    return list(zip(names, values))


def _spec(name: str, value: Any, rows: int | None) -> Any:
    """The signature of a field, of a batch of one row.

    Raises:
        TypeError: it cannot be a tensor.
    """
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        raise TypeError(f"field {name!r}: batches are {type(value).__name__}, which no tensor can be made of; take them from an "
                        "h5fast.Loader")
    if value.dtype.kind in "biufc":
        return tf.TensorSpec((rows, *value.shape[1:]), tf.as_dtype(value.dtype.newbyteorder("=")))
    if value.dtype.kind in "SUO" and all(isinstance(one, (str, bytes)) for one in value.flat):
        return tf.TensorSpec((rows, *value.shape[1:]), tf.string)
    raise TypeError(f"field {name!r}: rows of {value.dtype} that are not all strings or numbers of one shape cannot be a tensor; "
                    "take them from an h5fast.Loader")
