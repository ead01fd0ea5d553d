# cython: language_level=3
"""Files in a file, many in one read: spans of the chunks of many datasets, each file into a bytes object of its own."""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from h5fast._gather cimport (H5FAST_OK, Source, h5fast_error, h5fast_slice, h5fast_spans, raise_error, spans_begin,
                             spans_cancel, spans_end, spans_run)
from h5fast._storage cimport Storage, h5fast_storage

import numpy as np

cnp.import_array()

SPAN: np.dtype = np.dtype([("address", "<u8"), ("stored", "<u8"), ("chunk_bytes", "<u8"), ("first", "<u8"), ("length", "<u8"),
                           ("mask", "<u4"), ("pipeline", "<u4")])
"""A span of one chunk, as src/spans.h describes it."""

if SPAN.itemsize != sizeof(h5fast_slice):
    raise ImportError(f"SPAN has {SPAN.itemsize} bytes in NumPy and {sizeof(h5fast_slice)} in C")


cdef class _Read:
    """The memory of one read."""
    cdef h5fast_spans spans
    cdef object kept  # owns what the struct points to

    def __dealloc__(self):
        free(self.spans.targets)
        free(self.spans.storages)

    cdef int prepare(self, Source source, tuple pipelines, cnp.ndarray spans, int threads) except -1:
        """All but where the bytes go."""
        cdef uint64_t number
        cdef h5fast_spans *job = &self.spans
        if spans.dtype != SPAN or spans.ndim != 1 or not cnp.PyArray_IS_C_CONTIGUOUS(spans):
            raise ValueError("spans must be a contiguous array of SPAN")
        self.kept = source, pipelines, spans
        job.spans = <const h5fast_slice *>cnp.PyArray_DATA(spans)
        job.count = cnp.PyArray_DIM(spans, 0)
        job.source = &source.source
        job.threads = threads
        job.storages = <const h5fast_storage **>malloc(max(len(pipelines), 1) * sizeof(h5fast_storage *))
        if job.storages == NULL:
            raise MemoryError(f"no memory for {len(pipelines)} pipelines")
        for number in range(<uint64_t>len(pipelines)):
            job.storages[number] = &(<Storage?>pipelines[number]).storage
        for number in range(job.count):
            if not fits(&job.spans[number], len(pipelines)):
                raise ValueError(f"span {number} does not fit its chunk, or has no pipeline")
        return 0


cdef bint fits(const h5fast_slice *span, uint64_t pipelines) noexcept:
    return (span.pipeline < pipelines and span.first <= span.chunk_bytes and span.length <= span.chunk_bytes - span.first
            and span.chunk_bytes < <uint64_t>1 << 62)


def read(Source source not None, tuple pipelines, cnp.ndarray spans, sizes, counts, int threads, origin) -> list:
    """The contents of files.

    Args:
        source: the file that they lie in
        pipelines: Storage objects, whose filters decode
        spans: an array of SPAN: those of the first file in order, then those of the next
        sizes, counts: of each file, its bytes and how many spans it has
        threads: how many may work
        origin: called with the number of the file that cannot be read, says what it is

    Raises:
        ValueError: spans contradict each other, or the size of their file.
        CorruptChunkError, ReadError, MemoryError, KeyboardInterrupt
    """
    cdef _Read owner = _Read.__new__(_Read)
    cdef uint64_t[:] size_of = np.ascontiguousarray(sizes, np.uint64)
    cdef uint64_t[:] count_of = np.ascontiguousarray(counts, np.uint64)
    cdef list results = []
    owner.prepare(source, pipelines, spans, threads)
    if size_of.shape[0] != count_of.shape[0]:
        raise ValueError(f"{size_of.shape[0]} sizes and {count_of.shape[0]} counts")
    owner.spans.targets = <uint8_t **>malloc(max(owner.spans.count, 1) * sizeof(uint8_t *))
    if owner.spans.targets == NULL:
        raise MemoryError(f"no memory to read {owner.spans.count} spans")
    place(&owner.spans, results, size_of, count_of)
    run(&owner.spans, count_of, origin)
    return results


def check(Source source not None, tuple pipelines, cnp.ndarray spans, int threads) -> np.ndarray:
    """Reads and decodes spans and keeps nothing of them: the numbers of those that cannot be read.

    Raises:
        ReadError, MemoryError, KeyboardInterrupt: nothing could be said.
    """
    cdef _Read owner = _Read.__new__(_Read)
    cdef cnp.ndarray outcomes = np.zeros(len(spans), np.uint8)
    owner.prepare(source, pipelines, spans, threads)
    owner.spans.outcomes = <uint8_t *>cnp.PyArray_DATA(outcomes)
    run(&owner.spans, None, lambda number: "a check")
    return np.flatnonzero(outcomes)


cdef int place(h5fast_spans *job, list results, uint64_t[:] sizes, uint64_t[:] counts) except -1:
    """Makes the results and points each span at its place in them. Nothing is read that does not fit."""
    cdef uint64_t at = 0, end, number, filled
    cdef const h5fast_slice *span
    cdef bytes content
    for number in range(<uint64_t>sizes.shape[0]):
        if counts[number] > job.count - at:
            raise ValueError(f"file {number} has more spans than there are")
        if sizes[number] >= <uint64_t>1 << 62:
            raise MemoryError(f"no memory for a file of {sizes[number]} bytes")
        content = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>sizes[number])
        filled = 0
        end = at + counts[number]
        while at < end:
            span = &job.spans[at]
            if span.length > sizes[number] - filled:
                raise ValueError(f"span {at} does not fit file {number}")
            job.targets[at] = <uint8_t *>PyBytes_AS_STRING(content) + filled
            filled += span.length
            at += 1
        if filled != sizes[number]:
            raise ValueError(f"the spans of file {number} have {filled} of its {sizes[number]} bytes")
        results.append(content)
    if at != job.count:
        raise ValueError(f"{job.count - at} spans belong to no file")
    return 0


cdef int run(h5fast_spans *job, uint64_t[:] counts, origin) except -1:
    cdef h5fast_error error
    cdef int done = 0, status
    cdef uint64_t number = 0, end = 0
    try:
        with nogil:
            status = spans_begin(job)
        if status != H5FAST_OK:
            raise MemoryError(f"no memory to order {job.count} spans")
        while not done:
            with nogil:
                done = spans_run(job, 0.05)
            if not done:
                PyErr_CheckSignals()
    except BaseException:
        spans_cancel(job)
        with nogil:
            while not done:
                done = spans_run(job, 0.05)
        raise
    finally:
        spans_end(job)
    if job.status == H5FAST_OK:
        return 0
    while counts is not None and number + 1 < <uint64_t>counts.shape[0] and end + counts[number] <= job.failed:
        end += counts[number]
        number += 1
    memset(&error, 0, sizeof(error))
    error.status = job.status
    error.sys_errno = job.sys_errno
    error.filter = job.filter
    error.address = job.spans[job.failed].address
    error.size = job.spans[job.failed].stored
    raise_error(&error, NULL, lambda: origin(number))
    return 0
