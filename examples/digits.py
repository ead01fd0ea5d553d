"""Train on real images from HDF5 files, and see what the reading costs: ``make demo`` runs this.

1. Handwritten digits (scikit-learn's, 1,797 of 8x8) go into lzf-compressed HDF5 files, 64 rows a chunk and 1 row a chunk.
   A small network learns them for some shuffled epochs, through ``h5fast.HDF5Matrix``, and must reach 95 % on images that it
   has not seen. Two twins of it get the same batches through h5py, so all three must end with the same weights.
2. Patches of 64x64x3 cut from scikit-learn's two photographs, 20,000 by default, go into two such files, and the time for
   reading a shuffled epoch is measured the three ways, on the same batches, with every byte compared.

Nothing is downloaded. The files go to ``demo-data`` in the current folder, about 500 MB of them.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h5py
import numpy as np
from sklearn.datasets import load_digits, load_sample_images

import h5fast

#: Rows a chunk of the files: what h5py picks of itself for small images is sixty-odd; one suits random rows.
CHUNK_ROWS = (64, 1)
TRAIN_ROWS = 1437  # four fifths of the digits
ACCURACY = 0.95
SEED = 20
METHODS = ("h5py sorted", "h5py loop", "h5fast")

Batches = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """Seconds for an epoch by each method, and whether the results were as they should be."""

    what: str
    seconds: dict[str, float]
    good: bool = True


def main() -> int:
    options = parse_arguments()
    print(f"h5fast {h5fast.__version__}, h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}; ", end="")
    print(f"{os.cpu_count()} CPUs, h5fast uses {h5fast.get_num_threads()} threads; files in the page cache")
    options.data.mkdir(parents=True, exist_ok=True)
    outcomes = [learn_digits(write_digits(options.data, chunk), options.epochs) for chunk in CHUNK_ROWS]
    outcomes += [read_patches(write_patches(options.data, chunk, options.patches), options.batches) for chunk in CHUNK_ROWS]
    print_table(outcomes)
    if not all(outcome.good for outcome in outcomes):
        print("FAILED: see above", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("demo-data"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of training on the digits")
    parser.add_argument("--patches", type=int, default=20_000, help="patches to cut from the photographs")
    parser.add_argument("--batches", type=int, default=6, help="batches that the slow ways of reading are timed on")
    return parser.parse_args()


# The files.


def write_digits(folder: pathlib.Path, chunk: int) -> pathlib.Path:
    """All digits, in random order so that training and test rows hold the same hands."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    path = folder / f"digits-{chunk}.h5"
    write(path, images[order].reshape(-1, 8, 8, 1).astype(np.uint8), labels[order].astype(np.uint8), chunk)
    return path


def write_patches(folder: pathlib.Path, chunk: int, count: int) -> pathlib.Path:
    """Overlapping patches of the two photographs; the label says which photograph."""
    path = folder / f"patches-{chunk}.h5"
    if path.exists():
        with h5py.File(path) as file:
            if file["image"].shape[0] == count:
                print(f"\n{path}: there already")
                return path
    photographs = load_sample_images().images
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, len(photographs), count, dtype=np.uint8)
    images = np.empty((count, 64, 64, 3), np.uint8)
    for place, label in enumerate(labels):
        photograph = photographs[label]
        top, left = rng.integers(0, np.array(photograph.shape[:2]) - 64, endpoint=True)
        images[place] = photograph[top : top + 64, left : left + 64]
    write(path, images, labels, chunk)
    return path


def write(path: pathlib.Path, images: np.ndarray, labels: np.ndarray, chunk: int) -> None:
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        file.create_dataset("image", data=images, chunks=(chunk, *images.shape[1:]), compression="lzf")
        file["label"] = labels
    os.replace(part, path)
    size = path.stat().st_size
    print(f"\n{path}: {len(images):,} images of {'x'.join(map(str, images.shape[1:]))}, {size / 1e6:.1f} MB, lzf", end="")
    print(f", {chunk} row{'s' if chunk > 1 else ''} a chunk")


# The three ways to read a batch. Each gives the rows in the order asked for, as float32 from 0 to 1.


def h5py_sorted(images: h5py.Dataset, scale: float) -> Batches:
    """One call of h5py: it wants ascending rows, so the batch is put back in order afterwards."""

    def read(rows: np.ndarray) -> np.ndarray:
        order = np.argsort(rows)
        batch = np.empty((len(rows), *images.shape[1:]), np.float32)
        batch[order] = images[rows[order]]
        return batch * np.float32(scale)

    return read


def h5py_loop(images: h5py.Dataset, scale: float) -> Batches:
    """One call of h5py for each row."""

    def read(rows: np.ndarray) -> np.ndarray:
        batch = np.empty((len(rows), *images.shape[1:]), np.float32)
        for place, row in enumerate(rows.tolist()):
            batch[place] = images[row]
        return batch * np.float32(scale)

    return read


def matrix(path: pathlib.Path, scale: float) -> Batches:
    """``HDF5Matrix``: any order, the scaling done while the rows are copied."""
    return h5fast.HDF5Matrix(path, "image", normalizer=h5fast.Normalize(scale=scale)).__getitem__


def three_ways(path: pathlib.Path, file: h5py.File, scale: float) -> dict[str, Batches]:
    readers = (h5py_sorted(file["image"], scale), h5py_loop(file["image"], scale), matrix(path, scale))
    return dict(zip(METHODS, readers, strict=True))


# 1. The digits.


