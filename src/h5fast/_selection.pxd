# What a key selects; see _selection.pyx. The engine walks, for every point p and every combination of range indices i:
#
#     result[out_offset + p*point_stride + sum(i[a]*out_stride[a])] = data[element]
#
# where element has coords[a][p] on each axis with is_point[a] and start[a] + i[a]*step[a], 0 <= i[a] < count[a], on
# every other axis. The result is C-contiguous and each of its elements is written exactly once.
from libc.stdint cimport int64_t

cdef enum:
    MAX_RANK = 32                       # H5S_MAX_RANK of HDF5

cdef class Selection:                   # immutable once select() has returned it
    cdef readonly int rank              # axes of the dataset
    cdef int64_t start[MAX_RANK]
    cdef int64_t count[MAX_RANK]
    cdef int64_t step[MAX_RANK]         # >= 1; 1 where count <= 1
    cdef int64_t out_stride[MAX_RANK]   # in the result; < 0 where the key's step was, 0 where an integer dropped the axis
    cdef bint is_point[MAX_RANK]        # start, count and step mean nothing on these
    cdef const int64_t *coords[MAX_RANK]  # npoints values in 0 <= v < size for is_point axes, else NULL; owned by columns
    cdef list columns                   # the arrays under coords, None on range axes; None where no axis is a point axis
    cdef readonly int64_t out_offset    # element of the result that i = 0, p = 0 writes
    cdef readonly int64_t npoints       # 1 where nothing but ranges is selected; 0 possible
    cdef readonly int64_t point_stride  # elements of the result per point
    cdef readonly int64_t size          # elements of the result; where it is 0 nothing may be read
    cdef readonly tuple shape           # of the result
    cdef readonly bint scalar           # the result is a numpy scalar rather than a 0-d array
    cdef readonly tuple fields          # field names found in the key, in its order
    cdef readonly bint record           # fields came as one list (numpy): the result keeps its record type even for one name
    cdef readonly bint h5py             # h5py itself surely gives this same result, if the fields exist
    cdef bint refused                   # h5py surely refuses the key (numpy's meaning was taken)

cpdef Selection select(object key, tuple shape, bint numpy_only=*)
cpdef Selection select_rows(object rows, int64_t n, tuple shape)
cpdef bint h5py_accepts(object key, tuple shape)
