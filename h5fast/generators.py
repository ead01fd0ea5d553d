"""``write_generator`` and ``write_predict_generator``: batches of a generator, or what a model makes of them, become HDF5 files.

Knows no framework: a model is whatever has ``predict_on_batch`` or can be called.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5fast.arriving import rows_for
from h5fast.asking import Batches
from h5fast.outputs import DirectOutput, open_output
from h5fast.progress import has_bar, with_bar
from h5fast.specs import Spec
from h5fast.target import partial_path
from h5fast.transaction import read_state
from h5fast.writer import Writer

__all__ = ["write_generator", "write_predict_generator"]

# Batches and rows that were written when writing ended early: an attribute that is gone when it is complete.
_PROGRESS = "h5fast_written"
_MEMORY = 64 << 20  # for rows on their way into one dataset
_FLUSH_BYTES = 256 << 20  # after which files of predictions are flushed


def write_generator(generator: Any, steps: int | None = None, *, d_set: h5py.Dataset, label_set: h5py.Dataset | None,
                    workers: int = 1, max_queue_size: int = 10, verbose: int = 0, resume: bool = False) -> int:
    """Writes the batches of a generator into datasets of an open file, from their first row on.

    The datasets keep their type, and their file stays open. Those that may grow are extended to the rows that come.

    Args:
        generator: of batches ``(x, y)``; of ``(x, y, weights)`` the weights are left out; with ``label_set=None`` also of ``x``
            alone. What has a length and numbers (a Keras ``Sequence`` or ``PyDataset``, a list) is asked for them in order.
        steps: how many batches there are; None for all that the generator has. An endless generator needs it.
        d_set, label_set: where `x` and `y` go, row by row; None leaves `y` out
        workers: threads that ask for batches ahead, which are written in order nevertheless; 0 asks in the calling thread. A
            generator without numbers is asked by one thread.
        max_queue_size: batches that are asked for ahead
        verbose: 0 is silent, otherwise there is a bar, where tqdm is installed
        resume: whether to continue after the last batch that an earlier call wrote before an exception ended it

    Returns:
        The number of rows that the datasets have been given, those of earlier calls included.

    Raises:
        ValueError: the generator has fewer batches than `steps`, a dataset more rows than were written (its last ones would say
            nothing), or fewer; rows have another shape than the dataset's, `x` and `y` another number of them, or a value does
            not fit the type.
        TypeError: a batch is something else than told, or its values cannot become the type of a dataset.
    """
    targets = {"d_set": d_set, **({} if label_set is None else {"label_set": label_set})}
    batches_done, rows = _progress(d_set) if resume else (0, 0)
    sinks = [_Sink(what, dataset, rows) for what, dataset in targets.items()]
    with Batches(generator, steps, workers=workers, queue=max_queue_size, start=batches_done) as batches:
        try:
            for batch in _shown(batches, verbose):
                parts = _parts(batch, len(sinks))
                arrays = [sink.accept(part) for sink, part in zip(sinks, parts, strict=True)]
                if len({len(array) for array in arrays}) > 1:
                    raise ValueError(f"batch {batches_done} has {len(arrays[0])} rows of x and {len(arrays[1])} of y")
                for sink, array in zip(sinks, arrays, strict=True):
                    sink.output.add(array)
                rows += len(arrays[0])
                batches_done += 1
        except BaseException:
            for sink in sinks:
                sink.settle()
            d_set.attrs[_PROGRESS] = (batches_done, rows)
            raise
    for sink in sinks:
        sink.settle()
        sink.check_full()
    if _PROGRESS in d_set.attrs:
        del d_set.attrs[_PROGRESS]
    return rows


class _Sink:
    """A dataset of the caller's, written from row `rows` on."""

    def __init__(self, what: str, dataset: h5py.Dataset, rows: int) -> None:
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise TypeError(f"{what} is an open HDF5 dataset with rows, not {dataset!r}")
        if dataset.file.mode != "r+":
            raise ValueError(f"{what}: {dataset.name!r} in {dataset.file.filename} is open for reading only")
        self._what = f"{what} ({dataset.name})"
        self._dataset = dataset
        self._room = dataset.maxshape[0]
        self.output = open_output(dataset, _MEMORY, rows)
        if isinstance(self.output, DirectOutput):
            self.output.reopen_tail()

    def accept(self, rows: Any) -> np.ndarray[Any, Any]:
        """The rows as the dataset takes them, nothing of them written."""
        array = rows_for(self._what, rows, self._dataset.shape[1:], self._dataset.dtype)
        if self._room is not None and self.output.rows + len(array) > self._room:
            raise ValueError(f"{self._what} has room for {self._room} rows, and the generator has more: row "
                             f"{self.output.rows + len(array) - 1} has come")
        return array

    def settle(self) -> None:
        """Writes all rows that were added, and nothing behind them."""
        self.output.settle()
        tail = self.output.tail()
        if len(tail):
            if self.output.rows > self._dataset.shape[0]:
                self._dataset.resize(self.output.rows, axis=0)
            self._dataset[self.output.rows - len(tail):self.output.rows] = tail

    def check_full(self) -> None:
        """Raises where rows of the dataset were not written."""
        if self.output.rows < self._dataset.shape[0]:
            raise ValueError(f"{self._what} has {self._dataset.shape[0]} rows, and the generator had {self.output.rows}: the rest says "
                             "nothing. Make the dataset as long as there are rows, or let it grow from 0 (maxshape=(None, …))")


