"""How much faster does a PyTorch training loop run when h5fast feeds it? Against the classic dataset over h5py.

Every compressed layout of ``make_data.py``: 20,000 images of 64x64x3 uint8 in batches of 256, 1,000,000 rows of 100 float32 in
batches of 1,024, and their labels; warm page cache. The classic way is a ``Dataset`` that opens its file lazily and reads a row
of each field per ``__getitem__``, in a shuffled ``DataLoader`` with 0, 2 and 4 workers, whichever is fastest; slow files are timed
over as many batches as take some seconds. h5fast is ``h5fast.torch.loader`` with its defaults (an exactly uniform shuffle, 1 GiB of
memory, native threads): the first epoch, in which everything is decoded, and a training of ten epochs.

The second figure of each is processor time, of the process and its workers, for a thousand rows: what else the machine does
disturbs it less than the rows a second, in which more processes also get more of a machine that others use.

The step is as cheap as one can be (a linear layer on every eighth pixel), so that it is the feeding that is measured; a real one
takes longer, and hides more of it. Every batch of an epoch is compared with h5py's bytes before anything is timed.

``python benchmarks/torch_loop.py [--rounds 3] [--only lzf1 ...]`` needs torch.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
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

    def on(self, batches: Iterable[Any], seconds: float = float("inf")) -> Cost:
        """Trains on these batches, or on those of so many seconds; then the first is not timed, since workers start with it."""
        rows, first_rows, spent = 0, 0, processor_time()
        start = time.perf_counter()
        for number, (data, labels) in enumerate(batches):
            self.optimiser.zero_grad()
            scores = self.network(data[self.every].flatten(1).float())
            torch.nn.functional.cross_entropy(scores, labels).backward()
            self.optimiser.step()
            rows += len(labels)
            if number == 0 and seconds < float("inf"):
                first_rows, start = rows, time.perf_counter()
            if rows > first_rows and time.perf_counter() - start > seconds:
                break
        rate = (rows - first_rows) / (time.perf_counter() - start)
        del batches  # whose workers end, and are counted
        gc.collect()
        return Cost(rate, (processor_time() - spent) / rows * 1e6)


@dataclass(frozen=True)
class Cost:
    """Of a training: rows a second, and milliseconds of processor time for a thousand rows."""

    rate: float
    processor: float


def processor_time() -> float:
    """Seconds, of this process and its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(cost.rate for cost in costs), statistics.median(cost.processor for cost in costs))


def together(epochs: list[Cost]) -> Cost:
    return Cost(statistics.harmonic_mean(cost.rate for cost in epochs), statistics.fmean(cost.processor for cost in epochs))


def main() -> None:
    compressed = [file for file in FILES if file.compressed]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[file.name for file in compressed], metavar="NAME")
    options = parser.parse_args()
    require_data()
    torch.set_num_threads(1)
    print(f"{conditions()}; torch {torch.__version__}; medians of {options.rounds} rounds")
    ways = f"{'workers':>8}{'first epoch':>20}{'ratios':>14}{f'{EPOCHS} epochs':>20}{'ratios':>14}"
    print(f"{'rows/s, processor ms for 1,000 rows':42}{'classic':>18}{ways}")
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
    classic: dict[int, list[Cost]] = {workers: [] for workers in WORKERS}
    first, whole = [], []
    for number in range(rounds):  # in turn, so that drifts of the machine hit all alike
        for workers in WORKERS:
            batches = DataLoader(Classic(file.path), file.batch, shuffle=True, num_workers=workers)
            classic[workers].append(training.on(batches, SECONDS))
        fed = loader(file.path, ("data", "label"), file.batch, seed=number)
        epochs = [training.on(fed) for _ in range(EPOCHS)]
        first.append(epochs[0])
        whole.append(together(epochs))
        fed.dataset.close()
    best = max(WORKERS, key=lambda workers: median(classic[workers]).rate)
    base = median(classic[best])
    told = "".join(f"{cost.rate:12,.0f}{cost.processor:8.2f}{cost.rate / base.rate:7.1f}{'' if cost.rate / base.rate >= TARGET else '<'}"
                   f"{base.processor / cost.processor:6.1f}" for cost in (median(first), median(whole)))
    print(f"{file.title:42}{base.rate:10,.0f}{base.processor:8.1f}{best:8}{told}", flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "This DataLoader will create")
    main()
