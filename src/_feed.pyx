# cython: language_level=3
"""The loader's engine: schedules, fields with what they keep of their rows, and the feed that fills batches ahead."""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from h5fast._cast cimport Cast, h5fast_cast
from h5fast._gather cimport (
    H5FAST_CANCELLED, H5FAST_MEMORY, H5FAST_OK, H5FAST_STORE_ALL, H5FAST_STORE_NONE, H5FAST_STORE_SOME, Kept, Source, can_fuse,
    feed_end, feed_failure, feed_fill, feed_is_over, feed_free, feed_is_complete, feed_make, feed_publish, feed_release, feed_run, feed_stop, feed_take,
    feed_waits, filler_bytes, filler_free, filler_make, filler_settle, h5fast_batch, h5fast_feed, h5fast_field,
    h5fast_fill_error, h5fast_filler, h5fast_filling, h5fast_items, h5fast_part, h5fast_rowcache, h5fast_schedule,
    h5fast_status, h5fast_store, raise_error, row_selection,
)
from h5fast._index cimport ChunkIndex
from h5fast._selection cimport Selection
from h5fast._storage cimport Storage

import numpy as np

cnp.import_array()

cdef extern from "order.h":
    ctypedef enum h5fast_order_kind:
        H5FAST_ORDER_FILE
        H5FAST_ORDER_EXACT
        H5FAST_ORDER_BATCHES
        H5FAST_ORDER_BLOCKS
        H5FAST_ORDER_DRAWN
    ctypedef struct h5fast_order:
        h5fast_order_kind kind
        uint64_t count, length, key, run
        const uint64_t *groups
        uint64_t group_count, window, listed
        const int64_t *drawn
        const int64_t *by_item
    void h5fast_order_items(const h5fast_order *order, uint64_t first, uint64_t count, int64_t *items) nogil

cdef extern from "schedule.h":
    ctypedef struct schedule_t "h5fast_schedule":
        h5fast_order order
        uint64_t batch, rank, world
        uint64_t worker, workers
        int drop_last
        uint64_t epoch, begun, stride, run, steps, full, share
    h5fast_status h5fast_schedule_make(h5fast_schedule *schedule) nogil
    void h5fast_schedule_free(h5fast_schedule *schedule) nogil
    uint64_t h5fast_schedule_first(const h5fast_schedule *schedule, uint64_t step, uint64_t *count) nogil

cdef extern from "rowcache.h":
    enum: H5FAST_ROWCACHE_OVERHEAD
    h5fast_rowcache *h5fast_rowcache_make(uint64_t slots, uint64_t horizon) nogil
    void h5fast_rowcache_free(h5fast_rowcache *cache) nogil
    uint64_t h5fast_rowcache_used(const h5fast_rowcache *cache) nogil

cdef extern from "items.h":
    uint64_t h5fast_items_row(const h5fast_items *items, uint64_t item) nogil

cdef extern from "simulate.h":
    h5fast_status h5fast_simulate(const h5fast_schedule *const *schedules, uint64_t epochs, const uint64_t *starts,
                                  uint64_t groups, uint64_t slots, uint64_t *decodes) nogil

#: Bytes that keeping a row costs beside the row itself.
ROW_OVERHEAD = H5FAST_ROWCACHE_OVERHEAD + 8

cdef dict KINDS = {"file": H5FAST_ORDER_FILE, "exact": H5FAST_ORDER_EXACT, "batches": H5FAST_ORDER_BATCHES,
                   "block": H5FAST_ORDER_BLOCKS, "drawn": H5FAST_ORDER_DRAWN}


