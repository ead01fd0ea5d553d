"""``File``, ``Group`` and ``Dataset``: h5py's classes with h5fast's reader behind every dataset.

h5py opens the files, follows the links and describes the objects. Each object that it hands out is then turned into its
h5fast twin, in place, so that every route to a dataset ends at a :class:`Dataset` and h5py's own logic runs unchanged in
every version. This module uses :mod:`h5fast.methods` and h5py's high level; it never reads a byte of data itself.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import h5py
import numpy as np
from h5py._hl.dims import DimensionManager as _H5pyDimensionManager
from h5py._hl.dims import DimensionProxy as _H5pyDimensionProxy
from numpy.typing import ArrayLike, DTypeLike

from h5fast.addresses import address_of, forget_options, note_locking
from h5fast.caching import ChunkCache, open_arguments, open_signature
from h5fast.methods import invalidate, iterate_rows, read_as, read_into, reader_of, require_open
from h5fast.errors import UnsupportedError
from h5fast.opened import hold, registered, set_limit, watch
from h5fast.untrusted.opening import UntrustedFile, checked_options, open_untrusted
from h5fast.untrusted.standin import elsewhere, refuse_elsewhere

__all__ = ["Dataset", "File", "Group"]

_Object = TypeVar("_Object")
_ABSENT = object()


class Group(h5py.Group):
    """An HDF5 group, as :class:`h5py.Group`, whose members are h5fast's.

    Everything that h5py's class offers works as it does there; ``h5py.Datatype`` objects and links stay h5py's.
    """

    def __getitem__(self, name: Any) -> Any:
        """Open the member `name` (a path or an object or region reference).

        Raises ``KeyError`` if there is none and ``ValueError`` if the file is closed.
        """
        require_open(self)
        try:
            return adopt(super().__getitem__(name))
        except KeyError as error:
            behind = registered(self)
            if behind is not None:
                refuse_elsewhere(self, name, behind.filename(self))
            raise KeyError(f"{error.args[0]}: {_place(self, name)}") from None

    def get(self, name: Any, default: Any = None, getclass: bool = False, getlink: bool = False, **access: Any) -> Any:
        """The member `name`, or `default` if there is none; see :meth:`h5py.Group.get`.

        With `getclass` its class (h5fast's), with `getlink` the link instead of the object. `access` holds the options
        for external links of newer h5py (``elink_mode``, ``elink_locking``, ``elink_swmr``).
        """
        require_open(self)
        found = super().get(name, _ABSENT, getclass, getlink, **access)
        if found is _ABSENT:
            return default
        if getlink and registered(self) is not None:
            leading = elsewhere(found)
            return found if leading is None or leading.link is None else leading.link
        return _TWINS.get(found, found) if getclass else adopt(found)

    def create_group(self, *args: Any, **kwds: Any) -> Group:
        """Create and return a group; see :meth:`h5py.Group.create_group`."""
        group: Group = adopt(super().create_group(*args, **kwds))
        return group

    def require_group(self, name: Any) -> Group:
        """The group `name`, created if need be; see :meth:`h5py.Group.require_group`."""
        group: Group = adopt(super().require_group(name))
        return group

    def create_dataset(self, *args: Any, **kwds: Any) -> Dataset:
        """Create and return a dataset; see :meth:`h5py.Group.create_dataset`."""
        dataset: Dataset = adopt(super().create_dataset(*args, **kwds))
        return dataset

    def require_dataset(self, *args: Any, **kwds: Any) -> Dataset:
        """The dataset of this name, shape and dtype, created if need be; see :meth:`h5py.Group.require_dataset`."""
        dataset: Dataset = adopt(super().require_dataset(*args, **kwds))
        return dataset

    def create_dataset_like(self, *args: Any, **kwds: Any) -> Dataset:
        """Create an empty dataset with the properties of another; see :meth:`h5py.Group.create_dataset_like`."""
        dataset: Dataset = adopt(super().create_dataset_like(*args, **kwds))
        return dataset

    def create_virtual_dataset(self, *args: Any, **kwds: Any) -> Dataset:
        """Create a dataset that is assembled from others; see :meth:`h5py.Group.create_virtual_dataset`."""
        dataset: Dataset = adopt(super().create_virtual_dataset(*args, **kwds))
        return dataset

    def copy(self, source: Any, dest: Any, *args: Any, **kwds: Any) -> None:
        """Copy an object; see :meth:`h5py.Group.copy`. Raises ``UnsupportedError`` for one of an untrusted file."""
        for obj in (self, source):
            if isinstance(obj, h5py.HLObject) and registered(obj) is not None:
                raise UnsupportedError("libhdf5 copies no objects of an untrusted file: read its datasets and write what they hold")
        super().copy(source, dest, *args, **kwds)

    @property
    def file(self) -> File:
        """The file that this group is in."""
        file: File = adopt(super().file)
        return file

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as (path, name, options); see :meth:`File.__reduce__`."""
        return _reopen, address_of(self)


class File(Group, h5py.File):
    """An HDF5 file, as :class:`h5py.File` with the same modes, drivers and options, whose members are h5fast's.

    ``chunk_cache_mem_size`` is what ``h5py_cache.File`` calls ``rdcc_nbytes``: programs that were written for it run.

    One option more, `chunk_cache`, is for what h5py itself reads: "auto" looks at the datasets of the file and takes the cache
    that suits random rows of the largest, "sequential" and "crops" (and "random rows") those for other ways of reading, and a
    :class:`ChunkCache` is what :func:`chunk_cache` returned. It takes the place of ``rdcc_nbytes``, ``rdcc_nslots`` and
    ``rdcc_w0``; with one of them it is a ``ValueError``. Of a file that is open in this process already, libhdf5 keeps the
    cache that it has.

    ``untrusted=True`` reads a file that nobody vouches for: libhdf5 parses it in another process, under limits, and what that
    tells is checked here (docs/untrusted.md). Raises ``CorruptFileError`` if it cannot be read so, and ``UnsupportedError``
    where more than h5fast's own decoders is needed.
    """

    def __init__(self, name: Any, *args: Any, chunk_cache: ChunkCache | str | None = None, untrusted: bool = False,
                 **options: Any) -> None:
        kept = None
        if "chunk_cache_mem_size" in options and "rdcc_nbytes" not in options:
            options["rdcc_nbytes"] = options.pop("chunk_cache_mem_size")
        try:
            if untrusted:
                identifier, _held = open_untrusted(*checked_options(name, *args, chunk_cache=chunk_cache, **options))
                super().__init__(identifier)
                self._watched = watch(self)  # holds it
            elif chunk_cache is None:
                super().__init__(name, *args, **options)
            else:
                call, kept = open_arguments(chunk_cache, name, *args, **options)
                super().__init__(**call)
        except OSError as error:
            if isinstance(name, (str, bytes, os.PathLike)) and os.fsdecode(name) not in str(error):
                raise type(error)(*error.args[:-1], f"{error.args[-1]}: {os.fsdecode(name)}") from None
            raise
        if isinstance(name, (str, bytes, os.PathLike)):  # opened here, not another handle of an open file
            if kept is not None:
                set_limit(self.id, kept)
            self._watched = watch(self)
        note_locking(self, options.get("locking"))

    @property
    def filename(self) -> str:
        """The path that the file was opened with."""
        behind = registered(self)
        return str(super().filename) if behind is None else behind.filename(self)

    def close(self) -> None:
        """Close the file, and with it every object that belongs to it."""
        watched = getattr(self, "_watched", None)
        if watched is not None:
            watched.shelf.clear()
            watched.file.close_opened()
        forget_options(self)
        super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as (path, options); the copy opens the file again, read-only.

        Raises ``TypeError`` where a copy could not show the same data: the file is closed, open for writing, kept in
        memory, behind a file object or another driver than the operating system's files, or no longer at its path.
        """
        path, _, options = address_of(self)
        return _reopen, (path, None, options)


functools.update_wrapper(File.__init__, h5py.File.__init__)  # its words
File.__init__.__signature__ = open_signature()  # type: ignore[attr-defined]


class Dataset(h5py.Dataset):
    """An HDF5 dataset, as :class:`h5py.Dataset`, that is read through h5fast."""

    @property
    def reader(self) -> str:
        """How this dataset is read: ``"direct"``, or ``"general: <reason>"`` if through h5py, and why."""
        require_open(self)
        return reader_of(self).path

    def __getitem__(self, args: Any, new_dtype: DTypeLike | None = None) -> Any:
        """The selected elements, as h5py returns them, or as numpy does for what h5py refuses.

        `args` is whatever numpy accepts on an array of this shape: integers, slices with any step, ``...``, newaxis,
        masks, and lists or arrays in any order, with repeats and negatives. Where h5py has an answer of its own
        (``d[0, :, [1, 2]]`` has another shape in numpy), it is h5py's; so are field names and region references.
        `new_dtype` is the dtype to read as; h5py's views (``astype``, ``fields``) pass it, and it has h5py's rules.

        Returns an array of the dataset's dtype, or a scalar. Raises ``IndexError`` for an index that is out of range,
        ``ValueError`` if the file is closed, ``CorruptChunkError`` and ``ReadError`` for data that cannot be read.
        """
        require_open(self)
        reader = reader_of(self)
        if new_dtype is None:
            return reader.read(args)
        result = read_as(reader.read, self, args, new_dtype)
        if result is not NotImplemented:
            return result
        convert = super().__getitem__
        return reader.by_h5py(lambda: convert(args, new_dtype))

    def take(
        self,
        rows: ArrayLike | slice | range,
        out: np.ndarray[Any, Any] | None = None,
        *,
        dtype: DTypeLike | None = None,
        scale: float | Sequence[float] | np.ndarray[Any, Any] | None = None,
        offset: float | Sequence[float] | np.ndarray[Any, Any] | None = None,
        channels_first: bool = False,
    ) -> np.ndarray[Any, Any]:
        """Gather whole rows, converted on the way: ``row.astype(dtype) * scale + offset`` in one pass over the data.

        Parameters
        ----------
        rows
            Indices along axis 0 in any order: a sequence or array of integers, with repeats and negatives as in numpy, a
            slice, a range, or a boolean mask as long as the dataset.
        out
            Where the rows are put: a writable array of exactly the shape and dtype of the result. None makes a new one.
        dtype
            Type of the result; None is the dataset's own type, but float32 for integers and booleans with `scale` or `offset`.
        scale, offset
            One number, or one per channel; the channels are the last axis of the dataset.
        channels_first
            Move the last axis of each row to its front, so that a dataset of shape (N, H, W, C) gives (n, C, H, W).

        Returns
        -------
        `out`, or a new array of shape ``(len(rows), *shape[1:])``, C-contiguous in its final axis order.

        Raises
        ------
        IndexError
            A row is out of range (the message names the row and the length), or `rows` are not integers.
        TypeError
            `rows` have other than one dimension, `out` has the wrong dtype, or `scale` and `offset` meet something that is
            no number.
        ValueError
            `out`, `scale`, `offset` or a mask has the wrong shape, or the file is closed.
        CorruptChunkError, ReadError
            The data cannot be read. Other rows of the dataset stay readable.
        """
        require_open(self)
        return reader_of(self).take(rows, out, dtype=dtype, scale=scale, offset=offset, channels_first=channels_first)

    def read_direct(self, dest: np.ndarray[Any, Any], source_sel: Any = None, dest_sel: Any = None) -> None:
        """Read into the C-contiguous array `dest`; see :meth:`h5py.Dataset.read_direct`."""
        require_open(self)
        if read_into(self, dest, source_sel, dest_sel):
            return
        reader = reader_of(self)
        if reader.is_sealed and dest.dtype == self.dtype:
            dest[() if dest_sel is None else dest_sel] = reader.read(() if source_sel is None else source_sel)
            return
        convert = super().read_direct
        reader.by_h5py(lambda: convert(dest, source_sel, dest_sel))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """The whole dataset as a new array, converted to `dtype` as HDF5 converts. ``copy=False`` is a ``ValueError``."""
        require_open(self)
        if copy is False:
            raise ValueError("copy=False: a dataset is read from its file, so memory allocation cannot be avoided")
        if reader_of(self).is_sealed:
            read = self.__getitem__((), dtype)
            # A scalar text came without the zeros at its end.
            return np.array(read, self.dtype if dtype is None and self.dtype.kind == "S" else None)
        array: np.ndarray[Any, Any] = super().__array__(dtype)  # h5py before 3.12 knows no `copy`
        return array

    def __iter__(self) -> Iterator[Any]:
        """The rows along axis 0, in order. Changing a row does not change the file. ``TypeError`` if there is no axis."""
        require_open(self)
        rows = iterate_rows(self)
        return super().__iter__() if rows is None else rows

    @property
    def fillvalue(self) -> Any:
        """What elements read as that were never written."""
        behind = registered(self)
        return behind.fill_value(self) if isinstance(behind, UntrustedFile) else super().fillvalue

    def resize(self, size: Any, axis: int | None = None) -> None:
        """Change the extent of the dataset, or of one axis; see :meth:`h5py.Dataset.resize`."""
        super().resize(size, axis)
        invalidate(self)

    def refresh(self) -> None:
        """Load the metadata from the file again, which another process is writing (SWMR)."""
        super().refresh()
        invalidate(self)

    @property
    def dims(self) -> DimensionManager:
        """The dimension scales of each axis."""
        with h5py._objects.phil:
            return DimensionManager(self)

    @property
    def file(self) -> File:
        """The file that this dataset is in."""
        file: File = adopt(super().file)
        return file

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as (path, name, options); see :meth:`File.__reduce__`. ``TypeError`` also for a dataset without a name."""
        return _reopen, address_of(self)


class DimensionManager(_H5pyDimensionManager):
    """The axes of a dataset; indexing gives the scales of one axis."""

    def __getitem__(self, index: int) -> DimensionProxy:
        """Axis number `index`; ``IndexError`` beyond the last."""
        axis: DimensionProxy = super().__getitem__(index)
        axis.__class__ = DimensionProxy
        return axis


class DimensionProxy(_H5pyDimensionProxy):
    """One axis of a dataset: its label, and the datasets that serve as its scales by number or by name."""

    def __hash__(self) -> int:
        """As h5py's, whose equality compares the hashes: the same axis is equal through either package."""
        return hash((_H5pyDimensionProxy, self._id, self._dimension))

    def __getitem__(self, item: int | str) -> Dataset:
        """The scale with this number or name."""
        scale: Dataset = adopt(super().__getitem__(item))
        return scale

    def items(self) -> list[tuple[str, Dataset]]:
        """Names and datasets of all scales of this axis."""
        return [(name, adopt(scale)) for name, scale in super().items()]


# The class that each class of h5py becomes.
_TWINS: dict[Any, Any] = {h5py.File: File, h5py.Group: Group, h5py.Dataset: Dataset}


def adopt(obj: _Object) -> _Object:
    """Turn an object that h5py has just made into its h5fast twin, in place; anything else is returned as it is.

    Exchanging the class costs 0.2 µs and keeps all that h5py has set up in whichever version; making a second object from
    the identifier costs 8 µs of the 27 that h5py takes to open a dataset. The classes have the same layout: none of h5fast's
    adds a slot.
    """
    twin = _TWINS.get(type(obj))
    if twin is not None:
        obj.__class__ = twin
        hold(obj)
    return obj


def _place(group: h5py.Group, name: Any) -> str:
    """Which member of which file was asked for, for messages."""
    within = "" if group.name == "/" else f" in group {group.name!r}"
    return f"{name!r}{within} in {group.file.filename}"


def _reopen(path: str, name: str | None, options: dict[str, Any]) -> Any:
    """Undo :func:`address_of`. A dataset or group keeps the file open for as long as it lives itself."""
    file = File(path, "r", **options)
    return file if name is None else file[name]
