"""The file that the tests of ``File``, ``Group`` and ``Dataset`` read, as fixtures, and what its datasets hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import h5fast

ROWS, COLUMNS = 50, 6
TABLE = np.arange(ROWS * COLUMNS, dtype="i4").reshape(ROWS, COLUMNS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one of each kind of object and link; the datasets hold TABLE."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["far/table"] = TABLE
    with h5py.File(tmp_path / "objects.h5", "w") as f:
        f["table"] = TABLE
        f.create_dataset("group/chunked", data=TABLE, chunks=(8, COLUMNS), compression="lzf")
        f["group/soft"] = h5py.SoftLink("/table")
        f["group/external"] = h5py.ExternalLink("other.h5", "far/table")
        f["group/hard"] = f["table"]
        f["type"] = np.dtype("f4")
        f["group/table references"] = np.array([f["table"].ref], dtype=h5py.ref_dtype)
        f["group"].attrs["group"] = f["group"].ref
        f["group"].attrs["region"] = f["table"].regionref[2:4]
        f["scale"] = np.arange(ROWS)
        f["scale"].make_scale("row")
        f["table"].dims[0].attach_scale(f["scale"])
    return tmp_path / "objects.h5"


@pytest.fixture
def file(path: Path) -> Iterator[h5fast.File]:
    with h5fast.File(path) as f:
        yield f
