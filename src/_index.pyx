# cython: language_level=3
"""Where the chunks of a dataset lie in the file: asked of libhdf5 once, kept in 24 to 32 bytes a chunk.

Nothing is read through this module but metadata and, for a dataset too large to index for one row, single stored chunks.
"""

import io

import h5py
from h5py._objects import phil
import numpy as np

from h5fast.errors import CorruptFileError

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memset

from h5fast._library cimport H5_CHUNK_INDEX_EXTENSIBLE_ARRAY, H5_DONT_FILTER_PARTIAL_CHUNKS, hdf5


MEMORY_HEAD: int = 8
"""Where chunks start in a source of memory: an address of 0 would mean that there is none."""

ctypedef struct found_chunk:
    uint64_t number
    h5fast_chunk chunk

cdef enum:
    # Up to this many chunks the grid is one zeroed table whatever the share of it in use: its untouched pages cost nothing.
    DENSE_GRID = 1 << 22
    # Up to this many chunks are searched once: a microsecond each.
    LOOKED_UP = 64

cdef uint64_t UNDEFINED = <uint64_t>-1  # HADDR_UNDEF

cdef enum problem:
    NONE = 0, OUT_OF_MEMORY, MISALIGNED, TWICE, AT_ZERO

# What the iteration callback works on. Offsets from libhdf5 are in elements, of chunk corners.
ctypedef struct collector:
    int rank
    uint64_t chunk[H5FAST_MAX_RANK]
    uint64_t grid[H5FAST_MAX_RANK]
    int swizzled                        # the unlimited axis of an extensible array to undo libhdf5's fault for; -1: none
    uint64_t limit[H5FAST_MAX_RANK]     # chunks along each axis at the maximum extent; for that axis unused
    uint64_t user_block                 # to add to addresses
    h5fast_chunk *dense                 # either this, by chunk number,
    found_chunk *found                  # or these, in the order met
    uint64_t count, capacity
    int ascending
    problem wrong
    uint64_t where[H5FAST_MAX_RANK]     # offset of the chunk that is wrong


cdef void unswizzle(collector *c, uint64_t *scaled) noexcept nogil:
    """libhdf5 counts the slots of the array in natural order; they are numbered with the unlimited axis first."""
    cdef uint64_t slot = 0
    cdef int axis
    for axis in range(c.swizzled, c.rank):
        slot = slot * (c.limit[axis] if axis > c.swizzled else 1) + scaled[axis]
    for axis in range(c.rank - 1, -1, -1):
        if axis != c.swizzled:
            scaled[axis] = slot % c.limit[axis]
            slot //= c.limit[axis]
    scaled[c.swizzled] = slot


cdef int keep(collector *c, uint64_t number, h5fast_chunk chunk) noexcept nogil:
    cdef found_chunk *grown
    if c.dense != NULL:
        if c.dense[number].address != 0:
            c.wrong = TWICE
            return -1
        c.dense[number] = chunk
    else:
        if c.count == c.capacity:
            c.capacity = c.capacity * 2 if c.capacity > 0 else 1024
            grown = <found_chunk *>realloc(c.found, c.capacity * sizeof(found_chunk))
            if grown == NULL:
                c.wrong = OUT_OF_MEMORY
                return -1
            c.found = grown
        if c.count > 0 and number <= c.found[c.count - 1].number:
            c.ascending = 0
        c.found[c.count].number = number
        c.found[c.count].chunk = chunk
    c.count += 1
    return 0


cdef int collect(const uint64_t *offset, unsigned filter_mask, uint64_t address,
                 uint64_t size, void *context) noexcept:
    cdef collector *c = <collector *>context
    cdef uint64_t scaled[H5FAST_MAX_RANK]
    cdef uint64_t number = 0
    cdef int axis
    cdef h5fast_chunk chunk
    for axis in range(c.rank):
        if offset[axis] % c.chunk[axis] != 0:
            c.wrong = MISALIGNED
            for axis in range(c.rank):
                c.where[axis] = offset[axis]
            return -1
        scaled[axis] = offset[axis] // c.chunk[axis]
    if address == UNDEFINED:
        return 0  # a record without a chunk
    if c.swizzled >= 0:
        unswizzle(c, scaled)
    for axis in range(c.rank):
        if scaled[axis] >= c.grid[axis]:
            return 0  # beyond the extent, for example allocated early: nobody can ask for it
        number = number * c.grid[axis] + scaled[axis]
    chunk.address = address + c.user_block
    chunk.size = size
    chunk.mask = filter_mask
    if chunk.address == 0:
        c.wrong = AT_ZERO
    if c.wrong != NONE or keep(c, number, chunk) != 0:
        for axis in range(c.rank):
            c.where[axis] = scaled[axis] * c.chunk[axis]
        return -1
    return 0


