"""Splits of rows into parts (train, val, test): made reproducibly, kept in the HDF5 file that they are of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from h5fast.sources import open_source

__all__ = ["GROUP", "split", "stored_split", "write_split"]

#: The group that splits are kept in.
GROUP = "splits"


def split(
    n_or_labels: int | ArrayLike,
    parts: Mapping[str, float],
    seed: Any = 0,
    stratify: ArrayLike | bool | None = None,
    groups: ArrayLike | None = None,
) -> dict[str, np.ndarray]:
    """Shares rows out to parts at random.

    Parameters
    ----------
    n_or_labels:
        How many rows there are; or a label for each, by which the split is stratified.
    parts:
        Name and share of each part. The shares add up to 1 at most; less leaves rows out.
    seed:
        Anything with a stable ``repr``; the same seed gives the same split, on every machine.
    stratify:
        A label for each row: every part gets the same proportions of them, as far as whole rows allow. False: do not, although
        labels were given first.
    groups:
        A group for each row (a patient, a recording): rows of one group stay in one part.

    Returns
    -------
    For each part the indices of its rows, ascending, int64. No row is in two parts. Shares are of rows, rounded so that the
    parts add up; with `groups`, of rows as nearly as whole groups allow.

    Raises ``ValueError`` for shares that cannot be, labels or groups of another length, and a part that gets no row.
    """
    if isinstance(n_or_labels, (int, np.integer)):
        count, labels = int(n_or_labels), None
    else:
        labels = np.asarray(n_or_labels)
        count = len(labels)
    if isinstance(stratify, bool):
        labels = labels if stratify else None
    elif stratify is not None:
        labels = np.asarray(stratify)
    shares = _checked_shares(parts)
    for name, values in (("labels", labels), ("groups", None if groups is None else np.asarray(groups))):
        if values is not None and values.shape != (count,):
            raise ValueError(f"{name} must be one for each of the {count:,} rows, not of shape {values.shape}")
    owner = _shared_out(count, shares, labels, groups, _generator(seed))
    found = {name: np.flatnonzero(owner == number).astype(np.int64) for number, name in enumerate(parts)}
    for name, rows in found.items():
        if len(rows) == 0 and parts[name] > 0:
            raise ValueError(f"part {name!r} gets none of the {count:,} rows with a share of {parts[name]}")
    return found


def _checked_shares(parts: Mapping[str, float]) -> np.ndarray:
    if not parts:
        raise ValueError("parts is empty: {'train': 0.8, 'val': 0.2}")
    shares = np.array([float(share) for share in parts.values()])
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() > 1 + 1e-9:
        raise ValueError(f"shares must be from 0 to 1 and add up to at most 1, not {dict(parts)}")
    return shares


def _generator(seed: Any) -> np.random.Generator:
    digest = hashlib.blake2b(f"split/{seed!r}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _shuffled(count: int, random: np.random.Generator) -> np.ndarray:
    """An order of 0 … count - 1 from raw bits, which NumPy promises not to change."""
    bits = random.bit_generator.random_raw(count)
    return np.argsort(bits, kind="stable")


def _shared_out(count: int, shares: np.ndarray, labels: np.ndarray | None, groups: Any,
                random: np.random.Generator) -> np.ndarray:
    """The number of each row's part; -1 for rows left out."""
    if groups is not None:
        return _by_group(count, shares, labels, np.asarray(groups), random)
    owner = np.full(count, -1, np.int64)
    if labels is None:
        classes = [np.arange(count)]
    else:
        _, number = np.unique(labels, return_inverse=True)
        classes = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    carried = np.zeros(len(shares) + 1)
    left_out = np.append(shares, max(0.0, 1 - shares.sum()))
    for rows in classes:
        exact = left_out * len(rows) + carried  # what rounding took from a part in one class it gets in the next
        sizes = _rounded(exact, len(rows))
        carried = exact - sizes
        mixed = rows[_shuffled(len(rows), random)]
        for place, part in enumerate(np.split(mixed, np.cumsum(sizes)[:-1])[:-1]):
            owner[part] = place
    return owner


