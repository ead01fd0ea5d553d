"""Are plain slices ever slower than h5py's? One slice of consecutive rows, file by file.

256 images or 1,024 table rows from a random start, warm page cache, 1 and 2 threads; methods in turn, fresh starts for
every call, medians; bytes compared first. Meant: at least as fast, and 3 times where chunks are compressed.

``python benchmarks/slices.py [--rounds 25]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import h5py
import numpy as np
from gather_table import THREADS, conditions, verdict
from make_data import FILES, BenchFile, require_data

import h5fast
from h5fast.bench import same_bytes

Read = Callable[[slice], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    require_data()
    print(f"{conditions()}; {options.rounds} rounds")
    print(f"{'milliseconds a slice':41}{'rows':>6}{'h5py':>10}{'1 thread':>10}{f'{THREADS} threads':>10}", end="")
    print(f"{'x h5py  target':>18}")
    for file in FILES:
        for rows in (1, file.batch):
            h5py_time, one, most = measure(file, rows, options.rounds)
            wanted = 3 if file.compressed and rows > 1 else 1
            print(f"{file.title:41}{rows:6,}{h5py_time:10.3f}{one:10.3f}{most:10.3f}{verdict(h5py_time / most, wanted):>18}")


def measure(file: BenchFile, rows: int, rounds: int) -> list[float]:
    """Median milliseconds of h5py, and of h5fast on one thread and more."""
    rng = np.random.default_rng()
    with h5py.File(file.path) as theirs, h5fast.File(file.path) as ours:
        methods: list[Read] = [theirs["data"].__getitem__, threaded(ours["data"], 1), threaded(ours["data"], THREADS)]
        last = len(ours["data"]) - rows
        samples: list[list[float]] = [[] for _ in methods]
        for number in range(rounds + 1):
            first = [int(start) for start in rng.integers(0, last, len(methods), endpoint=True)]
            if number == 0:
                key = slice(first[0], first[0] + rows)
                if not all(same_bytes(read(key), methods[0](key)) for read in methods):
                    sys.exit(f"{file.path}: {key} differs from h5py's")
                continue
            for read, start_row, times in zip(methods, first, samples, strict=True):
                start = time.perf_counter()
                read(slice(start_row, start_row + rows))
                times.append(time.perf_counter() - start)
    return [statistics.median(times) * 1e3 for times in samples]


def threaded(data: h5fast.Dataset, count: int) -> Read:
    def read(key: slice) -> np.ndarray:
        h5fast.set_num_threads(count)
        return data[key]

    return read


if __name__ == "__main__":
    main()
