# cython: language_level=3
"""The engine's Python face: sources, storages, and the one place where a status of the C code becomes an exception."""

import errno
import itertools
import os

from h5fast.errors import CorruptChunkError, ReadError

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from h5fast._index cimport ChunkIndex, h5fast_index
from h5fast._library cimport find_libdeflate, find_zlib, h5fast_inflate_api, plugin_filter
from h5fast._selection cimport Selection

import numpy as np

cnp.import_array()


cdef extern from "status.h":
    ctypedef enum h5fast_status:
        H5FAST_OK
        H5FAST_CORRUPT
        H5FAST_SHORT
        H5FAST_CHECKSUM
        H5FAST_READ
        H5FAST_TRUNCATED
        H5FAST_MEMORY
        H5FAST_CANCELLED

cdef extern from "inflate.h":
    h5fast_inflate_api h5fast_inflate

cdef extern from "storage.h":
    enum: H5FAST_MAX_RANK, H5FAST_MAX_FILTERS
    ctypedef size_t (*h5fast_plugin)(unsigned, size_t, const unsigned *, size_t, size_t *, void **) noexcept nogil
    ctypedef struct h5fast_filter:
        int id
        h5fast_plugin plugin
        size_t cd_nelmts
        const unsigned *cd_values
    ctypedef struct h5fast_storage:
        int rank
        uint64_t shape[H5FAST_MAX_RANK]
        uint64_t chunk[H5FAST_MAX_RANK]
        uint64_t grid[H5FAST_MAX_RANK]
        uint64_t itemsize
        uint64_t chunk_bytes
        int filter_count
        h5fast_filter filters[H5FAST_MAX_FILTERS]
        int raw_edges
        const uint8_t *fill
        uint64_t fill_bytes

cdef extern from "plan.h":
    ctypedef struct h5fast_selection:
        int64_t start[H5FAST_MAX_RANK]
        int64_t count[H5FAST_MAX_RANK]
        int64_t step[H5FAST_MAX_RANK]
        int64_t out_stride[H5FAST_MAX_RANK]
        const int64_t *coords[H5FAST_MAX_RANK]
        int64_t point_count
        int64_t point_stride
        uint8_t *const *targets
        const uint8_t *uncast

cdef extern from "source.h":
    ctypedef struct h5fast_source:
        int fd
        uint64_t size, device, inode
        const uint8_t *map
        void *windows
    h5fast_status h5fast_source_open(h5fast_source *source, int fd, int map)
    int64_t h5fast_source_changed(const h5fast_source *source)
    void h5fast_source_of_memory(h5fast_source *source, const uint8_t *bytes, uint64_t size)
    void h5fast_source_close(h5fast_source *source)

cdef extern from "cast.h":
    ctypedef enum h5fast_kind:
        H5FAST_I8, H5FAST_U8, H5FAST_I16, H5FAST_U16, H5FAST_I32, H5FAST_U32, H5FAST_I64, H5FAST_U64
        H5FAST_F32, H5FAST_F64, H5FAST_RAW
    ctypedef struct h5fast_cast:
        uint64_t elements
        uint64_t channels
        uint64_t itemsize
        int channels_first
        const void *scale
        const void *offset
        void *kernel
    int h5fast_cast_choose(h5fast_cast *cast, h5fast_kind source, int swapped, h5fast_kind to)

cdef extern from "kept.h":
    ctypedef struct h5fast_kept:
        pass
    h5fast_kept *h5fast_kept_make(uint64_t chunk_bytes, uint64_t budget)
    void h5fast_kept_free(h5fast_kept *kept)
    uint64_t h5fast_kept_bytes(h5fast_kept *kept)

cdef extern from "gather.h":
    ctypedef struct h5fast_error:
        h5fast_status status
        int sys_errno
        int filter
        uint64_t number
        uint64_t address
        uint64_t size
    ctypedef struct h5fast_gather:
        const h5fast_storage *storage
        const h5fast_index *index
        const h5fast_selection *selection
        h5fast_source *source
        const h5fast_cast *cast
        h5fast_kept *kept
        uint8_t *out
        int threads
        h5fast_error error
    h5fast_status h5fast_gather_begin(h5fast_gather *gather) nogil
    int h5fast_gather_run(h5fast_gather *gather, double seconds) nogil
    void h5fast_gather_cancel(h5fast_gather *gather) nogil
    void h5fast_gather_end(h5fast_gather *gather) nogil
    int h5fast_gather_can_cast(const h5fast_storage *storage, const h5fast_selection *selection)

