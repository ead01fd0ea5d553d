"""Real images for the other examples: scikit-learn's handwritten digits (1,797 of 8x8) as HDF5 files. Nothing is downloaded."""

from __future__ import annotations

import os
import pathlib

import h5py
import numpy as np
from sklearn.datasets import load_digits

TRAIN_ROWS = 1437  # four fifths; the digits are mixed, so that training and test rows hold the same hands


def write_digits(folder: str | os.PathLike[str]) -> tuple[pathlib.Path, pathlib.Path]:
    """Files for training and for testing, in this folder, each with the datasets ``image`` (rows, 8, 8; uint8 from 0 to 16)
    and ``label`` (rows; uint8)."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(20).permutation(len(images))
    images, labels = images[order].reshape(-1, 8, 8).astype(np.uint8), labels[order].astype(np.uint8)
    paths = []
    for name, rows in (("train.hdf5", slice(0, TRAIN_ROWS)), ("test.hdf5", slice(TRAIN_ROWS, None))):
        paths.append(pathlib.Path(folder) / name)
        with h5py.File(paths[-1], "w") as file:
            file.create_dataset("image", data=images[rows], chunks=(64, 8, 8), compression="lzf")
            file.create_dataset("label", data=labels[rows])
    return paths[0], paths[1]
