"""How fast are rows that are no rows of a dataset: a sparse matrix, and windows over a recording?

A CSR matrix of 40,000 x 2,000 with 5 % of its entries, chunks of 16,384, gzip, as AnnData stores one; and windows of 1,024
every 256 over 16,000,000 float32, chunks of 16,384, shuffle and lzf. Shuffled batches of 256, a whole epoch of a fresh loader
with a tenth of the data as memory, and a second one with all of it. Against h5py, row by row: two slices of a matrix's row put
together by scipy, or one slice of a window, for as many batches as take some seconds. The batches are compared first.

``python benchmarks/loader_runs.py [--rounds 5]``
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse
from gather_table import conditions

import h5fast

BATCH, CHUNK, THREADS = 256, 16_384, 2
ROWS, COLUMNS = 40_000, 2_000
ENTRIES, LENGTH, STRIDE = 16_000_000, 1_024, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{conditions()}; {options.rounds} rounds")
    print(f"{'rows a second':30}{'h5py':>10}{'10 % memory':>14}{'ratio':>8}{'decodes':>9}{'all in memory':>15}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.h5"
        make(path)
        with h5py.File(path) as file:
            cases: list[tuple[str, Any, int, Callable[[np.ndarray], Any]]] = [
                ("CSR matrix", h5fast.Field("X", layout="csr"), file["X/data"].size * 8, csr_rows(file)),
                ("windows", h5fast.Field("signal", window=LENGTH, stride=STRIDE), ENTRIES * 4, windows(file)),
            ]
            for title, field, size, by_h5py in cases:
                check(path, field, by_h5py)
                report(title, path, field, size, by_h5py, options.rounds)


def make(path: Path) -> None:
    random = np.random.default_rng(0)
    matrix = scipy.sparse.random(ROWS, COLUMNS, 0.05, "csr", np.float32, random)
    matrix.data = np.ceil(matrix.data * 20)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": matrix.shape})
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(matrix, name), chunks=(CHUNK,), compression="gzip", compression_opts=4)
        signal = np.cumsum(random.normal(size=ENTRIES)).round(1).astype(np.float32)
        file.create_dataset("signal", data=signal, chunks=(CHUNK,), compression="lzf", shuffle=True)


def csr_rows(file: h5py.File) -> Callable[[np.ndarray], Any]:
    data, indices, pointers = file["X/data"], file["X/indices"], file["X/indptr"][...]

    def rows(wanted: np.ndarray) -> Any:
        spans = [(pointers[row], pointers[row + 1]) for row in wanted]
        values = np.concatenate([data[first:end] for first, end in spans])
        places = np.concatenate([indices[first:end] for first, end in spans])
        ends = np.cumsum([0, *(end - first for first, end in spans)])
        return scipy.sparse.csr_matrix((values, places, ends), shape=(len(wanted), COLUMNS))

    return rows


def windows(file: h5py.File) -> Callable[[np.ndarray], Any]:
    signal = file["signal"]
    return lambda wanted: np.stack([signal[row * STRIDE:row * STRIDE + LENGTH] for row in wanted])


def dense(batch: Any) -> np.ndarray:
    return batch.toarray() if scipy.sparse.issparse(batch) else batch


def check(path: Path, field: Any, by_h5py: Callable[[np.ndarray], Any]) -> None:
    loader = h5fast.Loader(path, field, BATCH, seed=99, threads=THREADS)
    for _, rows, batch in zip(range(4), loader.epoch_rows(0), loader):
        assert np.array_equal(dense(batch), dense(by_h5py(rows))), "other values"
    loader.close()


def report(title: str, path: Path, field: Any, size: int, by_h5py: Callable[[np.ndarray], Any], rounds: int) -> None:
    usual, little, much, decodes = [], [], [], 0.0
    for seed in range(rounds):
        with h5fast.Loader(path, field, BATCH, seed=seed, threads=THREADS, memory=max(size // 10, 16 << 20)) as loader:
            order = list(loader.epoch_rows(0))
            start, rows = time.perf_counter(), 0
            for wanted in order:
                rows += len(by_h5py(wanted) if title == "windows" else by_h5py(wanted).indptr[1:])
                if time.perf_counter() - start > 2:
                    break
            usual.append(rows / (time.perf_counter() - start))
            little.append(epoch(loader))
            decodes = loader.stats()["decodes"] / max(1, loader.stats()["chunks"])
        with h5fast.Loader(path, field, BATCH, seed=seed, threads=THREADS, memory="1 GiB") as loader:
            epoch(loader)
            much.append(epoch(loader))
    base, few, all_of_it = (statistics.median(rates) for rates in (usual, little, much))
    print(f"{title:30}{base:10,.0f}{few:14,.0f}{few / base:8.1f}{decodes:9.1f}{all_of_it:15,.0f}{all_of_it / base:8.1f}")


def epoch(loader: h5fast.Loader) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return loader.stats()["rows"] / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
