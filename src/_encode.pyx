# cython: language_level=3
"""Chunks on their way into a file: encoded in native threads, several at once, without the GIL."""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint64_t

from h5fast._gather cimport (
    H5FAST_CANCELLED, H5FAST_MEMORY, H5FAST_OK, encoder_bytes, encoder_cancel, encoder_chunk, encoder_free, encoder_help,
    encoder_make, encoder_start, h5fast_encoded, h5fast_encoder,
)
from h5fast._storage cimport Storage

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    int PyBUF_READ


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

    def start(self, cnp.ndarray rows not None, uint64_t count, int threads) -> None:
        """Begins to encode ``count`` chunks that lie one behind the other in ``rows``, which must not be written to until the
        chunks are of no more use.

        Raises:
            ValueError: the array is not C-contiguous, or has fewer bytes than these chunks, or they are too many.
        """
        if not cnp.PyArray_IS_C_CONTIGUOUS(rows):
            raise ValueError("chunks are encoded from C-contiguous arrays")
        if count < 1 or count > self.most or count * self.storage.storage.chunk_bytes > <uint64_t>cnp.PyArray_NBYTES(rows):
            raise ValueError(f"{count} chunks of {self.storage.storage.chunk_bytes} bytes from {cnp.PyArray_NBYTES(rows)} bytes, "
                             f"{self.most} at most")
        self.finish()
        self.rows = rows
        self.count = count
        encoder_start(self.encoder, <const uint8_t *>cnp.PyArray_DATA(rows), count, threads)

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