def _progress(dataset: h5py.Dataset) -> tuple[int, int]:
    batches, rows = dataset.attrs.get(_PROGRESS, (0, 0))
    return int(batches), int(rows)


def _shown(batches: Batches, verbose: int) -> Iterator[Any]:
    return with_bar(batches, batches.total, batches.start) if verbose and has_bar() else batches


def _parts(batch: Any, wanted: int) -> tuple[Any, ...]:
    """``x``, or ``x`` and ``y``, of a batch."""
    if not isinstance(batch, (tuple, list)):
        if wanted == 1:
            return (batch,)
        raise TypeError(f"a batch is (x, y), not a single {type(batch).__name__}; label_set=None or h5py_label=None leaves y out")
    if not wanted <= len(batch) <= 3:
        raise TypeError(f"a batch is (x, y) or (x, y, weights), not {len(batch)} things")
    return tuple(batch[:wanted])


def write_predict_generator(model: Any, generator: Any, steps: int | None = None, *, h5py_file: str | os.PathLike[str],
                            h5py_label: str | os.PathLike[str] | None, workers: int = 1, max_queue_size: int = 10,
                            verbose: int = 0, codec: Any = "lzf", overwrite: bool = False, resume: bool = False) -> int:
    """Writes what a model predicts for the batches of a generator, and their labels, to two new files.

    Both have a dataset ``data``, and both appear under their names when they are complete. Predictions and labels keep their
    types and shapes. Of a model with several outputs there are the datasets ``data_0``, ``data_1`` … (of a mapping:
    ``data_NAME``).

    Args:
        model: what has ``predict_on_batch``, or a function of ``x``
        generator, steps, workers, max_queue_size, verbose: as of :func:`write_generator`
        h5py_file: the file of the predictions
        h5py_label: the file of the labels; None writes none
        codec: of both, as of :class:`Spec`
        overwrite: whether files of these names are replaced
        resume: whether to continue what an earlier call left when it ended early, from the batch that the files have in common

    Returns:
        The number of rows of the files.

    Raises:
        FileExistsError: as of :class:`Writer`.
        ValueError: the generator has fewer batches than `steps`, or none; predictions and labels have another number of rows, or
            rows of another shape or type than those before.
        TypeError: a batch is something else than ``(x, y)``, or the model is no model.
    """
    predict = _predictor(model)
    paths = {"data": Path(os.fspath(h5py_file)), **({} if h5py_label is None else {"label": Path(os.fspath(h5py_label))})}
    if len({os.path.abspath(path) for path in paths.values()}) < len(paths):
        raise ValueError(f"predictions and labels go to two files, and both are to be {h5py_file}")
    files = [_BatchFile(path, codec, overwrite=overwrite, resume=resume) for path in paths.values()]
    if all(file.complete for file in files):
        raise FileExistsError(errno.EEXIST, "exists; overwrite=True replaces it when the new one is complete", str(h5py_file))
    # The last batch that is there is asked for once more: it tells what the files are made of.
    start = max(0, min(file.batches for file in files if not file.complete) - 1)
    try:
        with Batches(generator, steps, workers=workers, queue=max_queue_size, start=start) as batches:
            for number, batch in enumerate(_shown(batches, verbose), start):
                x, *labels = _parts(batch, len(files))
                found = [_named(predict(x)), *({"data": _array(label)} for label in labels)]
                _check_lengths(number, found)
                for file, arrays in zip(files, found, strict=True):
                    file.append(number, arrays)
        return max(file.finish() for file in files)
    finally:
        for file in files:
            file.abandon()


