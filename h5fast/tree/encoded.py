"""Many files in one dataset: the layout `encoded`, which `h5fast.pack` writes and this reads.

A group with the attribute ``h5fast_layout = "encoded"`` holds

==============  =============  ========================================================================================
``data``        uint8 (bytes)  the files' bytes, back to back
``offsets``     uint64 (n+1)   file i is ``data[offsets[i]:offsets[i+1]]``
``paths``       string (n)     its path below the group; one that ends in a slash is a folder, an empty one was removed
``modified``    int64 (n)      may be missing: seconds since 1970
``permissions`` uint32 (n)     may be missing: as stat has them
``label``       int64 (n)      may be missing: the number of its class, -1 for none; not read here
``class_names`` string         may be missing: the names of the classes; not read here
==============  =============  ========================================================================================

Whatever else lies in the group is there beside these files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast.errors import CorruptFileError
from h5fast.tree.paths import as_bytes, parts_of, unfit

__all__ = ["ATTRIBUTE", "NAMES", "EncodedFiles", "PathTable", "is_encoded", "is_table", "load"]

ATTRIBUTE = "h5fast_layout"
_DATA, _OFFSETS, _PATHS, _MODIFIED, _PERMISSIONS = _TABLES = ("data", "offsets", "paths", "modified", "permissions")
#: What of a group is no file.
NAMES = (*_TABLES, "label", "class_names")


@dataclass(frozen=True)
class EncodedFiles:
    """The tables of a group.

    Attributes:
        data: the dataset that holds the bytes
        offsets: n + 1 of them
        paths: n of them, fit to be paths; those of folders end in a slash
        modified, permissions: for each file, None where the group does not say
        skipped: what of it cannot be a file, each with the reason; such a one has the path ""
    """

    data: h5py.Dataset
    offsets: np.ndarray
    paths: list[str]
    modified: np.ndarray | None
    permissions: np.ndarray | None
    skipped: list[str]


def is_encoded(group: h5py.Group) -> bool:
    """Whether the group says that it is of this layout."""
    if ATTRIBUTE not in group.attrs:
        return False
    told = group.attrs[ATTRIBUTE]
    return bool(np.size(told) == 1 and (told == "encoded" or told == b"encoded"))


def is_table(file: h5py.File, path: str) -> bool:
    """Whether a table of this layout lies at a path or above it. A file that such a table tells of may have that path too."""
    names = parts_of(path)
    for depth, name in enumerate(names):
        if name in NAMES:
            group = file.get(as_bytes("/".join(names[:depth])))
            if isinstance(group, h5py.Group) and is_encoded(group):
                return True
    return False


def load(group: h5py.Group) -> EncodedFiles:
    """The tables of a group of this layout.

    Raises:
        CorruptFileError: they contradict each other; the message names the group and which.
    """
    where = f"{group.file.filename}: group {group.name!r} of the layout 'encoded'"
    tables = {name: _table(group, name, where) for name in _TABLES}
    data, offsets, paths = tables[_DATA], tables[_OFFSETS], tables[_PATHS]
    if data is None or offsets is None or paths is None:
        lacking = [name for name in (_DATA, _OFFSETS, _PATHS) if tables[name] is None]
        raise CorruptFileError(f"{where} lacks {', '.join(lacking)}")
    if data.dtype != np.dtype("u1"):
        raise CorruptFileError(f"{where}: data must be uint8, not {data.dtype}")
    bounds = _numbers(offsets, np.uint64, where)
    names = [_text(one) for one in paths[()].tolist()]
    if len(bounds) != len(names) + 1:
        raise CorruptFileError(f"{where} has {len(names)} paths and {len(bounds)} offsets, which must be one more")
    if (bounds[1:] < bounds[:-1]).any() or bounds[-1] > data.shape[0]:
        raise CorruptFileError(f"{where}: offsets must ascend to at most {data.shape[0]}, the length of data")
    columns = [None if tables[name] is None else _numbers(tables[name], dtype, where, len(names))
               for name, dtype in ((_MODIFIED, np.int64), (_PERMISSIONS, np.uint32))]
    checked, skipped = _checked(names, group.name)
    return EncodedFiles(data, bounds, checked, columns[0], columns[1], skipped)


def _table(group: h5py.Group, name: str, where: str) -> Any:
    link = group.get(name, getlink=True)
    found = group[name] if isinstance(link, h5py.HardLink) else None  # links may lead out of the file
    if found is not None and (not isinstance(found, h5py.Dataset) or found.shape is None or len(found.shape) != 1):
        raise CorruptFileError(f"{where}: {name} must be a dataset of one axis")
    return found


def _numbers(table: Any, dtype: Any, where: str, count: int | None = None) -> np.ndarray:
    if table.dtype.kind not in "iu":
        raise CorruptFileError(f"{where}: {table.name.rpartition('/')[2]} must be whole numbers, not {table.dtype}")
    if count is not None and table.shape[0] != count:
        raise CorruptFileError(f"{where}: {table.name.rpartition('/')[2]} has {table.shape[0]} entries for {count} paths")
    return np.asarray(table[()]).astype(dtype)


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _checked(paths: list[str], group: str) -> tuple[list[str], list[str]]:
    checked: list[str] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for number, path in enumerate(paths):
        plain = path.removesuffix("/")
        if not path:  # removed
            checked.append(path)
            continue
        reason = next((why for part in plain.split("/") if (why := unfit(part)) is not None), None)
        if reason is None and plain in seen:
            reason = "there is another one of that path"
        seen.add(plain)
        checked.append("" if reason is not None else path)
        if reason is not None:
            skipped.append(f"file {number} of {group}, {path!r}: {reason}")
    return checked, skipped


class PathTable:
    """The paths of a group of this layout, to be changed in place: all others stay, those that cannot be shown too."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group
        self._texts = [_text(one) for one in group[_PATHS][()].tolist()]
        self._numbers: dict[str, list[int]] = {}
        for number, text in enumerate(self._texts):
            self._numbers.setdefault(text.removesuffix("/"), []).append(number)

    def remove(self, wanted: str, *, is_folder: bool) -> None:
        """Takes a file, or a folder with all below it, out of the table. Its bytes stay in ``data``, without a path."""
        self._write({number: "" for number in self._find(wanted, is_folder)})

    def rename(self, old: str, new: str, *, is_folder: bool) -> None:
        """Gives a file, or a folder with all below it, another path."""
        self._write({number: new + self._texts[number][len(old):] for number in self._find(old, is_folder)})

    def _find(self, wanted: str, is_folder: bool) -> list[int]:
        if not is_folder:
            return list(self._numbers.get(wanted, ()))
        inside = wanted + "/"
        return [number for number, text in enumerate(self._texts) if text == wanted or text.startswith(inside)]

    def _write(self, changed: dict[int, str]) -> None:
        table = self._group[_PATHS]
        about = h5py.check_string_dtype(table.dtype)
        new = {number: text.encode("utf-8", "surrogateescape") for number, text in changed.items()}
        if about.length is not None and max(map(len, new.values()), default=0) > about.length:
            self._write_anew(new)
        else:
            for first, end in _runs(list(new)):
                table[first:end] = np.array([new[number] for number in range(first, end)],
                                            object if about.length is None else table.dtype)
        for number, text in changed.items():
            self._numbers[self._texts[number].removesuffix("/")].remove(number)
            self._texts[number] = text
            self._numbers.setdefault(text.removesuffix("/"), []).append(number)

    def _write_anew(self, changed: dict[int, bytes]) -> None:
        """For paths that are longer than those of a table of fixed length can be."""
        texts = [changed.get(number, text.encode("utf-8", "surrogateescape")) for number, text in enumerate(self._texts)]
        made = self._group.create_dataset(None, data=np.array(texts, object), dtype=h5py.string_dtype())
        del self._group[_PATHS]
        self._group[_PATHS] = made


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges [first, end) of neighbours."""
    if not numbers:
        return []
    apart = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(np.array(numbers), apart)]
