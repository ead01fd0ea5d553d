"""Numbers of a file's classes, kept as JSON beside it: whoever packs a file writes them, whoever trains on it reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["label_files", "labels_path", "write_labels"]


def labels_path(path: str | os.PathLike[str]) -> Path:
    """Where the numbers of a file's classes are kept: ``flowers.h5`` has them in ``flowers_h5_labels.json`` beside it."""
    file = Path(path)
    return file.with_name(file.name.replace(".", "_") + "_labels.json")


def label_files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """That file, and the one that it is while it is written."""
    where = labels_path(path)
    return where, _unfinished(where)


def _unfinished(where: Path) -> Path:
    return where.with_name(where.name + ".partial")


def write_labels(path: str | os.PathLike[str], numbers: Mapping[str, int],
                 where: str | os.PathLike[str] | None = None) -> Path:
    """Writes the numbers of the classes of a file as JSON, in one step; returns where. Without classes, there is no such file
    afterwards: those of a former file would be read as this one's.

    Args:
        where: by default beside the file

    Names that are no Unicode, as those of folders may be, are written as the bytes that they are.
    """
    there = labels_path(path) if where is None else Path(where)
    if not numbers:
        there.unlink(missing_ok=True)
        return there
    part = _unfinished(there)
    part.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="surrogateescape")
    os.replace(part, there)
    return there
