"""Train a classifier on the images of an HDF5 file whose top-level groups are the classes, as ``sort_images.py`` writes it.

``python examples/train_images.py sorted.h5 model.npz`` reads the file directly, some hundred images at a time in one native
pass, and keeps a fifth of them to test on. The numbers of the classes are written beside the file as JSON, the weights to
``model.npz``. It ends with status 1 if fewer than 60 % of the images that it has not seen are told right.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import SGDClassifier

import h5fast

BATCH = 256
SIDE = 8
WANTED = 0.6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    with h5fast.FileTree(options.file) as tree:
        paths = np.array(list(tree))
        classes, labels = np.unique([path.split("/")[0] for path in paths], return_inverse=True)
        rows = h5fast.split(len(paths), {"train": 0.8, "test": 0.2}, seed=0)
        model = SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0, average=True)
        for epoch in range(options.epochs):
            order = np.random.default_rng(epoch).permutation(rows["train"])
            for some, x in batches(tree, paths, order):
                model.partial_fit(x, labels[some], classes=np.arange(len(classes)))
        right = sum(int((model.predict(x) == labels[some]).sum()) for some, x in batches(tree, paths, rows["test"]))
    labels_file(options.file).write_text(json.dumps({name: number for number, name in enumerate(classes.tolist())}))
    np.savez(options.model, weights=model.coef_, bias=model.intercept_)
    accuracy = right / len(rows["test"])
    print(
        f"{len(paths)} images in {len(classes)} classes, {accuracy:.0%} of {len(rows['test'])} unseen ones told right ({WANTED:.0%} wanted)"
    )
    return 0 if accuracy >= WANTED else 1


def batches(tree: h5fast.FileTree, paths: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of images, and what the classifier sees of them."""
    for first in range(0, len(rows), BATCH):
        some = rows[first : first + BATCH]
        yield some, np.stack([features(data) for data in tree.read_many(paths[some].tolist())])


def features(data: bytes) -> np.ndarray:
    """An image as the classifier sees it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.float32).ravel() / 255 - 0.5


def labels_file(file: Path) -> Path:
    """Where the numbers of the classes are: beside the file."""
    return file.with_name(file.name.replace(".", "_") + "_labels.json")


if __name__ == "__main__":
    sys.exit(main())
