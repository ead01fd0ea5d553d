"""Fields that only HDF5 reads: strings, rows of variable length, filters of its own. h5py is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import h5fast
from h5fast import Field, Loader, kept_rows

ORDERS = ["exact", "block", "batches", False]
LENGTHS = (300, 131)
MEMORIES = ["220 kB", "300 kB", "10 MB"]  # nothing of it can be kept, some, all


def _write(path: Path, first: int, count: int) -> None:
    random = np.random.default_rng(first)
    rows = range(first, first + count)
    with h5py.File(path, "w") as file:
        file["label"] = np.arange(first, first + count)
        file["text"] = [f"rôw {row} " * (row % 5) for row in rows]
        file.create_dataset("chunked", data=[f"{row}" for row in rows], dtype=h5py.string_dtype(), chunks=(20,), compression="gzip")
        file["fixed"] = np.array([f"{row}" for row in rows], "S8")
        ragged = file.create_dataset("ragged", (count,), h5py.vlen_dtype("f4"), chunks=(16,))
        for place, row in enumerate(rows):
            ragged[place] = random.random(row % 7).astype("f4")
        file.create_dataset("scaled", data=random.integers(0, 50, (count, 4, 3)), chunks=(16, 4, 3), scaleoffset=0)
        words = file.create_dataset("words", (count, 2), h5py.string_dtype("ascii"), chunks=(9, 2))
        words[...] = np.array([[f"a{row}", f"b{row}"] for row in rows], object)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("objects")
    found = [folder / "a.h5", folder / "b.h5"]
    _write(found[0], 0, LENGTHS[0])
    _write(found[1], LENGTHS[0], LENGTHS[1])
    return found


@pytest.fixture(scope="module")
def stored(paths: list[Path]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    opened = [h5py.File(path) for path in paths]
    for name in opened[0]:
        found[name] = np.concatenate([file[name][...] for file in opened])
        if h5py.check_string_dtype(opened[0][name].dtype):
            found[name + " as str"] = np.concatenate([file[name].asstr()[...] for file in opened])
    for file in opened:
        file.close()
    return found


FIELDS = {"label": "label", "text": "text", "chunked": "chunked", "fixed": "fixed", "ragged": "ragged", "scaled": "scaled",
          "words": "words", "text as str": Field("text", dtype=str), "chunked as str": Field("chunked", dtype="str"),
          "fixed as str": Field("fixed", dtype=np.str_), "words as str": Field("words", dtype="U"),
          "part": Field("scaled", crop=(2, slice(1, None)), dtype="f4", scale=0.5, channels_first=True)}


def _same(mine: np.ndarray, theirs: np.ndarray) -> None:
    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
    for a, b in zip(mine.flat, theirs.flat):
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)


def _check(batch: dict[str, Any], stored: dict[str, Any]) -> None:
    rows = batch["label"]
    for name in batch:
        if name != "part":
            _same(batch[name], stored[name][rows])
    part = stored["scaled"][rows][:, 1:3, 1:].astype("f4") * np.float32(0.5)
    np.testing.assert_array_equal(batch["part"], part.transpose(0, 2, 1))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("shuffle", ORDERS)
def test_rows_are_h5pys(paths: list[Path], stored: dict[str, Any], shuffle: Any, memory: str) -> None:
    loader = Loader(paths, FIELDS, 40, shuffle=shuffle, memory=memory, seed=2)
    for _ in range(2):
        seen = []
        for batch in loader:
            _check(batch, stored)
            seen += batch["label"].tolist()
            for row in batch["ragged"]:
                row[...] = -1  # it is the taker's: what is kept must not change with it
        assert sorted(seen) == list(range(sum(LENGTHS)))


def test_resume(paths: list[Path], stored: dict[str, Any]) -> None:
    fields = ("label", "ragged", Field("text", dtype=str))
    whole = [batch[0].tolist() for batch in Loader(paths, fields, 40)]
    for done in range(len(whole)):
        first = Loader(paths, fields, 40)
        batches = iter(first)
        for _ in range(done):
            next(batches)
        second = Loader(paths, fields, 40, memory="150 kB")
        second.load_state_dict(first.state_dict())
        rest = list(second)
        assert [labels.tolist() for labels, *_ in rest] == whole[done:]
        for labels, ragged, text in rest:
            _same(ragged, stored["ragged"][labels])
            _same(text, stored["text as str"][labels])


@pytest.mark.parametrize("name", ["text", "chunked", "ragged", "scaled", "words"])
def test_rows_that_fit_are_read_once(paths: list[Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    class Counted(kept_rows.KeptRows):
        def __init__(self, read: Any, *args: Any, **options: Any) -> None:
            def counted(rows: np.ndarray) -> np.ndarray:
                taken.append(rows)
                return read(rows)  # type: ignore[no-any-return]

            super().__init__(counted, *args, **options)

    monkeypatch.setattr("h5fast.python_column.KeptRows", Counted)
    loader = Loader(paths, name, 40)
    for _ in range(3):
        assert sum(map(len, loader)) == sum(LENGTHS)
    assert sorted(np.concatenate(taken)) == list(range(sum(LENGTHS)))
    loader.close()
    taken.clear()
    poor = Loader(paths, name, 40, memory="60 kB", prefetch=1)
    assert poor._division.needed <= 60_000
    for batch in poor:
        assert len(batch)
    for _ in poor:
        pass
    assert poor._table.columns[0].keeper._used <= poor._division.granted[poor._table.columns[0].name]
    if name in ("text", "ragged"):
        assert poor._table.columns[0].keeper._used > 0


def test_a_file_that_is_written_is_read_anew(tmp_path: Path) -> None:
    """Rows that are kept would be those of before."""
    with h5fast.File(tmp_path / "f.h5", "w") as file:
        file["text"] = ["old"] * 10
        loader = Loader(file, Field("text", dtype=str), 5)
        assert set(np.concatenate(list(loader))) == {"old"}
        file["text"][...] = "new"
        assert set(np.concatenate(list(loader))) == {"new"}


@pytest.mark.parametrize(("field", "message"), [
    (Field("ragged", dtype="f4"), "arrays of variable length of float32"),
    (Field("text", dtype="f4"), "rows are strings"),
    (Field("text", scale=2), "scale, offset and channels_first need"),
    (Field("text", dtype=str, scale=2), "scale, offset and channels_first need"),
    (Field("ragged", dtype=str), "dtype=str decodes strings"),
    (Field("label", dtype=str), "dtype=str decodes strings"),
    (Field("scaled", dtype=str), "dtype=str decodes strings"),
])
def test_what_cannot_be_is_said_at_once(paths: list[Path], field: Field, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Loader(paths, field)


def test_arrays_of_strings() -> None:
    source = {"a": np.array([b"x", "ä".encode(), b"zz"] * 10), "o": np.array(["x", "y", "z"] * 10, object)}
    with pytest.raises(UnicodeDecodeError):  # a numpy type has no encoding: ASCII
        list(Loader(source, Field("a", dtype=str), 3))
    assert np.concatenate(list(Loader(source, Field("o"), 3, shuffle=False))).tolist() == ["x", "y", "z"] * 10
    source["a"] = np.array([b"x", b"zz"] * 15)
    assert np.concatenate(list(Loader(source, Field("a", dtype="str"), 3, shuffle=False))).tolist() == ["x", "zz"] * 15
