"""``fit_data``: the sequences for training and for validation, of one file, without changing Keras."""

from __future__ import annotations

from typing import Any

from h5fast.keras.sequence import HDF5Sequence
from h5fast.keras.validation import split_rows

__all__ = ["fit_data"]


def fit_data(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    validation_split: float = 0.2,
    validation_rows: str = "last",
    batch_size: int = 32,
    shuffle: str | bool = True,
    **options: Any,
) -> tuple[HDF5Sequence, HDF5Sequence]:
    """Sequences for ``fit``: ``train, validation = fit_data(x, y)``, then ``model.fit(train, validation_data=validation)``.

    Parameters
    ----------
    validation_split:
        The fraction of the rows that is for validation.
    validation_rows:
        Which rows these are: ``"last"``, as Keras does with arrays, or ``"first"``.
    x, y, sample_weight, batch_size, shuffle, options:
        As of :class:`HDF5Sequence`. Validation is never shuffled. Each of the two has the `memory` that is given.

    Raises what :class:`HDF5Sequence` raises, and ``ValueError`` for a fraction that leaves one of them without rows, or for
    `rows`, which are what is divided here.
    """
    if "rows" in options or "weights" in options:
        raise ValueError("fit_data divides all rows; to choose or weigh them, make two HDF5Sequence with rows=")
    count = HDF5Sequence(x, y, sample_weight, batch_size, False, **options).samples
    training_rows, rows = split_rows(count, validation_split, validation_rows)
    training = HDF5Sequence(x, y, sample_weight, batch_size, shuffle, rows=training_rows, **options)
    return training, HDF5Sequence(x, y, sample_weight, batch_size, False, rows=rows, **options)
