"""What a chunk cache that suits the file brings h5py, and how fast a file is repacked.

Two questions, answered as ratios of runs that take turns, warm page cache:

* Random rows, one call each, through h5py's own reading of a file whose chunks are larger than HDF5's cache (8 MiB): with that
  cache, and with the one of ``h5fast.File(chunk_cache="auto")``. 96 MiB of elements in lzf chunks of 12 MiB.
* The same file stored in lzf chunks of 4 rows: ``h5fast.repack`` (compared bit for bit, and not), and a loop in h5py that reads
  a chunk's worth of rows and assigns it, which compares nothing.

Bytes are compared before anything is timed. Run: ``python benchmarks/repacking.py [folder]``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

import h5fast

ROWS, ROW, CHUNK = 8192, (64, 64, 3), 1024
ROUNDS = 5


def make(path: Path) -> None:
    """Smooth images with some noise, which lzf makes about half as large."""
    rng = np.random.default_rng(0)
    base = np.cumsum(rng.integers(0, 2, (256, *ROW)), axis=2).astype(np.uint8)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("image", (ROWS, *ROW), "u1", chunks=(CHUNK, *ROW), compression="lzf")
        for first in range(0, ROWS, CHUNK):
            images[first:first + CHUNK] = np.concatenate([base + np.uint8(first // CHUNK + part) for part in range(CHUNK // 256)])


def read_rows(path: Path, options: dict[str, object], count: int, seed: int) -> np.ndarray:
    """Random rows by h5py's own reading."""
    rows = np.random.default_rng(seed).integers(0, ROWS, count).tolist()
    with h5py.File(path, "r", **options) as file:
        images = file["image"]
        return np.stack([images[row] for row in rows])


def loop(path: Path, out: Path) -> None:
    """What one would write with h5py."""
    with h5py.File(path, "r") as old, h5py.File(out, "w") as new:
        images = old["image"]
        made = new.create_dataset("image", images.shape, images.dtype, chunks=(4, *ROW), compression="lzf")
        for first in range(0, ROWS, CHUNK):
            made[first:first + CHUNK] = images[first:first + CHUNK]


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare(title: str, works: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> None:
    """Median of each, and the ratio of the first to it, from rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        order = list(works)[number % len(works):] + list(works)[:number % len(works)]
        for name in order:
            times[name].append(seconds(works[name]))
    first = next(iter(times.values()))
    print(title)
    for name, found in times.items():
        ratio = statistics.median(one / other for one, other in zip(first, found, strict=True))
        print(f"  {name:44}{statistics.median(found):9.2f} s{ratio:9.2f} x")


def main(folder: Path) -> None:
    path = folder / "chunks.h5"
    make(path)
    with h5fast.File(path, chunk_cache="auto") as file:
        slots, size, preemption = file.id.get_access_plist().get_cache()[1:]
    auto = {"rdcc_nbytes": size, "rdcc_nslots": slots, "rdcc_w0": preemption}
    assert read_rows(path, auto, 3, 0).tobytes() == read_rows(path, {}, 3, 0).tobytes()
    compare("40 random rows through h5py, file opened anew", {
        "HDF5's own cache": lambda: read_rows(path, {}, 40, 1), f"auto: {size / 2**20:.0f} MiB": lambda: read_rows(path, auto, 40, 1)})

    out = folder / "out.h5"
    h5fast.repack(path, out, chunk_rows=4)
    compare(f"repacking in chunks of 4 rows, {h5fast.get_num_threads()} threads", {
        "h5py loop, nothing compared": lambda: loop(path, folder / "loop.h5"),
        "h5fast.repack": lambda: h5fast.repack(path, out, chunk_rows=4, overwrite=True),
        "h5fast.repack, verify=False": lambda: h5fast.repack(path, out, chunk_rows=4, overwrite=True, verify=False)})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
