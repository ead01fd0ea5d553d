"""How many times faster than h5py is a batch of random rows? The whole table, measured in one run.

Images of 64x64x3 uint8 in batches of 256, rows of 100 float32 in batches of 1,024; warm page cache; fresh random unsorted
rows for every call; methods in turn, medians. h5py's sorted index gets the rows in ascending order, which it insists on;
all others get them as drawn. Every method's bytes are compared with h5py's row loop before anything is timed.

``python benchmarks/gather_table.py [--rounds 15] [--only lzf1 ...] [--json FILE]``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np
from make_data import FILES, BenchFile, require_data

import h5fast
from h5fast.bench import read_fancy, read_row_loop, same_bytes

THREADS = 2
Read = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """Median milliseconds of each method on one file, and what they were meant to reach."""

    name: str
    title: str
    sorted_target: float
    loop_target: float
    milliseconds: dict[str, float]

    @property
    def times_sorted(self) -> float:
        return self.milliseconds["sorted"] / self.milliseconds["h5fast"]

    @property
    def times_loop(self) -> float:
        return self.milliseconds["loop"] / self.milliseconds["h5fast"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", default=[file.name for file in FILES], metavar="NAME")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    require_data()
    print(f"{conditions()}; {options.rounds} rounds")
    print(f"{'milliseconds a batch':41}{'h5py':>8}{'h5py':>8}{'h5fast':>8}{'h5fast':>8}{'out=':>8}{'memmap':>8}{'memory':>8}"
          f"{'x h5py sorted':>22}{'x h5py loop':>20}")  # fmt: skip
    print(f"{'':41}{'sorted':>8}{'loop':>8}{'1 thr':>8}{f'{THREADS} thr':>8}{f'{THREADS} thr':>8}{'fancy':>8}{'take':>8}"
          f"{'now  target':>22}{'now  target':>20}")  # fmt: skip
    rows = []
    for file in FILES:
        if file.name in options.only:
            rows.append(measure(file, options.rounds))
            print(line(rows[-1]), flush=True)
    if options.json is not None:
        content = {"conditions": conditions(), "rounds": options.rounds, "rows": [dataclasses.asdict(row) for row in rows]}
        options.json.write_text(json.dumps(content, indent=2))


def conditions() -> str:
    """Machine, versions and commit, which belong to every figure."""
    where = pathlib.Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=where, capture_output=True, text=True, check=False)
    commit = git.stdout.strip() or "no commit"
    return (
        f"{processor()}, {os.cpu_count()} CPUs; Python {platform.python_version()}, numpy {np.__version__}, "
        f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, h5fast {h5fast.__version__} ({commit})"
    )


def processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(file: BenchFile, rounds: int) -> Row:
    """Medians over the rounds, the methods in turn."""
    rng = np.random.default_rng()
    with h5py.File(file.path) as theirs, h5fast.File(file.path) as ours:
        methods = readers(theirs["data"], ours["data"], file.batch)
        count = theirs["data"].shape[0]
        check(methods, rng.choice(count, file.batch, replace=False), file)
        samples: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(rounds):
            for name, read in methods.items():
                rows = rng.choice(count, file.batch, replace=False)
                start = time.perf_counter()
                read(rows)
                samples[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) * 1e3 for name, times in samples.items()}
    return Row(file.name, file.title, file.sorted_target, file.loop_target, medians)


def readers(theirs: h5py.Dataset, ours: h5fast.Dataset, batch: int) -> dict[str, Read]:
    out = np.empty((batch, *ours.shape[1:]), ours.dtype)
    memory = np.ones(ours.shape, ours.dtype)  # of the file's size, and written, so that its pages exist

    def with_threads(count: int, read: Read) -> Read:
        def run(rows: np.ndarray) -> np.ndarray:
            h5fast.set_num_threads(count)
            return read(rows)

        return run

    methods = {
        "sorted": lambda rows: read_fancy(theirs, rows),
        "loop": lambda rows: read_row_loop(theirs, rows),
        "h5fast, 1 thread": with_threads(1, ours.take),
        "h5fast": with_threads(THREADS, ours.take),
        "h5fast, out=": with_threads(THREADS, lambda rows: ours.take(rows, out=out)),
    }
    if theirs.chunks is None:
        mapped = np.memmap(theirs.file.filename, theirs.dtype, "r", theirs.id.get_offset(), theirs.shape)
        methods["memmap"] = lambda rows: np.asarray(mapped[rows])
    methods["memory"] = lambda rows: np.take(memory, rows, axis=0, out=out, mode="clip")
    return methods


def check(methods: dict[str, Read], rows: np.ndarray, file: BenchFile) -> None:
    expected = methods["loop"](rows)
    ascending = expected[np.argsort(rows)]
    for name, read in methods.items():
        if name != "memory" and not same_bytes(read(rows), ascending if name == "sorted" else expected):
            sys.exit(f"{file.path}: {name} reads other bytes than h5py's loop")


def line(row: Row) -> str:
    cells = [row.milliseconds.get(name) for name in
             ("sorted", "loop", "h5fast, 1 thread", "h5fast", "h5fast, out=", "memmap", "memory")]  # fmt: skip
    times = "".join(f"{'' if cell is None else format(cell, '.3g' if cell < 100 else '.0f'):>8}" for cell in cells)
    return (
        f"{row.title:41}{times}"
        f"{verdict(row.times_sorted, row.sorted_target):>22}{verdict(row.times_loop, row.loop_target):>20}"
    )


def verdict(ratio: float, target: float) -> str:
    return f"{ratio:.1f} {'>=' if ratio >= target else ' <'} {target:g}"


if __name__ == "__main__":
    main()
