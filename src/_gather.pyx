# cython: language_level=3
"""The engine's Python face: sources, reads, and the one place where a status of the C code becomes an exception."""

import errno
import os

from h5fast._storage import FILTER_NAMES as _FILTER_NAMES
from h5fast.errors import CorruptChunkError, ReadError

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from h5fast._cast cimport Cast, h5fast_cast
from h5fast._index cimport ChunkIndex, h5fast_chunk, h5fast_index
from h5fast._library cimport find_libdeflate, find_zlib, h5fast_deflate_api, h5fast_inflate_api
from h5fast._selection cimport Selection
from h5fast._storage cimport H5FAST_MAX_RANK, Storage, h5fast_storage

import numpy as np

cnp.import_array()


cdef extern from "inflate.h":
    h5fast_inflate_api h5fast_inflate

cdef extern from "deflate.h":
    h5fast_deflate_api h5fast_deflate

cdef extern from "source.h":
    h5fast_status h5fast_source_open(h5fast_source *source, int fd, int map)
    int64_t h5fast_source_changed(const h5fast_source *source)
    h5fast_status h5fast_source_read(const h5fast_source *source, uint64_t offset, uint64_t size, uint8_t *out, int *sys_errno) nogil
    void h5fast_source_of_memory(h5fast_source *source, const uint8_t *bytes, uint64_t size)
    void h5fast_source_close(h5fast_source *source)

cdef extern from "unistd.h":
    int close(int descriptor)

cdef extern from "kept.h":
    ctypedef struct h5fast_kept_pool:
        pass
    h5fast_kept_pool *h5fast_kept_pool_make(uint64_t limit)
    void h5fast_kept_pool_free(h5fast_kept_pool *pool)
    uint64_t h5fast_kept_pool_bytes(h5fast_kept_pool *pool)
    h5fast_kept *h5fast_kept_make(h5fast_kept_pool *pool, uint64_t chunk_bytes)
    void h5fast_kept_free(h5fast_kept *kept)

cdef extern from "gather.h":
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
        uint64_t decodes
        uint64_t stored_bytes
    h5fast_status h5fast_gather_begin(h5fast_gather *gather) nogil
    int h5fast_gather_run(h5fast_gather *gather, double seconds) nogil
    void h5fast_gather_cancel(h5fast_gather *gather) nogil
    void h5fast_gather_end(h5fast_gather *gather) nogil
    int h5fast_gather_can_cast(const h5fast_storage *storage, const h5fast_selection *selection) nogil

cdef extern from "spans.h":
    h5fast_status h5fast_spans_begin(h5fast_spans *read) nogil
    int h5fast_spans_run(h5fast_spans *read, double seconds) nogil
    void h5fast_spans_cancel(h5fast_spans *read) nogil
    void h5fast_spans_end(h5fast_spans *read) nogil

cdef extern from "fill.h":
    h5fast_filler *h5fast_filler_make(const h5fast_filling *filling) nogil
    void h5fast_filler_free(h5fast_filler *filler) nogil
    void h5fast_filler_settle(h5fast_filler *filler) nogil
    uint64_t h5fast_filler_bytes(const h5fast_filler *filler) nogil

cdef extern from "feed.h":
    h5fast_feed *h5fast_feed_make(h5fast_filler *filler, uint64_t steps, h5fast_batch *ring, uint32_t depth) nogil
    void h5fast_feed_free(h5fast_feed *feed) nogil
    int h5fast_feed_fill(h5fast_feed *feed) nogil
    void h5fast_feed_publish(h5fast_feed *feed) nogil
    void h5fast_feed_run(h5fast_feed *feed) nogil
    void h5fast_feed_end(h5fast_feed *feed) nogil
    int h5fast_feed_take(h5fast_feed *feed, double seconds) nogil
    void h5fast_feed_release(h5fast_feed *feed) nogil
    void h5fast_feed_stop(h5fast_feed *feed) nogil
    int h5fast_feed_is_over(h5fast_feed *feed) nogil
    int h5fast_feed_is_complete(h5fast_feed *feed) nogil
    h5fast_fill_error h5fast_feed_failure(const h5fast_feed *feed) nogil
    void h5fast_feed_waits(h5fast_feed *feed, double *filler, double *taker) nogil

