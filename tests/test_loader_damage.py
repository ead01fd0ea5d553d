"""Damage in fields whose rows are made in Python.

Prevents: an epoch that ends, although it was told to go on, because the damaged field happened to be sparse, a window, or
stored with a filter that only HDF5 decodes; rows of one field beside those of another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest

import h5fast
from h5fast import Field, Loader

ROWS, CHUNK = 400, 20
KINDS = ("general", "windows", "csr", "samples", "virtual")


def _write(path: Path, kind: str) -> tuple[Any, list[Any], str]:
    """A file with a row number and a field of this kind. The field, its rows, and the dataset to damage."""
    rows: list[Any]
    with h5py.File(path, "w") as file:
        file.create_dataset("row", data=np.arange(ROWS), chunks=(7,), compression="lzf")
        if kind == "general":
            data = files.content((ROWS, 3), "i4") % 1000
            _write_general(file, "x", data)
            return "x", list(data), "x"
        if kind == "windows":
            data = np.arange(4 * ROWS + 12)
            file.create_dataset("x", data=data, chunks=(4 * CHUNK,), compression="lzf", fletcher32=True)
            return Field("x", window=16, stride=4), [data[4 * i:4 * i + 16] for i in range(ROWS)], "x"
        if kind == "csr":
            group = file.create_group("x")
            group.attrs.update({"encoding-type": "csr_matrix", "shape": (ROWS, 9)})
            group["indptr"] = np.arange(ROWS + 1) * 3
            group["indices"] = np.tile([1, 4, 7], ROWS)
            values = np.arange(3 * ROWS) + 1.0
            group.create_dataset("data", data=values, chunks=(3 * CHUNK,), compression="lzf", fletcher32=True)
            rows = [np.zeros(9) for _ in range(ROWS)]
            for number, row in enumerate(rows):
                row[[1, 4, 7]] = values[3 * number:3 * number + 3]
            return Field("x", layout="csr"), rows, "x/data"
        if kind == "samples":  # of different lengths: opened one by one
            rows = [np.arange(number % 5 + 3) + number for number in range(ROWS)]
            for number, values in enumerate(rows):
                file.create_dataset(f"s/{number}/x", data=values, chunks=values.shape, fletcher32=True)
            return "s/*/x", rows, "s/70/x"
        data = files.content((ROWS, 3), "i4") % 1000
        _write_general(file, "source", data)
        layout = h5py.VirtualLayout((ROWS, 3), "i4")
        layout[...] = h5py.VirtualSource(file["source"])
        file.create_virtual_dataset("x", layout)
        return "x", list(data), "source"


def _write_general(file: h5py.File, name: str, data: np.ndarray) -> None:
    """Through a filter that only HDF5 decodes, and a checksum of what it makes, which h5py does not offer together."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((CHUNK, 3))
    plist.set_scaleoffset(h5py.h5z.SO_INT, 0)
    plist.set_fletcher32()
    created = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(data.dtype), h5py.h5s.create_simple(data.shape), plist)
    h5py.Dataset(created)[...] = data


def _damage(path: Path, name: str, chunk: int) -> None:
    info = sorted(files.stored_chunks(path, name), key=lambda one: one.chunk_offset)[chunk]
    files.patch_bytes(path, info.byte_offset + info.size // 2, b"\x5a\xa5")


def _gone(kind: str, chunk: int) -> set[int]:
    if kind == "samples":
        return {70}
    lost = set(range(CHUNK * chunk, CHUNK * (chunk + 1)))
    return lost | ({CHUNK * chunk - 3, CHUNK * chunk - 2, CHUNK * chunk - 1} if kind == "windows" else set())


def _as_rows(values: Any) -> list[np.ndarray]:
    return list(values.toarray()) if hasattr(values, "toarray") else list(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["150 kB", "20 MB"])
@pytest.mark.parametrize("shuffle", ["exact", False])
def test_rows_that_do_not_decode_are_left_out(tmp_path: Path, kind: str, memory: str, shuffle: Any) -> None:
    if kind == "csr":
        pytest.importorskip("scipy.sparse")
    field, rows, damaged = _write(tmp_path / "a.h5", kind)
    chunk = 0 if kind == "samples" else 5
    _damage(tmp_path / "a.h5", damaged, chunk)
    gone = _gone(kind, chunk)
    fields: Any = {"x": field, "row": Field("row", dtype="f8")} if kind != "samples" else {"x": field, "again": field}
    loader = Loader(tmp_path / "a.h5", fields, 25, shuffle=shuffle, memory=memory, on_error="skip",
                    transform=lambda batch: {**batch, "seen": len(_as_rows(batch["x"]))})
    for epoch in range(2):
        numbers = list(loader.epoch_rows(epoch))
        seen: list[int] = []
        for expected, batch in zip(numbers, loader):
            left = [int(row) for row in expected if row not in gone]
            got = _as_rows(batch["x"])
            assert len(got) == len(left) == batch["seen"]
            for row, value in zip(left, got):
                np.testing.assert_array_equal(value, rows[row])
            if "row" in batch:
                assert batch["row"].tolist() == left
            seen += left
        assert len(seen) == ROWS - len(gone)
        assert (loader.stats()["rows"], loader.stats()["dropped"]) == (ROWS - len(gone), len(gone))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["150 kB", "20 MB"])
def test_the_batch_that_needs_a_damaged_chunk_raises(tmp_path: Path, kind: str, memory: str) -> None:
    """Whole blocks are read to be kept: one of them must not fail for a row that the batch does not want."""
    if kind == "csr":
        pytest.importorskip("scipy.sparse")
    field, rows, damaged = _write(tmp_path / "a.h5", kind)
    chunk = 0 if kind == "samples" else 5
    _damage(tmp_path / "a.h5", damaged, chunk)
    first = min(_gone(kind, chunk))
    loader = Loader(tmp_path / "a.h5", {"x": field}, 1, shuffle=False, memory=memory)
    seen = 0
    with pytest.raises(h5fast.CorruptChunkError, match=r"a\.h5"):
        for batch in loader:
            np.testing.assert_array_equal(_as_rows(batch["x"])[0], rows[seen])
            seen += 1
    assert seen == first


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "virtual"])
def test_costs_are_counted(tmp_path: Path, kind: str) -> None:
    """Statistics that said 0 of fields that took most of the time."""
    if kind == "csr":
        pytest.importorskip("scipy.sparse")
    field, _, stored = _write(tmp_path / "a.h5", kind)
    with h5py.File(tmp_path / "a.h5") as file:
        names = [stored] if kind != "samples" else [f"s/{number}/x" for number in range(ROWS)]
        chunks = sum(file[name].id.get_num_chunks() for name in names)
        nbytes = sum(file[name].id.get_storage_size() for name in names)
    with Loader(tmp_path / "a.h5", {"x": field}, 25, memory="20 MB") as loader:
        for decodes in (chunks, 0):
            for _ in loader:
                pass
            found = loader.stats()
            assert (found["chunks"], found["decodes"]) == (chunks, decodes)
            if kind == "windows":
                assert found["bytes_read"] == (nbytes if decodes else 0)
            assert found["fields"]["x"]["bytes_read"] == found["bytes_read"]
            assert found["bytes_read"] > 0 or not decodes
    with Loader(tmp_path / "a.h5", {"x": field}, 25, memory="20 MB") as loader:
        next(iter(loader))
        assert 0 < loader.stats()["chunks"] <= chunks
