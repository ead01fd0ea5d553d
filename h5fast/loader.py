"""``Loader``: every epoch of shuffled batches, each chunk decoded as rarely as the memory allows.

It puts together what others do: fields and their files (:mod:`h5fast.columns`), the order (:mod:`h5fast.ordering`), the
memory (:mod:`h5fast.memory`) and the thread that fills batches (:mod:`h5fast.pipeline`).
"""

from __future__ import annotations

import hashlib
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from h5fast._blocks import empty
from h5fast._feed import Column, Feed, Items
from h5fast.columns import EngineColumn, PythonColumn, Table, open_table
from h5fast.fields import request
from h5fast.memory import Division, divide, forget, grant, parse_bytes
from h5fast.ordering import Order, group_starts, kind_of
from h5fast.pipeline import Pipeline
from h5fast.planning import Plan, field_plan, shuffle_quality
from h5fast.selecting import selected_items, weights_of
from h5fast.threads import get_num_threads

__all__ = ["Loader"]

_STATE_VERSION = 1


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
    memory:
        Bytes that all of it may hold: batches made ahead, decoded rows that are needed again, threads at work. What memory
        is left beyond the batches goes to decoded rows, those needed soonest; as much as the data, and they are decoded once.
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
        memory: int | float | str = "1 GiB",
        threads: int | None = None,
        prefetch: int = 2,
        transform: Callable[[Any], Any] | None = None,
        progress: bool = False,
        reuse_buffers: bool = False,
        allocator: Callable[[tuple[int, ...], np.dtype], np.ndarray] | None = None,
        on_error: str = "raise",
    ) -> None:
        available = tuple(source) if isinstance(source, Mapping) and not hasattr(source, "id") else None
        wanted = request(fields, available)
        self._batch_size = _at_least(1, "batch_size", batch_size)
        self._prefetch = _at_least(1, "prefetch", prefetch)
        self._threads = get_num_threads() if threads is None else _at_least(1, "threads", threads)
        rank, world = _checked_shard(shard)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        for name, function in (("transform", transform), ("allocator", allocator)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {type(function).__name__}")
        kind = kind_of(shuffle, weights is not None)
        self._on_error, self._transform, self._progress = on_error, transform, bool(progress)
        self._reuse, self._allocator = bool(reuse_buffers), allocator
        self._table = open_table(source, wanted)
        self._items = selected_items(rows, self._table, ascending=kind == "blocks")
        self._check_size(rows, world)
        self._order = Order(kind, len(self._items), seed, self._batch_size, rank, world, bool(drop_last))
        if weights is not None:
            self._order.cumulated = weights_of(weights, self._table, self._items, source)
        self._memory = parse_bytes(memory)
        self._division = self._divide(self._memory)
        grant(self._division, self._table)
        if kind == "blocks":
            self._set_groups()
        self._columns: list[Column] | None = None
        self._next_epoch, self._next_begun = 0, 0
        self._settled_for: tuple[int, int] | None = None
        self._current: _Run | None = None  # the last iteration that began
        self._owner: weakref.ref[_Epoch] | None = None  # the iteration that uses what the columns keep
        self._pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
        self._closed = False

    # What it is.

    def __len__(self) -> int:
        """Batches of a whole epoch, of this process."""
        return self._order.schedule(0).steps if self._order.kind != "drawn" else self._drawn_steps()

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

    def __repr__(self) -> str:
        """Fields, rows, batch size and order."""
        names = ", ".join(column.name for column in self._table.columns)
        return (f"<h5fast.Loader of {names}: {self.rows:,} rows in batches of {self._batch_size}, "
                f"shuffle={self._order.kind!r}, epoch {self._next_epoch}>")

    # Epochs.

    def __iter__(self) -> Iterator[Any]:
        """An epoch of batches. It starts, and is counted, when its first batch is asked for."""
        self._require_open()
        epoch = _Epoch(self)
        if not self._progress:
            return epoch
        return iter(_with_bar(epoch, len(self)))

    def epoch_rows(self, epoch: int) -> Iterator[np.ndarray]:
        """The row numbers of each batch of an epoch, as this process takes them; nothing is read."""
        schedule = self._order.schedule(_at_least(0, "epoch", epoch))
        return (self._items.rows_of(schedule.items(step)) for step in range(schedule.steps))

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration start at the beginning of this epoch."""
        self._next_epoch, self._next_begun = _at_least(0, "epoch", epoch), 0

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: what :meth:`load_state_dict` needs to go on behind the batch that was taken last."""
        epoch, begun = self._next_epoch, self._next_begun
        if self._current is not None and self._current.is_under_way:
            epoch, begun = self._current.number, self._current.taken
        return {"version": _STATE_VERSION, "epoch": epoch, "taken": begun, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken: the next iteration gives the rest of that epoch.

        Memory, threads and prefetch may differ; of ``shuffle="exact"`` the number of processes and the batch size, too.

        Raises ``ValueError`` for the state of another dataset, seed or order.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(f"this is no state of a loader of this version of h5fast: {state!r}")
        mine = self._identity()
        free = {"world", "batch_size"} if self._order.kind in ("exact", "file") else set()
        free.add("window")
        for name, value in mine.items():
            if name not in free and state.get(name) != value:
                raise ValueError(f"the state belongs to another loader: its {name} is {state.get(name)!r}, here it is {value!r}")
        self._order.window = int(state["window"])  # how many blocks are mixed at a time is part of the order
        self._next_epoch, self._next_begun = int(state["epoch"]), int(state["taken"])

    def stats(self) -> dict[str, Any]:
        """What the current epoch cost so far, or the last one if none is under way.

        ``rows`` and ``batches`` taken, ``dropped`` rows of damaged chunks; ``chunks`` that hold the rows of the epoch so far
        and have to be decoded, ``decodes`` of them, ``bytes_read`` from the files; ``peak_bytes`` held; ``wait_consumer_s``
        that the loop waited for batches, ``wait_readers_s`` that the readers waited for the loop. ``fields`` has chunks,
        decodes and bytes of each field.
        """
        if self._current is None:
            return _no_stats()
        return self._current.stats()

    def plan(self) -> Plan:
        """What an epoch will cost with this memory, and with other amounts of it; nothing is read.

        The figures come from a simulation, for large data of one in proportion. ``print(loader.plan())`` shows them,
        ``loader.plan().plot()`` draws them.
        """
        schedule = self._order.schedule(self._next_epoch)
        fields = []
        for column in self._table.engine:
            if not column.is_decoded:
                continue
            storage = column.parts[0].chunks[0]
            groups = group_starts(self._items, column.boundaries()) if self._items.is_ascending else column.boundaries()
            across = storage.chunk_count // -(-column.parts[0].rows // storage.chunk[0]) or 1
            fields.append(field_plan(column.name, self._order, rows_kept=self._division.kept[column.name],
                                     chunk_rows=storage.chunk[0], chunks=(len(groups) - 1) * across,
                                     decoded_bytes=len(self._items) * column.row_bytes))
        largest = max([32, *(field.chunk_rows for field in fields)])
        return Plan(schedule.rows, schedule.steps, self._order.kind, shuffle_quality(self._order, schedule, largest),
                    self._memory, self._division.needed, tuple(fields))

    # Life cycle.

    def close(self) -> None:
        """Stops what is under way and frees the memory. May be called again; iterating afterwards is a ``ValueError``."""
        self._closed = True
        for pipeline in list(self._pipelines):
            pipeline.stop()
            pipeline.join()
        if self._current is not None:
            self._current.is_under_way = False
        self._columns = None
        self._settled_for = None
        forget(self._table)

    def __enter__(self) -> Loader:
        """The loader itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    # Inside.

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("this loader is closed")

    def _check_size(self, rows: Any, world: int) -> None:
        count = len(self._items)
        if count == 0:
            raise ValueError(f"there are no rows: rows={rows!r} selects nothing of {self._table.rows:,}")
        if self._batch_size * world > count:
            raise ValueError(f"batch_size={self._batch_size} on {world} process(es) is more than the {count:,} rows that there are")

    def _drawn_steps(self) -> int:
        return Order("file", len(self._items), 0, self._batch_size, self._order.rank, self._order.world, True).schedule(0).steps \
            if self._order.drop_last else -(-(len(self._items) // self._order.world) // self._batch_size)

    def _identity(self) -> dict[str, Any]:
        chosen = hashlib.blake2b(digest_size=8)
        ranked = self._items.ranked()
        chosen.update(repr((self._items.first, self._items.step)).encode() if ranked is None else ranked.tobytes())
        return {
            "order": self._order.kind, "seed": repr(self._order.seed), "rows": self.rows, "of": self._table.rows,
            "chosen": chosen.hexdigest(), "fields": self._table.description, "drop_last": self._order.drop_last,
            "window": self._order.window, "world": self._order.world, "batch_size": self._batch_size,
        }

    @property
    def _places(self) -> int:
        """Places of the ring: what the taker has of a reused ring is not ahead of it."""
        return self._prefetch + (1 if self._reuse else 0)

    def _divide(self, memory: int) -> Division:
        return divide(memory, self._table, len(self._items), batch=self._batch_size, places=self._places, threads=self._threads, other=self._items.nbytes + self._order.nbytes)

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

    def _begin(self, epoch: _Epoch) -> tuple[Feed, _Run]:
        """Takes the next epoch, for an iteration that has to start its pipeline with the feed."""
        self._require_open()
        number, begun = self._next_epoch, self._next_begun
        now, then = self._order.schedule(number, begun), self._order.schedule(number + 1)
        if now.steps == 0:  # resumed exactly at the end
            number, begun = number + 1, 0
            now, then = then, self._order.schedule(number + 1)
        columns, settled = self._columns_for(epoch, number, begun, now.stride)
        for column in columns:
            column.begin_epoch()
        feed = Feed(now, then, self._items, columns, [self._allocate() for _ in range(self._places)], self._threads,
                    skip_damaged=self._on_error == "skip", settled=settled)
        self._next_epoch, self._next_begun = number + 1, 0
        named = {described.name: column for described, column in zip(self._table.engine, columns)}
        self._current = _Run(number, begun, self._batch_size * self._order.world, feed, named, self._division.needed)
        return feed, self._current

    def _columns_for(self, epoch: _Epoch, number: int, begun: int, stride: int) -> tuple[list[Column], bool]:
        """The fields, with what they keep, and whether that is in order for this epoch. Of two iterations at once, the second
        one gets fields that keep nothing."""
        other = self._owner() if self._owner is not None else None
        if other is not None and other.is_under_way:
            return self._make_columns(keeping=False, stride=stride), True
        for pipeline in list(self._pipelines):
            if pipeline.feed.is_over:  # of an iteration that was given up: it may still be at its last batch
                pipeline.join()
        if self._columns is None:
            self._columns = self._make_columns(keeping=True, stride=stride)
        self._owner = weakref.ref(epoch)
        settled = self._settled_for == (number, begun)
        self._settled_for = None
        return self._columns, settled

    def _completed(self, run: _Run) -> None:
        """A whole epoch was filled: if what the columns keep was kept for it, it is in order for the next one."""
        if not self._closed and self._columns is not None and run.uses(self._columns):
            self._settled_for = (run.number + 1, 0)

    def _make_columns(self, *, keeping: bool, stride: int) -> list[Column]:
        columns = []
        for described in self._table.engine:
            column = described.column()
            slots = self._division.kept.get(described.name, 0) if keeping else 0
            if slots and slots >= len(self._items):
                column.keep_all(len(self._items))
            elif slots:
                column.keep_some(slots, stride)
            columns.append(column)
        return columns

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

    def _stage(self) -> Callable[[list[np.ndarray], np.ndarray], Any] | None:
        """What is done to a batch in Python; None if nothing is."""
        columns, transform, form, items = self._table.columns, self._transform, self._table.form, self._items
        if transform is None and all(isinstance(c, EngineColumn) and c.finish is None for c in columns):
            return None

        def stage(arrays: list[np.ndarray], numbers: np.ndarray) -> Any:
            rows = items.rows_of(numbers)
            engine = iter(arrays)
            values = []
            for column in columns:
                if isinstance(column, PythonColumn):
                    values.append(column.read(rows))
                else:
                    array = next(engine)
                    values.append(array if column.finish is None else column.finish(array))
            batch = _in_form(values, columns, form)
            return batch if transform is None else transform(batch)

        return stage

    def _shaped(self, arrays: list[np.ndarray]) -> Any:
        """A batch of which the engine read every field."""
        return _in_form(arrays, self._table.columns, self._table.form)


def _in_form(values: list[Any], columns: tuple[EngineColumn | PythonColumn, ...], form: str) -> Any:
    """A batch in the form that was asked for."""
    if form == "single":
        return values[0]
    if form == "tuple":
        return tuple(values)
    return {column.name: value for column, value in zip(columns, values)}


class _Run:
    """What one iteration has done so far. It outlives the iteration, and knows neither it nor the loader."""

    def __init__(self, number: int, begun: int, per_batch: int, feed: Feed, columns: dict[str, Column], held: int) -> None:
        self.number, self.begun = number, begun
        self.batches = self.rows = self.dropped = 0
        self.is_under_way = True
        self._per_batch, self._feed, self._columns, self._held = per_batch, feed, columns, held

    def uses(self, columns: list[Column]) -> bool:
        """Whether these are what it fills batches from."""
        return list(self._columns.values()) == columns

    @property
    def taken(self) -> int:
        """Rows of the epoch that are done with, of all processes together."""
        return self.begun + self.batches * self._per_batch

    def stats(self) -> dict[str, Any]:
        """See :meth:`Loader.stats`."""
        found = _no_stats()
        found.update(epoch=self.number, rows=self.rows, batches=self.batches, dropped=self.dropped)
        for name, column in self._columns.items():
            chunks, decodes, read = column.costs()
            found["fields"][name] = {"chunks": chunks, "decodes": decodes, "bytes_read": read}
            found["chunks"] += chunks
            found["decodes"] += decodes
            found["bytes_read"] += read
        found["wait_readers_s"], found["wait_consumer_s"] = self._feed.waits()
        found["peak_bytes"] = self._held + self._feed.nbytes
        return found


class _Epoch:
    """One iteration. It starts at the first ``next()``, and ends when it is exhausted, closed or forgotten."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._pipeline: Pipeline | None = None
        self._run: _Run | None = None
        self._is_bare = False  # batches come from the engine as a list of arrays
        self._is_closed = False

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Any:
        if self._is_closed:
            raise StopIteration
        if self._pipeline is None or self._run is None:
            self._begin()
        assert self._pipeline is not None and self._run is not None
        try:
            taken = self._pipeline.take()
        except BaseException:
            self.close()
            raise
        if taken is None:
            self.close()
            self._loader._completed(self._run)
            raise StopIteration
        batch, items, dropped = taken
        self._run.batches += 1
        self._run.rows += len(items)
        self._run.dropped += dropped
        return self._loader._shaped(batch) if self._is_bare else batch

    def _begin(self) -> None:
        loader = self._loader
        feed, self._run = loader._begin(self)
        stage = loader._stage()
        self._is_bare = stage is None
        self._pipeline = Pipeline(feed, stage, None if loader._reuse else loader._allocate)
        loader._pipelines.add(self._pipeline)
        weakref.finalize(self, feed.stop)  # not the pipeline's: that knows the loader, which would then live as long as this

    @property
    def is_under_way(self) -> bool:
        """Whether it was begun and neither ended nor closed."""
        return self._run is not None and self._run.is_under_way

    def close(self) -> None:
        """Ends it, and waits until its thread has."""
        self._is_closed = True
        if self._run is not None:
            self._run.is_under_way = False
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline.join()


def _no_stats() -> dict[str, Any]:
    return {"epoch": 0, "rows": 0, "batches": 0, "dropped": 0, "chunks": 0, "decodes": 0, "bytes_read": 0, "peak_bytes": 0,
            "wait_consumer_s": 0.0, "wait_readers_s": 0.0, "fields": {}}


def _at_least(least: int, name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def _checked_shard(shard: Any) -> tuple[int, int]:
    try:
        rank, world = map(operator.index, shard)
    except (TypeError, ValueError):
        raise TypeError(f"shard must be (rank, world), two whole numbers, not {shard!r}") from None
    if not 0 <= rank < world:
        raise ValueError(f"shard={shard!r}: the rank must be from 0 to world - 1")
    return rank, world


def _with_bar(batches: Iterator[Any], total: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'h5fast[progress]'") from error
    return tqdm(batches, total=total, unit="batch")