def _rounded(exact: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers near to these that add up to `total`: by largest remainder."""
    sizes = np.maximum(np.floor(exact + 1e-9), 0).astype(np.int64)
    while sizes.sum() > total:
        sizes[np.argmax(sizes - exact)] -= 1
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    return sizes


def _by_group(count: int, shares: np.ndarray, labels: np.ndarray | None, groups: np.ndarray,
              random: np.random.Generator) -> np.ndarray:
    """Whole groups, the largest first (equal ones in random order), each to the part that lacks most of what it should have."""
    _, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if labels is None:
        content = sizes[:, None].astype(float)
    else:
        _, label = np.unique(labels, return_inverse=True)
        content = np.zeros((len(sizes), label.max() + 1))
        np.add.at(content, (number, label), 1)
    targets = np.append(shares, max(0.0, 1 - shares.sum()))
    wanted = targets[:, None] * content.sum(axis=0)
    order = _shuffled(len(sizes), random)
    order = order[np.argsort(-sizes[order], kind="stable")]
    place = np.empty(len(sizes), np.int64)
    for group in order:
        # The part that, given this group, is least over what it should have of each label, relative to its share.
        lack = (np.minimum(wanted, content[group]).sum(axis=1) + 1e-9 * wanted.sum(axis=1)) * (targets > 0)
        place[group] = int(np.argmax(lack))
        wanted[place[group]] -= content[group]
    owner = place[number]
    return np.where(owner == len(shares), -1, owner)


def write_split(file: str | os.PathLike[str] | h5py.File, parts: Mapping[str, ArrayLike]) -> None:
    """Keeps a split in the file that it is of, for ``Loader(..., rows="train")``: row numbers, in the group ``splits``.

    A part that is stored already is replaced; others stay. A path is opened for that and closed again.

    Raises ``ValueError`` for rows that are no row numbers, and ``OSError`` for a file that cannot be written.
    """
    checked = {name: _row_numbers(name, rows) for name, rows in parts.items()}
    if not isinstance(file, h5py.File):
        with h5py.File(file, "r+") as opened:
            write_split(opened, checked)
        return
    group = file.require_group(GROUP)
    for name, rows in checked.items():
        new = f"{name} (being written)"
        group.create_dataset(new, data=rows)
        if name in group:
            del group[name]
        group.move(new, name)


def _row_numbers(name: str, rows: ArrayLike) -> np.ndarray:
    array = np.asarray(rows)
    if array.dtype == bool and array.ndim == 1:
        array = np.flatnonzero(array)
    if array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0)):
        raise ValueError(f"part {name!r} must be row numbers, or a mask, in one dimension")
    if not name or "/" in name:
        raise ValueError(f"a part cannot be called {name!r}")
    return array.astype(np.int64)


def stored_split(name: str, files: Sequence[str | h5py.Group], rows: Sequence[int]) -> np.ndarray:
    """The rows of a part, of files put end to end.

    Args:
        files, rows: the files, and how many rows each has

    Raises:
        KeyError: a file has no such split, with those that it has.
        ValueError: it has rows that the file does not have.
    """
    if not files:
        raise ValueError(f"rows={name!r} names a split stored in a file, and the source is no file: pass its row numbers")
    found, first = [], 0
    for file, count in zip(files, rows):
        try:
            opened = open_source(file, f"{GROUP}/{name}")
        except KeyError:
            where = file if isinstance(file, str) else file.file.filename
            raise KeyError(f"{where} has no split {name!r} (h5fast.write_split stores one); it has {_names(file)}") from None
        part = np.asarray(opened.data[...], np.int64)
        if part.size and not 0 <= part.min() <= part.max() < count:
            raise ValueError(f"split {name!r} of {opened.path} has rows that there are not: the file has {count:,}")
        found.append(part + first)
        first += count
    return np.concatenate(found)


def _names(file: str | h5py.Group) -> list[str]:
    if isinstance(file, h5py.Group):
        group = file.get(GROUP)
        return sorted(group) if isinstance(group, h5py.Group) else []
    with h5py.File(file, "r") as opened:
        return _names(opened)
