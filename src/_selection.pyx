# cython: language_level=3
"""From the key in ``dataset[key]``, parsed by ``_key.pyx``, to the elements it selects: pure arithmetic, no I/O, no h5py.

h5py's meaning is taken where h5py has one, numpy's elsewhere. The two differ only in three places:

* one index list and an integer apart from it: h5py leaves the list's axis where it is, numpy moves it to the front;
* Python's ``True`` and ``False``: h5py reads 1 and 0, numpy a mask without axes;
* ``d[..., 0]`` of a 1-D dataset: h5py gives a scalar, numpy a 0-d array.

So a key is parsed once, and whether h5py takes it is asked only to settle these. Single rows (``d[5]``) are the hot path:
one pass over the key into C arrays on the stack, and one object for the answer.

Three answers of h5py's are not followed, because they are wrong data: unsorted arrays of unsigned integers (it returns the
elements sorted), an index equal to the axis's size where the result is empty anyway (it does not notice), and, with numpy 1,
negative indices in arrays of a type too small for the axis's size (they wrap around).
"""
from h5fast._key import Unhandled

cimport cython
cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.ref cimport Py_INCREF
from cpython.slice cimport PySlice_AdjustIndices, PySlice_Unpack
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport INT64_MAX, int64_t

from h5fast._key cimport (
    ARRAY, BOOLEAN, ELLIPSIS, INTEGER, MAX_DIMS, NEWAXIS, SLICE, Key, check_masks, normalised_rows, parse,
)

import numpy as np

cnp.import_array()

cdef struct Dims:                       # dimensions of the result, outermost first
    int n
    int64_t length[MAX_DIMS]
    int source[MAX_DIMS]                # the range axis that feeds it, or one of the two below

cdef enum:
    FROM_NEWAXIS = -1
    FROM_POINTS = -2


@cython.freelist(8)
cdef class Selection:
    """What a key selects, from :func:`select`; the fields are described in ``_selection.pxd``."""

    def __init__(self):
        raise TypeError("Selection objects come from select() and select_rows()")

    @property
    def axes(self):
        """For each axis of the dataset ``(start, count, step, out_stride, is_point)``."""
        return tuple([(self.start[a], self.count[a], self.step[a], self.out_stride[a], self.is_point[a])
                      for a in range(self.rank)])

    @property
    def coordinates(self):
        """For each axis of the dataset a copy of its coordinate array, ``None`` where the axis is a range."""
        if self.columns is None:
            return (None,) * self.rank
        return tuple([None if column is None else column.flatten() for column in self.columns])


cpdef Selection select(object key, tuple shape, bint numpy_only=False):
    """Return what ``dataset[key]`` selects from a dataset of ``shape``.

    ``numpy_only`` gives numpy's meaning throughout, also where h5py's differs. Raises what numpy raises: ``IndexError``
    for an index out of range (with the index and the size), too many or wrong indices and masks of the wrong shape,
    ``TypeError`` and ``ValueError`` for impossible slices, ``ValueError`` for a result of more than 2**63-1 elements.
    Raises ``Unhandled`` for keys that only h5py can interpret.
    """
    cdef Selection s
    cdef tuple items = <tuple>key if isinstance(key, tuple) else (key,)
    cdef tuple fields = ()
    cdef bint record = False, has_bool = False
    if isinstance(key, list) and len(<list>key) > 0 and isinstance((<list>key)[0], str):
        record = all([isinstance(name, str) for name in key])
        if record:
            fields, items = tuple(key), ()
    for item in items:
        if isinstance(item, str):
            fields = tuple([name for name in items if isinstance(name, str)])
            items = tuple([other for other in items if not isinstance(other, str)])
            break
    for item in items:
        has_bool |= PyBool_Check(item)
    if has_bool and not numpy_only:
        s = _select_with_bools(items, shape)
    else:
        s = _select(items, shape, numpy_only, False)
    s.fields = fields
    s.record = record
    s.h5py &= not record
    return s


