# The engine, for _feed.pyx, _encode.pyx and _spans.pyx. Its C code is linked into _gather alone, for it has a pool of threads and other state of which
# there must be one; so _gather hands its functions over. What has no state (orders, schedules, the row cache) _feed links
# itself.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from h5fast._cast cimport h5fast_cast
from h5fast._index cimport h5fast_chunk, h5fast_index
from h5fast._selection cimport Selection
from h5fast._storage cimport H5FAST_MAX_RANK, h5fast_storage

cdef extern from "status.h":
    ctypedef enum h5fast_status:
        H5FAST_OK
        H5FAST_CORRUPT
        H5FAST_SHORT
        H5FAST_CHECKSUM
        H5FAST_READ
        H5FAST_TRUNCATED
        H5FAST_CHANGED
        H5FAST_MEMORY
        H5FAST_CANCELLED

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

cdef extern from "kept.h":
    ctypedef struct h5fast_kept:
        pass

cdef extern from "gather.h":
    ctypedef struct h5fast_error:
        h5fast_status status
        int sys_errno
        int filter
        uint64_t number
        uint64_t address
        uint64_t size

cdef extern from "items.h":
    ctypedef struct h5fast_items:
        uint64_t count, start, step
        const int64_t *rows
        const int64_t *by_row

cdef extern from "schedule.h":
    ctypedef struct h5fast_schedule:
        pass

cdef extern from "rowcache.h":
    ctypedef struct h5fast_rowcache:
        pass

cdef extern from "fill.h":
    ctypedef struct h5fast_part:
        const h5fast_storage *storage
        const h5fast_index *index
        h5fast_source *source
        uint64_t first, rows, offset, group_rows, first_group
        h5fast_kept *kept
    ctypedef enum h5fast_store_kind:
        H5FAST_STORE_NONE
        H5FAST_STORE_SOME
        H5FAST_STORE_ALL
    ctypedef struct h5fast_store:
        h5fast_store_kind kind
        uint8_t *rows
        h5fast_rowcache *cache
        int64_t *items
        uint8_t *present
    ctypedef struct h5fast_field:
        const h5fast_part *parts
        uint32_t part_count
        h5fast_selection row
        uint64_t row_bytes, out_bytes
        const h5fast_cast *cast
        int is_fused
        h5fast_store store
        uint8_t *touched
        uint64_t decodes, stored_bytes, groups_touched  # _Atomic
    ctypedef struct h5fast_fill_error:
        h5fast_error what
        uint32_t field, part
    ctypedef struct h5fast_filling:
        const h5fast_schedule *now
        const h5fast_schedule *next
        const h5fast_items *items
        h5fast_field *const *fields
        uint32_t field_count
        int threads
        int skip_damaged
    ctypedef struct h5fast_batch:
        uint8_t **outs
        int64_t *items
        uint64_t step, count, dropped
    ctypedef struct h5fast_filler:
        pass

cdef extern from "feed.h":
    ctypedef struct h5fast_feed:
        pass

cdef extern from "spans.h":
    ctypedef struct h5fast_slice:
        uint64_t address, stored, chunk_bytes, first, length
        uint32_t mask, pipeline
    ctypedef struct h5fast_spans:
        const h5fast_slice *spans
        uint8_t **targets
        uint8_t *outcomes
        uint64_t count
        const h5fast_storage **storages
        h5fast_source *source
        int threads
        h5fast_status status
        int sys_errno
        int filter
        uint64_t failed

cdef class Source:
    cdef h5fast_source source
    cdef object memory
    cdef object __weakref__

cdef class Kept:
    cdef h5fast_kept *kept
    cdef object pool

cdef h5fast_filler *filler_make(const h5fast_filling *filling) noexcept nogil
cdef void filler_free(h5fast_filler *filler) noexcept nogil
cdef void filler_settle(h5fast_filler *filler) noexcept nogil
cdef uint64_t filler_bytes(const h5fast_filler *filler) noexcept nogil

cdef h5fast_feed *feed_make(h5fast_filler *filler, uint64_t steps, h5fast_batch *ring, uint32_t depth) noexcept nogil
cdef void feed_free(h5fast_feed *feed) noexcept nogil
cdef int feed_fill(h5fast_feed *feed) noexcept nogil
cdef void feed_publish(h5fast_feed *feed) noexcept nogil
cdef void feed_run(h5fast_feed *feed) noexcept nogil
cdef void feed_end(h5fast_feed *feed) noexcept nogil
cdef int feed_take(h5fast_feed *feed, double seconds) noexcept nogil
cdef void feed_release(h5fast_feed *feed) noexcept nogil
cdef void feed_stop(h5fast_feed *feed) noexcept nogil
cdef int feed_is_over(h5fast_feed *feed) noexcept nogil
cdef int feed_is_complete(h5fast_feed *feed) noexcept nogil
cdef h5fast_fill_error feed_failure(const h5fast_feed *feed) noexcept nogil
cdef void feed_waits(h5fast_feed *feed, double *filler, double *taker) noexcept nogil

cdef h5fast_status spans_begin(h5fast_spans *read) noexcept nogil
cdef int spans_run(h5fast_spans *read, double seconds) noexcept nogil
cdef void spans_cancel(h5fast_spans *read) noexcept nogil
cdef void spans_end(h5fast_spans *read) noexcept nogil

cdef int row_selection(h5fast_selection *picked, Selection selection, uint64_t itemsize) except -1
cdef bint can_fuse(const h5fast_storage *storage, const h5fast_selection *selection) noexcept nogil
cdef int raise_error(const h5fast_error *error, const h5fast_storage *storage, origin) except -1

cdef extern from "encoder.h":
    ctypedef struct h5fast_encoded:
        const uint8_t *bytes
        size_t size
        uint32_t mask
        h5fast_status status
    ctypedef struct h5fast_encoder:
        pass

cdef h5fast_encoder *encoder_make(const h5fast_storage *storage, uint64_t most) noexcept nogil
cdef void encoder_free(h5fast_encoder *encoder) noexcept nogil
cdef size_t encoder_bytes(const h5fast_storage *storage, uint64_t most) noexcept nogil
cdef void encoder_start(h5fast_encoder *encoder, const uint8_t *rows, uint64_t count, int threads, int effort) noexcept nogil
cdef int encoder_help(h5fast_encoder *encoder, double seconds) noexcept nogil
cdef void encoder_cancel(h5fast_encoder *encoder) noexcept nogil
cdef const h5fast_encoded *encoder_chunk(const h5fast_encoder *encoder, uint64_t number) noexcept nogil
cdef h5fast_chunk index_find(const h5fast_storage *storage, const h5fast_index *index, uint64_t number,
                             const uint64_t *coordinates) noexcept nogil
cdef h5fast_status source_read(const h5fast_source *source, uint64_t offset, uint64_t size, uint8_t *out,
                               int *sys_errno) noexcept nogil