cdef extern from "encoder.h":
    h5fast_encoder *h5fast_encoder_make(const h5fast_storage *storage, uint64_t most) nogil
    void h5fast_encoder_free(h5fast_encoder *encoder) nogil
    size_t h5fast_encoder_bytes(const h5fast_storage *storage, uint64_t most) nogil
    void h5fast_encoder_start(h5fast_encoder *encoder, const uint8_t *rows, uint64_t count, int threads, int effort) nogil
    int h5fast_encoder_help(h5fast_encoder *encoder, double seconds) nogil
    void h5fast_encoder_cancel(h5fast_encoder *encoder) nogil
    const h5fast_encoded *h5fast_encoder_chunk(const h5fast_encoder *encoder, uint64_t number) nogil

cdef extern from "storage.h":
    h5fast_chunk h5fast_index_find(const h5fast_storage *storage, const h5fast_index *index, uint64_t number,
                                   const uint64_t *coordinates) nogil

cdef extern from "pool.h":
    int h5fast_pool_size()

cdef extern from "decode.h":
    size_t h5fast_scratch_bytes()
    void h5fast_scratch_trim()


# --- deflate ------------------------------------------------------------------------------------------------------------

def use_deflate(str library) -> str:
    """Picks what decodes and encodes gzip, "libdeflate" or "zlib", and returns what was taken; not while a read is under way,
    or an encoder exists."""
    cdef h5fast_inflate_api inflating, unused
    cdef h5fast_deflate_api deflating
    memset(&inflating, 0, sizeof(inflating))
    memset(&deflating, 0, sizeof(deflating))
    if library != "libdeflate" or not find_libdeflate(&inflating, &deflating):
        find_zlib(&inflating, &deflating)
        library = "zlib"
    else:
        find_zlib(&unused, &deflating)  # the measure of how small a stream is to be
    h5fast_scratch_trim()  # decompressors of the other library
    memcpy(&h5fast_inflate, &inflating, sizeof(inflating))
    memcpy(&h5fast_deflate, &deflating, sizeof(deflating))
    return library


deflate_library: str = use_deflate("libdeflate")


def pool_size() -> int:
    """Helper threads alive in this process."""
    return h5fast_pool_size()


def scratch_bytes() -> int:
    """Bytes that idle threads keep for their next batch."""
    return h5fast_scratch_bytes()


# --- sources ------------------------------------------------------------------------------------------------------------

@cython.final
cdef class Source:
    """The bytes of one open file, through a descriptor of its own, or of a bytes object.

    Args:
        origin: a descriptor of the file, which stays its owner's, or bytes
        map: whether resident parts may be read through a mapping
    """
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
            close(descriptor)  # the system's: at the end of the interpreter there may be no os any more

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self.source.size

    @property
    def descriptor(self) -> int:
        """The source's own descriptor of the file; -1 of memory."""
        return self.source.fd

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


# --- kept chunks ----------------------------------------------------------------------------------------------------------

@cython.final
cdef class KeptPool:
    """Memory for decoded chunks that are kept for the reads to come, shared by datasets: HDF5's chunk cache for h5py.

    Args:
        limit: bytes that are kept at most
    """
    cdef h5fast_kept_pool *pool

    def __cinit__(self, limit):
        self.pool = h5fast_kept_pool_make(min(limit, 2**64 - 1))
        if self.pool == NULL:
            raise MemoryError("no memory for a chunk cache")

    def __init__(self, limit):
        pass

    def __dealloc__(self):
        h5fast_kept_pool_free(self.pool)

    @property
    def bytes(self) -> int:
        """Bytes kept at present."""
        return h5fast_kept_pool_bytes(self.pool)


@cython.final
cdef class Kept:
    """The decoded chunks of one dataset that are kept.

    Args:
        pool: whose memory they take; nothing is kept where not even one chunk fits
        chunk_bytes: bytes of a decoded chunk
    """
    def __init__(self, KeptPool pool not None, uint64_t chunk_bytes):
        if self.pool is not None:
            raise TypeError("this object was made already")
        self.pool = pool
        self.kept = h5fast_kept_make(pool.pool, chunk_bytes) if chunk_bytes > 0 else NULL

    def __dealloc__(self):
        h5fast_kept_free(self.kept)


