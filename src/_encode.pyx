# cython: language_level=3
"""Chunks on their way into a file: encoded in native threads, several at once, without the GIL; handed to libhdf5 many at a time."""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from h5fast._gather cimport (
    H5FAST_CANCELLED, H5FAST_MEMORY, H5FAST_OK, H5FAST_TRUNCATED, encoder_bytes, encoder_cancel, encoder_chunk, encoder_free, encoder_help,
    encoder_make, encoder_start, h5fast_encoded, h5fast_encoder, h5fast_error, h5fast_status, index_find, raise_error, source_read, Source,
)
from h5fast._index cimport ChunkIndex, h5fast_chunk
from h5fast._library cimport hdf5
from h5fast._storage cimport H5FAST_MAX_RANK, Storage

from h5py._objects import phil
import numpy as np

cnp.import_array()

cdef extern from "deflate.h":
    enum: H5FAST_EFFORT_OF_LEVEL, H5FAST_EFFORT_ZLIB

cdef extern from "Python.h":
    int PyBUF_READ


EFFORT_OF_LEVEL: int = H5FAST_EFFORT_OF_LEVEL
"""Of gzip: what its level suggests."""
EFFORT_ZLIB: int = H5FAST_EFFORT_ZLIB
"""Of gzip: zlib itself, the measure of the others."""


@cython.final
cdef class Encoder:
    """Encodes runs of chunks of one dataset.

    Args:
        storage: how the dataset is stored; its filters are those that chunks go through
        most: chunks of a run
    """
    cdef h5fast_encoder *encoder
    cdef Storage storage
    cdef object rows        # what the run under way, or done last, was made of
    cdef readonly uint64_t most
    cdef readonly uint64_t count

    def __cinit__(self, Storage storage not None, uint64_t most):
        if most < 1:
            raise ValueError("an encoder takes at least one chunk at a time")
        self.storage = storage
        self.most = most
        self.encoder = encoder_make(&storage.storage, most)
        if self.encoder == NULL:
            raise MemoryError(f"no memory to encode {most} chunks of {storage.storage.chunk_bytes} bytes")

    def __init__(self, Storage storage, most):
        pass

    def __dealloc__(self):
        if self.encoder != NULL:
            encoder_cancel(self.encoder)
            with nogil:
                while not encoder_help(self.encoder, 0.05):
                    pass
            encoder_free(self.encoder)

    def start(self, cnp.ndarray rows not None, uint64_t count, int threads, int effort=EFFORT_OF_LEVEL) -> None:
        """Begins to encode ``count`` chunks that lie one behind the other in ``rows``, which must not be written to until the
        chunks are of no more use.

        Args:
            threads: the caller's, while it is in finish(), included
            effort: for gzip: EFFORT_OF_LEVEL, EFFORT_ZLIB, or a level of libdeflate's

        Raises:
            ValueError: the array is not C-contiguous, or has fewer bytes than these chunks, or they are too many.
        """
        if not -1 <= effort <= 9:
            raise ValueError(f"an effort is EFFORT_OF_LEVEL, EFFORT_ZLIB or 1 to 9, not {effort}")
        if not cnp.PyArray_IS_C_CONTIGUOUS(rows):
            raise ValueError("chunks are encoded from C-contiguous arrays")
        if count < 1 or count > self.most or count * self.storage.storage.chunk_bytes > <uint64_t>cnp.PyArray_NBYTES(rows):
            raise ValueError(f"{count} chunks of {self.storage.storage.chunk_bytes} bytes from {cnp.PyArray_NBYTES(rows)} bytes, "
                             f"{self.most} at most")
        self.finish()
        self.rows = rows
        self.count = count
        encoder_start(self.encoder, <const uint8_t *>cnp.PyArray_DATA(rows), count, threads, effort)

    def finish(self) -> None:
        """Works on the run until it is done.

        Raises:
            KeyboardInterrupt: the run goes on, and may be finished later.
        """
        cdef int done = 0
        while not done:
            with nogil:
                done = encoder_help(self.encoder, 0.05)
            if not done:
                PyErr_CheckSignals()

    def put(self, dataset_id, uint64_t first) -> None:
        """Writes the chunks of the finished run into a dataset of whole rows, one behind the other from row `first` on, where a chunk begins.

        Raises:
            MemoryError, RuntimeError: as :meth:`chunk`; the chunks before it are written.
            OSError: libhdf5 refuses.
        """
        cdef const h5fast_encoded *chunk
        cdef uint64_t number
        cdef uint64_t where[H5FAST_MAX_RANK]
        for axis in range(self.storage.storage.rank):
            where[axis] = 0
        for number in range(self.count):
            chunk = encoder_chunk(self.encoder, number)
            if chunk.status != H5FAST_OK:
                self.chunk(number)
            where[0] = first + number * self.storage.storage.chunk[0]
            put_chunk(dataset_id, where, self.storage.storage.rank, chunk.mask, chunk.bytes, chunk.size)

    def chunk(self, uint64_t number):
        """Stored bytes (valid until the next start) and filter mask of a chunk of the finished run.

        Raises:
            MemoryError: there was none for its encoding.
            RuntimeError: it was not encoded, because the process was forked or the filters make no sense.
        """
        cdef const h5fast_encoded *chunk
        if number >= self.count:
            raise IndexError(f"chunk {number} of {self.count}")
        chunk = encoder_chunk(self.encoder, number)
        if chunk.status == H5FAST_MEMORY:
            raise MemoryError(f"no memory to encode a chunk of {self.storage.storage.chunk_bytes} bytes")
        if chunk.status != H5FAST_OK:
            raise RuntimeError("a chunk was not encoded: " + (
                "the process was forked while it was waiting" if chunk.status == H5FAST_CANCELLED else "its filters make no sense"))
        return PyMemoryView_FromMemory(<char *>chunk.bytes, <Py_ssize_t>chunk.size, PyBUF_READ), chunk.mask


