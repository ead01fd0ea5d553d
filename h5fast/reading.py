"""Reading one dataset: picks the direct or the general path, and makes sure that the file stayed the same meanwhile."""

from __future__ import annotations

from collections.abc import Callable
import errno
import math
from typing import Any, TypeVar

import h5py
import numpy as np

from h5fast import _gather, general, layout, plugins, transform, virtual
from h5fast._blocks import empty
from h5fast._cast import Cast
from h5fast._selection import Selection, Unhandled, h5py_accepts, select, select_rows
from h5fast.errors import CorruptFileError, H5FastError, ReadError, UnsupportedError
from h5fast.opened import OpenFile, Watch, open_file, registered, shelf_of
from h5fast.stored import Chunks, Part, Stored
from h5fast.threads import get_num_threads

__all__ = ["DatasetReader"]

# Rows that are cast outside the engine pass through a buffer of at most this size.
_CAST_BLOCK_BYTES = 16 << 20

_Answer = TypeVar("_Answer")


class _Appended(Exception):
    """Another process wrote to the file, which is open for that (SWMR): libhdf5 knows what is valid now."""


class DatasetReader:
    """Reads one dataset, by the direct path where that is known to be right, else by the general one.

    Args:
        dataset: the dataset; only its identifier is kept, so that no cycle holds the file open
    """

    __slots__ = ("_id", "_readonly", "_direct", "_reason", "_h5py", "_sealed")

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._id = dataset.id
        self._readonly: bool = getattr(dataset, "_readonly", False)
        self._direct: Stored | virtual.VirtualRows | None = None
        self._reason: str | None = None
        self._h5py: h5py.Dataset | None = None
        self._sealed: OpenFile | None = None  # its file, where libhdf5 has nothing to read

    @property
    def path(self) -> str:
        """"direct", "general: <reason>", or "refused: <reason>" where h5py must not read what h5fast does not."""
        if self._prepared() is not None:
            return "direct"
        return f"{'general' if self._sealed is None else 'refused'}: {self._reason}"

    @property
    def is_sealed(self) -> bool:
        """Whether libhdf5 has nothing of the dataset to read: what h5fast does not read is not read."""
        self._prepared()
        return self._sealed is not None

    @property
    def writes_everything(self) -> bool:
        """Whether each element of a result is written. libhdf5 leaves a buffer as it was where nothing is stored and no
        fill value is to be written."""
        direct = self._prepared()
        return isinstance(direct, Stored) and not direct.layout.leaves_gaps

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of the dataset in elements."""
        direct = self._prepared()
        return direct.shape if direct is not None else self._plain().shape

    def parts(self) -> list[Part] | None:
        """What the engine needs to read the rows by itself, file by file; None where it cannot, or must not: another process
        may be writing the file.

        Raises:
            CorruptFileError: libhdf5 cannot read the chunk index, or it contradicts itself.
        """
        direct = self._prepared()
        if isinstance(direct, virtual.VirtualRows):
            return direct.parts()
        if direct is None or direct.file.swmr or not direct.shape:
            return None
        return [Part(direct.indexed(), 0, direct.shape[0], 0, self._where(), direct.kept)]

    def invalidate(self) -> None:
        """Forgets layout and index: the extent or the contents may have changed."""
        direct, self._direct, self._reason, self._h5py = self._direct, None, None, None
        if isinstance(direct, Stored) and not direct.file.swmr:
            return
        try:
            open_file(layout.file_of(self._id), afresh=True)
        except layout.Indirect as reason:
            self._leave_to_h5py(str(reason))

    def read(self, key: Any) -> Any:
        """What ``dataset[key]`` gives: h5py's answer where it has one, else NumPy's.

        Raises:
            IndexError: an index is out of range, with the index and the size.
            CorruptChunkError, ReadError: the bytes cannot be read.
        """
        direct = self._prepared()
        if direct is None:
            return self._read_general(key)
        try:
            selection = select(key, direct.shape)
        except Unhandled:
            return self.by_h5py(lambda: general.h5py_read(self._plain(), key))
        if selection.fields:
            return self._read_fields(direct, selection, key)
        return self._finish(selection, self._array(direct, selection))

    def read_patched(self, key: Any) -> Any:
        """h5py's own answer for the key, or ``NotImplemented`` where h5py has to give it."""
        direct = self._prepared()
        # The sources of a virtual dataset would stay open when h5py closes the file.
        if not isinstance(direct, Stored) or not h5py_accepts(key, direct.shape):
            return NotImplemented
        selection = select(key, direct.shape)
        if selection.fields:
            return NotImplemented
        try:
            return self._finish(selection, self._array(direct, selection))
        except (H5FastError, _Appended):
            return NotImplemented  # h5py meets the same fault and reports it in its own way

    def take(
        self,
        rows: Any,
        out: np.ndarray | None = None,
        *,
        dtype: Any = None,
        scale: Any = None,
        offset: Any = None,
        channels_first: bool = False,
    ) -> np.ndarray:
        """Rows along the first axis, in any order; see :meth:`h5fast.Dataset.take`."""
        direct = self._prepared()
        shape = direct.shape if direct is not None else self._plain().shape
        selection = select_rows(rows, shape[0] if shape else 0, shape)
        if direct is not None and out is dtype is scale is offset is None and not channels_first:
            return self._array(direct, selection)  # most calls; every step less counts when the caches are cold
        stored = direct.dtype if direct is not None else self._plain().dtype
        wanted = transform.request(stored, shape[1:], dtype, scale, offset, channels_first)
        count = selection.shape[0]
        out = transform.output(wanted, count, out)
        try:
            if wanted.is_identity:
                self.read_into(selection, out)
            elif not isinstance(direct, Stored) or not self._cast(direct, selection, wanted.cast(), out):
                self._cast_in_blocks(selection, stored, wanted, out)
        except _Appended:
            self._cast_in_blocks(selection, stored, wanted, out)
        return out

    # --- paths ---

    def _prepared(self) -> Stored | virtual.VirtualRows | None:
        if self._direct is None and self._reason is None:
            # h5py's lock rather than one of our own: h5py looks after it when the process forks.
            with layout.phil:
                if self._direct is None and self._reason is None:
                    self._prepare(self._plain())
        return self._direct

    def _leave_to_h5py(self, reason: str) -> None:
        self._reason = plugins.missing(self._id.get_create_plist()) or reason

    def by_h5py(self, read: Callable[[], _Answer]) -> _Answer:
        """``read()``, which goes through h5py: its answer, and its errors but for the one that a filter is not there.

        Raises:
            UnsupportedError: the read failed and no plugin for the dataset's filter is installed, or nobody vouches for the file.
        """
        self._prepared()  # registers the plugins
        if self._sealed is not None:
            reason = self._reason or "h5fast does not know what is asked for"
            raise UnsupportedError(
                f"{self._where()}: {reason}; of an untrusted file, only what h5fast's own code decodes is read. If you trust it, "
                "open it without untrusted=True"
            )
        try:
            return read()
        except H5FastError:
            raise
        except (OSError, RuntimeError) as error:
            missing = plugins.missing(self._id.get_create_plist())
            if missing is None:
                raise
            raise UnsupportedError(f"{self._where()}: {missing}") from error

    def _prepare(self, dataset: h5py.Dataset) -> None:
        try:
            file_id = layout.file_of(self._id)
            file = open_file(file_id)
            self._sealed = None if file.lets_libhdf5_read(dataset) else file
            try:
                self._direct = self._stored(dataset, file, None if file.swmr else shelf_of(file_id))
            except layout.Virtual:
                self._direct = virtual.VirtualRows(dataset, file, DatasetReader)
        except layout.Indirect as reason:
            self._leave_to_h5py(str(reason))
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            # libhdf5 or h5py cannot make sense of it: whatever they say when it is read, they say themselves.
            self._reason = f"h5py cannot describe it ({error})"

    def _stored(self, dataset: h5py.Dataset, file: OpenFile, shelf: Watch | None) -> Stored:
        """What the direct path keeps of the dataset; what it kept when the dataset was opened before, if the file is the same."""
        if shelf is None:
            return Stored(dataset, file, file.describe(dataset))
        # 2 µs. h5o.get_info() would walk the chunk index, to sum it up: 85 ms where there are a million chunks.
        address = h5py.h5g.get_objinfo(self._id).objno
        known = shelf.get(address)
        if isinstance(known, Stored) and known.file is file:
            return known
        stored = Stored(dataset, file, file.describe(dataset))
        shelf.put(address, stored)
        return stored

    def _plain(self) -> h5py.Dataset:
        """The dataset as h5py's own. One object for all reads, which knows that the file is read-only and keeps what it reads
        with: were that made for each read, it would go after a long one, and Python drops a Ctrl-C that arrives as an object
        goes."""
        if self._h5py is None:
            self._h5py = h5py.Dataset(self._id, readonly=self._readonly)
        return self._h5py

    def _finish(self, selection: Selection, array: np.ndarray) -> Any:
        return array[()] if selection.scalar and array.shape == () else array

    def _array(self, direct: Any, selection: Selection) -> np.ndarray:
        out = empty(selection.shape, direct.dtype)
        self.read_into(selection, out)
        return out

    def read_into(self, selection: Selection, out: np.ndarray) -> None:
        """Reads a selection into ``out``, a C-contiguous array of its shape and the dataset's type."""
        direct = self._prepared()
        try:
            if isinstance(direct, Stored):
                self._gather(direct, selection, out)
                return
            if direct is not None and direct.read(selection, out):
                return
        except _Appended:
            pass  # the general path is the answer to that
        dataset = self._plain()
        self.by_h5py(lambda: general.read(dataset, dataset.chunks, selection, out))

    def _gather(self, direct: Stored, selection: Selection, out: np.ndarray, **options: Any) -> bool:
        """Reads into ``out`` through the engine, then makes sure that the file was the same throughout."""
        try:
            done = self._run(direct, direct.chunks(selection), selection, out, options)
        except CorruptFileError as error:
            self._require_unchanged(direct, error)
            raise CorruptFileError(errno.EIO, f"{self._where()}: {error}") from None
        except H5FastError as error:
            self._require_unchanged(direct, error)
            # Chunks found without the index do not know their place in the file, which belongs in the message.
            done = self._run(direct, direct.indexed(), selection, out, options)
        self._require_unchanged(direct, None)
        return done

    def _run(self, direct: Stored, chunks: Chunks, selection: Selection, out: np.ndarray, options: dict[str, Any]) -> bool:
        return _gather.read(chunks, selection, out, get_num_threads(), self._where, kept=direct.kept, **options)

    def _require_unchanged(self, direct: Stored, error: H5FastError | None) -> None:
        changed = direct.file.source.changed()
        if not changed:
            return
        if direct.file.swmr:
            self._direct = None
            self._reason = "another process is writing the file; refresh() reads directly again"
            raise _Appended
        raise ReadError(
            errno.ESTALE, f"{self._where()}: the file changed on disk while it was open: {changed}; close and reopen it"
        ) from error

    def _read_fields(self, direct: Any, selection: Selection, key: Any) -> Any:
        """One field of a compound is a range of each element's bytes; several are left to h5py's rules."""
        dtype = direct.dtype
        name = selection.fields[0]
        is_one = len(selection.fields) == 1 and not selection.record and name in (dtype.names or ())
        if not isinstance(direct, Stored) or not is_one:
            return self._read_general(key)
        field, offset = dtype.fields[name][:2]
        out = empty(selection.shape, field)
        try:
            self._gather(direct, selection, out, field_offset=offset, field_bytes=field.itemsize)
        except _Appended:
            return self._read_general(key)
        return self._finish(selection, out)

    def _read_general(self, key: Any) -> Any:
        return self.by_h5py(lambda: self._general(key))

    def _general(self, key: Any) -> Any:
        """Through h5py: its own answer where it has one without walking element by element, else chunk by chunk."""
        dataset = self._plain()
        if dataset.shape is None:
            return general.h5py_read(dataset, key)
        try:
            selection = select(key, dataset.shape)
        except Unhandled:
            return general.h5py_read(dataset, key)
        if dataset.shape == ():
            if selection.h5py or selection.fields:
                return general.h5py_read(dataset, key)
            return self._finish(selection, np.asarray(general.h5py_read(dataset, ()), dataset.dtype).reshape(selection.shape))
        axes = selection.axes
        if selection.h5py and not any(is_point for *_, is_point in axes):
            return general.h5py_read(dataset, key)
        source: Any = dataset
        if selection.fields:
            names = selection.fields[0] if len(selection.fields) == 1 and not selection.record else selection.fields
            source = dataset.fields(list(names) if isinstance(names, tuple) else names)
        out = np.empty(selection.shape, _dtype_of(dataset.dtype, selection))
        general.read(source, dataset.chunks, selection, out)
        return self._finish(selection, out)

    def _cast(self, direct: Stored, selection: Selection, cast: Cast, out: np.ndarray) -> bool:
        return cast.fused and self._gather(direct, selection, out, cast=cast)

    def _cast_in_blocks(self, selection: Selection, stored: np.dtype, wanted: transform.Transform,
                        out: np.ndarray) -> None:
        """Rows as they are stored into a bounded buffer, from there cast by NumPy into the output."""
        shape = self.shape
        rows = _rows_of(selection)
        row_bytes = max(1, math.prod(shape[1:]) * stored.itemsize)
        step = max(1, _CAST_BLOCK_BYTES // row_bytes)
        for first in range(0, len(rows), step):
            part = select_rows(rows[first:first + step], shape[0], shape)
            block = np.empty(part.shape, stored)
            self.read_into(part, block)
            wanted.apply(block, out[first:first + step])

    def _where(self) -> str:
        dataset = self._plain()
        behind = registered(dataset)
        return f"{dataset.file.filename if behind is None else behind.filename(dataset)}: dataset {dataset.name!r}"


def _dtype_of(dtype: np.dtype, selection: Selection) -> np.dtype:
    """What a selection reads as: of a compound type, the fields that it names."""
    if not selection.fields:
        return dtype
    if len(selection.fields) == 1 and not selection.record:
        return dtype[selection.fields[0]]
    return np.dtype([(name, dtype[name]) for name in selection.fields])


def _rows_of(selection: Selection) -> np.ndarray:
    """The rows that a selection of rows lists, in order."""
    rows = selection.coordinates[0]
    if rows is not None:
        return rows
    start, count, step, stride, _ = selection.axes[0]
    rows = start + step * np.arange(count, dtype=np.int64)
    return rows[::-1] if stride < 0 else rows