# --- reading ------------------------------------------------------------------------------------------------------------

def read(tuple chunks, Selection selection, cnp.ndarray out, int threads, origin,
         *, Cast cast=None, Kept kept=None, uint64_t field_offset=0, uint64_t field_bytes=0, costs=None) -> bool:
    """Reads a selection into ``out``, which is C-contiguous and has the selection's size.

    Args:
        chunks: the dataset's ``Storage``, the ``ChunkIndex`` that has its chunks, and the ``Source`` they lie in
        threads: at most this many work on it, the calling one included
        origin: called without arguments for "file, dataset" when an error message needs it
        kept: where decoded chunks of the dataset are kept from read to read
        cast: what is done to rows; needs a selection of whole rows along the first axis
        field_offset, field_bytes: read these bytes of each element only; 0 bytes means all
        costs: called with how many chunks were decoded and how many bytes were read

    Returns:
        False where the cast cannot be fused for this storage and selection; nothing was read then.

    Raises:
        CorruptChunkError, ReadError, MemoryError, KeyboardInterrupt
    """
    cdef h5fast_selection picked
    cdef h5fast_gather gather
    cdef Storage stored
    cdef ChunkIndex index
    cdef Source source
    cdef const h5fast_storage *storage
    cdef uint64_t size, out_size
    stored, index, source = chunks
    storage = &stored.storage
    size = storage.itemsize
    if selection.size == 0:
        return True
    if field_bytes != 0:
        storage = &stored.by_bytes
        size = field_bytes
    out_size = size
    if cast is not None:  # an element of array type is several of the cast's
        out_size = cnp.PyArray_ITEMSIZE(out) * (size // cast.cast.itemsize)
    rows = fill_selection(&picked, selection, size, out_size if cast is not None else 0)
    if field_bytes != 0:
        picked.start[stored.storage.rank] = field_offset
        picked.count[stored.storage.rank] = field_bytes
        picked.step[stored.storage.rank] = 1
        picked.out_stride[stored.storage.rank] = 1
        picked.coords[stored.storage.rank] = NULL
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
    if costs is not None:
        costs(gather.decodes, gather.stored_bytes if storage.filter_count > 0 else selection.size * size)
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
    """The one place where a status becomes an exception. Without a storage, the chunk is named by its bytes alone."""
    if error.status == H5FAST_CANCELLED:
        raise ReadError(errno.EINTR, f"{origin()}: the process was forked in the middle of a read, which ended there")
    if error.status == H5FAST_CHANGED:
        raise ReadError(errno.ESTALE, f"{origin()}: the file changed on disk while it was open; close and reopen it")
    if error.status == H5FAST_MEMORY:
        raise MemoryError(f"no memory to decode the chunk at offset {error.address}")
    where = f"{error.size} bytes at file offset {error.address}"
    where = f"{origin()}, {where}" if storage == NULL else f"{origin()}, chunk at {chunk_offset(storage, error.number)} ({where})"
    if error.status == H5FAST_READ:
        raise ReadError(error.sys_errno, f"{where}: {os.strerror(error.sys_errno)}")
    if error.status == H5FAST_TRUNCATED:
        raise ReadError(errno.EIO, f"{where}: the file ends before these bytes; it is truncated or damaged")
    name = _FILTER_NAMES.get(error.filter, f"filter {error.filter}")
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


# --- for _spans.pyx -----------------------------------------------------------------------------------------------------

cdef h5fast_status spans_begin(h5fast_spans *read) noexcept nogil:
    return h5fast_spans_begin(read)

cdef int spans_run(h5fast_spans *read, double seconds) noexcept nogil:
    return h5fast_spans_run(read, seconds)

cdef void spans_cancel(h5fast_spans *read) noexcept nogil:
    h5fast_spans_cancel(read)

cdef void spans_end(h5fast_spans *read) noexcept nogil:
    h5fast_spans_end(read)


# --- for _feed.pyx ------------------------------------------------------------------------------------------------------

cdef int row_selection(h5fast_selection *picked, Selection selection, uint64_t itemsize) except -1:
    """The engine's form of what a selection, whose first axis says nothing, takes of a row."""
    fill_selection(picked, selection, itemsize, 0)
    return 0

cdef bint can_fuse(const h5fast_storage *storage, const h5fast_selection *selection) noexcept nogil:
    return h5fast_gather_can_cast(storage, selection)

cdef h5fast_filler *filler_make(const h5fast_filling *filling) noexcept nogil:
    return h5fast_filler_make(filling)

cdef void filler_free(h5fast_filler *filler) noexcept nogil:
    h5fast_filler_free(filler)

cdef void filler_settle(h5fast_filler *filler) noexcept nogil:
    h5fast_filler_settle(filler)

cdef uint64_t filler_bytes(const h5fast_filler *filler) noexcept nogil:
    return h5fast_filler_bytes(filler)

cdef h5fast_feed *feed_make(h5fast_filler *filler, uint64_t steps, h5fast_batch *ring, uint32_t depth) noexcept nogil:
    return h5fast_feed_make(filler, steps, ring, depth)

cdef void feed_free(h5fast_feed *feed) noexcept nogil:
    h5fast_feed_free(feed)

cdef int feed_fill(h5fast_feed *feed) noexcept nogil:
    return h5fast_feed_fill(feed)

cdef void feed_publish(h5fast_feed *feed) noexcept nogil:
    h5fast_feed_publish(feed)

cdef void feed_run(h5fast_feed *feed) noexcept nogil:
    h5fast_feed_run(feed)

cdef void feed_end(h5fast_feed *feed) noexcept nogil:
    h5fast_feed_end(feed)

cdef int feed_take(h5fast_feed *feed, double seconds) noexcept nogil:
    return h5fast_feed_take(feed, seconds)

cdef void feed_release(h5fast_feed *feed) noexcept nogil:
    h5fast_feed_release(feed)

cdef void feed_stop(h5fast_feed *feed) noexcept nogil:
    h5fast_feed_stop(feed)

cdef int feed_is_over(h5fast_feed *feed) noexcept nogil:
    return h5fast_feed_is_over(feed)

cdef int feed_is_complete(h5fast_feed *feed) noexcept nogil:
    return h5fast_feed_is_complete(feed)

cdef h5fast_fill_error feed_failure(const h5fast_feed *feed) noexcept nogil:
    return h5fast_feed_failure(feed)

cdef void feed_waits(h5fast_feed *feed, double *filler, double *taker) noexcept nogil:
    h5fast_feed_waits(feed, filler, taker)


# --- for _encode.pyx ----------------------------------------------------------------------------------------------------

cdef h5fast_encoder *encoder_make(const h5fast_storage *storage, uint64_t most) noexcept nogil:
    return h5fast_encoder_make(storage, most)

cdef void encoder_free(h5fast_encoder *encoder) noexcept nogil:
    h5fast_encoder_free(encoder)

cdef size_t encoder_bytes(const h5fast_storage *storage, uint64_t most) noexcept nogil:
    return h5fast_encoder_bytes(storage, most)

cdef void encoder_start(h5fast_encoder *encoder, const uint8_t *rows, uint64_t count, int threads, int effort) noexcept nogil:
    h5fast_encoder_start(encoder, rows, count, threads, effort)

cdef int encoder_help(h5fast_encoder *encoder, double seconds) noexcept nogil:
    return h5fast_encoder_help(encoder, seconds)

cdef void encoder_cancel(h5fast_encoder *encoder) noexcept nogil:
    h5fast_encoder_cancel(encoder)

cdef const h5fast_encoded *encoder_chunk(const h5fast_encoder *encoder, uint64_t number) noexcept nogil:
    return h5fast_encoder_chunk(encoder, number)

cdef h5fast_chunk index_find(const h5fast_storage *storage, const h5fast_index *index, uint64_t number,
                             const uint64_t *coordinates) noexcept nogil:
    return h5fast_index_find(storage, index, number, coordinates)

cdef h5fast_status source_read(const h5fast_source *source, uint64_t offset, uint64_t size, uint8_t *out,
                               int *sys_errno) noexcept nogil:
    return h5fast_source_read(source, offset, size, out, sys_errno)
