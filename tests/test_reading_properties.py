"""Property test: any file that h5py can write is read by h5fast as h5py reads it, whole and by any selection.

Hypothesis draws rank, shape, maximal shape, chunks, library version, filters, user block, element type, fill value, what is
written and how the dataset is resized. Deterministic: the same examples in every run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
from amount import TIMES, examples
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from oracle import answer, check, difference, expected_answer

import h5fast

RUN = settings(derandomize=TIMES == 1, deadline=None, max_examples=examples(250), suppress_health_check=list(HealthCheck))
TYPES = ["i4", ">i2", "u1", "f4", ">f8", "f2", "c8", "S3", "?", [("a", "<i2"), ("b", ">f4"), ("c", "u1", (3,))]]
PIPELINES = {**files.PIPELINES, **files.plugin_pipelines()}


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """How a dataset is stored: everything `files.write` takes, and what happens to it afterwards."""
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(0 if rank > 1 else 1, (300, 24, 9, 6)[rank - 1])) for _ in range(rank))
    chunked = draw(st.integers(0, 4)) > 0
    layout: dict[str, Any] = {"shape": shape, "libver": draw(st.sampled_from(["earliest", "latest", ("v108", "v110")])),
                              "dtype": np.dtype(draw(st.sampled_from(TYPES))), "userblock": draw(st.sampled_from([0, 0, 512])),
                              "store": draw(st.sampled_from(["all", "nothing", "parts"])), "seed": draw(st.integers(0, 99)),
                              "fill": draw(st.booleans())}
    if not chunked:
        return layout
    maxshape = tuple(draw(st.sampled_from([extent or 1, extent + 3, None])) for extent in shape)
    if draw(st.booleans()):
        maxshape = tuple(extent or None for extent in shape)
    chunks = tuple(min(draw(st.integers(1, 40 if rank == 1 else 7)), limit or 99) for limit in maxshape)
    layout.update(chunks=chunks, maxshape=maxshape, pipeline=draw(st.sampled_from(sorted(PIPELINES))),
                  raw_edges=draw(st.integers(0, 5)) == 0,
                  resize=tuple(draw(st.integers(0, 12)) for _ in shape) if draw(st.integers(0, 2)) == 0 else None)
    if layout["raw_edges"]:
        layout["libver"] = "latest"
    return layout


def make(path: Path, layout: dict[str, Any]) -> None:
    shape, dtype, rng = layout["shape"], layout["dtype"], np.random.default_rng(layout["seed"])
    data = files.content(shape, dtype, layout["seed"])
    fill = files.content((7,), dtype, 3)[5] if layout["fill"] else None
    files.write(path, data, chunks=layout.get("chunks"), maxshape=layout.get("maxshape"), libver=layout["libver"], fill=fill,
                userblock=layout["userblock"], pipeline=PIPELINES[layout.get("pipeline", "none")],
                raw_edges=layout.get("raw_edges", False), store=layout["store"] == "all")
    with h5py.File(path, "r+") as file:
        dataset = file["d"]
        if layout["store"] == "parts" and all(shape):
            for _ in range(3):
                starts = [int(rng.integers(0, extent)) for extent in shape]
                part = tuple(slice(start, start + int(rng.integers(1, 4))) for start in starts)
                dataset[part] = data[part]
        if layout.get("resize"):
            limits = zip(layout["resize"], dataset.maxshape)
            try:
                dataset.resize(tuple(extent if limit is None else min(extent, limit) for extent, limit in limits))
            except RuntimeError:
                reject()  # HDF5 2.0 cannot grow an unallocated dataset whose edge chunks are unfiltered
            if dataset.size:
                dataset[tuple(extent - 1 for extent in dataset.shape)] = data.ravel()[0] if data.size else np.zeros((), dtype)


@RUN
@given(layout=layouts())
def test_every_layout_reads_as_h5py_reads_it(layout: dict[str, Any]) -> None:
    """Section 3, test 2: this found libhdf5's extensible-array fault within a minute."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "f.h5", layout)
        check(Path(folder) / "f.h5", seed=layout["seed"])


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """One index expression that numpy accepts for this shape, of the kinds that h5py and numpy both know, or only numpy."""
    parts: list[Any] = []
    for extent in shape[: draw(st.integers(0, len(shape)))]:
        kind = draw(st.sampled_from(["slice", "slice", "step", "integer", "list", "mask", "empty"]))
        bound = st.none() | st.integers(-extent - 2, extent + 2)
        if kind == "slice":
            parts.append(slice(draw(bound), draw(bound)))
        elif kind == "step":
            parts.append(slice(draw(bound), draw(bound), draw(st.sampled_from([1, 2, 3, 50, -1, -2]))))
        elif kind == "empty" or not extent:
            parts.append(slice(0, 0))
        elif kind == "integer":
            parts.append(draw(st.integers(-extent, extent - 1)))
        elif kind == "list" and not any(isinstance(part, (list, np.ndarray)) for part in parts):
            parts.append(draw(st.lists(st.integers(-extent, extent - 1), min_size=1, max_size=6)))
        elif kind == "mask" and not any(isinstance(part, (list, np.ndarray)) for part in parts):
            parts.append(np.array(draw(st.lists(st.booleans(), min_size=extent, max_size=extent))))
        else:
            parts.append(slice(None))
    if draw(st.integers(0, 4)) == 0:
        parts.append(Ellipsis)
    return tuple(parts)


