"""How much faster does a PyTorch training loop run when h5fast feeds it? Against the classic dataset over h5py.

Every compressed layout of ``make_data.py``: 20,000 images of 64x64x3 uint8 in batches of 256, 1,000,000 rows of 100 float32 in
batches of 1,024, and their labels; warm page cache. The classic way is a ``Dataset`` that opens its file lazily and reads a row
of each field per ``__getitem__``, in a shuffled ``DataLoader`` with 0, 2 and 4 workers, whichever is fastest; slow files are timed
over as many batches as take some seconds. h5fast is ``h5fast.torch.loader`` with its defaults (an exactly uniform shuffle, 1 GiB of
memory, native threads): the first epoch, in which everything is decoded, and a training of ten epochs.

The step is as cheap as one can be (a linear layer on every eighth pixel), so that it is the feeding that is measured; a real one
takes longer, and hides more of it. Every batch of an epoch is compared with h5py's bytes before anything is timed.

``python benchmarks/torch_loop.py [--rounds 3] [--only lzf1 ...]`` needs torch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from gather_table import conditions
from make_data import FILES, BenchFile, require_data
from torch.utils.data import DataLoader, Dataset

import h5fast
from h5fast.torch import loader

EPOCHS = 10
WORKERS = (0, 2, 4)
SECONDS = 6.0  # that the classic way is timed at most, for each number of workers
TARGET = 10


class Classic(Dataset):
    """What people have: opened lazily, a row of each field at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, None
        with h5py.File(path) as file:
            self.count = len(file["label"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        if self.file is None:
            self.file = h5py.File(self.path)
            self.data, self.label = self.file["data"], self.file["label"]
        return self.data[row], self.label[row]


class Training:
    """A network and what trains it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.every = (slice(None), slice(None, None, 8), slice(None, None, 8)) if len(shape) == 3 else (slice(None),)
        self.network = torch.nn.Linear(torch.zeros(1, *shape)[self.every].numel(), 10)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=1e-6)

    def rate(self, batches: Iterable[Any], seconds: float = float("inf")) -> float:
        """Rows a second of training on these batches, or on those of so many seconds; the first is not counted if time is
        short, since workers start with it."""
        rows, start = 0, time.perf_counter()
        for number, (data, labels) in enumerate(batches):
            self.optimiser.zero_grad()
            scores = self.network(data[self.every].flatten(1).float())
            torch.nn.functional.cross_entropy(scores, labels).backward()
            self.optimiser.step()
            rows += len(labels)
            if number == 0 and seconds < float("inf"):
                rows, start = 0, time.perf_counter()
            if rows and time.perf_counter() - start > seconds:
                break
        return rows / (time.perf_counter() - start)


def main() -> None:
    compressed = [file for file in FILES if file.compressed]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[file.name for file in compressed], metavar="NAME")
    options = parser.parse_args()
    require_data()
    torch.set_num_threads(1)
    print(f"{conditions()}; torch {torch.__version__}; medians of {options.rounds} rounds")
    print(f"{'rows a second':42}{'classic':>9}{'workers':>9}{'first epoch':>13}{'ratio':>7}{f'{EPOCHS} epochs':>12}{'ratio':>7}")
    for file in compressed:
        if file.name in options.only:
            check(file)
            compare(file, options.rounds)


def check(file: BenchFile) -> None:
    with h5py.File(file.path) as stored:
        data, label = stored["data"][...], stored["label"][...]
    seen = np.zeros(len(label), bool)
    order = h5fast.Loader(file.path, ("data", "label"), file.batch).epoch_rows(0)
    for rows, (images, labels) in zip(order, loader(file.path, ("data", "label"), file.batch), strict=True):
        assert not seen[rows].any()
        seen[rows] = True
        assert np.array_equal(images.numpy(), data[rows]) and np.array_equal(labels.numpy(), label[rows]), f"{file.name}: other bytes"
    assert seen.all(), f"{file.name}: rows are missing"


def compare(file: BenchFile, rounds: int) -> None:
    with h5py.File(file.path) as stored:
        training = Training(stored["data"].shape[1:])
    classic: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    first, whole = [], []
    for number in range(rounds):  # in turn, so that drifts of the machine hit all alike
        for workers in WORKERS:
            batches = DataLoader(Classic(file.path), file.batch, shuffle=True, num_workers=workers)
            classic[workers].append(training.rate(batches, SECONDS))
        fed = loader(file.path, ("data", "label"), file.batch, seed=number)
        rates = [training.rate(fed) for _ in range(EPOCHS)]
        first.append(rates[0])
        whole.append(statistics.harmonic_mean(rates))
        fed.dataset.close()
    best = max(WORKERS, key=lambda workers: statistics.median(classic[workers]))
    base = statistics.median(classic[best])
    rates = [statistics.median(first), statistics.median(whole)]
    told = [f"{rate:13,.0f}{rate / base:6.1f}{'' if rate / base >= TARGET else '<'}" for rate in rates]
    print(f"{file.title:42}{base:9,.0f}{best:9}{told[0]}{told[1]}", flush=True)


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore", "This DataLoader will create")
    main()
