"""What does it cost to open a dataset and read one row, next to h5py? Meant: at most twice as much.

Each call opens, reads one random row and closes; warm page cache, methods in turn, medians; bytes compared first. Once with
the file opened for it, once with the file open already and the dataset opened for it.

``python benchmarks/open_one_row.py [--rounds 200]``
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType

import h5py
import numpy as np
from gather_table import conditions
from make_data import FILES, million_path, require_data

import h5fast
from h5fast.bench import same_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    require_data()
    print(f"{conditions()}; {options.rounds} rounds")
    print(f"{'microseconds':41}{'file, dataset, row':>34}{'dataset, row':>34}")
    print(f"{'':41}" + f"{'h5py':>12}{'h5fast':>12}{'ratio':>10}" * 2)
    files = [(file.title, file.path) for file in FILES] + [("a million chunks of 8 bytes", million_path())]
    for title, path in files:
        cells = measure(path, options.rounds, reopen=True), measure(path, options.rounds, reopen=False)
        print(f"{title:41}" + "".join(f"{slow:12.0f}{fast:12.0f}{fast / slow:10.2f}" for slow, fast in cells))


def measure(path: pathlib.Path, rounds: int, *, reopen: bool) -> list[float]:
    """Median microseconds of h5py and of h5fast."""
    with h5py.File(path) as theirs, h5fast.File(path) as ours:
        rows = np.random.default_rng().integers(0, len(theirs["data"]), 2 * rounds).tolist()
        if not same_bytes(theirs["data"][rows[0]], ours["data"][rows[0]]):
            sys.exit(f"{path}: row {rows[0]} differs from h5py's")
        if not reopen:
            return timed([partial(row_of, theirs), partial(row_of, ours)], rows)
    return timed([partial(file_and_row, h5py, path), partial(file_and_row, h5fast, path)], rows)


def timed(calls: list[Callable[[int], object]], rows: list[int]) -> list[float]:
    samples: list[list[float]] = [[] for _ in calls]
    for place, row in enumerate(rows):
        start = time.perf_counter()
        calls[place % len(calls)](row)
        samples[place % len(calls)].append(time.perf_counter() - start)
    return [statistics.median(times) * 1e6 for times in samples]


def row_of(file: h5py.File, row: int) -> np.ndarray:
    return file["data"][row]


def file_and_row(module: ModuleType, path: pathlib.Path, row: int) -> np.ndarray:
    with module.File(path) as file:
        return file["data"][row]


if __name__ == "__main__":
    main()
