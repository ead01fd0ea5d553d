"""Fields that are CSR matrices: groups with ``data``, ``indices`` and ``indptr``, as AnnData writes them.

``indptr`` is read when the loader is made; of the rest, the spans of a batch's rows. The one module that imports scipy.
"""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import h5py
import numpy as np

from h5fast import transform
from h5fast.errors import CorruptFileError
from h5fast.fields import Field
from h5fast.python_column import PythonColumn
from h5fast.runs import KeptRuns, Runs, ranges
from h5fast.sources import Source, open_source

__all__ = ["csr_column"]


class _Matrix(NamedTuple):
    """The matrix of one file: entries of row i are [indptr[i], indptr[i + 1]) of data and indices."""

    where: str
    data: Runs
    indices: Runs
    indptr: np.ndarray
    columns: int


def csr_column(name: str, field: Field, sources: list[Any], group: str) -> PythonColumn:
    """The rows of the matrices that are `group` of each file or open group, one after the other; "" is the group itself.

    Raises:
        ImportError: scipy is not there.
        KeyError, ValueError: what is there is no CSR matrix, or files do not fit together.
        CorruptFileError: ``indptr`` contradicts itself or the other two.
    """
    _require_scipy(name)
    if field.offset is not None:
        raise ValueError(f"field {name!r}: an offset would make zeros of a sparse matrix something else")
    matrices = [_open(name, source, f"{group}/" if group else "") for source in sources]
    first = matrices[0]
    for other in matrices[1:]:
        if other.columns != first.columns or other.data.dtype != first.data.dtype:
            raise ValueError(f"field {name!r}: rows of {first.where} have {first.columns:,} columns of {first.data.dtype}, "
                             f"those of {other.where} {other.columns:,} of {other.data.dtype}")
    wanted = transform.request(first.data.dtype, (), field.dtype, field.scale, None, False)
    rows = _Rows(matrices, wanted)
    stored = [runs for matrix in matrices for runs in (matrix.data, matrix.indices)]
    kept = KeptRuns(stored)
    file_rows = tuple(len(matrix.indptr) - 1 for matrix in matrices)
    form = f"csr {wanted.dtype} ({first.columns},)"
    return PythonColumn(name, len(rows.lengths), rows.read, rows.mean_bytes(), form, file_rows, rows.batch_bytes,
                        rows.work_bytes, kept if kept.nbytes else None, _join, tuple(runs.costs for runs in stored),
                        shares_chunks=True)


class _Rows:
    """Rows of several matrices."""

    def __init__(self, matrices: list[_Matrix], wanted: transform.Transform) -> None:
        self._matrices, self._wanted = matrices, wanted
        self.lengths = np.concatenate([np.diff(matrix.indptr) for matrix in matrices])
        self._ends = np.cumsum([len(matrix.indptr) - 1 for matrix in matrices])
        columns = matrices[0].columns
        self._columns = columns
        # scipy's choice: 32 bits where they suffice.
        self._index_dtype = np.dtype(np.int32 if columns <= np.iinfo(np.int32).max else np.int64)

    # Memory.

    def mean_bytes(self) -> int:
        """Bytes of a row, on average."""
        return int(self.lengths.mean() * self._entry_bytes if len(self.lengths) else 0) + self._index_dtype.itemsize

    def batch_bytes(self, batch: int) -> int:
        """Most bytes of a batch of so many different rows."""
        return self._most_entries(batch) * self._entry_bytes + (batch + 1) * 8

    def work_bytes(self, batch: int) -> int:
        """Bytes for the spans, where their entries go, and ``indptr``."""
        entries = self._most_entries(batch)
        spans = max(runs.work_bytes(batch, entries) for matrix in self._matrices for runs in (matrix.data, matrix.indices))
        return 24 * entries + spans + self.lengths.nbytes + sum(matrix.indptr.nbytes for matrix in self._matrices)

    @property
    def _entry_bytes(self) -> int:
        return self._wanted.dtype.itemsize + self._index_dtype.itemsize

    def _most_entries(self, batch: int) -> int:
        batch = min(batch, len(self.lengths))
        return int(np.partition(self.lengths, len(self.lengths) - batch)[len(self.lengths) - batch:].sum()) if batch else 0

    # Reading.

    def read(self, rows: np.ndarray) -> Any:
        """The rows as a ``csr_matrix``.

        Raises:
            CorruptFileError: a column that the matrix does not have.
            CorruptChunkError, ReadError: they cannot be read.
        """
        import scipy.sparse

        lengths = self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        data = np.empty(indptr[-1], self._matrices[0].data.dtype)
        indices = np.empty(indptr[-1], self._index_dtype)
        owner = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(owner):
            matrix = self._matrices[number]
            at = np.flatnonzero((owner == number) & (lengths > 0))
            begin = matrix.indptr[rows[at] - (self._ends[number] - (len(matrix.indptr) - 1))]
            target = slice(None) if len(self._matrices) == 1 else ranges(indptr[:-1][at], lengths[at])
            for runs, out in ((matrix.data, data), (matrix.indices, indices)):
                if len(at):
                    buffer, places = runs.fetch(begin, begin + lengths[at])
                    found = buffer[ranges(places, lengths[at])]
                    if runs is matrix.indices:
                        self._check_columns(matrix, found)
                    out[target] = found
        if not self._wanted.is_identity:
            cast = transform.output(self._wanted, len(data), None)
            self._wanted.apply(data, cast)
            data = cast
        pointers = indptr.astype(self._index_dtype if indptr[-1] <= np.iinfo(np.int32).max else np.int64)
        return scipy.sparse.csr_matrix((data, indices, pointers), shape=(len(rows), self._columns), copy=False)

    def _check_columns(self, matrix: _Matrix, found: np.ndarray) -> None:
        """Nobody checks them after this, and scipy's own code would follow them anywhere."""
        if int(found.min()) < 0 or int(found.max()) >= self._columns:
            raise CorruptFileError(errno.EIO, f"{matrix.where}: 'indices' has column {found.min() if found.min() < 0 else found.max()} "
                                              f"of a matrix with {self._columns:,} columns")


