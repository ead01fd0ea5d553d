"""Damaged, truncated and rewritten files under a loader: the batch that needs what is gone says so, or does without.

Prevents: rows that are in no file; a damaged chunk that costs more than its rows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hdf5_files as files
import numpy as np
import pytest
from loader_files import write_numbered

import h5fast
from h5fast import Field, Loader


def damage(path: Path, chunk: int, name: str = "x") -> None:
    info = files.stored_chunks(path, name)[chunk]
    files.patch_bytes(path, info.byte_offset + 2, b"\xff" * 8)


MEMORIES = ["35 kB", "60 kB", "1 MB"]


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_corrupt_chunk_is_raised_at_the_batch_that_needs_it(tmp_path: Path, memory: str) -> None:
    data = write_numbered(tmp_path / "a.h5")
    damage(tmp_path / "a.h5", 12)
    loader = Loader(tmp_path / "a.h5", ("x", "row"), 30, shuffle=False, memory=memory)
    seen = 0
    with pytest.raises(h5fast.CorruptChunkError, match=r"a\.h5.*/x.*chunk at \(600, 0\)"):
        for x, row in loader:
            np.testing.assert_array_equal(x, data[row])
            seen += len(row)
    assert seen == 600
    assert loader.state_dict()["taken"] == 600
    assert Loader(tmp_path / "a.h5", "row", 30).stats()["rows"] == 0


@pytest.mark.parametrize("shuffle", ["exact", "block", "batches", False])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("reuse", [False, True])
def test_rows_of_corrupt_chunks_are_skipped(tmp_path: Path, shuffle: Any, memory: str, reuse: bool) -> None:
    data = write_numbered(tmp_path / "a.h5")
    for chunk in (0, 12, 13):
        damage(tmp_path / "a.h5", chunk)
    damage(tmp_path / "a.h5", 5, "twin")
    gone = {*range(50), *range(600, 700), *range(400, 480)}
    fields = {"x": Field("x", dtype="f4"), "row": "row", "twin": "twin", "cut": Field("x", crop=(2,), dtype="f8")}
    loader = Loader(tmp_path / "a.h5", fields, 25, shuffle=shuffle, memory=memory, on_error="skip", reuse_buffers=reuse)
    for _ in range(3):
        seen: list[int] = []
        for batch in loader:
            rows = batch["row"]
            assert 0 < len(rows) <= 25 and {len(value) for value in batch.values()} == {len(rows)}
            np.testing.assert_array_equal(batch["x"], data[rows].astype("f4"))
            np.testing.assert_array_equal(batch["twin"], data[rows, :2])
            np.testing.assert_array_equal(batch["cut"], data[rows, 2:4].astype("f8"))
            seen += rows.tolist()
        assert sorted(seen) == sorted(set(range(1000)) - gone)
        stats = loader.stats()
        assert (stats["rows"], stats["dropped"]) == (1000 - len(gone), len(gone))


def test_batches_of_which_no_row_is_left_are_not_handed_out(tmp_path: Path) -> None:
    """A transform got arrays of no rows; and the state stays right across them."""
    data = write_numbered(tmp_path / "a.h5")
    for chunk in range(4, 8):
        damage(tmp_path / "a.h5", chunk)
    options: dict[str, Any] = {"batch_size": 25, "shuffle": False, "on_error": "skip"}
    loader = Loader(tmp_path / "a.h5", ("x", "row"), transform=lambda batch: (batch[0].max(), batch[1]), **options)
    states = []
    for largest, row in loader:
        assert largest == data[row].max()
        states.append((row[0], loader.state_dict()))
    assert len(states) == 32 and loader.stats()["batches"] == 32 and loader.stats()["dropped"] == 200
    for (_, state), (following, _) in zip(states, states[1:]):
        resumed = Loader(tmp_path / "a.h5", ("x", "row"), **options)
        resumed.load_state_dict(state)
        assert next(iter(resumed))[1][0] == following


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("change", ["truncated", "rewritten"])
@pytest.mark.parametrize("name", ["x", "row"])
def test_a_file_that_changes_is_a_read_error(tmp_path: Path, change: str, on_error: str, name: str) -> None:
    """What is decoded of a file that was rewritten is garbage: rows of it were skipped, or called damaged."""
    path = tmp_path / "a.h5"
    write_numbered(path)
    loader = Loader(path, name, 10, shuffle=False, on_error=on_error, memory="1 MB", prefetch=1)
    batches = iter(loader)
    next(batches)
    size = os.path.getsize(path)
    if change == "truncated":
        os.truncate(path, size // 20)
    else:
        with open(path, "r+b") as file:
            file.seek(size // 20)
            file.write(b"\xa5" * (size - size // 20))
        os.utime(path, ns=(1, 1))
    with pytest.raises(h5fast.ReadError, match=r"a\.h5"):
        for _ in batches:
            pass