cdef int by_number(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const found_chunk *>a).number
    cdef uint64_t y = (<const found_chunk *>b).number
    return -1 if x < y else x > y


cdef class ChunkIndex:
    """The stored chunks of one dataset: file offset, stored size and filter mask of each."""

    def __dealloc__(self):
        free(self.chunks)
        free(self.numbers)

    @staticmethod
    def contiguous(uint64_t address) -> ChunkIndex:
        """The index of a contiguous dataset whose first element lies at this file offset."""
        cdef ChunkIndex self = ChunkIndex.__new__(ChunkIndex)
        self.index.kind = H5FAST_INDEX_CONTIGUOUS
        self.index.base = address
        return self

    @staticmethod
    def of(list entries) -> ChunkIndex:
        """An index of a few chunks: (number, address, stored size, filter mask), ascending by number."""
        cdef ChunkIndex self = ChunkIndex.__new__(ChunkIndex)
        cdef uint64_t i
        self.index.kind = H5FAST_INDEX_SORTED
        self.index.count = self.allocated = len(entries)
        self.index.chunks = self.chunks = <h5fast_chunk *>calloc(max(len(entries), 1), sizeof(h5fast_chunk))
        self.index.numbers = self.numbers = <uint64_t *>calloc(max(len(entries), 1), sizeof(uint64_t))
        if self.chunks == NULL or self.numbers == NULL:
            raise MemoryError("no memory for a chunk index")
        for i in range(self.index.count):
            self.numbers[i], self.chunks[i].address, self.chunks[i].size, self.chunks[i].mask = entries[i]
        return self

    @staticmethod
    def of_table(table) -> ChunkIndex:
        """An index of any number of chunks, as :meth:`table` gives them, ascending by number."""
        cdef const uint64_t[:, ::1] rows = np.ascontiguousarray(table, np.uint64)
        cdef ChunkIndex self = ChunkIndex.of([])
        cdef uint64_t i, count = rows.shape[0]
        free(self.chunks)
        free(self.numbers)
        self.index.chunks = self.chunks = <h5fast_chunk *>calloc(max(count, 1), sizeof(h5fast_chunk))
        self.index.numbers = self.numbers = <uint64_t *>calloc(max(count, 1), sizeof(uint64_t))
        if self.chunks == NULL or self.numbers == NULL:
            raise MemoryError("no memory for a chunk index")
        self.index.count = self.allocated = count
        for i in range(count):
            self.numbers[i] = rows[i, 0]
            self.chunks[i].address, self.chunks[i].size = rows[i, 1], rows[i, 2]
            self.chunks[i].mask = <uint32_t>rows[i, 3]
        return self

    @property
    def nbytes(self) -> int:
        """Memory the index holds."""
        if self.index.kind == H5FAST_INDEX_DENSE:
            return self.index.count * sizeof(h5fast_chunk)
        return self.index.count * (sizeof(h5fast_chunk) + sizeof(uint64_t))

    def table(self):
        """All stored chunks, a row of uint64 for each: number, address, stored size, filter mask; the number is row-major in
        the grid."""
        cdef uint64_t i, row = 0, count = 0, listed = self.index.count if self.chunks != NULL else 0
        for i in range(listed):
            count += self.chunks[i].address != 0
        result = np.empty((count, 4), np.uint64)
        cdef uint64_t[:, ::1] rows = result
        for i in range(listed):
            if self.chunks[i].address != 0:
                rows[row, 0] = self.numbers[i] if self.numbers != NULL else i
                rows[row, 1] = self.chunks[i].address
                rows[row, 2] = self.chunks[i].size
                rows[row, 3] = self.chunks[i].mask
                row += 1
        return result

    def entries(self):
        """The rows of :meth:`table`, as tuples."""
        return map(tuple, self.table().tolist())


cdef int take_dense(ChunkIndex self, collector *c, uint64_t grid) except -1:
    self.chunks = c.dense
    c.dense = NULL
    self.index.kind = H5FAST_INDEX_DENSE
    self.index.count = grid
    self.index.chunks = self.chunks
    return 0