def _join(matrices: list[Any]) -> Any:
    import scipy.sparse

    return scipy.sparse.vstack(matrices, format="csr")


def _require_scipy(name: str) -> None:
    try:
        import scipy.sparse  # noqa: F401
    except ImportError as error:
        raise ImportError(f"field {name!r}: layout='csr' needs scipy: pip install 'h5fast[sparse]'") from error


def _open(name: str, source: Any, prefix: str) -> _Matrix:
    return _described(name, {part: _part(name, source, prefix + part) for part in ("data", "indices", "indptr")})


def _part(name: str, source: Any, path: str) -> Source:
    try:
        return open_source(source, path)
    except KeyError as error:
        raise KeyError(f"field {name!r}: layout='csr' needs a group with data, indices and indptr: {error.args[0]}") from error


def _described(name: str, parts: dict[str, Source]) -> _Matrix:
    data, indices, indptr = parts["data"], parts["indices"], parts["indptr"]
    group = data.data.parent
    where = f"{data.path}: group {group.name!r}"
    encoding = str(group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", "csr")))
    if encoding not in ("csr", "csr_matrix"):
        raise ValueError(f"field {name!r}: {where} is a {encoding}, not a csr matrix: its rows do not lie together")
    for part in (data, indices, indptr):
        if part.data.ndim != 1 or part.data.dtype.kind not in ("iu" if part is not data else "iufbc"):
            raise ValueError(f"field {name!r}: {part.name!r} of {part.path} is {part.data.dtype} of shape {part.data.shape}: "
                             "no part of a csr matrix")
    shape = _shape(name, where, group)
    return _Matrix(where, Runs(data), Runs(indices), _checked_indptr(where, parts, shape[0]), shape[1])


def _shape(name: str, where: str, group: h5py.Group) -> tuple[int, int]:
    found = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    if found is None and isinstance(group.get("shape"), h5py.Dataset):
        found = group["shape"][...]
    if found is None or np.shape(found) != (2,):
        raise ValueError(f"field {name!r}: {where} does not say how many columns it has; it needs an attribute "
                         f"shape=(rows, columns), and has {found!r}")
    return int(found[0]), int(found[1])


def _checked_indptr(where: str, parts: dict[str, Source], rows: int) -> np.ndarray:
    stored = np.asarray(parts["indptr"].data[...])
    wrong = ""
    if stored.dtype.kind == "u" and len(stored) and stored.max() > np.iinfo(np.int64).max:
        wrong = "'indptr' has numbers that no dataset can have entries for"
    indptr = stored.astype(np.int64)
    entries = min(len(parts["data"].data), len(parts["indices"].data))
    if len(indptr) != rows + 1:
        wrong = f"'indptr' has {len(indptr):,} entries for {rows:,} rows, instead of one more than rows"
    elif indptr[0] != 0:
        wrong = f"'indptr' starts with {indptr[0]} instead of 0"
    elif (np.diff(indptr) < 0).any():
        wrong = f"'indptr' decreases behind row {int(np.flatnonzero(np.diff(indptr) < 0)[0])}"
    elif indptr[-1] > entries:
        wrong = f"'indptr' ends with {indptr[-1]:,}, and there are {entries:,} entries in 'data' and 'indices'"
    if wrong:
        raise CorruptFileError(errno.EIO, f"{where}: {wrong}")
    return indptr
