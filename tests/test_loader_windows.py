"""Windows over recordings: what slices of numpy give, each chunk of a batch decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from amount import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from h5fast import Field, HDF5Matrix, Loader, runs
from h5fast.engine_column import EngineColumn
from h5fast.sliding import window_column
from h5fast.sources import open_source

ORDERS = ["exact", "block", "batches", False]
LENGTHS = (1003, 20, 517)  # the second is shorter than a window
STORED: dict[str, dict[str, Any]] = {
    "contiguous": {}, "side": {"chunks": (96, 3), "compression": "lzf"}, "prime": {"chunks": (101, 3), "compression": "gzip"},
    "inner": {"chunks": (64, 2), "compression": "lzf", "shuffle": True}, "by HDF5": {"chunks": (50, 3), "scaleoffset": 0},
}


def _signal(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 1000, (LENGTHS[number], 3)).astype("i2")


def _windows(length: int, stride: int) -> np.ndarray:
    return np.concatenate([[_signal(n)[at:at + length] for at in range(0, size - length + 1, stride)]
                           for n, size in enumerate(LENGTHS) if size >= length]).astype("i2")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("windows")
    found = [folder / f"{number}.h5" for number in range(3)]
    for number, path in enumerate(found):
        with h5py.File(path, "w") as file:
            for name, options in STORED.items():
                chunks = tuple(np.minimum(options["chunks"], _signal(number).shape)) if options else None
                file.create_dataset(name, data=_signal(number), **{**options, "chunks": chunks})
            file["mask"] = _signal(number)[:, 0] > 500
            for length, stride in ((48, 48), (48, 16), (50, 7)):
                count = max(0, (LENGTHS[number] - length) // stride + 1)
                before = sum(max(0, (size - length) // stride + 1) for size in LENGTHS[:number])
                file[f"label {length} {stride}"] = np.arange(before, before + count)
    return found


@pytest.mark.parametrize("memory", ["200 kB", "10 MB"])
@pytest.mark.parametrize("shuffle", ORDERS)
@pytest.mark.parametrize(("length", "stride"), [(48, 48), (48, 16), (50, 7)])
@pytest.mark.parametrize("name", STORED)
def test_windows_are_slices(paths: list[Path], name: str, length: int, stride: int, shuffle: Any, memory: str) -> None:
    expected = _windows(length, stride)
    window = {"window": length, "stride": stride}
    fields = {"x": Field(name, **window), "mask": Field("mask", **window), "y": f"label {length} {stride}",
              "cast": Field(name, dtype="f4", scale=[1, 2, 3], offset=1, channels_first=True, **window),
              "part": Field(name, crop=(slice(1, 40, 3), slice(1, None)), **window)}
    loader = Loader(paths, fields, 20, shuffle=shuffle, memory=memory)
    for _ in range(2):
        seen = []
        for batch in loader:
            rows = expected[batch["y"]]
            np.testing.assert_array_equal(batch["x"], rows)
            np.testing.assert_array_equal(batch["mask"], rows[..., 0] > 500)
            np.testing.assert_array_equal(batch["cast"], (rows.astype("f4") * np.float32([1, 2, 3]) + 1).transpose(0, 2, 1))
            np.testing.assert_array_equal(batch["part"], rows[:, 1:40:3, 1:])
            assert batch["x"].dtype == np.int16 and batch["cast"].dtype == np.float32
            seen += batch["y"].tolist()
        assert sorted(seen) == list(range(len(expected)))


def test_resume(paths: list[Path]) -> None:
    fields = (Field("prime", window=50, stride=7), "label 50 7")
    expected, first = _windows(50, 7), Loader(paths, fields, 20)
    whole = [labels.tolist() for _, labels in first]
    for done in range(len(whole)):
        first.set_epoch(0)
        batches = iter(first)
        for _ in range(done):
            next(batches)
        second = Loader(paths, fields, 20, memory="1 MB", prefetch=1)
        second.load_state_dict(first.state_dict())
        rest = list(second)
        assert [labels.tolist() for _, labels in rest] == whole[done:]
        for x, labels in rest:
            np.testing.assert_array_equal(x, expected[labels])


def test_windows_side_by_side_are_the_engines(paths: list[Path]) -> None:
    opened = [open_source(path, "side") for path in (paths[0], paths[2])]
    assert isinstance(window_column("x", Field("side", window=48), opened), EngineColumn)
    assert not isinstance(window_column("x", Field("side", window=50), opened), EngineColumn)
    loader = Loader([paths[0], paths[2]], Field("side", window=48), 8)
    for epoch in range(2):
        assert sum(map(len, loader)) == 20 + 10
        assert loader.stats()["decodes"] == (0 if epoch else 10 + 5)


@pytest.mark.parametrize("name", ["side", "prime"])
def test_overlapping_windows_decode_a_chunk_once(paths: list[Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[np.ndarray] = []
    read = runs._gather.read

    def counted(chunks: Any, selection: Any, *args: Any, **options: Any) -> bool:
        blocks = selection.coordinates[0]
        start, count, step, *_ = selection.axes[0]
        taken.append(np.unique((start + step * np.arange(count) if blocks is None else blocks) // chunks[0].chunk[0]))
        return read(chunks, selection, *args, **options)

    column = window_column("x", Field(name, window=50, stride=7), [open_source(paths[0], name)])
    monkeypatch.setattr(runs._gather, "read", counted)
    rows = np.random.default_rng(0).permutation(column.rows)[:64]
    np.testing.assert_array_equal(column.read(rows), _windows(50, 7)[rows])
    assert len(taken) == 1
    taken.clear()
    loader = Loader(paths[0], Field(name, window=50, stride=7), 20)
    for _ in range(3):
        assert sum(map(len, loader)) == column.rows
    chunks = np.concatenate(taken)
    assert len(chunks) == len(np.unique(chunks))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_any_window_over_any_chunks(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 90))
    length, stride = data.draw(st.integers(1, count)), data.draw(st.integers(1, 40))
    inner = data.draw(st.sampled_from([(), (3,), (2, 2), (300,)]))
    values = np.arange(count * int(np.prod(inner)), dtype=data.draw(st.sampled_from(["i4", "u1", "f8"]))).reshape(count, *inner)
    chunks = data.draw(st.none() | st.just(tuple(data.draw(st.integers(1, size)) for size in values.shape)))
    options = {} if chunks is None else {"chunks": chunks, "compression": data.draw(st.sampled_from([None, "lzf"]))}
    path = tmp_path_factory.mktemp("any") / "f.h5"
    with h5py.File(path, "w", **data.draw(st.sampled_from([{}, {"userblock_size": 512}]))) as file:
        file.create_dataset("x", data=values, **options)
    column = window_column("x", Field("x", window=length, stride=stride), [open_source(path, "x")])
    assert column.rows == (count - length) // stride + 1
    if not isinstance(column, EngineColumn):
        rows = np.array(data.draw(st.lists(st.integers(0, column.rows - 1), min_size=1, max_size=9)))
        np.testing.assert_array_equal(column.read(rows), np.stack([values[row * stride:row * stride + length] for row in rows]))
    else:
        batches = list(Loader(path, Field("x", window=length, stride=stride), 1, shuffle=False))
        np.testing.assert_array_equal(np.concatenate(batches),
                                      np.stack([values[row * stride:row * stride + length] for row in range(column.rows)]))


def test_arrays_have_windows(paths: list[Path]) -> None:
    signal = _signal(0)
    for x, y in Loader({"x": signal, "y": np.arange(137)}, (Field("x", window=50, stride=7), "y"), 20):
        np.testing.assert_array_equal(x, _windows(50, 7)[y])
    with pytest.raises(ValueError, match="windows are of a dataset or an array"):
        Loader({"x": HDF5Matrix(paths[0], "side")}, Field("x", window=5))
    with pytest.raises(ValueError, match="longer than its 1,003 entries"):
        Loader({"x": signal}, Field("x", window=2000))


def test_what_cannot_be_is_said_at_once(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a window of 5,000 is longer than all there is.*0\.h5 has 1,003 entries"):
        Loader(paths, Field("side", window=5000))
    with pytest.raises(ValueError, match=r"different numbers of rows.*0\.h5: 'side' \(955\), 'label 50 7' \(137\)"):
        Loader(paths, (Field("side", window=49, stride=1), "label 50 7"), 5)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["t"] = ["a", "b"]
    with pytest.raises(TypeError, match="windows need entries of one size"):
        Loader(tmp_path / "t.h5", Field("t", window=1))
