"""How fast does the writer write, against h5py's ``create_dataset(compression=…)`` and slice assignment of the same batches?

Photographs (tiles of 64x64x3 of scikit-learn's two), handwritten digits (8x8, repeated) and the images that the other benchmarks
read, in batches of 256 rows, chunks of a row and of 32 rows (of digits 256), two native threads; the files are read back with
h5py first, and compared. In turns, medians of the ratios. The writer makes its file durable (fsync) before it has its name,
h5py does not. "CPU" is the processor time of the whole process: on a machine that others use too, twice the ratio of CPU
times is what two idle cores would give.

The second table is the lzf encoder alone, on the same chunks, one thread, against ``lzf_compress`` of h5py's own filter.

``python benchmarks/writing.py [--rounds 7] [--rows 6000] [--folder FOLDER]``
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from decoders import h5py_lzf_library
from gather_table import conditions
from make_data import make_images

import h5fast
from h5fast import Spec, Writer, _gather

BATCH = 256
_engine = ctypes.CDLL(_gather.__file__)
_engine.h5fast_lzf_encode.restype = ctypes.c_size_t


def contents(rows: int) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    """Rows by name, and the rows of a chunk that they are tried with."""
    found = {"design images": (make_images(np.random.default_rng(0))[0][:rows], (1, 32))}
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError:
        print("without scikit-learn there are no photographs and digits to write")
        return found
    tiles = np.array([image[y:y + 64, x:x + 64] for image in load_sample_images().images
                      for y in range(0, image.shape[0] - 63, 16) for x in range(0, image.shape[1] - 63, 16)])
    digits = load_digits().images.astype("u1")
    found["photographs"] = (np.concatenate([tiles] * -(-rows // len(tiles)))[:rows], (1, 32))
    found["digits"] = (np.concatenate([digits] * -(-rows * 20 // len(digits)))[:rows * 20], (256,))
    return found


def write_ours(path: Path, rows: np.ndarray, chunk_rows: int, codec: Any) -> None:
    with Writer(path, {"x": Spec.like(rows, codec=codec, chunk_rows=chunk_rows)}, overwrite=True) as writer:
        for first in range(0, len(rows), BATCH):
            writer.append(x=rows[first:first + BATCH])


def write_theirs(path: Path, rows: np.ndarray, chunk_rows: int, codec: Any) -> None:
    name, level = codec if isinstance(codec, tuple) else (codec, None)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", rows.shape, rows.dtype, chunks=(chunk_rows, *rows.shape[1:]), compression=name,
                                      compression_opts=level)
        for first in range(0, len(rows), BATCH):
            dataset[first:first + BATCH] = rows[first:first + BATCH]


def timed(write: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    write(*arguments)
    return time.perf_counter() - clock, time.process_time() - cpu


def compare_writers(folder: Path, name: str, rows: np.ndarray, chunk_rows: int, codec: Any, rounds: int) -> None:
    ours, theirs = folder / "ours.h5", folder / "theirs.h5"
    write_ours(ours, rows, chunk_rows, codec)
    write_theirs(theirs, rows, chunk_rows, codec)
    with h5py.File(ours) as a, h5py.File(theirs) as b:
        if not np.array_equal(a["x"][...], rows) or not np.array_equal(b["x"][...], rows):
            sys.exit(f"{name}: the file does not hold what was written")
        sizes = [file["x"].id.get_storage_size() for file in (a, b)]
    pairs = [(timed(write_ours, ours, rows, chunk_rows, codec), timed(write_theirs, theirs, rows, chunk_rows, codec))
             for _ in range(rounds)]
    speed = rows.nbytes / statistics.median(mine[0] for mine, _ in pairs) / 1e6
    clock, cpu = (statistics.median(their[which] / mine[which] for mine, their in pairs) for which in (0, 1))
    print(f"{name:14} chunk {chunk_rows:3} rows  {codec!s:12} {speed:6.0f} MB/s  {clock:5.2f} times h5py  CPU {cpu:5.2f}  "
          f"size {100 * sizes[0] / sizes[1] - 100:+.1f} %", flush=True)


def compare_encoders(name: str, rows: np.ndarray, chunk_rows: int, rounds: int) -> None:
    """The lzf encoders alone, one thread."""
    data = np.ascontiguousarray(rows[:len(rows) // chunk_rows * chunk_rows]).reshape(-1, chunk_rows * rows[0].nbytes)[:2000]
    size = data.shape[1]
    out, table = ctypes.create_string_buffer(size), ctypes.create_string_buffer(1 << 15)
    theirs = h5py_lzf_library().lzf_compress

    def encode_ours() -> int:
        return sum(_engine.h5fast_lzf_encode(table, ctypes.c_void_p(row.ctypes.data), ctypes.c_size_t(size), out,
                                             ctypes.c_size_t(size - 1)) or size for row in data)

    def encode_theirs() -> int:
        return sum(theirs(ctypes.c_void_p(row.ctypes.data), size, out, size - 1) or size for row in data)

    ratios = []
    for _ in range(rounds):
        spent = []
        for encode in (encode_theirs, encode_ours):
            begun = time.process_time()
            encode()
            spent.append(time.process_time() - begun)
        ratios.append(spent[0] / spent[1])
    print(f"{name:14} chunk {chunk_rows:3} rows  lzf {statistics.median(ratios):5.2f} times liblzf  "
          f"size {100 * encode_ours() / encode_theirs() - 100:+.1f} %", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--folder", type=Path, help="where the files are written; the system's folder for such by default")
    options = parser.parse_args()
    h5fast.set_num_threads(2)
    print(f"{conditions()}; {options.rounds} rounds, 2 threads")
    data = contents(options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, (rows, chunks) in data.items():
            for chunk_rows in chunks:
                for codec in ("lzf", ("gzip", 1), ("gzip", 4), ("gzip", 6), ("gzip", 9), None):
                    some = rows[:len(rows) // 2] if isinstance(codec, tuple) else rows
                    compare_writers(Path(folder), name, some, chunk_rows, codec, options.rounds)
    for name, (rows, chunks) in data.items():
        for chunk_rows in chunks:
            compare_encoders(name, rows, chunk_rows, options.rounds)


if __name__ == "__main__":
    main()