cdef extern from "pool.h":
    int h5fast_pool_size()

cdef extern from "decode.h":
    size_t h5fast_scratch_bytes()
    void h5fast_scratch_trim()


# --- deflate ------------------------------------------------------------------------------------------------------------

def use_deflate(str library) -> str:
    """Picks what decodes gzip, "libdeflate" or "zlib", and returns what was taken; not while a read is under way."""
    cdef h5fast_inflate_api api
    memset(&api, 0, sizeof(api))
    if library != "libdeflate" or not find_libdeflate(&api):
        find_zlib(&api)
        library = "zlib"
    h5fast_scratch_trim()  # decompressors of the other library
    memcpy(&h5fast_inflate, &api, sizeof(api))
    return library


deflate_library: str = use_deflate("libdeflate")


def pool_size() -> int:
    """Helper threads alive in this process."""
    return h5fast_pool_size()


def scratch_bytes() -> int:
    """Bytes that idle threads keep for their next batch."""
    return h5fast_scratch_bytes()


# --- result arrays --------------------------------------------------------------------------------------------------------

cdef extern from "blocks.h":
    size_t H5FAST_BLOCK_LEAST, H5FAST_BLOCK_MOST
    void *h5fast_blocks_malloc(void *context, size_t size) noexcept nogil
    void *h5fast_blocks_calloc(void *context, size_t count, size_t size) noexcept nogil
    void *h5fast_blocks_realloc(void *context, void *block, size_t size) noexcept nogil
    void h5fast_blocks_free(void *context, void *block, size_t size) noexcept nogil
    size_t h5fast_blocks_kept()

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *block, size_t size) noexcept nogil
        void (*free)(void *ctx, void *block, size_t size) noexcept nogil
    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)

cdef PyDataMem_Handler block_handler
memset(&block_handler, 0, sizeof(block_handler))
memcpy(block_handler.name, b"h5fast_blocks", 13)
block_handler.version = 1
block_handler.allocator.malloc = h5fast_blocks_malloc
block_handler.allocator.calloc = h5fast_blocks_calloc
block_handler.allocator.realloc = h5fast_blocks_realloc
block_handler.allocator.free = h5fast_blocks_free
cdef object block_capsule = PyCapsule_New(&block_handler, "mem_handler", NULL)


def empty(tuple shape, dtype) -> np.ndarray:
    """np.empty(shape, dtype), for results: memory of a freed result of the same size is used again."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if not H5FAST_BLOCK_LEAST <= size <= H5FAST_BLOCK_MOST or dtype.hasobject:
        return np.empty(shape, dtype)
    before = PyDataMem_SetHandler(block_capsule)
    try:
        return np.empty(shape, dtype)
    finally:
        PyDataMem_SetHandler(before)


def kept_bytes() -> int:
    """Bytes of freed results that are kept for the next ones."""
    return h5fast_blocks_kept()


# --- sources ------------------------------------------------------------------------------------------------------------

cdef class Source:
    """The bytes of one open file, through a descriptor of its own, or of a bytes object.

    Args:
        origin: a descriptor of the file, which stays its owner's, or bytes
        map: whether resident parts may be read through a mapping
    """
    cdef h5fast_source source
    cdef object memory
    cdef object __weakref__

    def __init__(self, origin, *, bint map=True):
        self.source.fd = -1
        if isinstance(origin, bytes):
            self.memory = origin
            h5fast_source_of_memory(&self.source, <const uint8_t *><const char *>self.memory, len(origin))
            return
        descriptor = reopen(origin)
        if h5fast_source_open(&self.source, descriptor, map) != H5FAST_OK:
            self.source.fd = -1
            os.close(descriptor)
            raise ReadError(errno.EBADF, "the file's descriptor cannot be examined")

    def __dealloc__(self):
        cdef int descriptor = self.source.fd
        if self.memory is None and descriptor >= 0:
            h5fast_source_close(&self.source)
            os.close(descriptor)

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self.source.size

    @property
    def identity(self) -> tuple:
        """(device, inode) of the file."""
        return self.source.device, self.source.inode

    @property
    def mapped(self) -> bool:
        """Whether resident parts of the file are read through a mapping."""
        return self.source.windows != NULL

    def changed(self) -> str:
        """How the file differs from when it was opened, as a clause; "" where it does not."""
        now = h5fast_source_changed(&self.source)
        if now < 0:
            return ""
        if now < <int64_t>self.source.size:
            return f"it was truncated from {self.source.size} to {now} bytes"
        if now > <int64_t>self.source.size:
            return f"it has grown from {self.source.size} to {now} bytes"
        return "it was written to"


cdef object reopen(descriptor):
    """Another descriptor of the same file. A duplicate would share libhdf5's file lock and hold it after libhdf5 closed
    the file, so that nobody could write to it; opening it anew through /proc finds the same inode and no lock."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc, or no permission to open it again
        return os.dup(descriptor)


