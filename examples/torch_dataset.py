"""The classic PyTorch dataset over HDF5, and training on it, unchanged but for one import: ``import h5fast as h5py``.

A ``Dataset`` that opens its file lazily, in each worker, and reads a row for each ``__getitem__``: it is what tutorials show and
what most people have. Real digits (scikit-learn's, 1,797 of 8x8) go into an lzf-compressed file of 64 rows a chunk; a small
network learns them with four workers, and must know 95 % of digits that it has not seen.

``python examples/torch_dataset.py [--epochs 12] [--workers 4] [--data FOLDER]``
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import h5fast as h5py  # the only line that is not the tutorial's

ACCURACY = 0.95
TRAIN_ROWS = 1437  # four fifths
SEED = 20


class HDF5Dataset(Dataset):
    def __init__(self, path):
        self.path = path
        self.file = None
        with h5py.File(path, "r") as file:
            self.length = len(file["image"])

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if self.file is None:  # in each worker: open files cannot be shared by processes
            self.file = h5py.File(self.path, "r")
        image = torch.from_numpy(self.file["image"][index]).float() / 16
        return image, int(self.file["label"][index])


def write_digits(path: pathlib.Path) -> None:
    """All digits, in random order so that training and test rows hold the same hands."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=images[order].reshape(-1, 1, 8, 8).astype("u1"), chunks=(64, 1, 8, 8), compression="lzf")
        file["label"] = labels[order]


def train(path: pathlib.Path, epochs: int, workers: int) -> float:
    """Share of unseen digits that the network knows in the end."""
    torch.manual_seed(SEED)
    dataset = HDF5Dataset(path)
    training = DataLoader(Subset(dataset, range(TRAIN_ROWS)), batch_size=64, shuffle=True, num_workers=workers,
                          persistent_workers=workers > 0)
    test = DataLoader(Subset(dataset, range(TRAIN_ROWS, len(dataset))), batch_size=64, num_workers=workers)
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(),
                            nn.Linear(64, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for epoch in range(epochs):
        losses = []
        for images, labels in training:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1:2}: loss {np.mean(losses):.3f}")
    with torch.no_grad():
        known = [network(images).argmax(1) == labels for images, labels in test]
    return float(torch.cat(known).float().mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--data", type=pathlib.Path, help="folder for the file; by default one that is removed in the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = (options.data or pathlib.Path(scratch)) / "digits.h5"
        write_digits(path)
        accuracy = train(path, options.epochs, options.workers)
    print(f"accuracy on digits never seen: {accuracy:.1%} (at least {ACCURACY:.0%} wanted)")
    return 0 if accuracy >= ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
