"""From a generator to files to training: digits, the features that a model makes of them, and a classifier that learns from both.

1. ``write_generator`` writes the batches of a generator (scikit-learn's 1,797 handwritten digits, drawn with small shifts) into
   datasets of an open file.
2. ``write_predict_generator`` writes what a model (here a fixed random projection, with a kink) predicts for them, and the labels.
3. A linear classifier learns from the features, fed by ``h5fast.Loader``, and must reach 95 % on rows that it has not seen.

Nothing is downloaded. ``python examples/generator_route.py [FOLDER]``; the files go to ``demo-data``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_digits

import h5fast

BATCH, SEED, FEATURES, TRAIN_ROWS, ACCURACY = 32, 3, 400, 1437, 0.95


class Digits:
    """Batches by number, as a ``Sequence`` or ``PyDataset`` of Keras gives them."""

    def __init__(self) -> None:
        self.images, self.labels = load_digits(return_X_y=True)
        self.order = np.random.default_rng(SEED).permutation(len(self.images))

    def __len__(self) -> int:
        return -(-len(self.order) // BATCH)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[number * BATCH:(number + 1) * BATCH]
        return self.images[rows].reshape(-1, 8, 8).astype("uint8"), self.labels[rows]


def features(x: np.ndarray) -> np.ndarray:
    """A random layer: what a network without its head would be."""
    weights = np.random.default_rng(SEED).standard_normal((64, FEATURES)).astype("float32") / 64
    return np.maximum(x.reshape(len(x), 64).astype("float32") @ weights, 0)


def learn(feature_file: Path, label_file: Path) -> float:
    """Trains on the first rows, and returns the share of the others that it gets right."""
    sources = {"x": h5fast.HDF5Matrix(feature_file, "data"), "y": h5fast.HDF5Matrix(label_file, "data")}
    loader = h5fast.Loader(sources, ("x", "y"), batch_size=64, shuffle=True, seed=SEED, rows=slice(0, TRAIN_ROWS))
    weights = np.zeros((FEATURES, 10), "float32")
    for epoch in range(60):
        for x, y in loader:
            scores = x @ weights
            chances = np.exp(scores - scores.max(1, keepdims=True))
            chances /= chances.sum(1, keepdims=True)
            chances[np.arange(len(y)), y] -= 1
            weights -= 0.3 / (1 + epoch / 10) * x.T @ chances / len(y)
    return float((np.argmax(sources["x"][TRAIN_ROWS:] @ weights, 1) == sources["y"][TRAIN_ROWS:]).mean())


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-data")
    folder.mkdir(parents=True, exist_ok=True)
    digits = Digits()
    with h5py.File(folder / "digits.h5", "w") as file:
        images = file.create_dataset("image", (0, 8, 8), "uint8", maxshape=(None, 8, 8), chunks=(64, 8, 8), compression="lzf")
        labels = file.create_dataset("label", (0,), "int64", maxshape=(None,), chunks=(2048,))
        rows = h5fast.write_generator(digits, d_set=images, label_set=labels, workers=2)
    print(f"{rows} digits written to {folder / 'digits.h5'}")
    with h5fast.File(folder / "digits.h5") as file:
        batches = [(file["image"][first:first + BATCH], file["label"][first:first + BATCH]) for first in range(0, rows, BATCH)]
    where = {"h5py_file": folder / "features.h5", "h5py_label": folder / "labels.h5"}
    h5fast.write_predict_generator(features, batches, overwrite=True, **where)
    right = learn(**dict(zip(("feature_file", "label_file"), where.values(), strict=True)))
    print(f"{right:.1%} of the digits that it had not seen are recognised")
    if right < ACCURACY:
        sys.exit(f"fewer than {ACCURACY:.0%}: something is wrong with the rows")


if __name__ == "__main__":
    main()
