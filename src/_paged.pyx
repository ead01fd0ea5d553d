# cython: language_level=3
"""A file as libhdf5 writes it through h5py: what is appended goes straight to it, what changes of its first part is kept aside.

Here because libhdf5 calls it for every chunk: a row of 12 KB costs 17 microseconds where this is Python, 12 where it is compiled.
"""

import errno
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR, errno as system_error
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.unistd cimport getpid

cdef extern from "backing.h" nogil:
    int write_back "h5fast_write_back"(int descriptor, int64_t offset, int64_t count)
    int64_t pwrite "h5fast_pwrite"(int descriptor, const void *data, size_t count, int64_t offset)

cdef enum:
    PAGE_BYTES = 4096
    # So much is on its way to the disk before the file is made durable: then little is left to wait for.
    BEHIND_BYTES = 8 << 20
    # Small chunks that follow each other are written together: each write by itself begins and ends within a page.
    HELD_BYTES = 256 << 10
    HELD_LARGEST = 64 << 10

PAGE: int = PAGE_BYTES
"""Bytes of what is kept aside at a time."""


cdef class PagedFile:
    """The protocol of Python's raw files, as far as h5py asks for it.

    A refused write (a full disk) is remembered and the object becomes a sink, because libhdf5 cannot close a file that it
    cannot write. So it does in a forked child: libhdf5 writes what it has when that ends.

    Attributes:
        descriptor: of the file; -1 when it was closed
        size: bytes of the file as its user sees it
        committed: bytes of its first part, of which nothing changes but in `pages`
        pages: of that part, as they are to be, by number; the last may be short
        failure: the first write that was refused
    """
    cdef public int descriptor
    cdef public int64_t size, committed
    cdef public dict pages
    cdef public object failure
    cdef int64_t at, behind
    cdef int process
    cdef uint8_t *held          # what was appended last and is not written yet,
    cdef int64_t held_at, held_count  # and where it goes

    def __cinit__(self, *arguments, **options):
        self.descriptor = -1
        self.pages = {}
        self.process = getpid()
        self.held = <uint8_t *>malloc(HELD_BYTES)
        if self.held == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.held)

    def seek(self, int64_t offset, int whence=os.SEEK_SET) -> int:
        """Go to an offset; returns it."""
        self.at = offset + (0 if whence == 0 else self.at if whence == 1 else self.size)
        return self.at

    def tell(self) -> int:
        """The present offset."""
        return self.at

    def read(self, int64_t size) -> bytes:
        """`size` bytes from the present offset; fewer at the end."""
        found = bytearray(max(0, min(size, self.size - self.at)))
        self.readinto(found)
        return bytes(found)

    def readinto(self, buffer) -> int:
        """Fills the buffer from the present offset, as far as there are bytes; returns how many."""
        self.settle()
        view = memoryview(buffer).cast("B")
        cdef int64_t count = max(0, min(<int64_t>len(view), self.size - self.at)), first = self.at, done = 0
        while done < count:
            got = os.preadv(self.descriptor, [view[done:count]], first + done)
            if got == 0:
                view[done:count] = bytes(count - done)  # never written, or only kept aside
                break
            done += got
        for number, page in self.kept_pages(first, first + count):
            begin, end = max(first, number * PAGE), min(first + count, number * PAGE + len(page))
            if begin < end:
                view[begin - first:end - first] = page[begin - number * PAGE:end - number * PAGE]
        self.at = first + count
        return count

    def write(self, data) -> int:
        """Writes at the present offset; always takes all of it."""
        cdef Py_buffer view
        cdef int64_t count, aside
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            count = view.len
            if self.is_written():
                aside = max(<int64_t>0, min(count, self.committed - self.at))
                try:
                    if aside > 0:
                        self.keep_aside((<uint8_t *>view.buf)[:aside], self.at)
                    self.hold(<const uint8_t *>view.buf + aside, count - aside, self.at + aside)
                except OSError as error:
                    self.failure = error
        finally:
            PyBuffer_Release(&view)
        self.at += count
        self.size = max(self.size, self.at)
        return count

    cdef int hold(self, const uint8_t *data, int64_t count, int64_t offset) except -1:
        """Behind what is held, where it fits."""
        if self.held_count > 0 and (offset != self.held_at + self.held_count or count > HELD_BYTES - self.held_count):
            self.append_held()
        if count > HELD_LARGEST:
            return self.append(data, count, offset)
        if self.held_count == 0:
            self.held_at = offset
        memcpy(self.held + self.held_count, data, count)
        self.held_count += count
        return 0

    cdef int append_held(self) except -1:
        cdef int64_t count = self.held_count
        self.held_count = 0
        return self.append(self.held, count, self.held_at)

    def settle(self) -> None:
        """Writes what is held."""
        if self.is_written():
            try:
                self.append_held()
            except OSError as error:
                self.failure = error

    cdef int append(self, const uint8_t *data, int64_t count, int64_t offset) except -1:
        """Straight to the file."""
        cdef int64_t written
        while count > 0:
            with nogil:
                written = pwrite(self.descriptor, data, count, offset)
            if written < 0:
                if system_error == EINTR:
                    continue
                raise OSError(system_error, os.strerror(system_error))
            data, count, offset = data + written, count - written, offset + written
        if offset - self.behind >= BEHIND_BYTES:
            with nogil:
                write_back(self.descriptor, self.behind, offset - self.behind)
            self.behind = offset
        return 0

    def truncate(self, size=None) -> int:
        """Makes the file as long as that."""
        self.settle()
        self.size = self.at if size is None else size
        if self.is_written() and self.size >= self.committed:
            try:
                os.ftruncate(self.descriptor, self.size)
            except OSError as error:
                self.failure = error
        return self.size

    def flush(self) -> None:
        """Does nothing: a commit does."""

    cpdef bint is_written(self):
        """Whether writes reach the file: not after a refusal, and not in a forked child."""
        return self.failure is None and getpid() == self.process

    def kept_pages(self, int64_t begin, int64_t end) -> list:
        """The numbers and bytes of the pages between two offsets that are kept aside."""
        if not self.pages or begin >= end:
            return []
        numbers = range(begin // PAGE_BYTES, (end - 1) // PAGE_BYTES + 1)
        if len(numbers) > len(self.pages):
            return [(number, page) for number, page in self.pages.items() if number in numbers]
        return [(number, self.pages[number]) for number in numbers if number in self.pages]

    cdef int keep_aside(self, bytes data, int64_t first) except -1:
        cdef int64_t number, begin, end
        for number in range(first // PAGE_BYTES, (first + len(data) - 1) // PAGE_BYTES + 1):
            begin, end = max(first, number * PAGE_BYTES), min(first + <int64_t>len(data), (number + 1) * PAGE_BYTES)
            page = self.pages.get(number)
            if page is None:
                page = self.pages[number] = bytearray(min(<int64_t>PAGE_BYTES, self.committed - number * PAGE_BYTES))
                stored = os.pread(self.descriptor, len(page), number * PAGE_BYTES)
                page[:len(stored)] = stored
            page[begin - number * PAGE_BYTES:end - number * PAGE_BYTES] = data[begin - first:end - first]
        return 0
