"""``partition``: a file, a folder or an archive is shared out to several files, or to named splits of one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5fast.class_numbers import write_labels
from h5fast.objects import File
from h5fast.packing.copies import TreeFile, write_files
from h5fast.packing.labels import ClassNumbers
from h5fast.packing.layouts import Output
from h5fast.packing.members import Problem
from h5fast.packing.options import Options
from h5fast.packing.pack import own_files, write_all
from h5fast.packing.routing import Route, wanted
from h5fast.packing.rows import RowFile, write_rows
from h5fast.packing.sources import open_source
from h5fast.progress import ByteBar
from h5fast.sizes import parse_bytes
from h5fast.splits import split, write_split
from h5fast.target import check_new

__all__ = ["Partitioned", "partition"]


@dataclass(frozen=True)
class Partitioned:
    """What :func:`partition` did.

    Attributes:
        counts: rows or files of each part
        rows: their numbers in the source, ascending: rows of a file, or files in the order of the source
        problems: what of an archive could not be packed, each with ``path`` and ``reason``
    """

    counts: Mapping[str, int]
    rows: Mapping[str, np.ndarray]
    problems: tuple[Problem, ...] = ()


def partition(
    source: Any,
    parts: Mapping[str, str | os.PathLike[str] | None],
    fractions: Mapping[str, float] | Sequence[float] | None = None,
    *,
    seed: Any = 0,
    stratify: bool | str = True,
    by: str = "auto",
    overwrite: bool = False,
    progress: bool = False,
    memory: int | float | str = "192 MiB",
    **packing: Any,
) -> Partitioned:
    """Shares a source out to parts at random, exactly and reproducibly.

    Parameters
    ----------
    source:
        An HDF5 file: its rows, or the files in it. Or what :func:`pack` takes, but for tables: each of its members goes into
        one
        part. An archive is gone through twice then, first for the names.
    parts:
        The name of each part, and its file. All None: the parts become named splits of the source itself, an HDF5 file, as
        :func:`write_split` keeps them.
    fractions:
        The share of each part, which add up to 1 at most; less leaves rows out. None: equal shares.
    seed:
        As of :func:`split`: the same seed and source give the same parts, on every machine.
    stratify:
        Whether each part gets the same proportions of the classes: of a file's dataset ``label``, or the dataset of this name;
        of files, as `labels` of :func:`pack` says. Where there are no classes, True means nothing.
    by:
        What of an HDF5 file is shared out: "rows", of the datasets that have as many as the largest one (others are copied whole
        to each part); "files", where each dataset is one, or each member of the layout "encoded"; "auto" takes files where the
        file says so, or most of its datasets have names that end as those of files do.
    overwrite, progress, memory:
        As of :func:`pack`.
    **packing:
        Other options of :func:`pack`, for folders, archives and iterables. The layout is "encoded" if not given.

    Rows keep their order. Of an HDF5 file's datasets, type, filters and chunk size stay; chunks whose rows stay together (all
    of them, where a chunk is one row) are moved as they are stored, and are neither decoded nor encoded.

    Raises
    ------
    ValueError
        Shares that cannot be, a part without a row, options that mean nothing.
    KeyError
        There is no dataset to stratify by. ``OSError`` and ``H5FastError``: as of :func:`pack`.
    """
    shares = _shares(parts, fractions)
    paths = {name: Path(os.fspath(path)) for name, path in parts.items() if path is not None}
    if paths and len(paths) < len(parts):
        raise ValueError("either each part has a file, or none has and all become splits of the source")
    if len(set(map(os.path.abspath, paths.values()))) < len(paths):
        raise ValueError(f"two parts have the same file: {', '.join(map(str, paths.values()))}")
    if by not in ("auto", "rows", "files"):
        raise ValueError(f"by is 'auto', 'rows' or 'files', not {by!r}")
    for path in paths.values():
        check_new(path, overwrite=overwrite, resume=False)
    if isinstance(source, (str, os.PathLike)) and os.path.isfile(source) and h5py.is_hdf5(source):
        if packing:
            raise ValueError(
                f"{os.fspath(source)} is an HDF5 file, which keeps its layout: {', '.join(packing)} is for folders and archives"
            )
        if any(path.exists() and os.path.samefile(path, source) for path in paths.values()):
            raise ValueError(f"{os.fspath(source)} cannot be its own part")
        return _of_file(Path(os.fspath(source)), paths, shares, seed, stratify, by, parse_bytes(memory), overwrite)
    if not paths:
        raise ValueError("only rows of an HDF5 file can become splits of their source: give each part a file")
    if not isinstance(stratify, bool):
        raise ValueError("stratify is True or False for folders and archives: labels= says what their classes are")
    options = Options(**{"layout": "encoded", "memory": memory, **packing})
    return _of_members(source, paths, shares, seed, stratify, options, overwrite, progress)


def _shares(parts: Mapping[str, Any], fractions: Any) -> dict[str, float]:
    if not parts:
        raise ValueError("parts is empty: {'train': 'train.h5', 'test': 'test.h5'}")
    if fractions is None:
        return {name: 1 / len(parts) for name in parts}
    if isinstance(fractions, Mapping):
        if fractions.keys() != parts.keys():
            raise ValueError(f"fractions are of {', '.join(fractions)}, and the parts are {', '.join(parts)}")
        return {name: float(fractions[name]) for name in parts}
    if len(fractions) != len(parts):
        raise ValueError(f"there are {len(fractions)} fractions for {len(parts)} parts")
    return dict(zip(parts, map(float, fractions)))


def _of_file(
    source: Path,
    paths: Mapping[str, Path],
    shares: Mapping[str, float],
    seed: Any,
    stratify: bool | str,
    by: str,
    memory: int,
    overwrite: bool,
) -> Partitioned:
    with File(source, "r") as file:
        if by == "files" or (by == "auto" and TreeFile.is_one(file)):
            if not paths:
                raise ValueError(f"{source} holds files, and named splits are of rows: give each part a file, or by='rows'")
            tree = TreeFile.of(file)
            rows = _split(len(tree.paths), tree.classes if stratify else None, shares, seed)
            write_files(tree, rows, paths, memory=memory, overwrite=overwrite)
            numbers = tree.numbers()
        else:
            found = RowFile.of(file)
            rows = _split(found.rows, found.labels(stratify), shares, seed)
            if paths:
                write_rows(found, rows, paths, memory=memory, overwrite=overwrite)
            numbers = found.numbers()
        for path in paths.values():
            write_labels(path, numbers)
    if not paths:
        write_split(source, rows)
    return Partitioned({name: len(part) for name, part in rows.items()}, rows)


def _split(count: int, labels: Any, shares: Mapping[str, float], seed: Any) -> dict[str, np.ndarray]:
    return split(count, shares, seed=seed, stratify=labels)


def _of_members(
    source: Any,
    paths: Mapping[str, Path],
    shares: Mapping[str, float],
    seed: Any,
    stratify: bool,
    options: Options,
    overwrite: bool,
    progress: bool,
) -> Partitioned:
    if hasattr(source, "__next__"):
        raise TypeError("an iterator can be gone through once, and partition goes through its source twice: pass a list")
    opened = open_source(source, but=own_files(*paths.values()))
    handling = options.handling()
    names, classes = [], []
    for one in wanted(opened, handling):
        if not isinstance(one, Problem):
            names.append(hash(one[0].path))
            classes.append("" if one[1] is None else str(one[1]))
    rows = _split(len(names), np.array(classes) if stratify and any(classes) else None, shares, seed)
    part_of = {names[row]: name for name, part in rows.items() for row in part.tolist()}
    codes: dict[Any, int] = {}
    with ByteBar(opened.total() if progress else None, shown=progress) as bar:
        each = Output(Path(), overwrite, False, options.bytes_each // len(paths), None)
        sinks = {name: options.sink(each.at(path)) for name, path in paths.items()}
        for sink in sinks.values():
            sink.classes = ClassNumbers(codes)  # a class has the same number in each part, also where a part lacks it
        route = Route(opened, sinks, lambda path: part_of.get(hash(path)), options.handling(bar.tell))
        write_all(route, {paths[name]: sink for name, sink in sinks.items()}, {})
    for name, sink in sinks.items():
        write_labels(paths[name], sink.classes.numbers() if handling.labels.kind != "none" else {})
    return Partitioned({name: sink.count for name, sink in sinks.items()}, rows, tuple(route.problems))