cdef int take_found(ChunkIndex self, collector *c, uint64_t grid) except -1:
    """Sorted by number; without the numbers where every chunk of the grid is there."""
    cdef uint64_t i, count = c.count
    cdef bint full = count == grid
    if not c.ascending:
        qsort(c.found, count, sizeof(found_chunk), by_number)
    self.chunks = <h5fast_chunk *>malloc(max(count, 1) * sizeof(h5fast_chunk))
    if not full:
        self.numbers = <uint64_t *>malloc(max(count, 1) * sizeof(uint64_t))
    if self.chunks == NULL or (not full and self.numbers == NULL):
        raise MemoryError(f"no memory for an index of {count} chunks")
    for i in range(count):
        if i > 0 and c.found[i].number == c.found[i - 1].number:
            raise CorruptFileError(f"the chunk index lists chunk number {c.found[i].number} twice")
        self.chunks[i] = c.found[i].chunk
        if not full:
            self.numbers[i] = c.found[i].number
    self.index.kind = H5FAST_INDEX_DENSE if full else H5FAST_INDEX_SORTED
    self.index.count = count
    self.index.chunks = self.chunks
    self.index.numbers = self.numbers
    return 0


cdef str describe_problem(collector *c):
    where = tuple(c.where[axis] for axis in range(c.rank))
    if c.wrong == MISALIGNED:
        return f"the chunk index holds a chunk at {where}, which is no multiple of the chunk shape"
    if c.wrong == TWICE:
        return f"the chunk index lists the chunk at {where} twice"
    if c.wrong == AT_ZERO:
        return f"the chunk index puts the chunk at {where} at the very start of the file, where no chunk can be"
    return "libhdf5 cannot walk the chunk index"


