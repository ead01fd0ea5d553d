"""Makes the files that the benchmarks read: the same 20,000 images and 1,000,000 rows of a table in nine layouts, and a
file of a million chunks. 2.2 GB, about a minute. Files that exist are left alone; the same seed makes the same bytes.

They go to ``benchmarks/data``, or to the folder that the environment variable H5FAST_BENCH_DATA names.
"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

IMAGES, ROWS, MILLION = 20_000, 1_000_000, 1_000_000


@dataclass(frozen=True)
class BenchFile:
    """A layout under test: how its data are stored, how many rows a batch has, and how many times faster than h5py's
    sorted index and its row loop a batch is meant to be, on two threads with a warm cache."""

    name: str
    title: str
    batch: int
    sorted_target: float
    loop_target: float
    storage: dict[str, Any] = field(default_factory=dict)
    rounded: bool = False  # to one decimal, so that there is something to compress

    @property
    def path(self) -> pathlib.Path:
        return data_folder() / f"{self.name}.h5"

    @property
    def compressed(self) -> bool:
        return "compression" in self.storage


_ROW, _BLOCK = (1, 64, 64, 3), (32, 64, 64, 3)
_GZIP = {"compression": "gzip", "compression_opts": 4}
IMAGE_FILES = (
    BenchFile("contig", "images contiguous", 256, 35, 16),
    BenchFile("raw1", "images, chunk 1 row, none", 256, 400, 10, {"chunks": _ROW}),
    BenchFile("lzf1", "images, chunk 1 row, lzf", 256, 80, 6, {"chunks": _ROW, "compression": "lzf"}),
    BenchFile("gz1", "images, chunk 1 row, gzip", 256, 55, 4.3, {"chunks": _ROW, **_GZIP}),
    BenchFile("lzf32", "images, chunk 32 rows, lzf", 256, 12, 9, {"chunks": _BLOCK, "compression": "lzf"}),
    BenchFile("gz32", "images, chunk 32 rows, gzip", 256, 7, 6, {"chunks": _BLOCK, **_GZIP}),
)
TABLE_FILES = (
    BenchFile("tab", "table contiguous", 1024, 20, 28),
    BenchFile("tabchunk", "table, chunk 1,000 rows, none", 1024, 80, 80, {"chunks": (1000, 100)}),
    BenchFile(
        "tablzf",
        "table, chunk 1,000 rows, shuffle + lzf",
        1024,
        4,
        6,
        {"chunks": (1000, 100), "compression": "lzf", "shuffle": True},
        rounded=True,
    ),
)
FILES = IMAGE_FILES + TABLE_FILES

# Rows and labels of each file, filled before the workers are forked, so that they see them without a copy.
_contents: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def data_folder() -> pathlib.Path:
    """Where the files are."""
    return pathlib.Path(os.environ.get("H5FAST_BENCH_DATA") or pathlib.Path(__file__).parent / "data")


def million_path() -> pathlib.Path:
    """The file of a million chunks."""
    return data_folder() / "million.h5"


def require_data() -> None:
    """Exit with the remedy if a file is missing."""
    missing = [path.name for path in (*(file.path for file in FILES), million_path()) if not path.exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} not in {data_folder()}: python benchmarks/make_data.py makes them")


def main() -> None:
    folder = data_folder()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if all(file.path.exists() for file in FILES) and million_path().exists():
        print(f"all files are in {folder} already")
        return
    print(f"making the contents of the files in {folder}")
    rng = np.random.default_rng(0)
    images, image_labels = make_images(rng)
    table = rng.standard_normal((ROWS, 100), dtype=np.float32)
    _contents.update({file.name: (images, image_labels) for file in IMAGE_FILES})
    _contents.update({file.name: (table, rng.integers(0, 2, ROWS)) for file in TABLE_FILES})
    # The slowest first, so that no worker is left with a long one at the end.
    jobs = sorted((file for file in FILES if not file.path.exists()), key=lambda file: -_expense(file))
    with multiprocessing.get_context("fork").Pool(min(os.cpu_count() or 1, 4)) as pool:
        for name in pool.imap_unordered(_write, jobs):
            print(f"  {name} after {time.perf_counter() - start:.0f} s", flush=True)
    if not million_path().exists():
        write_million(million_path())
        print(f"  {million_path().name} after {time.perf_counter() - start:.0f} s")


def make_images(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of 8x8 equal pixels with a little noise: about as compressible as photographs. And a label for each."""
    base = rng.integers(0, 255, (IMAGES, 9, 9, 3), dtype=np.uint8)
    noise = rng.integers(0, 4, (IMAGES, 64, 64, 3), dtype=np.uint8)
    pixels = np.empty(noise.shape, np.uint8)
    for first in range(0, IMAGES, 500):  # the floats of all images at once would be 1 GB
        part = slice(first, first + 500)
        noise[part] *= rng.random(noise[part].shape, dtype=np.float32) < 0.3
        pixels[part] = np.repeat(np.repeat(base[part], 8, 1), 8, 2)[:, :64, :64] // 2 + noise[part]
    return pixels, rng.integers(0, 10, IMAGES)


def _expense(file: BenchFile) -> int:
    return ("compression" in file.storage) + 2 * (file.storage.get("compression") == "gzip")


def _write(file: BenchFile) -> str:
    data, labels = _contents[file.name]
    part = file.path.with_suffix(".part")
    with h5py.File(part, "w") as out:
        out.create_dataset("data", data=np.round(data, 1) if file.rounded else data, **file.storage)
        out["label"] = labels
    os.replace(part, file.path)
    return file.path.name


def write_million(path: pathlib.Path) -> None:
    """A million chunks of eight bytes, each compressed by hand: one lzf literal run of 1, 2, … 8."""
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        chunks = file.create_dataset("data", (MILLION, 8), "u1", chunks=(1, 8), maxshape=(None, 8), compression="lzf")
        write_chunk, run = chunks.id.write_direct_chunk, bytes([7, *range(1, 9)])
        for row in range(MILLION):
            write_chunk((row, 0), run)
    os.replace(part, path)


if __name__ == "__main__":
    main()