@dataclass
class Network:
    """Two layers, trained by stochastic gradient descent with momentum on the cross-entropy."""

    rng: np.random.Generator
    weights: list[np.ndarray] = field(default_factory=list)
    momenta: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        for fan_in, fan_out in ((64, 128), (128, 10)):
            self.weights += [(self.rng.standard_normal((fan_in, fan_out)) * (2 / fan_in) ** 0.5).astype(np.float32)]
            self.weights += [np.zeros(fan_out, np.float32)]
        self.momenta = [np.zeros_like(weight) for weight in self.weights]

    def forward(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first, first_bias, second, second_bias = self.weights
        flat = batch.reshape(len(batch), -1)
        hidden = np.maximum(flat @ first + first_bias, 0)
        return flat, hidden, hidden @ second + second_bias

    def learn(self, batch: np.ndarray, labels: np.ndarray, rate: float = 0.05) -> None:
        flat, hidden, scores = self.forward(batch)
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        hidden_error = (error @ self.weights[2].T) * (hidden > 0)
        gradients = [flat.T @ hidden_error, hidden_error.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
        for weight, momentum, gradient in zip(self.weights, self.momenta, gradients, strict=True):
            momentum *= 0.9
            momentum += gradient
            weight -= rate * momentum

    def accuracy(self, batch: np.ndarray, labels: np.ndarray) -> float:
        return float((self.forward(batch)[2].argmax(axis=1) == labels).mean())


def learn_digits(path: pathlib.Path, epochs: int, batch: int = 64) -> Outcome:
    """Train three equal networks, one for each way of reading; good if they end equal and know the digits."""
    labels = h5fast.HDF5Matrix(path, "label", end=TRAIN_ROWS)[...]
    networks = {method: Network(np.random.default_rng(SEED)) for method in METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    print(f"training on {TRAIN_ROWS:,} of them, {epochs} shuffled epochs in batches of {batch}, read three ways in turn")
    with h5py.File(path) as file:
        readers = three_ways(path, file, 1 / 16)
        for epoch in range(epochs):
            order = np.random.default_rng((SEED, epoch)).permutation(TRAIN_ROWS)
            for method in turned(METHODS, epoch):
                start = time.perf_counter()
                for rows in batches(order, batch):
                    networks[method].learn(readers[method](rows), labels[rows])
                seconds[method].append(time.perf_counter() - start)
    test_images = h5fast.HDF5Matrix(path, "image", start=TRAIN_ROWS, normalizer=h5fast.Normalize(scale=1 / 16))
    test_labels = h5fast.HDF5Matrix(path, "label", start=TRAIN_ROWS)
    accuracy = networks["h5fast"].accuracy(test_images[...], test_labels[...])
    equal = all(
        np.array_equal(one, other)
        for method in METHODS
        for one, other in zip(networks[method].weights, networks["h5fast"].weights, strict=True)
    )
    print(f"  weights of the three after {epochs} epochs: {'equal to the last bit' if equal else 'DIFFERENT'}")
    good = accuracy >= ACCURACY
    print(f"  accuracy on {len(test_images)} digits never seen: {accuracy:.1%}", end="")
    print(f" (at least {ACCURACY:.0%} wanted)" if good else f", LESS than the {ACCURACY:.0%} wanted")
    medians = {method: statistics.median(seconds[method]) for method in METHODS}
    return Outcome(f"{path.stem}: read and learn", medians, equal and good)


# 2. The photographs.


def read_patches(path: pathlib.Path, timed: int, batch: int = 256) -> Outcome:
    """Time the reading of a shuffled epoch: some batches three ways in turn, then all of it with h5fast."""
    with h5py.File(path) as file:
        count = file["image"].shape[0]
        order = np.random.default_rng(SEED).permutation(count)
        readers = three_ways(path, file, 1 / 255)
        readers["h5fast"](order[-batch:])  # the first read of a dataset makes its index
        print(f"reading shuffled batches of {batch} of {count:,}: {timed} of them three ways in turn, bytes compared;")
        print("  h5py's epoch is scaled up from those, h5fast's is read to its end")
        seconds = time_batches(readers, list(batches(order, batch))[:timed])
        start = time.perf_counter()
        for rows in batches(order, batch):
            readers["h5fast"](rows)
        whole = time.perf_counter() - start
    per_epoch = {method: statistics.median(seconds[method]) * count / batch for method in METHODS}
    return Outcome(f"{path.stem}: read", {**per_epoch, "h5fast": whole})


def time_batches(readers: dict[str, Batches], chosen: list[np.ndarray]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(len(chosen)):
        # Each way reads another batch in its turn: what h5py keeps of the batch before would help the next to read it.
        for step, method in enumerate(turned(METHODS, number)):
            rows = chosen[(number + step * len(chosen) // 3) % len(chosen)]
            start = time.perf_counter()
            got = readers[method](rows)
            seconds[method].append(time.perf_counter() - start)
            if got.tobytes() != readers["h5py loop"](rows).tobytes():
                raise SystemExit(f"{method} read other bytes than h5py's loop")
    return seconds


def batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(order), size):
        yield order[first : first + size]


def turned(methods: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The methods in an order that starts with another one each time."""
    start = number % len(methods)
    return methods[start:] + methods[:start]


def print_table(outcomes: list[Outcome]) -> None:
    print(f"\n{'seconds an epoch':30}" + "".join(f"{method:>13}" for method in METHODS) + f"{'times faster than':>20}")
    for outcome in outcomes:
        seconds = [outcome.seconds[method] for method in METHODS]
        sorted_ratio, loop_ratio = (slow / seconds[2] for slow in seconds[:2])
        print(f"{outcome.what:30}" + "".join(f"{took:13.3f}" for took in seconds), end="")
        print(f"{sorted_ratio:9.1f} sorted{loop_ratio:7.1f} loop")


if __name__ == "__main__":
    sys.exit(main())
