"""Which class a member is of, and how the classes are numbered."""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from h5fast.packing.choosing import load_callable
from h5fast.packing.members import Member

__all__ = ["ClassNumbers", "Labels"]

_NONE = -1


class Labels:
    """Says of a member which class it is of.

    Args:
        given: "folder": the first folder of its path; "parent": the folder it lies in; None: none; a CSV file of paths and
            classes; a mapping of these, or a function of the path
    """

    def __init__(self, given: str | os.PathLike[str] | Mapping[str, Any] | Callable[[str], Any] | None) -> None:
        self._table: Mapping[str, Any] | None = None
        self._function: Callable[[str], Any] | None = None
        self.kind = "none" if given is None else "table"
        if isinstance(given, str) and given in ("folder", "parent"):
            self.kind = given
        elif isinstance(given, Mapping):
            self._table = given
        elif isinstance(given, str) and ":" in given and not os.path.exists(given):
            self._function = load_callable(given, "labels")
        elif isinstance(given, (str, os.PathLike)):
            self._table = _read_csv(Path(given))
        elif given is not None:
            self._function = load_callable(given, "labels")

    def of(self, member: Member) -> Any:
        """The class of a member: a text, a whole number, or None if it is of none.

        Raises:
            KeyError: the table has no class for it.
            TypeError, ValueError: the function gave something else.
        """
        if member.label is not None:
            found = member.label
        elif self._table is not None:
            name = member.path.rpartition("/")[2]
            found = self._table.get(member.path, self._table.get(name))
            if found is None:
                raise KeyError(f"there is no class for it among the {len(self._table)} of the table")
        elif self._function is not None:
            found = self._function(member.path)
        else:
            return _folder(member.path, self.kind)
        if isinstance(found, str) and "\0" in found:
            raise ValueError(f"the class of {member.path!r} is {found!r}, and a NUL is where text in HDF5 ends")
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, (int, np.integer)) and not isinstance(found, bool) and -(1 << 63) <= found < 1 << 63:
            return int(found)
        raise TypeError(f"the class of {member.path!r} is a text, a whole number of 64 bits or None, not {found!r}")


def _folder(path: str, kind: str) -> str | None:
    folders = path.split("/")[:-1]
    if not folders or kind == "none":
        return None
    return folders[0] if kind == "folder" else folders[-1]


def _read_csv(path: Path) -> dict[str, str]:
    """Paths and classes: the columns "path" and "label" where the first line calls two so, else the first two."""
    try:
        return _parse_csv(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no CSV in UTF-8: {error}") from error


def _parse_csv(path: Path) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        first = next(rows, None)
        if first is None:
            raise ValueError(f"{path} is empty: it should have a path and a class on each line")
        names = [name.strip().lower() for name in first]
        is_head = "path" in names and "label" in names
        columns = (names.index("path"), names.index("label")) if is_head else (0, 1)
        found: dict[str, str] = {}
        for row in rows if is_head else (row for group in ([first], rows) for row in group):
            if not row:
                continue
            if len(row) < max(2, len(first) if is_head else 2):
                raise ValueError(f"{path}, line {rows.line_num}: has {len(row)} of the {len(first)} columns")
            found[row[columns[0]].strip().removeprefix("./")] = row[columns[1]].strip()
    return found


class ClassNumbers:
    """The classes of rows, numbered when all are known: in the order of their names. Classes that are whole numbers keep these.

    Takes 4 bytes a row.

    Args:
        codes: the classes that there are already, which several files may share
    """

    def __init__(self, codes: dict[Any, int] | None = None) -> None:
        self._codes = {} if codes is None else codes
        self._rows = array("i")

    def add(self, label: Any) -> None:
        """The class of the next row."""
        self._rows.append(_NONE if label is None else self._codes.setdefault(label, len(self._codes)))

    @property
    def found(self) -> bool:
        """Whether any row has a class."""
        return bool(self._codes)

    def are_numbers(self) -> bool:
        """Whether the classes are whole numbers, which need no names."""
        return all(_whole(label) is not None for label in self._codes)

    def numbers(self) -> dict[str, int]:
        """The number of each class, by its name."""
        if self.are_numbers():
            return {str(number): number for number in sorted({int(label) for label in self._codes})}
        return {name: number for number, name in enumerate(sorted({str(label) for label in self._codes}))}

    def rows(self) -> np.ndarray:
        """The number of the class of each row, int64; -1 for none."""
        numbers = self.numbers()
        table = np.full(len(self._codes) + 1, _NONE, np.int64)  # the last is that of -1
        for label, code in self._codes.items():
            table[code] = numbers[str(label)]
        return table[np.array(self._rows, np.int32)]


def _whole(label: Any) -> int | None:
    if isinstance(label, int):
        return label
    return int(label) if label.isascii() and label.isdecimal() and str(int(label)) == label else None
