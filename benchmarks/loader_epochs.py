"""How many rows a second does a shuffled epoch give? The loader against the usual way to feed a training loop from HDF5.

20,000 images of 64x64x3 uint8 and their labels, batches of 256, whole epochs, warm page cache, 2 threads. The usual way is
``torch.utils.data.DataLoader`` over a dataset class that reads both fields row by row through h5py, with 0 and with 2 worker
processes, whichever is faster; it is timed over as many batches as take some seconds. ``--peer`` names a Python that has
PyTorch (this one, if it has); without, h5py's row loop alone is timed, which is what the DataLoader spends its time in.

The limits beside it: a gather of the same rows from an array in memory (``np.take``, one thread), and from a memory map of the
contiguous file. Each epoch's rows are checked against what h5py reads before anything is timed.

``python benchmarks/loader_epochs.py [--rounds 5] [--peer PYTHON] [--only contig ...]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gather_table import conditions
from make_data import data_folder, require_data

import h5fast

BATCH = 256
THREADS = 2
SHARE = 0.10  # of the data, as memory

# The script that a Python with PyTorch runs: rows a second of the usual way, for a file and a number of workers.
PEER = """
import json, sys, time
import h5py, numpy as np, torch
path, workers, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Rows(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path, self.file = path, None
        with h5py.File(path) as file:
            self.count = len(file["label"])
    def __len__(self):
        return self.count
    def __getitem__(self, row):
        if self.file is None:
            self.file = h5py.File(self.path)
            self.data, self.label = self.file["data"], self.file["label"]
        return self.data[row], self.label[row]

loader = torch.utils.data.DataLoader(Rows(path), batch_size=256, shuffle=True, num_workers=workers)
rows, start = 0, None
for number, (x, y) in enumerate(loader):
    if start is None:
        start = time.perf_counter()
        continue
    rows += len(y)
    if number >= batches:
        break
print(json.dumps(rows / (time.perf_counter() - start)))
"""


@dataclass(frozen=True)
class Case:
    """A file, how it is read, and how many times faster than the usual way that has to be."""

    file: str
    title: str
    options: dict[str, Any]
    target: float
    epochs: tuple[int, ...] = (0,)


CASES = [
    Case("contig", "contiguous", {}, 18),
    Case("contig", "contiguous, reused buffers", {"reuse_buffers": True}, 18),
    Case("raw1", "chunk 1 row, none", {}, 14),
    Case("lzf1", "chunk 1 row, lzf", {}, 5),
    Case("lzf32", "chunk 32 rows, lzf, exact", {}, 16),
    Case("lzf32", "chunk 32 rows, lzf, block", {"shuffle": "block"}, 85),
    Case("lzf32", "chunk 32 rows, lzf, all in memory, second epoch", {"memory": "1 GiB"}, 500, (1,)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", default=sys.executable, help="a Python with PyTorch")
    parser.add_argument("--only", nargs="+", default=sorted({case.file for case in CASES}), metavar="NAME")
    options = parser.parse_args()
    require_data()
    folder = data_folder()
    print(f"{conditions()}; {options.rounds} rounds, batches of {BATCH}, {THREADS} threads, memory {SHARE:.0%} of the data")
    cases = [case for case in CASES if case.file in options.only]
    for case in cases:
        check(folder / f"{case.file}.h5", case)
    usual = {file: usual_way(folder / f"{file}.h5", options.peer) for file in options.only}
    print(f"{'rows a second':50}{'usual':>10}{'workers':>8}{'h5fast':>11}{'ratio':>8}{'target':>8}{'decodes/chunk':>15}")
    for case in cases:
        rate, decodes = loader_rate(folder / f"{case.file}.h5", case, options.rounds)
        base, workers = usual[case.file]
        met = ">=" if rate / base >= case.target else "< "
        print(f"{case.title:50}{base:10,.0f}{workers:>8}{rate:11,.0f}{rate / base:8.1f} {met}{case.target:5}{decodes:15.2f}")
    for name, rate in limits(folder / "contig.h5", options.rounds).items():
        print(f"{name:50}{'':18}{rate:11,.0f}")


def make_loader(path: Path, case: Case, seed: int) -> h5fast.Loader:
    with h5fast.File(path) as file:
        size = file["data"].nbytes
    chosen = {"memory": int(SHARE * size), "threads": THREADS, **case.options}
    return h5fast.Loader(path, ("data", "label"), BATCH, seed=seed, **chosen)


def check(path: Path, case: Case) -> None:
    """Every row once, and each as h5py reads it."""
    with h5py.File(path) as file:
        data, label = file["data"][...], file["label"][...]
    seen = np.zeros(len(label), bool)
    loader = make_loader(path, case, 99)
    for rows, (images, labels) in zip(loader.epoch_rows(0), loader):
        assert not seen[rows].any()
        seen[rows] = True
        assert np.array_equal(images, data[rows]) and np.array_equal(labels, label[rows]), f"{path}: other bytes"
    assert seen.all(), f"{path}: rows are missing"


def usual_way(path: Path, python: str) -> tuple[float, str]:
    """Rows a second, and with how many workers."""
    batches = 40 if "32" in path.name else 78
    found: dict[str, float] = {}
    for workers in (0, 2):
        done = subprocess.run([python, "-c", PEER, str(path), str(workers), str(batches if workers or "32" not in path.name else 8)],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            return row_loop_rate(path), "(loop)"
        found[str(workers)] = json.loads(done.stdout.splitlines()[-1])
    workers_of_best = max(found, key=lambda workers: found[workers])
    return found[workers_of_best], workers_of_best


def row_loop_rate(path: Path) -> float:
    with h5py.File(path) as file:
        data, label = file["data"], file["label"]
        rows = np.random.default_rng(0).permutation(len(label))[: 8 * BATCH if "32" in path.name else 40 * BATCH]
        start = time.perf_counter()
        for first in range(0, len(rows), BATCH):
            batch = rows[first:first + BATCH]
            np.stack([data[row] for row in batch])
            np.stack([label[row] for row in batch])
        return len(rows) / (time.perf_counter() - start)


def loader_rate(path: Path, case: Case, rounds: int) -> tuple[float, float]:
    """Median rows a second of fresh loaders' epochs, and decodes per chunk."""
    rates, decodes = [], 0.0
    for seed in range(rounds):
        loader = make_loader(path, case, seed)
        for epoch in range(max(case.epochs) + 1):
            start = time.perf_counter()
            rows = sum(len(labels) for _, labels in loader)
            if epoch in case.epochs:
                rates.append(rows / (time.perf_counter() - start))
                stats = loader.stats()
                decodes = stats["decodes"] / stats["chunks"] if stats["chunks"] else 0.0
        loader.close()
    return statistics.median(rates), decodes


def limits(path: Path, rounds: int) -> dict[str, float]:
    """Rows a second of the same shuffled batches without HDF5."""
    with h5py.File(path) as file:
        data = file["data"][...]
        offset = file["data"].id.get_offset()
    mapped = np.memmap(path, np.uint8, "r", offset, data.shape)
    out = np.empty((BATCH, *data.shape[1:]), data.dtype)
    methods: dict[str, Callable[[np.ndarray], Any]] = {
        "np.take from memory, reused buffer, 1 thread": lambda rows: data.take(rows, 0, out[:len(rows)], "clip"),
        "memory map, fancy index": lambda rows: mapped[rows],
    }
    found = {}
    for name, method in methods.items():
        rates = []
        for seed in range(rounds):
            start = time.perf_counter()
            for rows in _batches(len(data), seed):
                method(rows)
            rates.append(len(data) / (time.perf_counter() - start))
        found[name] = statistics.median(rates)
    return found


def _batches(count: int, seed: int) -> Iterator[np.ndarray]:
    order = np.random.default_rng(seed).permutation(count)
    return (order[first:first + BATCH] for first in range(0, count, BATCH))


if __name__ == "__main__":
    main()
