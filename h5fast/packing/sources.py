"""Folders, archives and iterables as rows of members, always in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from h5fast.packing.archives import TarSource, ZipSource, kind_of
from h5fast.packing.folders import FolderSource
from h5fast.packing.members import Folder, Member, Problem, clean_path, opened_bytes

__all__ = ["IterableSource", "Source", "open_source"]


class Source(Protocol):
    """What has members.

    Attributes:
        name: what it is called in messages
        position: how much of it has gone by, of its total
    """

    name: str

    @property
    def position(self) -> int:
        """Bytes that have gone by since :meth:`members` was called."""

    def total(self) -> int | None:
        """Bytes of all of it, as `position` counts them; None where nobody knows."""

    def members(self) -> Iterator[Member | Problem | Folder]:
        """Its members, from the first on and in the same order each time, the folders that they lie in, and what of it cannot be a
        member."""


class IterableSource:
    """Tuples ``(path, data)`` or ``(path, data, label)``, where data are bytes or an array; see :class:`Source`."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.name = "the iterable"
        self._items = items
        self.position = 0

    def total(self) -> int | None:
        return None

    def members(self) -> Iterator[Member | Problem]:
        for number, item in enumerate(self._items):
            if not isinstance(item, tuple) or len(item) not in (2, 3):
                raise TypeError(
                    f"item {number} of the iterable is (path, data) or (path, data, label), not {type(item).__name__}"
                )
            path, data, *label = item
            try:
                clean = clean_path(os.fsdecode(path))
            except ValueError as error:
                yield Problem(str(path), str(error))
                continue
            member = _given(clean, data, *label)
            yield member
            self.position += member.size


def _given(path: str, data: Any, label: Any = None) -> Member:
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        content = bytes(data)
        return Member(path, len(content), opened_bytes(content), label=label)
    array = np.asarray(data)
    if array.dtype.hasobject or array.dtype.kind in "mM":
        raise TypeError(f"{path}: data is bytes, a str or an array of numbers, not {type(data).__name__} of {array.dtype}")
    return Member(path, array.nbytes, lambda: opened_bytes(array.tobytes())(), array=array, label=label)


def open_source(source: Any, but: frozenset[str] = frozenset()) -> Source:
    """The members of a folder, of an archive or of an iterable.

    Args:
        but: files of a folder that are none of its members

    Raises:
        OSError: there is no such file or folder, or it cannot be read.
        ValueError: the file is no archive.
        TypeError: it is none of these.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        if path.is_dir():
            return FolderSource(path, but)
        kind = kind_of(path)
        if kind is None:
            raise ValueError(
                f"{path} is no folder, no tar or zip archive, and by its name no .npy, .npz, .csv or .parquet file"
            )
        opener: Callable[[Path], Source] = TarSource if kind == "tar" else ZipSource
        return opener(path)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, np.ndarray)):
        return IterableSource(source)
    raise TypeError(f"a source is a path, or an iterable of (path, data), not {type(source).__name__}")
