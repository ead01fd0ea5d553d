"""The file that the tests of ``HDF5Matrix`` read, as fixtures, and what they compare with."""

from __future__ import annotations

import pathlib

import h5py
import numpy as np
import pytest

ROWS = 150


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Images, features and labels; chunks that do not divide the rows, so that windows cut through chunks."""
    path = tmp_path_factory.mktemp("matrix") / "data.h5"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        image = rng.integers(0, 255, (ROWS, 6, 5, 3), "u1")
        file.create_dataset("image", data=image, chunks=(7, 6, 5, 3), compression="lzf")
        file.create_dataset("feature", data=rng.standard_normal((ROWS, 10)).astype("f4"))
        file.create_dataset("label", data=rng.integers(0, 10, ROWS), chunks=(11,))
        file.create_dataset("pair", data=np.ones((ROWS, 2), np.dtype(("i4", (3,)))))
        file.create_dataset("record", data=np.array([(i, i / 2) for i in range(ROWS)], [("a", "i4"), ("b", "f8")]))
        file.create_dataset("scalar", data=1.0)
        file.create_dataset("none", data=h5py.Empty("f4"))
        file.create_group("group")
    return path


@pytest.fixture(scope="module")
def image(path: pathlib.Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["image"][()]


def same(got: object, expected: object) -> bool:
    got, expected = np.asarray(got), np.asarray(expected)
    return got.shape == expected.shape and got.dtype == expected.dtype and got.tobytes() == expected.tobytes()