cpdef Selection select_rows(object rows, int64_t n, tuple shape):
    """Return the selection of ``rows`` on axis 0, which has ``n`` rows, and of everything on the other axes of ``shape``.

    ``rows`` is a slice, a range, or anything one-dimensional that numpy takes for an index: integers in any order,
    repeats and negative ones included, or a mask of length ``n``. Raises ``IndexError`` as :func:`select` does, and
    ``TypeError`` where ``rows`` is not one-dimensional.
    """
    if not shape:
        raise IndexError("too many indices for array: array is 0-dimensional, but 1 were indexed")
    return _select((normalised_rows(rows, n),), (n,) + shape[1:], True, False)


cpdef bint h5py_accepts(object key, tuple shape):
    """Return whether h5py surely answers ``dataset[key]`` itself, and with the very result that :func:`select` describes.

    False for whatever is doubtful: field names, which need the dtype, and what some supported version of h5py refuses.
    """
    cdef Selection s
    try:
        s = select(key, shape)
    except Exception:                   # then h5py has to find its own words
        return False
    return s.h5py and not s.fields


cdef Selection _select_with_bools(tuple items, tuple shape):
    """True and False are integers where h5py takes the key so, else numpy's masks."""
    cdef Selection s
    if shape:
        try:
            s = _select(items, shape, False, True)
            if not s.refused:
                return s
        except (IndexError, TypeError, ValueError):
            pass
    return _select(items, shape, False, False)


cdef Selection _select(tuple items, tuple shape, bint numpy_only, bint bools_are_ints):
    """Each step raises what numpy raises at that step, in numpy's order."""
    cdef Key k
    cdef Dims dims
    cdef int64_t sizes[MAX_RANK]
    cdef int axis
    cdef list arrays
    cdef tuple point_shape = ()
    cdef Selection s
    if shape is None or len(shape) > MAX_RANK:
        raise Unhandled("only h5py knows datasets without a shape")
    s = Selection.__new__(Selection)
    s.rank = len(shape)
    s.npoints = 1
    try:
        for axis in range(s.rank):
            sizes[axis] = shape[axis]
    except OverflowError:
        raise Unhandled("a dataset with an axis of 2**63 elements or more") from None
    k.refused = numpy_only
    arrays = parse(&k, items, s.rank, bools_are_ints)
    if arrays is not None:
        check_masks(&k, arrays, sizes)
    _place(s, &k, items, sizes)
    if k.fancy:
        point_shape = _gather(s, &k, arrays, sizes)
        _ask_h5py(s, &k, items, arrays, shape)
    _order(s, &k, point_shape, &dims)
    _set_strides(s, &dims)
    s.shape = _shape_tuple(&dims)
    # h5py makes a scalar of every 0-d result but d[...] of a scalar dataset; numpy keeps an array where there is an ellipsis
    s.scalar = dims.n == 0 and (not 0 <= k.ellipsis < k.length or (s.rank > 0 and not k.refused))
    s.refused = k.refused
    s.h5py = not (k.refused or k.doubtful)
    return s


# ------------------------------------------------------------------------------------- what they mean on the axes

cdef int _place(Selection s, Key *k, tuple items, const int64_t *sizes) except -1:
    """Fill the range axes."""
    cdef int e, a, axis
    for e in range(k.n):
        axis = k.axis[e]
        if k.kind[e] == INTEGER:
            s.start[axis] = k.value[e] + (sizes[axis] if k.value[e] < 0 else 0)
            s.count[axis] = s.step[axis] = 1
            if s.start[axis] < 0 or s.start[axis] >= sizes[axis]:
                raise _range_error(items[e], axis, sizes[axis])
        elif k.kind[e] == SLICE:
            _place_slice(s, k, items[e], axis, sizes[axis])
        elif k.kind[e] == ELLIPSIS:
            for a in range(axis, axis + k.axes[e]):
                s.count[a] = sizes[a]
                s.step[a] = 1
    return 0


cdef int _place_slice(Selection s, Key *k, object item, int axis, int64_t size) except -1:
    """A negative step stays negative until _set_strides() turns the axis round."""
    cdef Py_ssize_t start, stop, step
    PySlice_Unpack(item, &start, &stop, &step)
    s.count[axis] = PySlice_AdjustIndices(size, &start, &stop, step)
    s.start[axis] = start if s.count[axis] else 0
    s.step[axis] = step if s.count[axis] > 1 else 1
    k.refused |= step < 0
    k.doubtful |= step >> 62 > 0        # h5py's unsigned arithmetic overflows somewhere above, numpy's clips
    return 0


