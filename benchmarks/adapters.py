"""What does an adapter add to the bare loader? The same epoch through PyTorch, Grain and tf.data, and by itself.

20,000 images of 64x64x3 uint8 and their labels in every layout of ``make_data.py``, batches of 256, whole shuffled epochs, warm
page cache, 2 threads, memory for a tenth of the data. The ways take turns, so that drifts of the machine hit all alike; each
epoch's rows are checked before anything is timed. What counts is the median over the rounds of a way's time over the bare loader's
in the same round. Processor time stands beside it: what else the machine does disturbs it less.

A framework's pipeline costs something however it is fed. ``tf.data, nothing in it`` is one that hands out the same two tensors,
without a loader: what no adapter can go below. tf.data also builds its pipeline anew for each iteration, which takes as long as reading
many a batch; ``tf.data, 10 epochs`` is a tenth of one iteration over ten epochs (``repeat(10)``), as Grain's never ends.

``python benchmarks/adapters.py [--rounds 9] [--only contig ...]`` needs torch, grain, jax and tensorflow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np
import tensorflow as tf
from gather_table import conditions
from make_data import IMAGE_FILES, data_folder, require_data
from torch.utils.data import DataLoader

import h5fast
from h5fast.grain import BatchDataset
from h5fast.tensorflow import dataset
from h5fast.torch import H5IterableDataset, loader

BATCH, THREADS, SHARE = 256, 2, 0.10
FIELDS = ("data", "label")
LIMITS = {"torch loader()": 1.05, "torch DataLoader": 1.05, "grain": 1.05, "tf.data": 1.15, "tf.data, 10 epochs": 1.15}
EPOCHS = {"tf.data, 10 epochs": 10, "tf.data, nothing, 10 epochs": 10}  # of a way that has more than one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=[file.name for file in IMAGE_FILES], metavar="NAME")
    options = parser.parse_args()
    require_data()
    print(f"{conditions()}; {options.rounds} rounds, batches of {BATCH}, {THREADS} threads, memory {SHARE:.0%} of the data")
    for name in options.only:
        path = data_folder() / f"{name}.h5"
        print(f"\n{name}: {'':24}{'ms an epoch':>12}{'times bare':>12}{'limit':>8}{'processor ms':>14}{'times bare':>12}")
        ways = ways_of(path)
        check(path, ways)
        measure(ways, options.rounds)


def ways_of(path: Path) -> dict[str, Callable[[], Iterable[Any]]]:
    """Each gives an epoch of batches."""
    with h5py.File(path) as file:
        given = {"memory": int(SHARE * file["data"].nbytes), "threads": THREADS}
    bare = h5fast.Loader(path, FIELDS, BATCH, **given)
    torch_loader = loader(path, FIELDS, BATCH, **given)
    torch_plain = DataLoader(H5IterableDataset(path, FIELDS, BATCH, **given), batch_size=None)
    grain_batches = iter(BatchDataset(path, FIELDS, BATCH, epochs=None, **given))
    tf_batches = dataset(path, FIELDS, BATCH, **given)
    same = bare.take(slice(0, BATCH))

    def hand_out(step: Any) -> Any:
        return same

    def nothing(epochs: int) -> Any:
        return tf.data.Dataset.range(epochs * len(bare)).map(lambda step: tf.numpy_function(hand_out, [step], (tf.uint8, tf.int64)))

    once, ten_times = nothing(1), nothing(10)

    def grain_epoch() -> Iterator[Any]:
        return (next(grain_batches) for _ in range(len(bare)))

    return {"bare": lambda: bare, "torch loader()": lambda: torch_loader, "torch DataLoader": lambda: torch_plain,
            "grain": grain_epoch, "tf.data": lambda: tf_batches, "tf.data, 10 epochs": lambda: tf_batches.repeat(10),
            "tf.data, nothing in it": lambda: once, "tf.data, nothing, 10 epochs": lambda: ten_times}


def check(path: Path, ways: dict[str, Callable[[], Iterable[Any]]]) -> None:
    """Every row once, as h5py reads it, in the same order."""
    with h5py.File(path) as file:
        data, label = file["data"][...], file["label"][...]
    expected = list(h5fast.Loader(path, FIELDS, BATCH).epoch_rows(0))
    for name, epoch in ways.items():
        if name.startswith("tf.data, nothing"):
            continue
        batches = epoch() if name not in EPOCHS else epoch().take(len(expected))
        order = expected if name not in EPOCHS else list(h5fast.Loader(path, FIELDS, BATCH).epoch_rows(1))  # the one after
        for rows, (images, labels) in zip(order, batches, strict=True):
            assert np.array_equal(images, data[rows]) and np.array_equal(labels, label[rows]), f"{name}: other rows of {path}"


def measure(ways: dict[str, Callable[[], Iterable[Any]]], rounds: int) -> None:
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for step in range(len(ways)):
            name = list(ways)[(number + step) % len(ways)]
            start, started = time.perf_counter(), time.process_time()
            for _ in ways[name]():
                pass
            processor[name].append((time.process_time() - started) / EPOCHS.get(name, 1))
            wall[name].append((time.perf_counter() - start) / EPOCHS.get(name, 1))
    for name in ways:
        ratio = statistics.median(one / bare for one, bare in zip(wall[name], wall["bare"]))
        spent = statistics.median(one / bare for one, bare in zip(processor[name], processor["bare"]))
        limit = f"{'<=' if ratio <= LIMITS[name] else '> '}{LIMITS[name]:.2f}" if name in LIMITS else ""
        print(f"  {name:28}{statistics.median(wall[name]) * 1e3:12.1f}{ratio:12.2f}{limit:>8}"
              f"{statistics.median(processor[name]) * 1e3:14.1f}{spent:12.2f}")


if __name__ == "__main__":
    main()
