"""What does ``h5fast.keras.HDF5Sequence`` add to the bare loader, and how often does ``fit`` read a row?

20,000 images of 64x64x3 uint8 and their labels, batches of 256, whole shuffled epochs, memory for a tenth of the data, warm
page cache, 2 threads. The sequence is iterated as Keras' ``fit`` does it: between its calls at begin and end of an epoch,
every index once, in random order; and through Keras' own adapter and iterator for ``fit(sequence)``, whose own cost is in
that column. Loader and sequence take turns; the ratio is the median of the ratios of neighbours, the first of which is left
out. The bytes of an epoch are checked before anything is timed. Then a small model trains for two epochs, and rows that were
read are counted.

``KERAS_BACKEND=jax python benchmarks/keras_adapter.py [--rounds 15] [--only contig ...]``
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from gather_table import conditions
from keras.src.trainers.data_adapters import get_data_adapter
from loader_epochs import BATCH, SHARE, THREADS
from make_data import data_folder, require_data

import h5fast
from h5fast.keras import HDF5Sequence

TARGET = 1.05  # times the loader's, at most
CASES = {"contig": "contiguous", "lzf1": "chunk 1 row, lzf", "lzf32": "chunk 32 rows, lzf"}
WARM = 1  # rounds that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES, metavar="NAME")
    options = parser.parse_args()
    require_data()
    print(f"{conditions()}; Keras {keras.__version__} on {keras.backend.backend()}; {options.rounds} rounds")
    print(f"{'seconds an epoch':25}{'loader':>9}{'sequence':>10}{'ratio':>7}{'target':>8}{'in Keras':>10}{'ratio':>7}")
    for name in options.only:
        path = data_folder() / f"{name}.h5"
        check(path)
        ways = {"loader": loader_epochs(path), "sequence": sequence_epochs(path), "in Keras": keras_epochs(path)}
        seconds = timed(ways, options.rounds)
        own, keras_own = (ratio(seconds[way], seconds["loader"]) for way in ("sequence", "in Keras"))
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        print(f"{CASES[name]:25}{medians['loader']:9.3f}{medians['sequence']:10.3f}{own:7.3f} {'<=' if own <= TARGET else '> '}"
              f"{TARGET:5}{medians['in Keras']:10.3f}{keras_own:7.3f}")
    path = data_folder() / "contig.h5"
    print(f"fit, two epochs of a file of {rows_of(path):,} rows: {fit_reads(path):,} rows read")


def rows_of(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["label"])


def settings(path: Path) -> dict[str, Any]:
    with h5fast.File(path) as file:
        size = file["data"].nbytes
    return {"memory": int(SHARE * size), "threads": THREADS, "seed": 7}


def make_sequence(path: Path) -> HDF5Sequence:
    return HDF5Sequence("data", "label", batch_size=BATCH, source=path, **settings(path))


def shuffled_epoch(sequence: HDF5Sequence) -> int:
    """The rows of an epoch, taken as fit takes them."""
    sequence.on_epoch_begin()
    indices = list(range(sequence.num_batches))
    random.shuffle(indices)
    rows = sum(len(sequence[index][1]) for index in indices)
    sequence.on_epoch_end()
    return rows


def check(path: Path) -> None:
    with h5py.File(path) as file:
        data, label = file["data"][...], file["label"][...]
    sequence = make_sequence(path)
    sequence.on_epoch_begin()
    indices = np.random.default_rng(0).permutation(sequence.num_batches).tolist()
    for index, rows in zip(indices, sequence.loader.epoch_rows(0), strict=True):
        images, labels = sequence[index]
        assert np.array_equal(images, data[rows]) and np.array_equal(labels, label[rows]), f"{path}: other bytes"


def loader_epochs(path: Path) -> Callable[[], int]:
    loader = h5fast.Loader(path, ("data", "label"), BATCH, **settings(path))
    return lambda: sum(len(labels) for _, labels in loader)


def sequence_epochs(path: Path) -> Callable[[], int]:
    sequence = make_sequence(path)
    return lambda: shuffled_epoch(sequence)


def keras_epochs(path: Path) -> Callable[[], int]:
    adapter = get_data_adapter(make_sequence(path), shuffle=True)

    def epoch() -> int:
        adapter.on_epoch_begin()
        rows = sum(len(labels) for _, labels in adapter.get_numpy_iterator())
        adapter.on_epoch_end()
        return rows

    return epoch


def timed(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds of epochs, the ways in turn, and in the other direction every second time."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    counts = set()
    for number in range(WARM + rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            counts.add(ways[way]())
            if number >= WARM:
                seconds[way].append(time.perf_counter() - start)
    assert len(counts) == 1, f"epochs of different sizes: {counts}"
    return seconds


def ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def fit_reads(path: Path) -> int:
    """Rows that go through a normalizer while a model is fitted for two epochs."""
    counted = 0

    def count(rows: np.ndarray) -> np.ndarray:
        nonlocal counted
        counted += len(rows)
        return rows[:, ::16, ::16].astype(np.float32)

    x, y = h5fast.HDF5Matrix(path, "data", normalizer=count), h5fast.HDF5Matrix(path, "label")
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    sequence = HDF5Sequence(x, y, batch_size=BATCH)
    counted = 0
    model.fit(sequence, epochs=2, verbose=0)
    return counted


if __name__ == "__main__":
    main()