@cython.final
cdef class Items:
    """What a loader draws from: rows start, start + step, … or those of a list.

    Args:
        count: how many items
        start, step: the rows, where there is no list
        rows: int64 array, the row of each item; any order, repeats too
    """
    cdef h5fast_items items
    cdef object rows, by_row

    def __init__(self, uint64_t count, uint64_t start=0, uint64_t step=1, rows=None):
        self.items.count = count
        self.items.start = start
        self.items.step = step
        if rows is None:
            return
        self.rows = np.ascontiguousarray(rows, np.int64)
        self.items.rows = <const int64_t *>cnp.PyArray_DATA(self.rows)
        if len(self.rows) > 1 and (self.rows[1:] < self.rows[:len(self.rows) - 1]).any():
            self.by_row = np.argsort(self.rows, kind="stable").astype(np.int64, copy=False)
            self.items.by_row = <const int64_t *>cnp.PyArray_DATA(self.by_row)

    def __len__(self) -> int:
        return self.items.count

    @property
    def is_ascending(self) -> bool:
        """Whether items ascend by row."""
        return self.by_row is None

    @property
    def first(self) -> int:
        """The first row, where there is no list."""
        return self.items.start

    @property
    def step(self) -> int:
        """From one row to the next, where there is no list."""
        return self.items.step

    @property
    def nbytes(self) -> int:
        """Bytes of the list and of its order."""
        return sum(array.nbytes for array in (self.rows, self.by_row) if array is not None)

    def listed(self) -> np.ndarray | None:
        """The rows, item by item; None where they are start, start + step, …"""
        return self.rows

    def ranked(self) -> np.ndarray | None:
        """The rows in ascending order; None where they are start, start + step, …"""
        if self.rows is None:
            return None
        return self.rows if self.by_row is None else self.rows[self.by_row]

    def rows_of(self, cnp.ndarray items) -> np.ndarray:
        """The rows of an int64 array of items."""
        if self.rows is not None:
            return self.rows[items]
        return items * self.items.step + self.items.start


@cython.final
cdef class Schedule:
    """One epoch's batches for one of the processes that share it, or for one of its workers.

    Args:
        kind: "file", "exact", "batches", "block" or "drawn"; see order.h
        count: items
        key: 64 random bits for this epoch
        batch: positions of a batch
        rank, world: which of how many processes
        worker, workers: which of how many that take the process's batches in turn
        drop_last: leave out what does not fill a batch
        epoch: its number
        begun: positions that all processes together took before
        groups, window: of "block": first item of each group and the count behind them, uint64; groups mixed at a time
        drawn: of "drawn": the item at each position, int64

    Raises:
        MemoryError
    """
    cdef schedule_t schedule
    cdef object groups, drawn, by_item

    def __init__(self, str kind, uint64_t count, *, uint64_t key, uint64_t batch, uint64_t rank, uint64_t world,
                 bint drop_last, uint64_t epoch, uint64_t begun=0, uint64_t worker=0, uint64_t workers=1, groups=None,
                 uint64_t window=1, drawn=None):
        cdef h5fast_order *order = &self.schedule.order
        order.kind = KINDS[kind]
        order.count = count
        order.key = key
        order.run = batch
        order.window = window
        if groups is not None:
            self.groups = np.ascontiguousarray(groups, np.uint64)
            order.groups = <const uint64_t *>cnp.PyArray_DATA(self.groups)
            order.group_count = <uint64_t>(len(self.groups) - 1)
        if drawn is not None:
            self.drawn = np.ascontiguousarray(drawn, np.int64)
            self.by_item = np.argsort(self.drawn, kind="stable").astype(np.int64, copy=False)
            order.drawn = <const int64_t *>cnp.PyArray_DATA(self.drawn)
            order.by_item = <const int64_t *>cnp.PyArray_DATA(self.by_item)
            order.listed = len(self.drawn)
        self.schedule.batch = batch
        self.schedule.rank = rank
        self.schedule.world = world
        self.schedule.worker = worker
        self.schedule.workers = workers
        self.schedule.drop_last = drop_last
        self.schedule.epoch = epoch
        self.schedule.begun = begun
        if h5fast_schedule_make(<h5fast_schedule *>&self.schedule) != H5FAST_OK:
            raise MemoryError("no memory for the order of an epoch")

    def __dealloc__(self):
        h5fast_schedule_free(<h5fast_schedule *>&self.schedule)

    @property
    def steps(self) -> int:
        """Batches of this worker, from ``begun`` on."""
        return self.schedule.steps

    @property
    def rows(self) -> int:
        """Positions of this worker, from ``begun`` on."""
        return self.schedule.full * self.schedule.batch + self.schedule.share

    @property
    def length(self) -> int:
        """Positions of all processes together."""
        return self.schedule.order.length

    @property
    def stride(self) -> int:
        """Positions from the start of one epoch to that of the next."""
        return self.schedule.stride

    def items_at(self, cnp.ndarray positions) -> np.ndarray:
        """The items at positions of the epoch (of all processes), int64; for looking at an order, one by one."""
        cdef uint64_t number, position
        cdef cnp.ndarray items = np.empty(len(positions), np.int64)
        cdef int64_t *out = <int64_t *>cnp.PyArray_DATA(items)
        for number in range(<uint64_t>len(positions)):
            position = positions[number]
            if position >= self.schedule.order.length:
                raise IndexError(f"position {position} of {self.schedule.order.length}")
            h5fast_order_items(&self.schedule.order, position, 1, &out[number])
        return items

    def items(self, uint64_t step) -> np.ndarray:
        """The items of a step's batch, int64."""
        cdef uint64_t count
        cdef uint64_t first
        if step >= self.schedule.steps:
            raise IndexError(f"step {step} of {self.schedule.steps}")
        first = h5fast_schedule_first(<h5fast_schedule *>&self.schedule, step, &count)
        items = np.empty(count, np.int64)
        h5fast_order_items(&self.schedule.order, first, count, <int64_t *>cnp.PyArray_DATA(items))
        return items


