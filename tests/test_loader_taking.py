"""Rows of a loader by number: what random access sees is what the file holds, whoever asks and in whatever order."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from at_once import run_in_threads
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

import h5fast
from h5fast import CorruptChunkError, Field, HDF5Matrix, Loader

FIELDS = {"x": Field("image", dtype="f4", scale=1 / 255, channels_first=True), "y": "label",
          "part": Field("image", crop=(4, None, slice(0, 2))), "raw": "raw", "text": Field("text", dtype=str)}


def check(batch: dict[str, Any], shards: Shards, rows: np.ndarray) -> None:  # noqa: F811
    np.testing.assert_array_equal(batch["y"], shards.label[rows])
    np.testing.assert_array_equal(batch["x"], (shards.image[rows].astype("f4") * np.float32(1 / 255)).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(batch["part"], shards.image[rows][:, 1:5, :, :2])
    np.testing.assert_array_equal(batch["raw"], shards.image[rows])
    assert batch["text"].tolist() == [f"row {row}" for row in rows]


def test_rows_in_any_order_as_numpy_has_them(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.both, FIELDS, 64)
    every = np.arange(loader.rows)
    mask = every % 97 == 3
    random = np.random.default_rng(0).integers(-loader.rows, loader.rows, 300)
    for rows in ([7, 3, 3, -1], random, mask, slice(1490, 1530), slice(None, None, -100), [0], []):
        check(loader.take(rows), shards, every[np.asarray(rows, int) if rows == [] else rows] if isinstance(rows, list) else every[rows])


def test_rows_are_numbered_among_those_that_are_drawn(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.first, "label", 8, rows=[900, 5, 5, 1200, 7, 8, 9, 10])
    assert loader.take([0, 3, -1, 1]).tolist() == [900, 1200, 10, 5]
    assert Loader(shards.first, "label", 8, rows=slice(100, None, 10)).take(slice(2, 4)).tolist() == [120, 130]


def test_the_transform_sees_what_was_taken(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.first, "label", 8, transform=lambda labels: labels * 2)
    assert loader.take([4, 1]).tolist() == [8, 2]


def test_fields_of_mappings_are_taken_too(shards: Shards) -> None:  # noqa: F811
    source = {"a": np.arange(20) * 3, "m": HDF5Matrix(shards.first, "label", 100, 120, normalizer=lambda y: -y)}
    a, m = Loader(source, ("a", "m"), 4).take([19, 0])
    assert a.tolist() == [57, 0] and m.tolist() == [-119, -100]


def test_what_is_no_row_is_named(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.first, "label", 64)
    with pytest.raises(IndexError, match=f"index {ROWS} is out of bounds for axis 0 with size {ROWS}"):
        loader.take([0, ROWS])
    with pytest.raises(IndexError, match="float64"):
        loader.take([0.5])
    with pytest.raises(IndexError, match="shape"):
        loader.take([[1, 2]])
    loader.close()
    with pytest.raises(ValueError, match="closed"):
        loader.take([0])


def test_a_damaged_chunk_is_told_and_others_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", data=np.arange(400).reshape(100, 4), chunks=(10, 4), compression="gzip")
        data.id.write_direct_chunk((20, 0), b"no deflate")
    loader = Loader(path, "d", 10)
    for _ in range(3):
        with pytest.raises(CorruptChunkError, match="damaged.h5"):
            loader.take([1, 25])
        assert loader.take([1, 35])[:, 0].tolist() == [4, 140]


def test_a_chunk_that_is_asked_for_again_is_kept_decoded(tmp_path: Path) -> None:
    """Row after row decoded the chunk anew each time; it is kept by the file, as for those who read its datasets."""
    path = tmp_path / "rows.h5"
    data = np.arange(64_000).reshape(640, 100)
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=data, chunks=(64, 100), compression="gzip")
    with h5fast.File(path, rdcc_nbytes=200 * 800) as file:
        loader = Loader(file, "d", 10)
        for row in np.random.default_rng(0).integers(0, 640, 300):
            np.testing.assert_array_equal(loader.take([row, row - 1]), data[[row, row - 1]])
        assert file._watched.file.pool.bytes == 3 * 64 * 800  # as many chunks as fit


def test_where_all_rows_are_damaged_none_are_left(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", data=np.arange(400).reshape(100, 4), chunks=(10, 4), compression="gzip")
        data.id.write_direct_chunk((20, 0), b"no deflate")
        file["text"] = ["a"] * 100
    d, text = Loader(path, ("d", Field("text", dtype=str)), 10, on_error="skip").take([21, 22])
    assert d.shape == (0, 4) and len(text) == 0


def test_threads_and_epochs_at_once_do_not_disturb_each_other(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.both, FIELDS, 64, memory="300 kB")

    def taking(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(40):
            rows = random.integers(0, loader.rows, 50)
            check(loader.take(rows), shards, rows)

    def epoch() -> None:
        seen = [batch["y"] for batch in loader]
        assert sorted(np.concatenate(seen)) == list(range(loader.rows))

    run_in_threads([lambda: taking(1), lambda: taking(2), lambda: taking(3), epoch])


def test_a_forked_child_takes_rows(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.both, FIELDS, 64)
    check(loader.take([1, 2]), shards, np.array([1, 2]))
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        answer = pickle.dumps(loader.take([1600, 3])["y"].tolist())
        os.write(writes, answer)
        os._exit(0)
    os.close(writes)
    assert os.waitpid(child, 0)[1] == 0
    assert pickle.loads(os.read(reads, 1000)) == [1600, 3]
    os.close(reads)
