"""Whatever files there are, they come back: packed here and read by h5py and FileTree; shared out, and put together again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
from amount import examples
from hypothesis import given, settings

import h5fast

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..") and not name.startswith(".h5fast")
)
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=3000), min_size=1, max_size=20
)


def possible(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those that can be in one folder: no file is also a folder, and no image is empty."""
    folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"}
    return {path: data for path, data in files.items() if path not in folders}


@settings(max_examples=examples(40), deadline=None)
@given(FILES, st.sampled_from(["encoded", "tree"]), st.sampled_from([None, "lzf"]))
def test_files_come_back(files: dict[str, bytes], layout: str, codec: str | None) -> None:
    wanted = possible(files)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.h5")
        assert h5fast.pack(list(wanted.items()), out, layout=layout, codec=codec).count == len(wanted)
        with h5fast.FileTree(out) as tree:
            assert {path: tree["/" + path] for path in tree} == wanted
        with h5py.File(out) as file:
            if layout == "tree":
                assert all(file["/" + path][()].tobytes() == data for path, data in wanted.items())
            else:
                bounds, data = file["offsets"][()].tolist(), file["data"][()].tobytes()
                paths = [path.decode() for path in file["paths"][()]]
                assert {path: data[first:end] for path, first, end in zip(paths, bounds, bounds[1:])} == wanted


@settings(max_examples=examples(40), deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 40),
    st.sampled_from([None, "lzf", "gzip"]),
    st.sampled_from(["u1", ">f4", "i8"]),
    st.lists(st.integers(1, 9), min_size=2, max_size=3),
    st.integers(0, 99),
)
def test_rows_are_shared_out(rows: int, chunk: int, codec: str | None, dtype: str, weights: list[int], seed: int) -> None:
    """Each row is in one part; the parts have the sizes that were asked for, and the rows that they are told to have."""
    shares = [weight / sum(weights) for weight in weights]
    data = np.random.default_rng(seed).integers(0, 200, (rows, 3)).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        parts = {str(number): Path(folder, f"{number}.h5") for number in range(len(shares))}
        with h5py.File(Path(folder, "all.h5"), "w") as file:
            file.create_dataset("x", data=data, chunks=(min(chunk, rows), 3), maxshape=(None, 3), compression=codec)
        try:
            done = h5fast.partition(Path(folder, "all.h5"), parts, shares, seed=seed)
        except ValueError as error:
            assert "gets none" in str(error) and min(shares) * rows < 1
            return
        assert sorted(np.concatenate(list(done.rows.values())).tolist()) == list(range(rows))
        for (name, path), share in zip(parts.items(), shares):
            assert abs(done.counts[name] - share * rows) < 1
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["x"][()], data[done.rows[name]])
                assert file["x"].dtype == np.dtype(dtype) and file["x"].compression == codec