cdef tuple _gather(Selection s, Key *k, list arrays, const int64_t *sizes):
    """Make the coordinates of the point axes; return the shape that all index arrays broadcast to."""
    cdef list shapes = [], columns = [None] * s.rank
    cdef tuple shape
    cdef int e, axis
    if k.fancy > MAX_DIMS:
        raise IndexError("too many advanced (array) indices")
    for e in range(k.n):
        if k.kind[e] == BOOLEAN:
            shapes.append((k.value[e],))
        elif k.kind[e] == ARRAY:
            array = arrays[k.value[e]]
            axis = k.axis[e]
            if cnp.PyArray_ISBOOL(array):
                found = np.asarray(array).nonzero()
                if len(found) != k.axes[e]:     # the __index__ of a slice in the key can do anything, even reshape the mask
                    raise IndexError("a mask changed its shape while it was used")
                columns[axis:axis + k.axes[e]] = found
            else:
                columns[axis] = array
            shapes.append(columns[axis].shape)
    shape = shapes[0] if len(shapes) == 1 else _broadcast_shape(shapes)
    for n in shape:
        s.npoints *= n
    s.columns = columns
    for axis in range(s.rank):
        if columns[axis] is not None:
            _set_coords(s, k, axis, sizes[axis], shape)
    return shape


cdef tuple _broadcast_shape(list shapes):
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        text = " ".join([str(shape).replace(" ", "") for shape in shapes])
        raise IndexError("shape mismatch: indexing arrays could not be broadcast together with shapes " + text) from None


cdef int _set_coords(Selection s, Key *k, int axis, int64_t size, tuple shape) except -1:
    """Own, check and broadcast the coordinates of one axis. They are copied first, so that no other thread can change
    an index after its check."""
    cdef int flags = (cnp.NPY_ARRAY_CARRAY | cnp.NPY_ARRAY_NOTSWAPPED | cnp.NPY_ARRAY_ENSURECOPY | cnp.NPY_ARRAY_ENSUREARRAY
                      | cnp.NPY_ARRAY_FORCECAST)
    cdef bint increasing = True, negative = False
    cdef int64_t bad
    source = s.columns[axis]
    column = cnp.PyArray_FROMANY(source, cnp.NPY_INT64, 0, 0, flags)
    if s.npoints:                       # numpy does not look at indices that are broadcast away
        bad = _check_coords(<int64_t *>cnp.PyArray_DATA(column), cnp.PyArray_SIZE(column), size, &increasing, &negative)
        if bad >= 0:
            raise _range_error(source.flat[bad], axis, size)    # as it was given: the copy has wrapped unsigned ones
    # h5py adds the size in the array's own type, and fails where that overflows; 2**64 - 1 is no -1 to it
    if not increasing or (negative and (source.dtype.kind == "u" or size > np.iinfo(source.dtype).max)):
        k.refused = True
    if column.shape != shape:
        column = cnp.PyArray_FROMANY(np.broadcast_to(column, shape), cnp.NPY_INT64, 0, 0, flags)
    s.columns[axis] = column
    s.coords[axis] = <const int64_t *>cnp.PyArray_DATA(column)
    s.is_point[axis] = True
    s.start[axis] = s.count[axis] = 0
    s.step[axis] = 1
    return 0


cdef int64_t _check_coords(int64_t *values, int64_t n, int64_t size, bint *increasing, bint *negative) noexcept nogil:
    """Add ``size`` to negative values; return the place of the first value out of range, left as it was, or -1."""
    cdef int64_t i, value, last = -1
    for i in range(n):
        value = values[i]
        if value < 0:
            value += size
            negative[0] = True
        if value < 0 or value >= size:
            return i
        values[i] = value
        increasing[0] &= value > last
        last = value
    return -1