def simulate(list schedules, starts, uint64_t slots) -> list:
    """Groups of rows that are decoded in each epoch, without reading anything.

    Args:
        schedules: of the epochs, and of one more
        starts: first item of each group of items that are decoded together, ascending from 0, and the number of items behind them
        slots: decoded rows that can be kept

    Raises:
        MemoryError
    """
    cdef Schedule one
    cdef const h5fast_schedule *given[8]
    cdef uint64_t decodes[8]
    cdef uint64_t epochs = len(schedules) - 1
    cdef h5fast_status status
    if not 0 < epochs < 8:
        raise ValueError("from one to seven epochs can be simulated")
    cdef cnp.ndarray first = np.ascontiguousarray(starts, np.uint64)
    cdef const uint64_t *firsts = <const uint64_t *>cnp.PyArray_DATA(first)
    cdef uint64_t groups = len(first) - 1
    one = schedules[0]
    if len(first) < 2 or first[0] != 0 or first[groups] != one.schedule.order.count or (first[1:] <= first[:groups]).any():
        raise ValueError("groups start at 0, ascend, and end with the last item")
    for number, one in enumerate(schedules):
        given[number] = <const h5fast_schedule *>&one.schedule
    with nogil:
        status = h5fast_simulate(given, epochs, firsts, groups, slots, decodes)
    if status != H5FAST_OK:
        raise MemoryError("no memory for a simulation")
    return [decodes[epoch] for epoch in range(epochs)]