@RUN
@given(data=st.data(), pipeline=st.sampled_from(["none", "shuffle+gzip", "lzf"]), libver=st.sampled_from(["earliest", "latest"]))
def test_every_selection_reads_as_h5py_or_numpy(data: st.DataObject, pipeline: str, libver: str) -> None:
    """h5py's answer where h5py has one, else numpy's: slices of any step, lists in any order, masks, on any axis."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    chunks = tuple(data.draw(st.integers(1, extent)) for extent in shape)
    whole = files.content(shape, "i4", 1)
    with tempfile.TemporaryDirectory() as folder:
        path = files.write(Path(folder) / "f.h5", whole, chunks=chunks, pipeline=files.PIPELINES[pipeline], libver=libver)
        with h5py.File(path) as plain, h5fast.File(path) as fast:
            for _ in range(5):
                key = data.draw(keys(shape))
                got = fast["d"][key]
                found = difference(got, expected_answer(plain["d"], whole, "key", key))
                assert found is None, f"{key}: {found}"


@RUN
@given(data=st.data(), pipeline=st.sampled_from(["none", "gzip", "shuffle+lzf+fletcher32", "lzf"]))
def test_take_equals_numpy(data: st.DataObject, pipeline: str) -> None:
    """take: any order, repeats, negatives, any integer type; as numpy's whole[rows]."""
    shape = (data.draw(st.integers(1, 70)), *data.draw(st.lists(st.integers(1, 12), max_size=2)))
    chunks = tuple(data.draw(st.integers(1, extent)) for extent in shape)
    whole = files.content(shape, data.draw(st.sampled_from(["i4", ">f4", "u1", "f8"])), 2)
    with tempfile.TemporaryDirectory() as folder:
        path = files.write(Path(folder) / "f.h5", whole, chunks=chunks, pipeline=files.PIPELINES[pipeline])
        with h5fast.File(path) as fast:
            for _ in range(4):
                rows = np.array(data.draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=30)), "i8")
                for form in (rows, rows.tolist(), rows.astype("i2")):
                    assert difference(answer(fast["d"], "take", form), whole[rows]) is None, rows


@RUN
@given(rows=st.lists(st.integers(-200, 200), min_size=1, max_size=8))
def test_rows_out_of_range_are_index_errors(rows: list[int]) -> None:
    """Never a row of another dataset, never h5py's off-by-one: IndexError naming the index and the size."""
    whole = files.content((40, 3), "i4")
    with tempfile.TemporaryDirectory() as folder:
        path = files.write(Path(folder) / "f.h5", whole, chunks=(7, 3))
        with h5fast.File(path) as fast:
            outside = [row for row in rows if not -40 <= row < 40]
            for read in (fast["d"].take, lambda key: fast["d"][key]):
                try:
                    got = read(rows)
                except IndexError as error:
                    assert outside and any(str(row) in str(error) for row in outside) and "40" in str(error), str(error)
                else:
                    assert not outside
                    np.testing.assert_array_equal(got, whole[rows])