class _BatchFile:
    """A file that gets one batch after the other, and knows how many it has."""

    def __init__(self, path: Path, codec: Any, *, overwrite: bool, resume: bool) -> None:
        self._path, self._codec = path, codec
        self._overwrite, self._resume = overwrite, resume
        self._writer: Writer | None = None
        self._unflushed = 0
        partial = partial_path(path)
        # A file that has its name while the other is under way: the process was killed between the two.
        self.complete = resume and not overwrite and path.exists() and not partial.exists()
        if os.path.lexists(path) and not (overwrite or self.complete):
            raise FileExistsError(errno.EEXIST, "exists; overwrite=True replaces it when the new one is complete", str(path))
        self.batches = _batches_of(partial) if resume else 0

    def append(self, number: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Appends batch `number`, unless it is there already."""
        if self.complete:
            return
        if self._writer is None:
            specs = {name: Spec.like(rows, codec=self._codec) for name, rows in arrays.items()}
            self._writer = Writer(self._path, specs, flush_every=None, overwrite=self._overwrite, resume=self._resume)
        if number < self.batches:
            return
        rows = len(next(iter(arrays.values())))
        # Told before it is appended: a flush in between, with fewer rows, tells that it was not.
        self._writer.note = {"batches": number + 1, "rows": self._writer.rows + rows}
        self._writer.append(arrays)
        self.batches = number + 1
        self._unflushed += sum(array.nbytes for array in arrays.values())
        if self._unflushed >= _FLUSH_BYTES:
            self._writer.flush()
            self._unflushed = 0

    def finish(self) -> int:
        """Gives the file its name; the number of its rows, 0 where another call did it."""
        if self.complete:
            return 0
        if self._writer is None:
            raise ValueError("the generator has no batch: there is nothing to write")
        self._writer.close()
        return self._writer.rows

    def abandon(self) -> None:
        """After an error: leaves what can be resumed. Does nothing to a finished file."""
        if self._writer is not None:
            self._writer.abandon()


def _batches_of(partial: Path) -> int:
    """Batches that the last flush of a file has."""
    state = read_state(partial)
    note = None if state is None else state.get("note")
    if state is None or not isinstance(note, dict):
        return 0
    return int(note["batches"]) - int(state["rows"] < note["rows"])


def _predictor(model: Any) -> Callable[[Any], Any]:
    if hasattr(model, "predict_on_batch"):
        found: Callable[[Any], Any] = model.predict_on_batch
        return found
    if callable(model):
        called: Callable[[Any], Any] = model
        return called
    raise TypeError(f"a model has predict_on_batch or can be called with x, unlike {model!r}")


def _array(value: Any) -> np.ndarray[Any, Any]:
    """A tensor of any framework, or an array, as an array."""
    if hasattr(value, "detach"):  # PyTorch's, on any device
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.ndim == 0:
        raise TypeError(f"a batch of rows is an array, not {value!r}")
    return array


def _named(outputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of a model by the names of their datasets."""
    if isinstance(outputs, Mapping):
        return {f"data_{name}": _array(value) for name, value in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return {f"data_{number}": _array(value) for number, value in enumerate(outputs)}
    return {"data": _array(outputs)}


def _check_lengths(number: int, found: list[dict[str, np.ndarray[Any, Any]]]) -> None:
    lengths = [len(array) for arrays in found for array in arrays.values()]
    if len(set(lengths)) > 1:
        raise ValueError(f"batch {number}: predictions and labels have the numbers of rows {', '.join(map(str, lengths))}")
