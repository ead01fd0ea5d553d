# A key after the first look: what its entries are and which axes each consumes. See _key.pyx.
from libc.stdint cimport int64_t

cdef enum:
    MAX_DIMS = 64                       # NPY_MAXDIMS of numpy 2: axes of a result
    MAX_ENTRIES = 2 * MAX_DIMS + 1      # numpy's own bound on the length of a key

cdef enum Kind:
    INTEGER                             # drops an axis
    SLICE
    ELLIPSIS                            # all axes that no other entry consumes, possibly none
    NEWAXIS
    ARRAY                               # of integers (consumes one axis) or of booleans (one axis per dimension)
    BOOLEAN                             # numpy's 0-d mask: consumes no axis, adds a dimension of length 0 or 1

cdef struct Key:                        # a key after the first look: nothing is bounds-checked yet
    int n                               # entries, the implied ellipsis at the end included
    int length                          # entries as the user wrote them
    int used                            # axes consumed by entries other than the ellipsis
    int ellipsis                        # which entry is the ellipsis, -1 before one is known
    int fancy                           # entries that are ARRAY or BOOLEAN
    bint refused                        # h5py refuses this key, or is not asked
    bint doubtful                       # h5py answers, but some supported version or dtype of dataset may not
    Kind kind[MAX_ENTRIES + 1]
    int axis[MAX_ENTRIES + 1]           # first axis consumed
    int axes[MAX_ENTRIES + 1]           # number of axes consumed
    int64_t value[MAX_ENTRIES + 1]      # INTEGER: the index; BOOLEAN: 0 or 1; ARRAY: its place in the list of arrays

cdef list parse(Key *k, tuple items, int rank, bint bools_are_ints)
cdef int check_masks(Key *k, list arrays, const int64_t *sizes) except -1
cdef object normalised_rows(object rows, int64_t n)