def encoder_memory(Storage storage not None, uint64_t most) -> int:
    """Bytes that an encoder of ``most`` chunks holds, the rows themselves not counted."""
    return encoder_bytes(&storage.storage, most)


def move_chunks(dataset_id, int64_t first, tuple chunks, const int64_t[::1] rows, origin) -> None:
    """Writes chunks of another dataset as they are stored there: one that begins with each of these rows, one behind the other from
    row ``first`` on. Both datasets have the same filters, and chunks of the same whole rows. What is not stored there is not
    written here.

    Args:
        chunks: storage, index and source of the other dataset
        origin: a function that names it, for messages

    Raises:
        ValueError: no chunk begins with one of the rows.
        ReadError: the other file ends before a chunk, or cannot be read.
        OSError: libhdf5 refuses.
    """
    cdef Storage storage = chunks[0]
    cdef ChunkIndex index = chunks[1]
    cdef Source source = chunks[2]
    cdef uint64_t there[H5FAST_MAX_RANK]
    cdef uint64_t here[H5FAST_MAX_RANK]
    cdef uint64_t step = storage.storage.chunk[0], row, room = 0
    cdef Py_ssize_t at
    cdef int axis
    cdef uint8_t *buffer = NULL
    cdef uint8_t *larger
    cdef h5fast_chunk found
    cdef h5fast_error error
    for axis in range(storage.storage.rank):
        there[axis] = here[axis] = 0
        if axis > 0 and storage.storage.grid[axis] != 1:
            raise ValueError("chunks hold parts of rows")
    try:
        for at in range(rows.shape[0]):
            row = rows[at]
            if rows[at] < 0 or row % step != 0 or row >= storage.storage.shape[0]:
                raise ValueError(f"no chunk begins with row {rows[at]}")
            there[0], here[0] = row // step, first + at * step
            found = index_find(&storage.storage, &index.index, there[0], there)
            if found.address == 0:
                continue
            error.number, error.address, error.size, error.status = there[0], found.address, found.size, H5FAST_TRUNCATED
            if found.address <= source.source.size and found.size <= source.source.size - found.address:
                if found.size > room:
                    larger = <uint8_t *>realloc(buffer, found.size)
                    if larger == NULL:
                        raise MemoryError(f"no memory for a chunk of {found.size} bytes")
                    buffer, room = larger, found.size
                with nogil:
                    error.status = source_read(&source.source, found.address, found.size, buffer, &error.sys_errno)
            if error.status != H5FAST_OK:
                raise_error(&error, &storage.storage, origin)
            put_chunk(dataset_id, here, storage.storage.rank, found.mask, buffer, found.size)
    finally:
        free(buffer)


cdef int put_chunk(dataset_id, const uint64_t *where, int rank, uint32_t mask, const uint8_t *data, size_t size) except -1:
    """One stored chunk; h5py, asked for what libhdf5 refuses, says why."""
    cdef int axis, status = -1
    with phil:
        status = hdf5.write_chunk(dataset_id.id, 0, mask, where, size, data)
    if status < 0:
        dataset_id.write_direct_chunk(tuple([where[axis] for axis in range(rank)]),
                                      PyMemoryView_FromMemory(<char *>data, <Py_ssize_t>size, PyBUF_READ), mask)
    return 0
