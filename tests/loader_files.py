"""Files for the loader's tests: images and labels in two files, whose rows tell which row they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest

ROWS, MORE = 1511, 400


@dataclass(frozen=True)
class Shards:
    """Two files and what is in them, put end to end; ``label`` is the row's number."""

    first: Path
    second: Path
    image: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    @property
    def both(self) -> list[Path]:
        return [self.first, self.second]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("loader")
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (ROWS + MORE, 6, 5, 3), dtype="u1")
    label = np.arange(ROWS + MORE)
    weight = random.random(ROWS + MORE)
    found = Shards(folder / "a.h5", folder / "b.h5", image, label, weight)
    for path, rows, chunk, compression in ((found.first, slice(0, ROWS), 32, "lzf"), (found.second, slice(ROWS, None), 10, "gzip")):
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=image[rows], chunks=(chunk, 6, 5, 3), compression=compression)
            file.create_dataset("raw", data=image[rows])
            file.create_dataset("label", data=label[rows], chunks=(100,), compression="gzip")
            file.create_dataset("weight", data=weight[rows])
            file["text"] = [f"row {number}" for number in label[rows]]
    return found


def write_numbered(path: Path, rows: int = 1000, chunk: int = 50) -> np.ndarray:
    """Chunks of gzip and lzf, and the numbers of the rows."""
    data = files.content((rows, 6), "i8")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, chunks=(chunk, 6), compression="gzip")
        file["row"] = np.arange(rows)
        file.create_dataset("twin", data=data[:, :2], chunks=(80, 2), compression="lzf", fletcher32=True)
    return data