cdef int _ask_h5py(Selection s, Key *k, tuple items, list arrays, tuple shape) except -1:
    """Whether h5py takes this key's index arrays; whether they increase is known already."""
    if k.fancy > 1 or arrays is None:
        k.refused = True
        return 0
    array = arrays[0]
    cdef bint mask = cnp.PyArray_ISBOOL(array)
    cdef bint alone = k.length == 1
    cdef bint given = items[0] is array         # as an array, not as a list
    k.doubtful |= not cnp.PyArray_CheckExact(array)     # a masked array, for example
    if mask and alone and given and array.shape == shape:
        return 0
    if cnp.PyArray_NDIM(array) != 1 or (mask and s.rank == 1):
        k.refused = True
    elif mask:
        # before 3.16 h5py has no d[mask] for one axis of datasets of strings and of compounds
        k.doubtful |= alone and given
    return 0


# ------------------------------------------------------------------------------------- where the elements go

cdef int _order(Selection s, Key *k, tuple point_shape, Dims *dims) except -1:
    """List the dimensions of the result in order."""
    cdef int e, a
    cdef bint points_left = k.fancy > 0
    dims.n = 0
    if points_left and _points_first(k):
        _add_points(dims, point_shape)
        points_left = False
    for e in range(k.n):
        if k.kind[e] == NEWAXIS:
            _add_dim(dims, 1, FROM_NEWAXIS)
        elif k.kind[e] == SLICE or k.kind[e] == ELLIPSIS:
            for a in range(k.axis[e], k.axis[e] + k.axes[e]):
                _add_dim(dims, s.count[a], a)
        elif points_left and k.kind[e] != INTEGER:
            _add_points(dims, point_shape)
            points_left = False
    return 0


cdef bint _points_first(Key *k) noexcept:
    """numpy's rule: index arrays, and integers beside them, that something else separates go to the front."""
    cdef int e, runs = 0
    cdef bint inside = False, index
    if k.refused:
        for e in range(k.n):
            index = k.kind[e] == INTEGER or k.kind[e] == ARRAY or k.kind[e] == BOOLEAN
            runs += index and not inside
            inside = index
    return runs > 1


cdef int _add_points(Dims *dims, tuple point_shape) except -1:
    for n in point_shape:
        _add_dim(dims, n, FROM_POINTS)
    return 0


cdef int _add_dim(Dims *dims, int64_t length, int source) except -1:
    if dims.n == MAX_DIMS:
        raise IndexError(f"number of dimensions must be within [0, {MAX_DIMS}], indexing result would have more")
    dims.length[dims.n] = length
    dims.source[dims.n] = source
    dims.n += 1
    return 0


cdef int _set_strides(Selection s, Dims *dims) except -1:
    """Fill size, strides and offset, and turn round the axes with a negative step."""
    cdef int64_t stride = 1, length
    cdef bint empty = False
    cdef int d, axis
    for d in range(dims.n - 1, -1, -1):
        length = dims.length[d]
        axis = dims.source[d]
        if axis >= 0:
            s.out_stride[axis] = stride
        elif axis == FROM_POINTS and (d == dims.n - 1 or dims.source[d + 1] != FROM_POINTS):
            s.point_stride = stride
        if length == 0:
            empty = True
        elif length > INT64_MAX // stride:
            raise ValueError("array is too big; the selection has more than 2**63 - 1 elements")
        else:
            stride *= length
    s.size = 0 if empty else stride
    for axis in range(s.rank):
        if s.step[axis] < 0:
            s.start[axis] += (s.count[axis] - 1) * s.step[axis]
            s.out_offset += (s.count[axis] - 1) * s.out_stride[axis]
            s.step[axis] = -s.step[axis]
            s.out_stride[axis] = -s.out_stride[axis]
    return 0


cdef tuple _shape_tuple(Dims *dims):
    cdef tuple shape = PyTuple_New(dims.n)
    cdef object length
    cdef int d
    for d in range(dims.n):
        length = dims.length[d]
        Py_INCREF(length)               # PyTuple_SET_ITEM steals one reference
        PyTuple_SET_ITEM(shape, d, length)
    return shape


cdef object _range_error(object index, int axis, int64_t size):
    return IndexError(f"index {index} is out of bounds for axis {axis} with size {size}")
