"""How much faster than h5py's row loop are random rows of a contiguous file that is not in memory? Meant: twice.

Batches of 256 images from the contiguous file. Before every call the file is dropped from the page cache
(``posix_fadvise`` DONTNEED) and opened anew, as a mapping would keep pages in; what is left of it in the cache is reported.
Only the read is timed. The disk below, and what its host keeps, are part of the figure.

``python benchmarks/cold_cache.py [--rounds 15]``
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import h5py
import numpy as np
from gather_table import THREADS, conditions, verdict
from make_data import IMAGE_FILES, require_data

import h5fast
from h5fast.bench import cached_share, read_row_loop, same_bytes

Method = Callable[[np.ndarray], tuple[float, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not hasattr(os, "posix_fadvise"):
        sys.exit("this system cannot drop a file from its page cache")
    require_data()
    h5fast.set_num_threads(THREADS)
    print(f"{conditions()}; {options.rounds} rounds")
    file = IMAGE_FILES[0]
    rng = np.random.default_rng()
    samples: dict[str, list[float]] = {"h5py loop": [], "h5fast": []}
    left = []
    for _ in range(options.rounds):
        rows = rng.choice(20_000, file.batch, replace=False)
        results = []
        for name, method in (("h5py loop", through_h5py), ("h5fast", through_h5fast)):
            left.append(drop(file.path))
            seconds, batch = method(file.path, rows)
            samples[name].append(seconds)
            results.append(batch)
        if not same_bytes(*results):
            sys.exit(f"{file.path}: other bytes than h5py's")
    slow, fast = (statistics.median(times) for times in samples.values())
    print(f"{file.title}, {file.batch} random rows, {max(left):.0%} or less of the file in the cache before: ", end="")
    print(f"h5py loop {slow * 1e3:.1f} ms, h5fast {fast * 1e3:.1f} ms on {THREADS} threads, {verdict(slow / fast, 2)}")


def drop(path: pathlib.Path) -> float:
    """Drop the file from the page cache; the share of it that stayed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    share = cached_share(str(path)) or 0.0
    descriptor = os.open(path, os.O_RDONLY)  # again: asking for a page brings its neighbours in
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return share


def through_h5py(path: pathlib.Path, rows: np.ndarray) -> tuple[float, np.ndarray]:
    with h5py.File(path) as file:
        data = file["data"]
        start = time.perf_counter()
        batch = read_row_loop(data, rows)
        return time.perf_counter() - start, batch


def through_h5fast(path: pathlib.Path, rows: np.ndarray) -> tuple[float, np.ndarray]:
    with h5fast.File(path) as file:
        data = file["data"]
        start = time.perf_counter()
        batch = data.take(rows)
        return time.perf_counter() - start, batch


if __name__ == "__main__":
    main()
