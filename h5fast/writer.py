"""``Writer``: batches of rows become an HDF5 file made for training."""

from __future__ import annotations

import errno
import operator
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from h5fast.arriving import check_batch
from h5fast.chunking import check_access
from h5fast.sampling import SAMPLE_BYTES, choose_codec
from h5fast.sizes import parse_bytes
from h5fast.specs import Spec
from h5fast.target import AtomicTarget, LiveTarget, Plan, Target, check_fields

__all__ = ["Writer"]


class Writer:
    """Writes batches of rows to an HDF5 file, encoded by native threads.

    Parameters
    ----------
    path:
        The file. It appears under this name when all of it is written; until then the rows are in ``PATH.partial``.
    fields:
        The datasets by name, each with its :class:`Spec`. They have as many rows each.
    rows:
        How many rows will be written. None lets the datasets grow, also after the file is closed.
    access:
        What ``chunk_rows="auto"`` is chosen for: "random rows" or "sequential".
    overwrite:
        Whether a file at `path` is to be replaced, in the moment the new one is complete, and a partial file of an earlier
        writer to be thrown away.
    resume:
        Whether to continue the partial file of an earlier writer, from its last flush; :attr:`rows` tells how many rows it
        has. Without such a file, writing begins with row 0.
    live:
        The other mode: the file is written in place, and can be read while it grows (HDF5's SWMR). A crash leaves it as it
        is then.
    memory:
        Bytes (or a text such as "64 MiB") for rows on their way.
    flush_every:
        Bytes of rows after which :meth:`flush` is called; None leaves it to the caller. By default 1 GiB, live 16 MiB.

    A ``with`` statement closes the file; left by an exception, it does not give the file its name: the partial file stays,
    with all rows that were appended, to be resumed or removed.

    Raises
    ------
    FileExistsError
        There is a file at `path`, or a partial one, and neither `overwrite` nor `resume` says what to do with it.
    ValueError, TypeError
        Arguments that mean nothing, or too little memory for two chunks of each field.
    OSError
        The file cannot be written, or what was to be resumed cannot be continued.
    """

    def __init__(self, path: str | os.PathLike[str], fields: Mapping[str, Spec], rows: int | None = None, *,
                 access: str = "random rows", overwrite: bool = False, resume: bool = False, live: bool = False,
                 memory: int | float | str = "64 MiB", flush_every: int | float | str | None = "auto") -> None:
        self._fields = _check_fields(fields)
        self._expected = _check_rows(rows)
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._row_bytes = sum(spec.row_bytes for spec in self._fields.values())
        if flush_every == "auto":
            flush_every = "16 MiB" if live else "1 GiB"
        self._flush_bytes = None if flush_every is None else parse_bytes(flush_every)
        if live and resume:
            raise ValueError("live=True writes in place: there is no partial file to resume")
        self._plan = Plan(self._expected, check_access(access), parse_bytes(memory))
        check_fields(self._fields, self._plan)
        target = Path(os.fspath(path))
        self._target: Target = (LiveTarget(target, overwrite=overwrite) if live else
                                AtomicTarget(target, overwrite=overwrite, resume=resume))
        self._rows = self._flushed = self._target.rows
        self._closed = False
        # Batches that came before the codecs were chosen; None when the datasets are there.
        self._sample: list[dict[str, np.ndarray[Any, Any]]] | None = []
        if self._target.resumed or all(spec.codec != "auto" for spec in self._fields.values()):
            try:
                self._begin()
            except BaseException:
                self._target.drop()
                raise

    @property
    def rows(self) -> int:
        """Rows of each field so far, those of a resumed file included; of fields that are appended chunk by chunk, the rows
        that all of them have."""
        return self._rows

    @property
    def file(self) -> Any:
        """The ``h5py.File`` that is being written, for attributes, groups and datasets beside the fields.

        What is put there is part of the next flush. The fields' own datasets are there as soon as their codecs are known, and
        are the writer's to change; their attributes are anybody's.
        """
        self._check_open()
        return self._target.file

    @property
    def note(self) -> Any:
        """Anything that JSON can hold; what it was at the last flush, a resumed writer has again. Not part of the file."""
        return self._target.note

    @note.setter
    def note(self, value: Any) -> None:
        self._target.note = value

    @property
    def closed(self) -> bool:
        """Whether the writer was closed, or has given up."""
        return self._closed

    def append(self, batch: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Appends a batch: for each field an array of shape ``(n, *row shape)``, as a mapping or as keywords.

        The arrays may be changed afterwards. Nothing of a batch that raises ``ValueError`` or ``TypeError`` is taken.

        Raises:
            ValueError: a field is missing or unknown, the numbers of rows differ, a shape is wrong, a value does not fit its
                type, there would be more rows than announced, or the writer is closed.
            TypeError: the values of a field cannot become its type.
            OSError: the disk is full, or refuses otherwise; the writer is closed then, and the partial file can be resumed.
        """
        with self._lock:
            self._check_open()
            arrays, count = check_batch({**(batch or {}), **fields}, self._fields)
            if self._expected is not None and self._rows + count > self._expected:
                raise ValueError(f"{self._target.path}: {self._rows} rows and {count} more are more than the {self._expected} announced")
            if any(output.rows != self._rows for output in self._target.outputs.values()):
                raise ValueError(f"{self._target.path}: {self._unequal()}: append the chunks that are missing before batches")
            with self._giving_up_on_errors():
                if self._sample is None:
                    self._add(arrays)
                else:
                    self._sample.append({name: array.copy() for name, array in arrays.items()})
                    if (self._rows + count) * self._row_bytes >= SAMPLE_BYTES:
                        self._begin()
                self._rows += count
                self._target.check()
            if self._flush_bytes is not None and (self._rows - self._flushed) * self._row_bytes >= self._flush_bytes:
                self.flush()

    def append_chunk(self, name: str, stored: Any, *, mask: int = 0, rows: int | None = None) -> None:
        """Appends a chunk of one field as it is to be stored: encoded already, with the very filters of the field.

        Nothing looks into it. ``Spec.of(dataset)`` makes a field whose chunks can be moved from that dataset, with
        ``dataset.id.read_direct_chunk``. The other fields have to be appended as many rows before the next batch, flush or
        close.

        Args:
            stored: the bytes, anything with Python's buffer protocol
            mask: the filters that were left out for it, one bit each
            rows: that it holds, if it is the last of the field and padded; else it is full

        Raises:
            ValueError: the rows before it do not fill their chunks; it holds more rows than a chunk, or more than announced;
                the field has elements of variable length; the writer is closed.
            KeyError: there is no such field.
            OSError: as :meth:`append`.
        """
        with self._lock:
            self._check_open()
            if self._sample is not None:
                with self._giving_up_on_errors():
                    self._begin()
            if name not in self._target.outputs:
                raise KeyError(f"there is no field {name!r}; the fields are {', '.join(map(repr, self._fields))}")
            output = self._target.outputs[name]
            count = output.chunk_rows if rows is None else operator.index(rows)
            if not 1 <= count <= output.chunk_rows:
                raise ValueError(f"a chunk of {name!r} holds 1 to {output.chunk_rows} rows, not {count}")
            if self._expected is not None and output.rows + count > self._expected:
                raise ValueError(f"{self._target.path}: {output.rows} rows of {name!r} and {count} more are more than the "
                                 f"{self._expected} announced")
            if output.rows % output.chunk_rows:
                raise ValueError(f"{output.rows} rows of {name!r} do not fill chunks of {output.chunk_rows}: no chunk can follow them")
            with self._giving_up_on_errors():
                output.add_stored(stored, mask, count)
                self._rows = min(output.rows for output in self._target.outputs.values())
                self._target.check()

    def _add(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for name, array in arrays.items():
            self._target.outputs[name].add(array)

    def _begin(self) -> None:
        """Makes the datasets, with the codecs that suit the rows which were appended meanwhile."""
        waiting, self._sample = self._sample or [], None
        fields, reasons = dict(self._fields), {}
        for name, spec in self._fields.items():
            if spec.codec == "auto" and not self._target.resumed:
                rows = np.concatenate([batch[name] for batch in waiting] or [np.empty((0, *spec.shape), spec.element)])
                most = max(1, SAMPLE_BYTES // max(1, spec.row_bytes))
                codec, reasons[name] = choose_codec(spec, rows[:most], access=self._plan.access,
                                                    most_bytes=self._plan.most_bytes(self._fields))
                fields[name] = spec.with_codec(codec)
        self._target.begin(fields, replace(self._plan, reasons=reasons))
        for batch in waiting:
            self._add(batch)

    def _unequal(self) -> str:
        return "the fields have " + ", ".join(f"{output.rows} rows of {name!r}" for name, output in self._target.outputs.items())

    def flush(self) -> None:
        """Makes what was appended the state to resume from; of a live file, shows it to its readers.

        Raises:
            ValueError: the writer is closed.
            OSError: as :meth:`append`.
        """
        with self._lock:
            self._check_open()
            self._check_equal()
            with self._giving_up_on_errors():
                if self._sample is not None:
                    self._begin()
                self._target.flush(self._rows)
            self._flushed = self._rows

    def _check_equal(self) -> None:
        if any(output.rows != self._rows for output in self._target.outputs.values()):
            raise ValueError(f"{self._target.path}: {self._unequal()}, and must have the same number")

    def close(self) -> None:
        """Writes what is left and gives the file its name. Does nothing if the writer is closed already.

        Raises:
            ValueError: fewer rows than announced were appended; the partial file stays, and can be resumed.
            FileExistsError: a file of this name came into being meanwhile; the partial file stays, complete.
            OSError: as :meth:`append`.
        """
        with self._lock:
            if self._closed:
                return
            self._check_process()
            self._check_equal()
            if self._expected is not None and self._rows != self._expected:
                self._leave()
                raise ValueError(f"{self._target.path}: {self._rows} of the {self._expected} announced rows were appended; "
                                 f"{self._target.left_behind}")
            with self._giving_up_on_errors():
                if self._sample is not None:
                    self._begin()
                self._target.finish()
            self._closed = True

    def abandon(self) -> None:
        """Closes without giving the file its name: the partial file stays, with all that was appended, if anything was. A live
        file is closed as it is."""
        with self._lock:
            if not self._closed:
                self._check_process()
                self._leave()

    def _leave(self) -> None:
        if self._rows == 0 and not self._target.resumed and not any(output.rows for output in self._target.outputs.values()):
            self._closed = True
            self._target.drop()  # there is nothing to resume
            return
        with self._giving_up_on_errors():
            if self._sample is not None:
                self._begin()
            if all(output.rows == self._rows for output in self._target.outputs.values()):
                self._target.flush(self._rows)
        self._closed = True
        self._target.leave()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self._target.path}: the writer is closed")
        self._check_process()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise OSError(errno.EPERM, "a forked process must not write to the file of its parent", str(self._target.path))

    def _giving_up_on_errors(self) -> _GivingUp:
        return _GivingUp(self)

    def _give_up(self) -> None:
        self._closed = True
        self._target.leave()

    def __enter__(self) -> Writer:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes; after an exception, only abandons."""
        if kind is None:
            self.close()
        elif not self._closed:
            try:
                self.abandon()
            except OSError as second:
                if error is not None and hasattr(error, "add_note"):
                    error.add_note(f"and then {second}")


class _GivingUp:
    """What is half done when it fails cannot be continued in this process: the writer closes, the last flush stays."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._writer._give_up()


def _check_fields(fields: Mapping[str, Spec]) -> dict[str, Spec]:
    if not isinstance(fields, Mapping) or not fields:
        raise ValueError("fields is a mapping of names to Spec, with at least one")
    for name, spec in fields.items():
        if not isinstance(name, str) or not name.strip("/") or "\0" in name or any(part in (".", "") for part in name.split("/")):
            raise ValueError(f"a field is called by a path in the file such as 'image' or 'train/image', not {name!r}")
        if not isinstance(spec, Spec):
            raise TypeError(f"field {name!r} is described by a Spec, not by {spec!r}")
    for name in fields:
        if any(other.startswith(name + "/") for other in fields):
            raise ValueError(f"{name!r} cannot be a field and a group of others")
    return dict(fields)


def _check_rows(rows: int | None) -> int | None:
    if rows is None:
        return None
    count = operator.index(rows)
    if isinstance(rows, bool) or count < 0:
        raise ValueError(f"rows is how many there will be, or None, not {rows!r}")
    return count