# --- casts --------------------------------------------------------------------------------------------------------------

cdef dict KINDS = {
    ("i", 1): H5FAST_I8, ("u", 1): H5FAST_U8, ("i", 2): H5FAST_I16, ("u", 2): H5FAST_U16,
    ("i", 4): H5FAST_I32, ("u", 4): H5FAST_U32, ("i", 8): H5FAST_I64, ("u", 8): H5FAST_U64,
    ("f", 4): H5FAST_F32, ("f", 8): H5FAST_F64,
}


@cython.final
cdef class Cast:
    """What happens to each row on its way out: out = row.astype(dtype) * scale + offset, last axis first if asked.

    Args:
        source: dtype of the file's elements
        target: dtype of the output; the source's own moves elements untouched
        row_shape: shape of a row
        scale, offset: contiguous arrays of the target dtype with one value, or one per channel (last axis); or None
        channels_first: move the last axis of a row to its front

    ``fused`` tells whether the engine has a kernel for it.
    """
    cdef h5fast_cast cast
    cdef readonly bint fused
    cdef cnp.ndarray scale, offset

    def __init__(self, source, target, tuple row_shape, scale, offset, bint channels_first):
        cdef int length = 1
        for values in (scale, offset):
            if values is not None:
                length = max(length, len(values))
        self.cast.elements = 1
        for extent in row_shape:
            self.cast.elements *= extent
        self.cast.itemsize = source.itemsize
        self.cast.channels = row_shape[len(row_shape) - 1] if row_shape and (channels_first or length > 1) else 1
        self.cast.channels_first = channels_first and self.cast.channels > 1
        self.scale, self.offset = spread(scale, self.cast.channels), spread(offset, self.cast.channels)
        self.cast.scale = NULL if self.scale is None else cnp.PyArray_DATA(self.scale)
        self.cast.offset = NULL if self.offset is None else cnp.PyArray_DATA(self.offset)
        kind = KINDS.get((source.kind, source.itemsize), H5FAST_RAW)
        untouched = source == target and scale is None and offset is None
        to = H5FAST_RAW if untouched else KINDS.get((target.kind, target.itemsize), H5FAST_I8)
        self.fused = (not (kind == H5FAST_RAW and not untouched) and target.isnative or untouched) and (
            h5fast_cast_choose(&self.cast, kind, not source.isnative, to) != 0)


cdef object spread(array, uint64_t channels):
    """One value for every channel, as the kernels index them."""
    if array is None or len(array) == channels:
        return array
    return np.repeat(array, channels)


# --- storages -----------------------------------------------------------------------------------------------------------

cdef enum:
    # Contiguous data is cut into jobs of about this many bytes: small enough to share, large enough to be worth a job.
    CUT_BYTES = 256 << 10
    # A row is not cut below this: a cast works on whole rows.
    CUT_ROW_BYTES = 4 << 20

FILTER_NAMES: dict = {0: "none", 1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset",
                      307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32015: "zstd",
                      32026: "blosc2"}
"""Names of filters by id, as messages use them."""


