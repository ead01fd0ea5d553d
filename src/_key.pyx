# cython: language_level=3
"""The entries of a key: integers, slices, arrays, masks … told apart and normalised, before any is looked at on its axis.

One pass over the key into C arrays on the caller's stack. Each function raises what numpy raises at that step.
"""
cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyNumber_Index
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t

import numpy as np

cnp.import_array()

cdef type NumpyBool = np.bool_

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1


class Unhandled(Exception):
    """The key (or the dataset's shape) means something to h5py only: hand it to h5py.

    Region references, ``MultiBlockSlice``, h5py's own selection objects; datasets without a shape (``h5py.Empty``).
    """


cdef list parse(Key *k, tuple items, int rank, bint bools_are_ints):
    """Fill ``k``; return the index arrays (None without any)."""
    cdef list arrays = None
    cdef int e
    k.n = k.length = len(items)
    k.used = k.fancy = 0
    k.ellipsis = -1
    k.doubtful = False
    if k.n > MAX_ENTRIES:
        raise IndexError("too many indices for array")
    for e in range(k.n):
        item = items[e]
        k.axes[e] = 0
        if PyLong_CheckExact(item):
            _set_integer(k, e, item)
        elif isinstance(item, slice):
            k.kind[e] = SLICE
            k.axes[e] = 1
        elif item is Ellipsis:
            if k.ellipsis >= 0:
                raise IndexError("an index can only have a single ellipsis ('...')")
            k.kind[e] = ELLIPSIS
            k.ellipsis = e
        elif item is None:
            k.kind[e] = NEWAXIS
            k.refused = True
        elif PyBool_Check(item) and bools_are_ints:
            _set_integer(k, e, item)
        else:
            arrays = _parse_array(k, e, item, arrays)
        k.used += k.axes[e]
    if k.used > rank:
        raise IndexError(f"too many indices for array: array is {rank}-dimensional, but {k.used} were indexed")
    _assign_axes(k, rank)
    return arrays


cdef int _assign_axes(Key *k, int rank) noexcept:
    """Give the ellipsis, one implied at the end if need be, what the others leave, and every entry its first axis."""
    cdef int e, axis = 0
    if k.ellipsis < 0 and k.used < rank:
        k.ellipsis = k.n
        k.kind[k.n] = ELLIPSIS
        k.n += 1
    if k.ellipsis >= 0:
        k.axes[k.ellipsis] = rank - k.used
    for e in range(k.n):
        k.axis[e] = axis
        axis += k.axes[e]
    return 0


cdef int _set_integer(Key *k, int e, object item) except -1:
    """An integer beyond 64 bits is out of range on any axis, and so is what it is clipped to."""
    cdef int overflow = 0
    k.kind[e] = INTEGER
    k.axes[e] = 1
    k.value[e] = PyLong_AsLongLongAndOverflow(item, &overflow)
    if overflow:
        k.value[e] = INT64_MAX if overflow > 0 else INT64_MIN
    return 0


cdef list _parse_array(Key *k, int e, object item, list arrays):
    """Take an entry that is an array, becomes one, or is an integer by ``__index__``; return the extended ``arrays``."""
    if _may_be_integer(item):
        try:
            _set_integer(k, e, PyNumber_Index(item))
            return arrays
        except Exception:               # as numpy does: then it has to make sense as an array
            pass
    array = _as_index_array(item)
    if cnp.PyArray_NDIM(array) == 0 and not cnp.PyArray_ISBOOL(array):
        _set_integer(k, e, PyNumber_Index(array))
        k.refused = True                # h5py wants __index__, not __array__
        return arrays
    k.fancy += 1
    if cnp.PyArray_NDIM(array) == 0:
        k.kind[e] = BOOLEAN
        k.value[e] = 1 if array else 0
        k.refused = True
        return arrays
    if arrays is None:
        arrays = []
    k.kind[e] = ARRAY
    k.axes[e] = cnp.PyArray_NDIM(array) if cnp.PyArray_ISBOOL(array) else 1
    k.value[e] = len(arrays)
    arrays.append(array)
    return arrays


cdef bint _may_be_integer(object item) except -1:
    """Only to save the cost of an exception: lists and arrays have no ``__index__``, and numpy.bool has had one."""
    if cnp.PyArray_Check(item):
        return cnp.PyArray_NDIM(item) == 0
    return not isinstance(item, (list, tuple, range, bool, NumpyBool))


