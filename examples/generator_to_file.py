"""Generator, file, training: what a slow generator makes is written once, and epochs read the file.

Real digits (scikit-learn's), each shifted at random by a generator, go into an HDF5 file by ``write_generator``; a classifier
learns shuffled epochs of it through a ``Loader``, and must tell 85 % of the digits that it has not seen.
``python examples/generator_to_file.py digits.h5``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import h5fast

BATCH, TRAIN, TURNS = 64, 1437, 4
WANTED = 0.85


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    digits = load_digits()
    images, labels = digits.images.astype("f4") / 16, digits.target
    with h5py.File(options.file, "w") as file:
        x = file.create_dataset("image", (0, 8, 8), "f4", maxshape=(None, 8, 8), chunks=(64, 8, 8), compression="lzf")
        y = file.create_dataset("label", (0,), "i8", maxshape=(None,), chunks=(1024,))
        rows = h5fast.write_generator(shifted(images[:TRAIN], labels[:TRAIN]), d_set=x, label_set=y)
    assert rows == TURNS * TRAIN, "every row is written, the last batch too"
    model = MLPClassifier((64,), random_state=0)
    for epoch in range(options.epochs):
        with h5fast.Loader(options.file, ("image", "label"), batch_size=BATCH, shuffle=True, seed=epoch) as loader:
            for some, known in loader:
                model.partial_fit(some.reshape(len(some), -1), known, classes=range(10))
    accuracy = float((model.predict(images[TRAIN:].reshape(-1, 64)) == labels[TRAIN:]).mean())
    print(f"{rows} rows written; {accuracy:.0%} of {len(images) - TRAIN} unseen digits told right ({WANTED:.0%} wanted)")
    return 0 if accuracy >= WANTED else 1


def shifted(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of all images, some times over, each time shifted by a pixel or none."""
    random = np.random.default_rng(0)
    for _ in range(TURNS):
        for first in range(0, len(images), BATCH):
            some = [np.roll(image, random.integers(-1, 2, 2), (0, 1)) for image in images[first:first + BATCH]]
            yield np.stack(some), labels[first:first + BATCH]


if __name__ == "__main__":
    sys.exit(main())
