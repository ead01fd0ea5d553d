"""``Loader``: every epoch of shuffled batches, each chunk decoded as rarely as the memory allows.

It puts together what others do: fields and their files (:mod:`h5fast.columns`), the order (:mod:`h5fast.ordering`), the
memory (:mod:`h5fast.memory`, :mod:`h5fast.keeping`), the thread that fills batches (:mod:`h5fast.pipeline`) and the iterator
that hands them out (:mod:`h5fast.epoch`).
"""

from __future__ import annotations

import functools
import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np

from h5fast._blocks import empty
from h5fast._feed import Feed, Schedule
from h5fast.columns import EngineColumn, PythonColumn, open_table
from h5fast.epoch import Begun, Costing, Epoch, Run, no_stats
from h5fast.fields import request
from h5fast.keeping import Keeping
from h5fast.lookahead import Lookahead
from h5fast.memory import Division, divide, forget, grant
from h5fast.ordering import Order, group_starts, kind_of, stable_seed
from h5fast.pipeline import Pipeline
from h5fast.planning import Plan, field_plan, shuffle_quality
from h5fast.progress import with_bar
from h5fast.selecting import selected_items, weights_of
from h5fast.single import numbered, read_rows
from h5fast.sizes import parse_bytes
from h5fast.staging import in_form, stage_of
from h5fast.state import Identity, at_least, checked
from h5fast.threads import get_num_threads

__all__ = ["Loader"]