@cython.final
cdef class Column:
    """A field of the batches that the engine reads: its files, what becomes of its rows, and what it keeps of them.

    Args:
        parts: (storage, index, source, first, rows, offset, kept, origin) for each file, ascending by ``first``; see field.h.
            ``kept`` may be None; ``origin`` is called for "file, dataset" when an error message needs it
        row: what is taken of each row: a selection of one row
        itemsize: bytes of a stored element
        row_bytes: bytes of a row as stored
        out_bytes: bytes of a row in the batch
        cast: what becomes of rows; None leaves them as they are
    """
    cdef h5fast_field field
    cdef h5fast_part *parts
    cdef list keep
    cdef readonly list origins
    cdef readonly uint64_t groups     # of rows that are decoded together
    cdef readonly uint64_t slots      # rows that can be kept
    cdef readonly bint decodes        # whether any part is stored through filters
    cdef readonly uint64_t chunks_per_group

    def __init__(self, list parts, Selection row, uint64_t itemsize, uint64_t row_bytes, uint64_t out_bytes,
                 Cast cast=None):
        cdef Storage storage
        cdef ChunkIndex index
        cdef Source source
        cdef Kept kept
        cdef h5fast_part *part
        cdef uint64_t first, rows, offset
        self.keep = [parts, row, cast]
        self.origins = [entry[7] for entry in parts]
        self.parts = <h5fast_part *>calloc(len(parts), sizeof(h5fast_part))
        if self.parts == NULL:
            raise MemoryError("no memory for the files of a field")
        row_selection(&self.field.row, row, itemsize)
        self.field.cast = &cast.cast if cast is not None else NULL
        self.field.is_fused = cast is not None
        for number, (storage, index, source, first, rows, offset, kept, _) in enumerate(parts):
            part = &self.parts[number]
            part.storage = &storage.storage
            part.index = &index.index
            part.source = &source.source
            part.first, part.rows, part.offset = first, rows, offset
            part.kept = kept.kept if kept is not None else NULL
            part.group_rows = storage.storage.chunk[0]
            part.first_group = self.groups
            self.groups += (offset + rows - 1) // part.group_rows - offset // part.group_rows + 1
            self.decodes |= storage.storage.filter_count > 0
            self.chunks_per_group = 1
            for axis in range(1, storage.storage.rank):
                self.chunks_per_group *= storage.storage.grid[axis]
            self.field.is_fused &= can_fuse(&storage.storage, &self.field.row)
        self.field.parts = self.parts
        self.field.part_count = len(parts)
        self.field.row_bytes = row_bytes
        self.field.out_bytes = out_bytes

    def __dealloc__(self):
        self.forget()
        free(self.field.touched)
        free(self.parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored."""
        return self.field.row_bytes

    @property
    def out_bytes(self) -> int:
        """Bytes of a row in a batch."""
        return self.field.out_bytes

    cdef void forget(self):
        free(self.field.store.rows)
        free(self.field.store.items)
        free(self.field.store.present)
        h5fast_rowcache_free(self.field.store.cache)
        memset(&self.field.store, 0, sizeof(h5fast_store))
        self.slots = 0

    def keep_all(self, uint64_t items) -> None:
        """Makes room for the rows of all items. Raises MemoryError."""
        self.forget()
        self.field.store.rows = <uint8_t *>malloc(items * self.field.row_bytes)
        self.field.store.present = <uint8_t *>calloc((self.groups + 7) // 8, 1)
        if self.field.store.rows == NULL or self.field.store.present == NULL:
            self.forget()
            raise MemoryError(f"no memory to keep {items} rows of {self.field.row_bytes} bytes")
        self.slots = items
        self.field.store.kind = H5FAST_STORE_ALL

    def keep_some(self, uint64_t slots, uint64_t stride) -> None:
        """Makes room for this many rows; ``stride`` is the schedule's. Raises MemoryError."""
        self.forget()
        self.field.store.rows = <uint8_t *>malloc(slots * self.field.row_bytes)
        self.field.store.items = <int64_t *>malloc(slots * sizeof(int64_t))
        self.field.store.cache = h5fast_rowcache_make(slots, 2 * stride)
        if self.field.store.rows == NULL or self.field.store.items == NULL or self.field.store.cache == NULL:
            self.forget()
            raise MemoryError(f"no memory to keep {slots} rows of {self.field.row_bytes} bytes")
        self.slots = slots
        self.field.store.kind = H5FAST_STORE_SOME

    def begin_epoch(self) -> None:
        """Starts counting anew."""
        if self.decodes and self.field.touched == NULL:
            self.field.touched = <uint8_t *>malloc((self.groups + 7) // 8)
            if self.field.touched == NULL:
                raise MemoryError("no memory to count chunks")
        if self.decodes:
            memset(self.field.touched, 0, (self.groups + 7) // 8)
        self.field.decodes = self.field.stored_bytes = self.field.groups_touched = 0

    def costs(self) -> tuple:
        """(chunks that the epoch took a row of, chunks decoded, bytes read) so far; the first 0 where nothing is decoded."""
        return (self.field.groups_touched * self.chunks_per_group, self.field.decodes, self.field.stored_bytes)


@cython.final
cdef class Feed:
    """Batches of a schedule, filled by one thread ahead of another that takes them.

    Args:
        now, then: the schedules of this epoch and of the one after
        items: what they draw from
        columns: the fields
        ring: for each place of the ring, a C-contiguous array for each field
        threads: native threads at most
        skip_damaged: whether rows that do not decode are left out
        settled: whether what the columns keep is what the feed of the epoch before left there
    """
    cdef h5fast_filling filling
    cdef h5fast_filler *filler
    cdef h5fast_feed *feed
    cdef h5fast_batch *ring
    cdef h5fast_field **fields
    cdef Schedule now, then
    cdef Items items
    cdef readonly list columns
    cdef list arrays
    cdef list numbers
    cdef uint32_t depth

    def __init__(self, Schedule now, Schedule then, Items items, list columns, list ring, int threads,
                 *, bint skip_damaged=False, bint settled=False):
        cdef Column column
        cdef uint32_t place, number
        self.now, self.then, self.items, self.columns = now, then, items, columns
        self.depth = len(ring)
        self.arrays = [None] * self.depth
        self.numbers = [np.empty(now.schedule.batch, np.int64) for _ in range(self.depth)]
        self.ring = <h5fast_batch *>calloc(self.depth, sizeof(h5fast_batch))
        self.fields = <h5fast_field **>calloc(max(len(columns), 1), sizeof(h5fast_field *))
        if self.ring == NULL or self.fields == NULL:
            raise MemoryError("no memory for a feed")
        for place in range(self.depth):
            self.ring[place].items = <int64_t *>cnp.PyArray_DATA(self.numbers[place])
            self.ring[place].outs = <uint8_t **>calloc(max(len(columns), 1), sizeof(uint8_t *))
            if self.ring[place].outs == NULL:
                raise MemoryError("no memory for a feed")
            self.provide(place, ring[place])
        for number, column in enumerate(columns):
            self.fields[number] = &column.field
        self.filling.fields = self.fields
        self.filling.field_count = len(columns)
        self.filling.now = <h5fast_schedule *>&now.schedule
        self.filling.next = <h5fast_schedule *>&then.schedule
        self.filling.items = &items.items
        self.filling.threads = threads
        self.filling.skip_damaged = skip_damaged
        self.filler = filler_make(&self.filling)
        self.feed = feed_make(self.filler, now.schedule.steps, self.ring, self.depth) if self.filler != NULL else NULL
        if self.feed == NULL:
            raise MemoryError("no memory for a feed")
        if not settled:
            with nogil:
                filler_settle(self.filler)

    def __dealloc__(self):
        cdef uint32_t place
        feed_free(self.feed)
        filler_free(self.filler)
        if self.ring != NULL:
            for place in range(self.depth):
                free(self.ring[place].outs)
        free(self.ring)
        free(self.fields)

    def provide(self, int place, list arrays) -> None:
        """Gives a place of the ring its arrays: one for each column, (batch, …), C-contiguous."""
        cdef uint32_t number
        cdef Column column
        for number, array in enumerate(arrays):
            column = self.columns[number]
            if array.nbytes < self.now.schedule.batch * column.field.out_bytes or not cnp.PyArray_IS_C_CONTIGUOUS(array):
                raise ValueError("an array of a batch is too small or not contiguous")
            self.ring[place].outs[number] = <uint8_t *>cnp.PyArray_DATA(array)
        self.arrays[place] = arrays

    def batch(self, int place) -> tuple:
        """(arrays, step, items, rows dropped) of a filled place; arrays are cut to the rows that there are."""
        cdef h5fast_batch *batch = &self.ring[place]
        count = batch.count
        return ([array[:count] if len(array) != count else array for array in self.arrays[place]], batch.step,
                self.numbers[place][:count], batch.dropped)

    # The filling thread.

    def fill(self) -> int:
        """Fills the next place, without publishing it; -1 where there is no more to do."""
        cdef int place
        with nogil:
            place = feed_fill(self.feed)
        return place

    def publish(self) -> None:
        """Hands the place that was filled last to the taker."""
        with nogil:
            feed_publish(self.feed)

    def run(self) -> None:
        """Fills and publishes all there is to do."""
        with nogil:
            feed_run(self.feed)

    def end(self) -> None:
        """Nothing more will be published."""
        with nogil:
            feed_end(self.feed)

    # The taker.

    def take(self) -> int:
        """The place of the next batch, waiting for it; -1 where there is none any more. KeyboardInterrupt passes."""
        cdef int place
        with nogil:
            place = feed_take(self.feed, 0.05)
        while place == -1:
            PyErr_CheckSignals()
            with nogil:
                place = feed_take(self.feed, 0.05)
        return place if place >= 0 else -1

    def release(self) -> None:
        """The place taken longest ago may be filled again."""
        with nogil:
            feed_release(self.feed)

    # Any thread.

    def stop(self) -> None:
        """Ends filling and wakes whoever waits."""
        with nogil:
            feed_stop(self.feed)

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or ended by itself."""
        return feed_is_over(self.feed) != 0

    @property
    def is_complete(self) -> bool:
        """Whether all batches that there are were published."""
        return feed_is_complete(self.feed) != 0

    def raise_failure(self) -> None:
        """Raises why filling ended early, if it did for an error in the data.

        Raises:
            CorruptChunkError, ReadError, MemoryError
        """
        cdef h5fast_fill_error error = feed_failure(self.feed)
        cdef Column column
        if error.what.status == H5FAST_OK or (error.what.status == H5FAST_CANCELLED):
            return
        if not self.columns or error.what.status == H5FAST_MEMORY:
            raise MemoryError("no memory to fill a batch")
        column = self.columns[error.field]
        raise_error(&error.what, column.parts[error.part].storage, column.origins[error.part])

    def waits(self) -> tuple:
        """Seconds that the filling thread waited for a free place, and the taker for a batch."""
        cdef double filler, taker
        feed_waits(self.feed, &filler, &taker)
        return filler, taker

    @property
    def nbytes(self) -> int:
        """Bytes of its own, beside the ring's arrays and what the columns keep."""
        return filler_bytes(self.filler)
