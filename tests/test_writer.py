"""The writer against h5py: what is written here is read there, and by h5fast, with every codec, batch size and kind of row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import h5fast
from h5fast import Spec, Writer

BUILT_IN = [None, "lzf", "gzip", ("gzip", 1), ("gzip", 9)]
PLUGINS = ["zstd", ("zstd", 1), "lz4", "blosc", "blosc2", "bitshuffle", "bzip2"]


def rows_of(count: int, shape: tuple[int, ...], dtype: Any, kind: str, seed: int) -> np.ndarray:
    """Rows that compress, that do not, that are all the same, or that compress here and there."""
    rng = np.random.default_rng(seed)
    if kind == "walk":
        return files.content((count, *shape), dtype, seed)
    size = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
    noise = rng.integers(0, 256, size, np.uint8)
    if kind == "equal":
        noise[:] = 7
    if kind == "patches":
        noise[rng.integers(0, max(1, size), size // 3)] = 0
        noise[: size // 2] = np.arange(size // 2) // 50 % 251
    rows = noise.view(dtype) if np.dtype(dtype).kind in "iu" else (noise.astype("f8").repeat(8)[: size].astype(dtype))
    return rows[: count * int(np.prod(shape))].reshape(count, *shape)


def write_in_batches(path: Path, data: dict[str, np.ndarray], specs: dict[str, Spec], batches: list[int], **options: Any) -> None:
    with Writer(path, specs, **options) as writer:
        first = 0
        for count in batches:
            writer.append({name: rows[first:first + count] for name, rows in data.items()})
            first += count
        writer.append({name: rows[first:] for name, rows in data.items()})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip(tmp_path: Path, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 300), "rows")
    codecs = BUILT_IN + (PLUGINS if files.plugin_pipelines() else [])
    specs, rows = {}, {}
    for number in range(data.draw(st.integers(1, 3), "fields")):
        shape = tuple(data.draw(st.lists(st.integers(1, 6), max_size=3), "shape"))
        dtype = data.draw(st.sampled_from(["u1", "i1", "<u2", ">i4", "<i8", "<f4", ">f8", "bool"]), "dtype")
        specs[f"group/f{number}"] = Spec(
            shape, dtype, codec=data.draw(st.sampled_from(codecs), "codec"), shuffle=data.draw(st.sampled_from([None, True, False])),
            fletcher32=data.draw(st.booleans(), "fletcher32"),
            chunk_rows=data.draw(st.one_of(st.just("auto"), st.integers(1, 40)), "chunk_rows"))
        kind = data.draw(st.sampled_from(["walk", "noise", "equal", "patches"]), "kind")
        rows[f"group/f{number}"] = (rows_of(count, shape, "u1", kind, number) > 100 if dtype == "bool" else
                                    rows_of(count, shape, dtype, kind, number))
    batches = data.draw(st.lists(st.integers(0, 60), max_size=8), "batches")
    path = tmp_path / "w.h5"
    write_in_batches(path, rows, specs, batches, rows=data.draw(st.sampled_from([None, count]), "announced"), overwrite=True,
                     memory=data.draw(st.sampled_from(["1 MiB", "64 MiB"]), "memory"))
    with h5py.File(path) as theirs, h5fast.File(path) as ours:
        for name, expected in rows.items():
            assert theirs[name].dtype == expected.dtype and theirs[name].shape == expected.shape
            assert theirs[name][...].tobytes() == expected.tobytes()
            assert ours[name][...].tobytes() == expected.tobytes()
            assert ours[name].reader == "direct"
    assert [p.name for p in tmp_path.iterdir()] == ["w.h5"]
