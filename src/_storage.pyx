# cython: language_level=3
"""How a dataset is stored, for the engine, and which chunks a selection touches: arithmetic, no I/O."""

import itertools

cimport cython
cimport numpy as cnp
from libc.stdint cimport uint8_t, uint64_t

from h5fast._library cimport plugin_filter
from h5fast._selection cimport Selection

import numpy as np

cnp.import_array()

cdef enum:
    # Contiguous data is cut into jobs of about this many bytes: small enough to share, large enough to be worth a job.
    CUT_BYTES = 256 << 10
    # A row is not cut below this: a cast works on whole rows.
    CUT_ROW_BYTES = 4 << 20

FILTER_NAMES: dict = {
    0: "none", 1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scale-offset", 305: "lzo", 307: "bzip2",
    32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32017: "sz",
    32018: "fcidecomp", 32024: "sz3", 32026: "blosc2", 32028: "sperr", 32033: "htj2k",
}
"""HDF5's registered filters, by number, in the words people know them by."""


@cython.final
cdef class Storage:
    """How a dataset is stored, for the engine.

    Args:
        shape: extent in elements
        chunk: chunk shape, or None for a contiguous dataset
        itemsize: bytes of one element
        filters: (id, cd_values) in the order of writing
        raw_edges: whether chunks that stick out of the extent are stored unfiltered
        fill: bytes of one element, what unallocated chunks read as

    Raises:
        ValueError: a size does not fit 64 bits.
    """
    def __init__(self, tuple shape, chunk, uint64_t itemsize, filters=(), bint raw_edges=False, bytes fill=b""):
        cdef int axis
        self.is_chunked = chunk is not None
        if chunk is None:
            chunk = cut(shape, itemsize)
        if fill == b"":
            fill = bytes(itemsize)
        total = itemsize
        for extent in shape:
            total *= max(extent, 1)
        chunk_bytes = itemsize
        for extent in chunk:
            chunk_bytes *= extent
        if total >= 1 << 63 or chunk_bytes >= 1 << 62:
            raise ValueError(f"a dataset of shape {shape}, chunks {chunk} and {itemsize} bytes an element is too large")
        self.storage.itemsize = itemsize
        self.storage.chunk_bytes = chunk_bytes
        self.storage.raw_edges = raw_edges
        self.storage.fill_bytes = itemsize
        self.storage.fill = <const uint8_t *><const char *>fill
        self.kept = [fill]
        self.set_filters(filters)
        self.set_axes(shape, chunk)

    cdef int set_axes(self, tuple shape, tuple chunk) except -1:
        """Extent and chunk shape, also of the form whose elements are bytes; all else is set."""
        cdef int axis
        grid = 1
        self.storage.rank = len(shape)
        for axis in range(len(shape)):
            self.storage.shape[axis] = shape[axis]
            self.storage.chunk[axis] = chunk[axis]
            self.storage.grid[axis] = -(-shape[axis] // chunk[axis])
            grid *= -(-shape[axis] // chunk[axis])
        self.chunk_count = grid
        self.by_bytes = self.storage
        self.by_bytes.rank += 1
        axis = self.storage.rank
        self.by_bytes.shape[axis] = self.by_bytes.chunk[axis] = self.storage.itemsize
        self.by_bytes.grid[axis] = 1
        self.by_bytes.itemsize = 1
        return 0

    def in_runs(self, uint64_t length) -> Storage:
        """The same bytes seen as rows that are ``length`` rows of this one: an axis of that length behind the first. What
        the index of this one says is true of it, too.

        Of chunks, the last run may reach beyond the extent into the rest of its chunk, which is stored but means nothing;
        of contiguous data there are whole runs only.

        Raises:
            ValueError: runs of this length lie in more than one chunk, or the rest of a chunk may not be stored so.
        """
        cdef Storage seen = Storage.__new__(Storage)
        cdef int rank = self.storage.rank
        shape = tuple(self.storage.shape[axis] for axis in range(rank))
        if rank == 0 or rank + 1 >= H5FAST_MAX_RANK or length == 0:
            raise ValueError(f"rows of shape {shape} cannot be seen in runs of {length}")
        seen.storage = self.storage
        seen.kept = self.kept
        seen.is_chunked = self.is_chunked
        if not self.is_chunked:
            shape = (shape[0] // length, length, *shape[1:])
            chunk = cut(shape, self.storage.itemsize)
            seen.storage.chunk_bytes = self.storage.itemsize
            for extent in chunk:
                seen.storage.chunk_bytes *= extent
        else:
            chunk = self.chunk
            if chunk[0] % length != 0 or (self.storage.raw_edges and shape[0] % length != 0):
                raise ValueError(f"chunks of {chunk[0]} of {shape[0]} rows cannot be seen in runs of {length}")
            shape = (-(-shape[0] // length), length, *shape[1:])
            chunk = (chunk[0] // length, length, *chunk[1:])
        seen.set_axes(shape, chunk)
        return seen

    cdef int set_filters(self, filters) except -1:
        cdef h5fast_filter *filter
        cdef cnp.ndarray values
        if len(filters) > H5FAST_MAX_FILTERS:
            raise ValueError(f"{len(filters)} filters are more than HDF5's {H5FAST_MAX_FILTERS}")
        for filter_id, cd_values in filters:
            filter = &self.storage.filters[self.storage.filter_count]
            values = np.array(cd_values, dtype=np.uint32)
            self.kept.append(values)
            filter.id = filter_id
            filter.cd_nelmts = len(values)
            filter.cd_values = <const unsigned *>cnp.PyArray_DATA(values)
            if filter_id not in (1, 2, 3, 32000):
                filter.plugin = <h5fast_plugin>plugin_filter(filter_id)
                if filter.plugin == NULL:
                    raise ValueError(f"no decoder for filter {filter_id}")
            self.storage.filter_count += 1
        return 0

    @property
    def filter_count(self) -> int:
        """Filters that chunks go through."""
        return self.storage.filter_count

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a whole decoded chunk."""
        return self.storage.chunk_bytes

    @property
    def chunk(self) -> tuple:
        """The chunk shape; of a contiguous dataset, that of the pieces it is read in."""
        return tuple(self.storage.chunk[axis] for axis in range(self.storage.rank))

    def chunks_of(self, Selection selection, int limit):
        """Grid coordinates of the chunks that a selection touches, ascending by number; None where they might be more
        than ``limit``."""
        cdef int axis
        cdef uint64_t first, last
        spans = []
        points = []
        total = 1
        for axis in range(self.storage.rank):
            if selection.is_point[axis]:
                points.append(axis)
                continue
            if selection.count[axis] == 0:
                return []
            self.covered(selection, axis, &first, &last)
            total *= last - first + 1
            spans.append((axis, range(first, last + 1)))
        if total * selection.npoints > limit:
            return None
        columns = selection.coordinates
        corners = {tuple(int(columns[a][p]) // self.storage.chunk[a] for a in points) for p in range(selection.npoints)}
        result = []
        for corner in corners:
            for within in itertools.product(*[span for _, span in spans]):
                coordinates = dict(zip(points, corner))
                coordinates.update(zip([a for a, _ in spans], within))
                result.append(tuple(coordinates[a] for a in range(self.storage.rank)))
        return sorted(result)

    cdef int covered(self, Selection selection, int axis, uint64_t *first, uint64_t *last) noexcept:
        """First and last grid coordinate along an axis, of a selection with at most one point and no empty range."""
        cdef uint64_t start, end
        if selection.is_point[axis]:
            start = end = selection.coords[axis][0]
        else:
            start = selection.start[axis]
            end = start + (selection.count[axis] - 1) * selection.step[axis]
        first[0] = start // self.storage.chunk[axis]
        last[0] = end // self.storage.chunk[axis]
        return 0

    def number_of(self, tuple coordinates) -> int:
        """The row-major number of the chunk at these grid coordinates."""
        number = 0
        for axis in range(self.storage.rank):
            number = number * self.storage.grid[axis] + coordinates[axis]
        return number


cdef tuple cut(tuple shape, uint64_t itemsize):
    """The pieces a contiguous dataset is read in: runs of the file of some CUT_BYTES."""
    pieces = [1] * len(shape)
    inner = itemsize
    for axis in range(len(shape) - 1, -1, -1):
        limit = CUT_ROW_BYTES if axis > 0 else CUT_BYTES
        if inner * shape[axis] > limit:
            pieces[axis] = max(1, CUT_BYTES // inner)
            break
        pieces[axis] = max(shape[axis], 1)
        inner *= max(shape[axis], 1)
    return tuple(pieces)