@cython.final
cdef class Kept:
    """Decoded chunks of one dataset that are kept for the reads to come, as HDF5's chunk cache does for h5py.

    Args:
        chunk_bytes: bytes of a decoded chunk
        budget: bytes that are kept at most; nothing is where not even one chunk fits
    """
    cdef h5fast_kept *kept

    def __cinit__(self, uint64_t chunk_bytes, uint64_t budget):
        self.kept = h5fast_kept_make(chunk_bytes, budget) if chunk_bytes > 0 else NULL

    def __dealloc__(self):
        h5fast_kept_free(self.kept)

    @property
    def bytes(self) -> int:
        """Bytes kept at present."""
        return h5fast_kept_bytes(self.kept) if self.kept != NULL else 0


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
    cdef h5fast_storage storage
    cdef h5fast_storage by_bytes    # the same with the bytes of an element as a last axis
    cdef object kept                # owns what the structs point to
    cdef readonly uint64_t chunk_count

    def __init__(self, tuple shape, chunk, uint64_t itemsize, filters=(), bint raw_edges=False, bytes fill=b""):
        cdef int axis
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
        self.storage.rank = len(shape)
        grid = 1
        for axis in range(len(shape)):
            self.storage.shape[axis] = shape[axis]
            self.storage.chunk[axis] = chunk[axis]
            self.storage.grid[axis] = -(-shape[axis] // chunk[axis])
            grid *= -(-shape[axis] // chunk[axis])
        self.chunk_count = grid
        self.storage.itemsize = itemsize
        self.storage.chunk_bytes = chunk_bytes
        self.storage.raw_edges = raw_edges
        self.storage.fill_bytes = itemsize
        self.storage.fill = <const uint8_t *><const char *>fill
        self.kept = [fill]
        self.set_filters(filters)
        self.by_bytes = self.storage
        self.by_bytes.rank += 1
        axis = self.storage.rank
        self.by_bytes.shape[axis] = self.by_bytes.chunk[axis] = itemsize
        self.by_bytes.grid[axis] = 1
        self.by_bytes.itemsize = 1

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

    def read(self, ChunkIndex index, Source source, Selection selection, cnp.ndarray out, int threads, origin,
             *, Cast cast=None, Kept kept=None, uint64_t field_offset=0, uint64_t field_bytes=0) -> bool:
        """Reads a selection into ``out``, which is C-contiguous and has the selection's size.

        Args:
            threads: at most this many work on it, the calling one included
            origin: called without arguments for "file, dataset" when an error message needs it
            kept: where decoded chunks of this dataset are kept from read to read
            cast: what is done to rows; needs a selection of whole rows along the first axis
            field_offset, field_bytes: read these bytes of each element only; 0 bytes means all

        Returns:
            False where the cast cannot be fused for this storage and selection; nothing was read then.

        Raises:
            CorruptChunkError, ReadError, MemoryError, KeyboardInterrupt
        """
        cdef h5fast_selection picked
        cdef h5fast_gather gather
        cdef const h5fast_storage *storage = &self.storage
        cdef uint64_t size = self.storage.itemsize, out_size
        if selection.size == 0:
            return True
        if field_bytes != 0:
            storage = &self.by_bytes
            size = field_bytes
        out_size = size
        if cast is not None:  # an element of array type is several of the cast's
            out_size = cnp.PyArray_ITEMSIZE(out) * (size // cast.cast.itemsize)
        rows = fill_selection(&picked, selection, size, out_size if cast is not None else 0)
        if field_bytes != 0:
            picked.start[self.storage.rank] = field_offset
            picked.count[self.storage.rank] = field_bytes
            picked.step[self.storage.rank] = 1
            picked.out_stride[self.storage.rank] = 1
            picked.coords[self.storage.rank] = NULL
        if cast is not None and not (cast.fused and h5fast_gather_can_cast(storage, &picked)):
            return False
        memset(&gather, 0, sizeof(gather))
        gather.storage = storage
        gather.index = &index.index
        gather.selection = &picked
        gather.source = &source.source
        gather.cast = &cast.cast if cast is not None else NULL
        gather.kept = kept.kept if kept is not None else NULL
        gather.out = <uint8_t *>cnp.PyArray_DATA(out) + selection.out_offset * <int64_t>out_size
        gather.threads = threads
        run(&gather, storage, origin)
        return True


cdef object fill_selection(h5fast_selection *picked, Selection selection, uint64_t size, uint64_t row_size):
    """The engine's form of a selection; returns what owns arrays made for it.

    Elements within a row are `size` bytes apart in the output. For a cast `row_size` is the size of its output's elements,
    0 else: the cast itself lays out the row, and it goes row by row, so a range of rows becomes a list.
    """
    cdef int axis
    cdef cnp.ndarray rows
    picked.targets = NULL
    picked.uncast = NULL
    picked.point_count = selection.npoints
    picked.point_stride = selection.point_stride * <int64_t>(row_size or size)
    for axis in range(selection.rank):
        picked.coords[axis] = selection.coords[axis] if selection.is_point[axis] else NULL
        picked.start[axis] = selection.start[axis]
        picked.count[axis] = selection.count[axis]
        picked.step[axis] = selection.step[axis]
        picked.out_stride[axis] = selection.out_stride[axis] * <int64_t>size
    if row_size == 0 or selection.rank == 0 or selection.is_point[0]:
        return None
    rows = selection.start[0] + selection.step[0] * np.arange(selection.count[0], dtype=np.int64)
    picked.coords[0] = <const int64_t *>cnp.PyArray_DATA(rows)
    picked.point_count = selection.count[0]
    picked.point_stride = selection.out_stride[0] * <int64_t>row_size
    return rows


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


cdef int run(h5fast_gather *gather, const h5fast_storage *storage, origin) except -1:
    cdef h5fast_status status
    cdef int done = 0
    try:
        with nogil:
            status = h5fast_gather_begin(gather)
        if status != H5FAST_OK:
            raise MemoryError("no memory for the plan of a read")
        while not done:
            with nogil:
                # Long enough to cost nothing, short enough that Ctrl-C is felt at once.
                done = h5fast_gather_run(gather, 0.05)
            if not done:
                PyErr_CheckSignals()
    except BaseException:
        h5fast_gather_cancel(gather)
        with nogil:
            while not done:
                done = h5fast_gather_run(gather, 0.05)
        raise
    finally:
        h5fast_gather_end(gather)
    if gather.error.status != H5FAST_OK:
        raise_error(&gather.error, storage, origin)
    return 0


cdef int raise_error(const h5fast_error *error, const h5fast_storage *storage, origin) except -1:
    """The one place where a status becomes an exception."""
    if error.status == H5FAST_CANCELLED:
        raise ReadError(errno.EINTR, f"{origin()}: the process was forked in the middle of a read, which ended there")
    if error.status == H5FAST_MEMORY:
        raise MemoryError(f"no memory to decode the chunk at offset {error.address}")
    where = f"{origin()}, chunk at {chunk_offset(storage, error.number)} ({error.size} bytes at file offset {error.address})"
    if error.status == H5FAST_READ:
        raise ReadError(error.sys_errno, f"{where}: {os.strerror(error.sys_errno)}")
    if error.status == H5FAST_TRUNCATED:
        raise ReadError(errno.EIO, f"{where}: the file ends before these bytes; it is truncated or damaged")
    name = FILTER_NAMES.get(error.filter, f"filter {error.filter}")
    if error.status == H5FAST_CHECKSUM:
        raise CorruptChunkError(f"{where}: {name} checksum does not match, the stored bytes are damaged")
    if error.status == H5FAST_SHORT:
        raise CorruptChunkError(f"{where}: filter {name}: the chunk holds fewer bytes than its shape needs")
    raise CorruptChunkError(f"{where}: filter {name} cannot decode the stored bytes, they are damaged")


cdef tuple chunk_offset(const h5fast_storage *storage, uint64_t number):
    """The first element of a chunk. Where elements are split into bytes, that axis says nothing and is left out."""
    cdef int axis
    offset = []
    for axis in range(storage.rank - 1, -1, -1):
        if not (axis == storage.rank - 1 and storage.itemsize != storage.fill_bytes):
            offset.append(number % storage.grid[axis] * storage.chunk[axis])
        number //= storage.grid[axis]
    return tuple(reversed(offset))