class Loader:
    """Batches of rows for training, from HDF5 files as they are, each epoch in another order.

    Parameters
    ----------
    source:
        A path, a pattern (``"train-*.h5"``), a list of them (files one after the other, as one dataset), an open file or
        group, or a mapping of names to ``Dataset``, ``HDF5Matrix`` or arrays.
    fields:
        What a batch is made of: a name or :class:`Field` gives bare arrays, a sequence of them tuples, a mapping of names to
        them dicts. None takes all that a mapping as source has.
    batch_size:
        Rows of a batch (of this process).
    shuffle:
        ``"exact"`` or True: every order of the rows is equally likely. ``"block"``: chunks in random order, and the rows of
        as many as fit the memory mixed; each chunk is decoded once. ``"batches"``: runs of `batch_size` rows as they are
        stored, in random order. False: as stored.
    seed:
        Anything with a stable ``repr``. The order is a function of seed, epoch, rank, world and rows alone (of ``"block"``:
        and of how many chunks are mixed), on every machine.
    drop_last:
        Leave out the last batch if it is not full.
    rows:
        Which rows are drawn: a slice, an array of indices or a mask, or the name of a split stored in the file
        (:func:`write_split`).
    weights:
        For each row a weight, or the name of a field that holds it: an epoch is then as many rows as there are, each drawn
        with that probability, with replacement.
    shard:
        (rank, world): this process takes every world-th batch (of ``"block"``: one of world equal parts). All take
        equally many rows: with `drop_last` up to ``world * batch_size - 1`` rows are left out, else up to ``world - 1`` rows
        come twice.
    worker:
        (number, workers): of this process's batches, this loader takes every workers-th from `number` on, where several
        worker processes share them. The batches are the same for any number of workers; each has this memory.
    memory:
        Bytes that all of it may hold: batches made ahead, decoded rows that are needed again, threads at work. What memory
        is left beyond the batches goes to decoded rows, those needed soonest; where all fit, they are decoded once.
    threads:
        Native threads that read and decode; None takes :func:`get_num_threads`.
    prefetch:
        Batches made ahead.
    transform:
        A function of a batch, run ahead in the loader's thread; what it returns is what the loop gets.
    progress:
        Show a progress bar (needs tqdm).
    reuse_buffers:
        Hand out the same few arrays again and again: a batch is valid until the next one is taken.
    allocator:
        ``allocator(shape, dtype)`` makes the arrays of the batches: pinned or shared memory.
    on_error:
        ``"raise"``: a damaged chunk ends the epoch at the batch that needs it. ``"skip"``: its rows are left out of their
        batches and counted in :meth:`stats`.
    untrusted:
        Nobody vouches for the files: see :class:`h5fast.File`. For paths and patterns.

    Each iteration is one epoch, the next one another; epochs are counted from the first ``next()``. What was decoded in one
    epoch and fits the memory is there for the next. Two iterations at once do not disturb each other, but the second one
    keeps no decoded rows.

    Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``OSError`` for what cannot be, before any row is read; the message
    names file and field.
    """

    def __init__(
        self,
        source: Any,
        fields: Any = None,
        batch_size: int = 256,
        *,
        shuffle: str | bool = "exact",
        seed: Any = 0,
        drop_last: bool = False,
        rows: Any = None,
        weights: Any = None,
        shard: tuple[int, int] = (0, 1),
        worker: tuple[int, int] = (0, 1),
        memory: int | float | str = "1 GiB",
        threads: int | None = None,
        prefetch: int = 2,
        transform: Callable[[Any], Any] | None = None,
        progress: bool = False,
        reuse_buffers: bool = False,
        allocator: Callable[[tuple[int, ...], np.dtype], np.ndarray] | None = None,
        on_error: str = "raise",
        untrusted: bool = False,
    ) -> None:
        available = tuple(source) if isinstance(source, Mapping) and not hasattr(source, "id") else None
        wanted = request(fields, available)
        self._batch_size = at_least(1, "batch_size", batch_size)
        self._prefetch = at_least(1, "prefetch", prefetch)
        self._threads = get_num_threads() if threads is None else at_least(1, "threads", threads)
        rank, world = _checked_share("shard", shard, "(rank, world)")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        for name, function in (("transform", transform), ("allocator", allocator)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {type(function).__name__}")
        kind = kind_of(shuffle, weights is not None)
        self._on_error, self._transform, self._progress = on_error, transform, bool(progress)
        self._reuse, self._allocator = bool(reuse_buffers), allocator
        self._table = open_table(source, wanted, untrusted=untrusted)
        self._items = selected_items(rows, self._table, ascending=kind == "block")
        self._check_size(rows, world)
        self._order = Order(kind, len(self._items), stable_seed(seed), self._batch_size, rank, world, bool(drop_last))
        self._order.worker, self._order.workers = _checked_share("worker", worker, "(number, workers)")
        if weights is not None:
            self._order.cumulated = weights_of(weights, self._table, self._items, source)
        self._memory = parse_bytes(memory)
        self._division = self._divide(self._memory)
        grant(self._division, self._table)
        if kind == "block":
            self._set_groups()
        self._keeping = Keeping(self._table, self._division.kept, len(self._items))
        self._identity = Identity(self._table, self._items, self._order)
        self._next_epoch, self._next_begun = 0, 0
        self._at: Run | None = None  # the iteration that says where training stands; None: the two before do
        self._last: Run | None = None  # the iteration that began last
        self._kept_schedule: tuple[tuple[int, int, int], Schedule] | None = None  # and epoch, row and window that it is of
        self._pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
        self._beginning = threading.RLock()
        self._closed = False

    # What it is.

    def __len__(self) -> int:
        """Batches of a whole epoch, of this process or its worker."""
        return self._order.steps

    @property
    def batch_size(self) -> int:
        """Rows of a full batch."""
        return self._batch_size

    @property
    def rows(self) -> int:
        """Rows that an epoch draws from, of all processes together."""
        return len(self._items)

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next iteration starts with."""
        return self._next_epoch

    @property
    def remaining(self) -> int:
        """Batches that the next iteration gives: of a whole epoch, or of the rest of one that was resumed."""
        if not self._next_begun:
            return len(self)
        return self._order.schedule(self._next_epoch, self._next_begun).steps or len(self)

    @property
    def least_memory(self) -> int:
        """Bytes that batches ahead, threads and lists of rows take; no decoded row is kept with so little `memory`."""
        return self._division.fixed

    @property
    def are_full(self) -> bool:
        """Whether every batch of an epoch has :attr:`batch_size` rows."""
        return self._order.are_full and self._on_error == "raise"

    @property
    def on_error(self) -> str:
        """What becomes of damaged chunks: ``"raise"`` or ``"skip"``."""
        return self._on_error

    def __repr__(self) -> str:
        """Fields, rows, batch size and order."""
        names = ", ".join(column.name for column in self._table.columns)
        order = {"file": "shuffle=False", "drawn": "drawn by weight"}.get(self._order.kind, f"shuffle={self._order.kind!r}")
        return f"<h5fast.Loader of {names}: {self.rows:,} rows in batches of {self._batch_size}, {order}, epoch {self._next_epoch}>"

    # Epochs.

    def __iter__(self) -> Iterator[Any]:
        """An epoch of batches. It starts, and is counted, when its first batch is asked for."""
        self._require_open()
        epoch = Epoch(self._begin)
        if not self._progress:
            return epoch
        return iter(with_bar(epoch, len(self), self._next_begun // self._order.per_step))

    def epoch_rows(self, epoch: int) -> Iterator[np.ndarray]:
        """The row numbers of each batch of an epoch, as this process takes them; nothing is read."""
        schedule = self._order.schedule(at_least(0, "epoch", epoch))
        return (self._items.rows_of(schedule.items(step)) for step in range(schedule.steps))

    def batch_rows(self, step: int, epoch: int | None = None) -> np.ndarray:
        """The row numbers of one batch of an epoch (by default the one that comes next); nothing is read.

        Raises ``IndexError`` for a step that the epoch does not have.
        """
        schedule = self._schedule(self._next_epoch if epoch is None else at_least(0, "epoch", epoch))
        if not 0 <= operator.index(step) < schedule.steps:
            raise IndexError(f"batch {step} of an epoch of {schedule.steps:,}")
        return self._items.rows_of(schedule.items(operator.index(step)))

    def order(self, epoch: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The rows in the order of an epoch of all processes, from place `start` to `stop`, numbered as :meth:`take` does.

        Nothing is read. Raises ``IndexError`` for places that the epoch does not have.
        """
        places = self._schedule(at_least(0, "epoch", epoch)).items_at
        return places(np.arange(at_least(0, "start", start), self.rows if stop is None else stop, dtype=np.int64))

    def read(self, step: int, epoch: int | None = None) -> Any:
        """One batch of an epoch (by default the one that comes next) by its number: what an iteration gives in its place.

        It is read here and now: nothing is read ahead, the rows that the loader keeps are not used, and an iteration that is
        under way is not disturbed. Any number of threads may read, and forked children; a `transform` then runs in all of them.

        Raises ``IndexError`` for a step that the epoch does not have, and what iterating raises.
        """
        self._require_open()
        rows = self.batch_rows(step, epoch)
        return self._read(rows, self._allocate())

    def take(self, rows: Any) -> Any:
        """A batch of any rows, read here and now as :meth:`read` does.

        `rows` are a list of numbers, a mask or a slice, as numpy has them, among the :attr:`rows` that the loader draws from.
        The batch has the form of the others, and goes through the `transform`.

        Raises ``IndexError`` for a row out of range, and what iterating raises.
        """
        self._require_open()
        wanted = self._items.rows_of(numbered(rows, len(self._items)))
        return self._read(wanted, [empty((len(wanted), *column.batch_row_shape), column.batch_dtype)
                                   for column in self._table.engine])

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration start at the beginning of this epoch."""
        self._next_epoch, self._next_begun = at_least(0, "epoch", epoch), 0
        self._at = None

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: what :meth:`load_state_dict` needs to go on behind the batch that was taken last.

        Numbers and texts, which JSON can hold. An iteration that was given up, or ended by an error, stands where it ended.
        """
        epoch, begun = self._next_epoch, self._next_begun
        if self._at is not None and not self._is_between_epochs:
            epoch, begun = self._at.number, self._at.taken
        return self._identity.state(epoch, begun)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken: the next iteration gives the rest of that epoch.

        Memory, threads and prefetch may differ; of ``shuffle="exact"`` the number of processes and the batch size, too.

        Raises ``ValueError`` for the state of another dataset, seed or order.
        """
        epoch, taken, window = checked(state, self._identity.state(0, 0))
        self._order.window = window  # how many blocks are mixed at a time is part of the order
        self._keeping.unsettle()
        self._next_epoch, self._next_begun, self._at = epoch, taken, None

    def stats(self) -> dict[str, Any]:
        """What the current epoch cost so far, or the last one if none is under way.

        ``rows`` and ``batches`` taken, ``dropped`` rows of damaged chunks; ``chunks`` that hold the rows of the epoch so far
        and have to be decoded, ``decodes`` of them, ``bytes_read`` from the files; ``peak_bytes`` held; ``wait_consumer_s``
        that the loop waited for batches, ``wait_readers_s`` that the readers waited for the loop. ``fields`` has chunks,
        decodes and bytes of each field. Of what HDF5 itself reads, bytes are counted as decoded; and where fields are read
        in Python, two iterations at once are counted together.
        """
        return no_stats() if self._last is None else self._last.stats()

    def plan(self) -> Plan:
        """What an epoch will cost with this memory, and with other amounts of it; nothing is read.

        The figures come from a simulation, for large data of one in proportion; fields that are read in Python are left out. ``print(loader.plan())`` shows them,
        ``loader.plan().plot()`` draws them.
        """
        schedule = self._order.schedule(self._next_epoch)
        order = self._order
        if not self._items.is_ascending and order.kind in ("file", "batches"):
            order = replace(order, kind="exact")  # a list in any order is taken for one at random
        fields = []
        for column in self._table.engine:
            if not column.is_decoded:
                continue
            storage = column.parts[0].chunks[0]
            across = storage.chunk_count // -(-column.parts[0].rows // storage.chunk[0]) or 1
            fields.append(field_plan(column.name, order, group_starts(self._items, column.boundaries()), across=across,
                                     rows_kept=self._division.kept[column.name],
                                     decoded_bytes=len(self._items) * column.row_bytes))
        largest = max([32, *(round(field.chunk_rows) for field in fields)])
        others = tuple(c.name for c in self._table.columns if isinstance(c, PythonColumn) and c.parts)
        return Plan(schedule.rows, schedule.steps, self._order.kind, shuffle_quality(self._order, schedule, largest),
                    self._memory, self._division.needed, tuple(fields), others)

    # Life cycle.

    def close(self) -> None:
        """Stops what is under way and frees the memory. May be called again; iterating afterwards is a ``ValueError``.

        Any thread may call it: one that waits for a batch is woken, by that ``ValueError``.
        """
        self._closed = True
        pipelines = list(self._pipelines)
        for pipeline in pipelines:
            pipeline.stop()
        for pipeline in pipelines:
            pipeline.join()
        self._keeping.forget()
        forget(self._table)
        if self._last is not None:
            self._last.let_go()

    def __enter__(self) -> Loader:
        """The loader itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    # Inside.

    @property
    def _is_between_epochs(self) -> bool:
        """Whether the epoch that began last was gone through, or none has begun."""
        return self._at is None or self._at.is_complete

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("this loader is closed")

    def _check_size(self, rows: Any, world: int) -> None:
        count = len(self._items)
        if count == 0:
            raise ValueError(f"there are no rows: rows={rows!r} selects nothing of {self._table.rows:,}")
        if world > count:
            raise ValueError(f"{world} processes share {count:,} rows: each needs one at least")
        if self._batch_size * world > count:
            raise ValueError(f"batch_size={self._batch_size} on {world} process(es) is more than the {count:,} rows that "
                             f"there are; pass batch_size={max(1, count // world)} or less")

    @property
    def _places(self) -> int:
        """Places of the ring: what the taker has of a reused ring is not ahead of it."""
        return self._prefetch + (1 if self._reuse else 0)

    def _divide(self, memory: int) -> Division:
        return divide(memory, self._table, self._items, batch=self._batch_size, places=self._places,
                      threads=self._threads, other=self._order.nbytes, transformed=self._transform is not None)

    def _set_groups(self) -> None:
        """Blocks are groups of rows that are decoded together, by the field that costs most; as many as fit are mixed."""
        leading = self._leading()
        boundaries = leading.boundaries() if leading is not None else np.arange(0, self._table.rows + 1, dtype=np.int64)
        self._order.groups = group_starts(self._items, boundaries)
        per_group = len(self._items) / max(1, len(self._order.groups) - 1)
        room = self._division.kept.get(leading.name) if leading is not None else None
        if room is None:  # nothing has to be kept: mix as many as would fit
            row = sum(c.out_bytes if isinstance(c, EngineColumn) else c.row_bytes for c in self._table.columns)
            room = self._memory // max(1, row)
        largest = int(np.diff(self._order.groups.astype(np.int64)).max())
        # A batch at the border of two windows needs rows of both.
        self._order.window = max(1, int((room - self._batch_size) // max(per_group, 1e-9)) if per_group * 1.5 > largest
                                 else int((room - self._batch_size) // largest))

    def _leading(self) -> EngineColumn | None:
        """The field whose chunks make the blocks: of those that are decoded, or else of all, the one with most bytes."""
        engine = self._table.engine
        decoded = [column for column in engine if column.is_decoded] or engine
        return max(decoded, key=lambda column: column.row_bytes, default=None)

    def _read(self, rows: np.ndarray, arrays: list[np.ndarray]) -> Any:
        return read_rows(self._table, rows, arrays, threads=self._threads, skip_damaged=self._on_error == "skip",
                         transform=self._transform)

    def _schedule(self, epoch: int, begun: int = 0) -> Schedule:
        """Of an epoch, from a row on. The one asked for last is kept, which is that of the epoch to come when one begins: making
        one may take a table of all rows."""
        key = (epoch, begun, self._order.window)
        kept = self._kept_schedule
        if kept is None or kept[0] != key:
            kept = self._kept_schedule = (key, self._order.schedule(epoch, begun))
        return kept[1]

    def _begin(self) -> Begun:
        """Takes the next epoch, and starts what fills its batches."""
        with self._beginning:
            self._require_open()
            number, begun = self._next_epoch, self._next_begun
            now = self._schedule(number, begun)
            if now.steps == 0 and begun:  # resumed exactly at the end
                number, begun = number + 1, 0
                now = self._schedule(number)
            then = self._schedule(number + 1)
            columns, settled = self._keeping.columns(number, begun, now.stride)
            if self._last is not None:
                self._last.let_go()  # before there is a new ring
            for column in columns:
                column.begin_epoch()
            feed = Feed(now, then, self._items, columns, [self._allocate() for _ in range(self._places)], self._threads,
                        skip_damaged=self._on_error == "skip", settled=settled)
            in_python = [column for column in self._table.columns if isinstance(column, PythonColumn)]
            for one in in_python:
                one.begin_epoch()
            named: dict[str, Costing] = {column.name: column for column in in_python if column.parts}
            named.update((described.name, column) for described, column in zip(self._table.engine, columns))
            run = Run(number, begun, self._order.per_step, now.steps, feed, named, self._division.needed)
            ahead = {column.name: Lookahead(column, now, self._items, self._division.ahead[column.name])
                     for column in in_python if column.name in self._division.ahead and self._keeping.owns(columns)}
            stage = stage_of(self._table, self._items, self._transform, skip_damaged=self._on_error == "skip", ahead=ahead)
            pipeline = Pipeline(feed, stage, self._division.made, None if self._reuse else self._allocate)
            self._pipelines.add(pipeline)
            pipeline.start()
            self._keeping.serve(pipeline.worker, columns, number)
            self._next_epoch, self._next_begun = number + 1, 0
            self._at = self._last = run
        if self._closed:  # meanwhile
            pipeline.stop()
        return Begun(run, pipeline, functools.partial(in_form, self._table) if stage is None else _as_it_is)

    def _allocate(self) -> list[np.ndarray]:
        """Arrays for one batch of the fields that the engine reads."""
        make = empty if self._allocator is None else self._checked_allocator
        return [make((self._batch_size, *column.batch_row_shape), column.batch_dtype) for column in self._table.engine]

    def _checked_allocator(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        assert self._allocator is not None
        array = self._allocator(shape, dtype)
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype or not array.flags.carray:
            raise TypeError(f"allocator({shape}, {dtype}) must give a writable C-contiguous array of that shape and type, "
                            f"not {array!r:.200}")
        return array


def _as_it_is(batch: Any) -> Any:
    return batch


def _checked_share(name: str, share: Any, form: str) -> tuple[int, int]:
    """Which of how many."""
    try:
        which, count = map(operator.index, share)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {form}, two whole numbers, not {share!r}") from None
    if not 0 <= which < count:
        first, second = form.strip("()").split(", ")
        raise ValueError(f"{name}={share!r}: the {first} must be from 0 to {second} - 1")
    return which, count