cdef object _as_index_array(object item):
    """Return ``item`` as an array of integers or booleans of any dimension, or raise IndexError."""
    if not cnp.PyArray_Check(item):
        array = None
        if isinstance(item, list):
            array = _from_list(<list>item)
        elif isinstance(item, range):
            if len(item) > 0:
                _require_64_bits((item[0], item[len(item) - 1]))
            array = np.arange(item.start, item.stop, item.step)
        elif not isinstance(item, tuple):
            _leave_to_h5py(item)
        if array is None:
            array = cnp.PyArray_FROM_O(item)
            if cnp.PyArray_SIZE(array) == 0:
                array = array.astype(np.int64)      # numpy makes float64 of []
    else:
        array = item
    if not (cnp.PyArray_ISBOOL(array) or cnp.PyArray_ISINTEGER(array)):
        if isinstance(item, list):
            _require_64_bits(item)
        if array is item:
            raise IndexError("arrays used as indices must be of integer (or boolean) type")
        raise IndexError("only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean "
                         "arrays are valid indices")
    return array


cdef int _require_64_bits(object items) except -1:
    """numpy makes floats or objects of larger integers, and then complains about those."""
    for item in items:
        if PyLong_CheckExact(item) and not INT64_MIN <= item <= INT64_MAX:
            raise IndexError(f"index {item} is out of bounds for any axis")
    return 0


cdef object _from_list(list items):
    """The common list of plain ints, without numpy's two passes; None for anything else."""
    cdef cnp.npy_intp n = len(items)
    cdef cnp.npy_intp i
    cdef int overflow = 0
    if n == 0:
        return None
    array = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
    cdef int64_t *values = <int64_t *>cnp.PyArray_DATA(array)
    for i in range(n):
        item = items[i]
        if not PyLong_CheckExact(item):
            return None
        values[i] = PyLong_AsLongLongAndOverflow(item, &overflow)
        if overflow:
            return None
    return array


cdef int _leave_to_h5py(object item) except -1:
    """h5py's own index objects; its datasets, which are arrays to numpy, are not among them."""
    if hasattr(item, "__array__"):
        return 0
    for base in type(item).__mro__:
        if base.__module__.partition(".")[0] == "h5py":
            raise Unhandled(f"{type(item).__name__} is h5py's own way to select")
    return 0


cdef int check_masks(Key *k, list arrays, const int64_t *sizes) except -1:
    cdef int e, a, axis
    cdef cnp.npy_intp n
    for e in range(k.n):
        if k.kind[e] == ARRAY and cnp.PyArray_ISBOOL(arrays[k.value[e]]):
            for a in range(k.axes[e]):
                n = cnp.PyArray_DIM(arrays[k.value[e]], a)
                axis = k.axis[e] + a
                if n != sizes[axis] and n > 0:
                    raise _mask_error(axis, sizes[axis], n)
                k.refused |= n != sizes[axis]       # numpy lets an empty mask pass anywhere
    return 0


cdef object normalised_rows(object rows, int64_t n):
    """Rows along an axis of `n` as a slice or an array of one dimension; see `select_rows`."""
    if isinstance(rows, range):
        rows = _as_slice(rows, n)
    if not isinstance(rows, slice):
        rows = _as_index_array(rows)
        if cnp.PyArray_NDIM(rows) != 1:
            raise TypeError(f"rows must be one-dimensional, got {rows.ndim} dimensions")
        if cnp.PyArray_ISBOOL(rows) and len(rows) != n:
            raise _mask_error(0, n, len(rows))
    return rows


cdef object _as_slice(object rows, int64_t n):
    """The slice that selects the same rows as a range, or the range where it has negative or too large indices."""
    if len(rows) == 0:
        return slice(0, 0)
    first, last = rows[0], rows[len(rows) - 1]
    if not (0 <= first < n and 0 <= last < n):
        return rows
    if rows.step > 0:
        return slice(first, last + 1, rows.step)
    return slice(first, last - 1 if last else None, rows.step)


cdef object _mask_error(int axis, int64_t size, int64_t length):
    return IndexError(f"boolean index did not match indexed array along axis {axis}; size of axis is {size} but size of "
                      f"corresponding boolean axis is {length}")