def build(dataset_id, tuple shape, tuple maxshape, tuple chunk, user_block: int) -> ChunkIndex:
    """Walks the chunk index of a chunked dataset.

    Args:
        dataset_id: h5py.h5d.DatasetID
        shape, maxshape: present and maximum extent in elements; None where unlimited
        chunk: chunk shape in elements
        user_block: bytes to add to the addresses that libhdf5 reports

    Raises:
        CorruptFileError: libhdf5 cannot read its index, or the index contradicts itself.
        MemoryError: there is no memory for it.
    """
    cdef collector c
    cdef int axis, status = -1
    cdef uint64_t grid = 1
    cdef ChunkIndex result = ChunkIndex.__new__(ChunkIndex)
    memset(&c, 0, sizeof(c))
    c.rank = len(shape)
    c.ascending = 1
    for axis in range(c.rank):
        c.chunk[axis] = chunk[axis]
        c.grid[axis] = -(-shape[axis] // chunk[axis])
        c.limit[axis] = 1 if maxshape[axis] is None else -(-maxshape[axis] // chunk[axis])
        grid *= c.grid[axis]
    c.swizzled = swizzled_axis(dataset_id, maxshape)
    c.user_block = user_block
    try:
        if grid <= DENSE_GRID:
            c.dense = <h5fast_chunk *>calloc(max(grid, 1), sizeof(h5fast_chunk))
            if c.dense == NULL:
                raise MemoryError(f"no memory for an index of {grid} chunks")
        with phil:
            status = hdf5.chunk_iter(dataset_id.id, 0, collect, &c)
        if c.wrong == OUT_OF_MEMORY:
            raise MemoryError(f"no memory for an index of more than {c.count} chunks")
        if status < 0 or c.wrong != NONE:
            raise CorruptFileError(describe_problem(&c))
        result.allocated = c.count
        if c.dense != NULL:
            take_dense(result, &c, grid)
        else:
            take_found(result, &c, grid)
    finally:
        free(c.dense)
        free(c.found)
    if result.allocated <= LOOKED_UP and result.index.kind == H5FAST_INDEX_DENSE:
        require_found(dataset_id, result, &c)
    return result


cdef int require_found(dataset_id, ChunkIndex index, const collector *c) except -1:
    """In a damaged B-tree a walk finds chunks that a search for them does not, and libhdf5 reads as if they were not there.
    Where there are few, each is searched."""
    cdef uint64_t where[H5FAST_MAX_RANK]
    cdef uint64_t number, rest, size
    cdef int axis
    for number in range(index.index.count):
        if index.index.chunks[number].address == 0:
            continue
        rest = number
        for axis in range(c.rank - 1, -1, -1):
            where[axis] = rest % c.grid[axis] * c.chunk[axis]
            rest //= c.grid[axis]
        size = 0
        with phil:
            if hdf5.get_chunk_storage_size(dataset_id.id, where, &size) < 0 or size == 0:
                raise CorruptFileError(
                    f"the chunk index lists a chunk at {tuple(where[axis] for axis in range(c.rank))}, and libhdf5 does not find it "
                    "there"
                )
    return 0


def filters_partial_chunks(create_plist) -> bool:
    """Whether chunks that stick out of the extent are filtered like all others (H5Pget_chunk_opts)."""
    cdef unsigned options = 0
    cdef int status = -1
    with phil:
        status = hdf5.get_chunk_opts(create_plist.id, &options)
    if status < 0:
        raise CorruptFileError("libhdf5 cannot tell the chunk options of the dataset")
    return not options & H5_DONT_FILTER_PARTIAL_CHUNKS


def undefine_fill_value(create_plist, type_id) -> None:
    """Makes libhdf5 refuse to read from a dataset that will be created so, as long as nothing is stored in it."""
    cdef int status = -1
    with phil:
        status = hdf5.set_fill_value(create_plist.id, type_id.id, NULL)
    if status < 0:
        raise RuntimeError("libhdf5 cannot leave the fill value of a dataset undefined")


def read_stored(dataset_id, tuple offset, uint64_t limit):
    """One chunk as it is stored, found without an index: (filter mask, bytes), or None where it is not allocated.

    Args:
        limit: bytes of the file; a chunk that claims more is none

    Raises:
        CorruptFileError: libhdf5 cannot find or read it.
    """
    cdef uint64_t where[H5FAST_MAX_RANK]
    cdef uint64_t size = 0
    cdef uint32_t mask = 0
    cdef size_t buffer_size
    cdef char *buffer
    cdef int status = -1
    for axis in range(len(offset)):
        where[axis] = offset[axis]
    with phil:
        if hdf5.get_chunk_storage_size(dataset_id.id, where, &size) < 0:
            raise CorruptFileError(f"libhdf5 cannot find the chunk at {offset}")
        if size == 0:
            return None
        if size > limit:
            raise CorruptFileError(f"the chunk at {offset} claims {size} bytes, more than the file has")
        content = PyBytes_FromStringAndSize(NULL, size)
        buffer = content
        buffer_size = size
        if hdf5.read_chunk2 != NULL:
            status = hdf5.read_chunk2(dataset_id.id, 0, where, &mask, buffer, &buffer_size)
        else:
            status = hdf5.read_chunk1(dataset_id.id, 0, where, &mask, buffer)
    if status < 0:
        raise CorruptFileError(f"libhdf5 cannot read the chunk at {offset}")
    return mask, content


# --- faults of libhdf5, recognised by trying ----------------------------------------------------------------------------

cdef dict faults = {}  # name -> bool, found at first need


cdef int swizzled_axis(dataset_id, tuple maxshape) except -2:
    """The unlimited axis, where the dataset has an extensible array and this libhdf5 reports wrong coordinates for it."""
    cdef int index_type = 0
    if maxshape.count(None) != 1 or maxshape[0] is None:
        return -1
    with phil:
        if hdf5.get_chunk_index_type(dataset_id.id, &index_type) < 0:
            raise CorruptFileError("libhdf5 cannot tell the type of the chunk index")
    if index_type != H5_CHUNK_INDEX_EXTENSIBLE_ARRAY or not _extensible_array_is_swizzled():
        return -1
    return maxshape.index(None)


def _extensible_array_is_swizzled() -> bool:
    """libhdf5 1.14.2 to 2.0.0 counts such an array's slots in natural order; a repaired one is recognised here."""
    if "extensible array" not in faults:
        with phil, h5py.File("h5fast-self-test", "w", driver="core", backing_store=False, libver="latest") as file:
            dataset = file.create_dataset("d", (6, 6), "u1", maxshape=(6, None), chunks=(2, 2))
            dataset[...] = 1
            seen = []
            dataset.id.chunk_iter(lambda chunk: seen.append(chunk.chunk_offset))
        right = sorted((i, j) for i in (0, 2, 4) for j in (0, 2, 4))
        faults["extensible array"] = sorted(seen) != right
    return faults["extensible array"]


def addresses_lack_user_block() -> bool:
    """Before 1.14.4 libhdf5 reported chunk addresses relative to the end of the user block."""
    if "user block" not in faults:
        memory = io.BytesIO()
        content = np.frombuffer(b"h5fast self-test", "u1")
        with phil:
            with h5py.File(memory, "w", userblock_size=512) as file:
                file.create_dataset("d", data=content, chunks=content.shape)
                file.flush()
                seen = []
                file["d"].id.chunk_iter(lambda chunk: seen.append(chunk.byte_offset))
        faults["user block"] = seen != [memory.getvalue().find(content.tobytes())]
    return faults["user block"]
