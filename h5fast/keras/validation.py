"""Which rows are for validation: the first or the last fraction of them. Arithmetic, and slices of what is not read yet."""

from __future__ import annotations

import math
from typing import Any

import h5py

from h5fast.keras.pairing import leaves, mapped
from h5fast.matrix import HDF5Matrix

__all__ = ["check_which", "parts_of", "split_rows"]


def check_which(rows: str) -> None:
    """Raises ``ValueError`` for another word than those for which rows are for validation."""
    if rows not in ("first", "last"):
        raise ValueError(f"validation_rows must be 'first' or 'last', not {rows!r}")


def split_rows(count: int, fraction: float, which: str) -> tuple[slice, slice]:
    """Rows for training and rows for validation, as slices with both ends.

    Args:
        which: ``"last"``: validation has the last rows, and training ``floor(count * (1 - fraction))``, as Keras divides
            arrays; ``"first"``: validation has the first ``int(count * fraction)``, as ``flow_hdf5`` always did

    Raises:
        ValueError: a fraction that leaves one of them without rows, or another word.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_split must be a fraction between 0 and 1, not {fraction!r}")
    check_which(which)
    if which == "last":
        border = math.floor(count * (1 - fraction))
        training, validation = slice(0, border), slice(border, count)
    else:
        border = int(count * fraction)
        training, validation = slice(border, count), slice(0, border)
    if border in (0, count):
        raise ValueError(f"validation_split={fraction} of {count:,} rows leaves none for "
                         f"{'training' if training.start == training.stop else 'validation'}")
    return training, validation


def parts_of(arrays: Any, fraction: float) -> tuple[Any, Any]:
    """A structure of matrices, datasets and arrays, divided into training and validation parts as Keras divides arrays.

    Nothing is read: a part of what stands in a file is a matrix of these rows.

    Raises:
        ValueError: they have not all as many rows, or the fraction leaves one of the parts none.
    """
    counts = [len(one) for one in leaves(arrays)]
    if len(set(counts)) > 1:
        raise ValueError(f"x, y and sample_weight must have as many rows as each other; they have {', '.join(map(str, counts))}")
    count = counts[0]
    training, validation = split_rows(count, fraction, "last")
    return mapped(arrays, lambda one: _part(one, training)), mapped(arrays, lambda one: _part(one, validation))


def _part(one: Any, rows: slice) -> Any:
    if isinstance(one, h5py.Dataset):
        one = HDF5Matrix(one)
    return one.part(rows.start, rows.stop) if isinstance(one, HDF5Matrix) else one[rows]
