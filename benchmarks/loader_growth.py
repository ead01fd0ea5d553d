"""Does a batch cost more where there are more rows? One field of a byte a row, contiguous, 10^4 to 10^9 rows, batches of 256.

What could grow is the order (its permutation, its table), the plan of a batch, and what an epoch starts with. Growth of the
reading itself is that of the caches of the processor and of the page tables, so the same random rows taken by ``np.take`` from
a memory map are timed beside it. The file is written full once and read by slices of its length, so
that the page cache holds it for all.

``python benchmarks/loader_growth.py [--batches 2000] [--most 9]``
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from gather_table import conditions

import h5fast

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--most", type=int, default=9, help="rows, as a power of ten")
    options = parser.parse_args()
    print(conditions())
    print(f"{'rows':>14}{'first batch, ms':>18}{'a batch, us':>14}{'np.take, us':>14}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset("x", (10**options.most,), "u1")
            for first in range(0, len(data), 10**7):
                data[first:first + 10**7] = np.arange(first, min(first + 10**7, len(data)), dtype=np.int64) % 251
            offset = data.id.get_offset()
        for power in range(4, options.most + 1):
            print("{:14,}{:18.2f}{:14.1f}{:14.1f}".format(10**power, *measure(path, offset, 10**power, options.batches)))


def measure(path: Path, offset: int, rows: int, batches: int) -> tuple[float, float, float]:
    """Milliseconds to the first batch; microseconds of each of the others, and of the same rows out of a memory map."""
    mapped = np.memmap(path, np.uint8, "r", offset, (rows,))
    loader = h5fast.Loader(path, "x", BATCH, rows=slice(0, rows))
    batches = min(batches, len(loader) - 1)
    expected = loader.epoch_rows(0)
    start = time.perf_counter()
    iterator = iter(loader)
    batch = next(iterator)
    first = time.perf_counter() - start
    assert np.array_equal(batch, next(expected) % 251)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    ours = (time.perf_counter() - start) / batches
    numbers = [wanted for _, wanted in zip(range(batches), expected)]
    start = time.perf_counter()
    for wanted in numbers:
        mapped[wanted]
    theirs = (time.perf_counter() - start) / batches
    loader.close()
    return first * 1e3, ours * 1e6, theirs * 1e6


if __name__ == "__main__":
    main()
