"""Whatever the files, fields and options: each batch holds what h5py reads of its rows, in the order that was promised.

Prevents: wrong bytes, a row that is missing or comes twice, fields that do not belong together, an order that depends on
memory, threads or prefetch, for one of the layouts, casts, orders, sizes of memory and ways of resuming that nobody tried.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
from amount import examples
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from h5fast import Field, Loader

KINDS = ["u1", "<i2", ">i4", "<f4", ">f8", "bool", "S7", "<u8", "<f2"]
NUMBERS = [kind for kind in KINDS if kind not in ("bool", "S7")]


@dataclass
class Case:
    """Files, the fields asked of them, and what their rows hold."""

    source: Any
    fields: dict[str, Field]
    expected: dict[str, np.ndarray]
    rows: int


def dataset(draw: Any, file: h5py.File, name: str, data: np.ndarray) -> None:
    how = draw(st.sampled_from(["contiguous", "chunks", "chunks", "filters", "filters", "filters", "compact"]))
    plist = files.property_list()
    if how == "compact" and data.nbytes < 60000:
        plist.set_layout(h5py.h5d.COMPACT)
    elif how in ("chunks", "filters") and data.size:
        chunk = (draw(st.sampled_from([1, 2, 7, 16, 50, max(1, len(data)), len(data) + 9])),
                 *(draw(st.integers(1, extent)) if draw(st.booleans()) else extent for extent in data.shape[1:]))
        pipeline = files.PIPELINES[draw(st.sampled_from(sorted(files.PIPELINES)))] if how == "filters" else []
        plist = files.property_list(pipeline, chunk, raw_edges=draw(st.booleans()))
    limits = (h5py.h5s.UNLIMITED, *data.shape[1:]) if plist.get_layout() == h5py.h5d.CHUNKED else None
    space = h5py.h5s.create_simple(data.shape, limits)
    kind = h5py.h5t.py_create(data.dtype, logical=True)
    made = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))
    written = draw(st.integers(0, len(data))) if draw(st.integers(0, 5)) == 0 else len(data)
    if written:
        made[:written] = data[:written]


def some_field(draw: Any, name: str, data: np.ndarray) -> tuple[Field, np.ndarray]:
    """A request for a dataset, and what its rows then are."""
    crop, expected = None, data
    if data.ndim > 1 and draw(st.booleans()):
        parts = []
        for extent in data.shape[1 : 1 + draw(st.integers(1, data.ndim - 1))]:
            start, size = draw(st.integers(0, extent - 1)), draw(st.integers(1, extent))
            parts.append(draw(st.sampled_from([None, size, slice(start, None), slice(start, None, 2)])))
        crop = tuple(parts)
        for axis, part in enumerate(parts, 1):
            if isinstance(part, int):
                first = (data.shape[axis] - part) // 2
                part = slice(first, first + part)
            expected = expected[(slice(None),) * axis + (part or slice(None),)]
    if data.dtype.kind in "bSV" or draw(st.integers(0, 2)) == 0:
        return Field(name, crop=crop), expected
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8", ">f4", "i8"])))
    scale, offset = (draw(st.sampled_from([None, 0.5, 3])) for _ in range(2))
    if dtype.kind == "i":
        scale = offset = None
    with np.errstate(all="ignore"):
        expected = expected.astype(dtype)
        if scale is not None:
            expected = expected * dtype.type(scale)
        if offset is not None:
            expected = expected + dtype.type(offset)
    first = expected.ndim > 2 and draw(st.booleans())
    if first:
        expected = np.moveaxis(expected, -1, 1)
    return Field(name, dtype=dtype, scale=scale, offset=offset, channels_first=first, crop=crop), expected.astype(dtype)


def virtual(path: Path, parts: list[Path], name: str, data: np.ndarray) -> None:
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    first = 0
    for part in parts:
        with h5py.File(part) as file:
            count = len(file[name])
            layout[first : first + count] = h5py.VirtualSource(file[name])
        first += count
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)


def case(draw: Any, folder: Path) -> Case:
    counts = draw(st.sampled_from([[draw(st.integers(1, 300))], [40, 1, 90], [100, 0, 33], [64, 64]]))
    rows, paths = sum(counts), [folder / f"{number}.h5" for number in range(len(counts))]
    names = [f"f{number}" for number in range(draw(st.integers(1, 3)))]
    fields, expected = {}, {}
    everything = {}
    for number, name in enumerate(names):
        shape = draw(st.sampled_from([(), (3,), (4, 5), (3, 4, 3)]))
        everything[name] = files.content((rows, *shape), draw(st.sampled_from(KINDS)), number)
    everything["row"] = np.arange(rows)
    for number, path in enumerate(paths):
        low = sum(counts[:number])
        with h5py.File(path, "w") as file:
            for name, data in everything.items():
                dataset(draw, file, name, data[low : low + counts[number]])
    for name in names:  # what h5py reads: some rows were never written
        pieces = []
        for path in paths:
            with h5py.File(path) as file:
                pieces.append(file[name][...])
        everything[name] = np.concatenate(pieces).astype(pieces[0].dtype)  # it would make the bytes' order the machine's
    for path, count in zip(paths, counts):
        with h5py.File(path, "r+") as file:
            low = sum(counts[: paths.index(path)])
            file["row"][...] = np.arange(low, low + count)
    for name in names:
        fields[name], expected[name] = some_field(draw, name, everything[name])
    fields["row"], expected["row"] = Field("row"), everything["row"]
    kind = draw(st.sampled_from(["paths", "paths", "virtual", "pattern"]))
    source: Any = paths if len(paths) > 1 else paths[0]
    if kind == "pattern":
        source = str(folder / "?.h5")
    elif kind == "virtual":
        source = folder / "whole.h5"
        for name, data in everything.items():
            virtual(source, paths, name, data)
    return Case(source, fields, expected, rows)


def options(draw: Any, rows: int) -> tuple[dict[str, Any], np.ndarray]:
    """Options that belong to the order, and the rows that it is of."""
    picked: Any = draw(st.sampled_from(["all", "all", "slice", "list", "mask"]))
    chosen, listed = None, np.arange(rows)
    if picked == "slice":
        chosen = slice(draw(st.integers(0, rows - 1)), None, draw(st.sampled_from([1, 2, 5, -1])))
        listed = listed[chosen]
    elif picked == "list":
        listed = np.array(draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=80)))
        chosen = listed
    elif picked == "mask":
        chosen = np.random.default_rng(draw(st.integers(0, 9))).random(rows) < 0.7
        chosen[0] = True
        listed = np.flatnonzero(chosen)
    world = draw(st.sampled_from([1, 1, 2, 3]))
    world = world if world <= len(listed) else 1
    batch = draw(st.integers(1, min(60, len(listed) // world)))
    found = {"batch_size": batch, "rows": chosen, "world": world, "drop_last": draw(st.booleans()),
             "shuffle": draw(st.sampled_from(["exact", "block", "batches", False])), "seed": draw(st.integers(0, 5))}
    if found["shuffle"] == "exact" and draw(st.integers(0, 3)) == 0:
        found["weights"] = np.random.default_rng(draw(st.integers(0, 9))).random(rows) + 0.01
    return found, listed


def least_memory(given: Any) -> int:
    """What the loader says that it needs."""
    try:
        given(memory=1)
    except ValueError as error:
        assume("a crop and a conversion together" not in str(error))  # of a field that only Python can read
        return int(str(error).split(" need ")[1].split(";")[0].replace(",", ""))
    raise AssertionError("a byte was enough")


# Of examples of this size shrinking takes minutes, and tells no more than the draws that are printed.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
slow = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES, report_multiple_bugs=False)


@settings(slow, max_examples=examples(100))
@given(st.data())
def test_every_batch_of_every_order(data: st.DataObject) -> None:
    draw = data.draw
    with tempfile.TemporaryDirectory() as folder:
        files_ = case(draw, Path(folder))
        chosen, listed = options(draw, files_.rows)
        world = chosen.pop("world")

        def loader(rank: int = 0, **how: Any) -> Loader:
            return Loader(files_.source, files_.fields, shard=(rank, world), **{**chosen, **how})

        def run(batches: Any) -> list[list[int]]:
            found = []
            for batch in batches:
                rows = batch["row"]
                for name, expected in files_.expected.items():
                    assert batch[name].dtype == expected.dtype and batch[name].shape == expected[rows].shape
                    np.testing.assert_array_equal(batch[name], expected[rows])
                found.append(rows.tolist())
            return found

        def how() -> dict[str, Any]:
            found = {"threads": draw(st.integers(1, 4)), "prefetch": draw(st.integers(1, 4)),
                     "reuse_buffers": draw(st.booleans())}
            least = least_memory(lambda memory: loader(memory=memory, **found))
            extra = draw(st.sampled_from([0, 200, 5000, 40000, 10**6, 10**8]))
            return {**found, "memory": least + extra}

        first_way = how()
        ranks = [loader(rank, **first_way) for rank in range(world)]
        for epoch in range(2):
            taken = [run(one) for one in ranks]
            assert [len(batches) for batches in taken] == [len(one) for one in ranks]
            assert len({tuple(map(len, batches)) for batches in taken}) == 1
            assert all(len(batch) == chosen["batch_size"] for batches in taken for batch in batches[:-1])
            flat = np.array([row for batches in taken for batch in batches for row in batch], int)
            if "weights" in chosen:
                assert set(flat.tolist()) <= set(listed.tolist())
            elif chosen["drop_last"]:
                assert len(flat) == len(listed) // (chosen["batch_size"] * world) * chosen["batch_size"] * world
                assert (np.bincount(flat, minlength=files_.rows) <= np.bincount(listed, minlength=files_.rows)).all()
            else:
                more = np.bincount(flat, minlength=files_.rows) - np.bincount(listed, minlength=files_.rows)
                assert (more >= 0).all() and more.sum() == -len(listed) % world
            if chosen["shuffle"] is False and world == 1:
                assert [row for batch in taken[0] for row in batch] == listed[: len(flat)].tolist()
            last = taken
        # Another way, the same order; and from the middle, with a state.
        rank = draw(st.integers(0, world - 1))
        second = loader(rank, **how())
        second.set_epoch(1)
        if chosen["shuffle"] == "block":  # how many are mixed comes of the memory, and is part of the state
            second.load_state_dict({**ranks[rank].state_dict(), "epoch": 1, "taken": 0})
        batches = iter(second)
        done = draw(st.integers(0, len(last[rank])))
        assert run(itertools.islice(batches, done)) == last[rank][:done]
        third = loader(rank, **how())
        third.load_state_dict(second.state_dict())
        if 0 < done < len(last[rank]):
            assert run(third) == last[rank][done:]
        assert run(batches) == last[rank][done:]


@settings(slow, max_examples=examples(30))
@given(st.data())
def test_iterations_that_come_and_go(data: st.DataObject) -> None:
    """Several at once, closed, forgotten, resumed and set anew: what is kept serves whichever is next."""
    draw = data.draw
    with tempfile.TemporaryDirectory() as folder:
        files_ = case(draw, Path(folder))
        chosen, _ = options(draw, files_.rows)
        chosen.pop("world")

        def loader(**how: Any) -> Loader:
            return Loader(files_.source, files_.fields, **{**chosen, "reuse_buffers": True, **how})

        memory = least_memory(loader) + draw(st.sampled_from([0, 300, 5000, 10**6]))
        plain, tried = loader(memory=memory), loader(memory=memory)
        orders: dict[int, list[list[int]]] = {}

        def order(epoch: int) -> list[list[int]]:
            if epoch not in orders:
                plain.set_epoch(epoch)
                orders[epoch] = [batch["row"].tolist() for batch in plain]
            return orders[epoch]

        running: list[tuple[Any, Any]] = []
        states, begun = [], 0  # rows of the next epoch that were taken before
        for _ in range(draw(st.integers(5, 25))):
            action = draw(st.sampled_from(["begin", "take", "take", "take", "forget", "close", "set", "save", "load"]))
            if action == "begin" or not running:
                epoch = tried.epoch
                running.append((iter(tried), iter(order(epoch)[begun // chosen["batch_size"]:] or order(epoch + 1))))
                begun = 0
                expected = next(running[-1][1], None)
                batch = next(running[-1][0], None)
                assert (None if batch is None else batch["row"].tolist()) == expected
            elif action == "take":
                batches, expected_batches = draw(st.sampled_from(running))
                for _ in range(draw(st.integers(1, 6))):
                    batch, expected = next(batches, None), next(expected_batches, None)
                    assert (None if batch is None else batch["row"].tolist()) == expected
                    for name, values in files_.expected.items():
                        if batch is not None:
                            np.testing.assert_array_equal(batch[name], values[batch["row"]])
            elif action in ("forget", "close"):
                gone = running.pop(draw(st.integers(0, len(running) - 1)))
                if action == "close":
                    gone[0].close()
                del gone
            elif action == "set":
                tried.set_epoch(draw(st.integers(0, 4)))
                begun = 0
            elif action == "save":
                states.append(tried.state_dict())
            elif states:
                state = draw(st.sampled_from(states))
                tried.load_state_dict(state)
                begun = state["taken"]
        tried.close()
        plain.close()
