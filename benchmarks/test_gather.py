"""One question: how many times faster than h5py is a batch of random rows, file by file?

20,000 images of 64x64x3 uint8 in batches of 256 and 1,000,000 rows of 100 float32 in batches of 1,024, in nine layouts (see
``make_data.py``); warm page cache, 2 threads. Every round draws fresh random unsorted rows for each method, h5py's two are
timed between the rounds of h5fast, and the bytes are compared before anything is timed. The ratios of the medians, with
their targets, are in ``extra_info`` of each result; the time of the benchmark itself is h5fast's.

``python -m pytest benchmarks``, or ``python benchmarks/gather_table.py`` for the table.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import h5py
import numpy as np
import pytest
from make_data import FILES, BenchFile
from pytest_benchmark.fixture import BenchmarkFixture

import h5fast
from h5fast.bench import read_fancy, read_row_loop, same_bytes

THREADS, ROUNDS = 2, 15


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    h5fast.set_num_threads(THREADS)
    yield
    h5fast.set_num_threads(None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_random_batch(file: BenchFile, benchmark: BenchmarkFixture) -> None:
    if not file.path.exists():
        pytest.skip(f"{file.path} is not there: python benchmarks/make_data.py makes it")
    rng = np.random.default_rng()
    slow: dict[str, list[float]] = {"sorted": [], "loop": []}
    with h5py.File(file.path) as theirs, h5fast.File(file.path) as ours:
        data, reference = ours["data"], theirs["data"]

        def draw() -> np.ndarray:
            return rng.choice(len(data), file.batch, replace=False)

        def between_rounds() -> tuple[tuple[np.ndarray], dict[str, object]]:
            for name, read in (("sorted", read_fancy), ("loop", read_row_loop)):
                rows = draw()
                start = time.perf_counter()
                read(reference, rows)
                slow[name].append(time.perf_counter() - start)
            return (draw(),), {}

        rows = draw()
        expected = read_row_loop(reference, rows)
        assert same_bytes(data.take(rows), expected)
        assert same_bytes(read_fancy(reference, rows), expected[np.argsort(rows)])
        benchmark.pedantic(data.take, setup=between_rounds, rounds=ROUNDS)
    if benchmark.disabled:
        return
    fast = benchmark.stats.stats.median
    benchmark.extra_info["times faster than h5py sorted"] = round(statistics.median(slow["sorted"]) / fast, 1)
    benchmark.extra_info["times faster than h5py loop"] = round(statistics.median(slow["loop"]) / fast, 1)
    benchmark.extra_info["targets"] = [file.sorted_target, file.loop_target]
    assert statistics.median(slow["loop"]) > fast
