"""``pack``: a folder, an archive, a table or an iterable becomes an HDF5 file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from h5fast.class_numbers import label_files, write_labels
from h5fast.packing.estimating import estimate
from h5fast.packing.layouts import Output, Sink
from h5fast.packing.members import Problem
from h5fast.packing.options import Options
from h5fast.packing.routing import Route
from h5fast.packing.sources import open_source
from h5fast.packing.tables import is_table, pack_columns
from h5fast.progress import ByteBar
from h5fast.target import check_new, partial_path
from h5fast.transaction import drop_commit, files_beside, read_state

__all__ = ["Packed", "own_files", "pack", "write_all"]


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` did.

    Attributes:
        path: the file
        layout: its layout
        count: members in it, or rows of a table
        stored: bytes of the file; of a dry run, those to expect
        read: bytes of the members, decoded if they were
        problems: what could not be packed, each with ``path`` and ``reason``
        seconds: that it took
        classes: numbers of the classes, by name
    """

    path: Path
    layout: str
    count: int
    stored: int
    read: int
    problems: tuple[Problem, ...]
    seconds: float
    classes: Mapping[str, int]


def pack(
    source: Any,
    out: str | os.PathLike[str],
    *,
    layout: str = "stack",
    name: str = "image",
    ext: str | Sequence[str] | None = None,
    glob: str | Sequence[str] | None = None,
    regex: str | None = None,
    keep: Callable[[str], Any] | str | None = None,
    reader: Callable[[str, bytes], Any] | str | None = None,
    decode: bool = False,
    mode: str | None = "RGB",
    resize: int | Sequence[int] | None = None,
    pad: int | bool | Sequence[int] | None = None,
    labels: str | os.PathLike[str] | Mapping[str, Any] | Callable[[str], Any] | None = "folder",
    codec: Any = "auto",
    chunk_rows: int | str = "auto",
    metadata: bool = False,
    jobs: int | None = None,
    memory: int | float | str = "192 MiB",
    overwrite: bool = False,
    resume: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    progress: bool = False,
) -> Packed:
    """Packs a folder, an archive, a table or an iterable into one HDF5 file.

    The file appears under its name when it is complete. The same source gives the same bytes, however many jobs there are.

    Parameters
    ----------
    source:
        A folder; a tar archive (plain, gzip, bzip2 or xz), which is read once from one end to the other and never unpacked; a
        zip archive; a ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` file, whose arrays or columns become fields; or an iterable
        of ``(path, data)`` or ``(path, data, label)``, where data are bytes or an array.
    out:
        The file to write.
    layout:
        "stack": a dataset `name` of shape (n, height, width, channels) of decoded images, all of one shape, with ``path`` beside
        it. "encoded": the files' own bytes back to back, which :class:`FileTree` reads by path. "tree": a dataset for each
        file, under
        its path. Those of classes also have ``label`` (int64, -1 for none) and ``class_names``, but for "tree".
    ext, glob, regex, keep:
        Which members: endings in any case; shell patterns of the path, or of the name where they hold no slash; an expression
        found in the path; a function of the path. All that are given must hold. Functions may be given as "module:function".
    reader:
        A function of path and bytes that decodes a file, and gives an array, or with layout "tree" bytes. Without one, images
        are
        decoded by Pillow, and ``.npy`` files by NumPy.
    decode:
        Whether a "tree" holds decoded arrays and not the files' bytes.
    mode:
        What pixels are, as Pillow calls it: "RGB", "L", "RGBA"; None leaves each image as it is.
    resize, pad:
        Height and width (or one number for both) that images are brought to; or filled up to with zeros, at their lower and
        right edge. With ``pad=True`` an image is scaled to fit into `resize` with its proportions, and filled up.
    labels:
        The class of a member: "folder", the first folder of its path; "parent", the folder it lies in; a CSV file of paths and
        classes, a mapping or a function of the path; None: no classes. They are numbered in the order of their names, and kept
        as
        JSON beside the file too; classes that are whole numbers keep these.
    codec, chunk_rows:
        As of :class:`Spec`. "auto" is "lzf" for arrays and None for the bytes of files.
    metadata:
        Whether "encoded" and "tree" keep times and permissions.
    jobs:
        How many decode at a time; None as many as :func:`get_num_threads` says.
    memory:
        Bytes for members on their way.
    overwrite, resume:
        As of :class:`Writer`. A resumed source must be as it was.
    strict:
        Whether the first member that cannot be packed ends it. Else these are in the result, and all others in the file.
    dry_run:
        Whether only to look at the source and say what to expect.
    progress:
        Whether to show a bar with the rate and the time left, where tqdm is installed.

    Raises
    ------
    FileExistsError
        There is a file at `out`, or a partial one, and neither `overwrite` nor `resume` says what to do with it.
    ReadError
        The archive is damaged or cut off, or a member is and `strict` is set. ``OSError``: the disk is full, or refuses
        otherwise.
    ValueError, TypeError
        Arguments that mean nothing, a source without any member that is wanted, images of different shapes in a stack, a table
        with
        a short line. ``ImportError``: Pillow or pyarrow is needed.
    """
    options = Options(
        layout,
        name,
        ext,
        glob,
        regex,
        keep,
        reader,
        decode,
        mode,
        resize,
        pad,
        labels,
        codec,
        chunk_rows,
        metadata,
        jobs,
        memory,
        strict,
    )
    path = Path(os.fspath(out))
    started = time.perf_counter()
    if not dry_run:
        check_new(path, overwrite=overwrite, resume=resume)
    if is_table(source):
        return _pack_table(Path(os.fspath(source)), path, options, overwrite=overwrite, resume=resume, dry_run=dry_run)
    opened = open_source(source, but=own_files(path))
    if dry_run:
        found = estimate(opened, options)
        return Packed(
            path, layout, found.count, found.stored, found.read, tuple(found.problems), time.perf_counter() - started, {}
        )
    state = _former_state(path, options) if resume else None
    failed = {} if state is None else dict(state["note"].get("failed", {}))
    with ByteBar(opened.total() if progress else None, shown=progress) as bar:
        handling = options.handling(bar.tell)
        sink = options.sink(Output(path, overwrite, resume, options.bytes_each, state))
        sink.note.update(options=options.told, failed=dict(failed))
        route = Route(opened, {"": sink}, lambda _: "", handling)
        write_all(route, {path: sink}, failed, resumed=state is not None)
    classes = sink.classes.numbers()
    write_labels(path, classes if handling.labels.kind != "none" else {})
    return Packed(
        path,
        layout,
        sink.count,
        path.stat().st_size,
        sink.written,
        tuple(route.problems),
        time.perf_counter() - started,
        classes,
    )


def own_files(*paths: Path) -> frozenset[str]:
    """What lies beside files that are written: no members of a folder that they lie in."""
    return frozenset(
        os.path.abspath(name)
        for path in paths
        for name in (path, partial_path(path), *files_beside(partial_path(path)), *label_files(path))
    )


def _former_state(path: Path, options: Options) -> dict[str, Any] | None:
    state = read_state(partial_path(path))
    if state is not None and (state["note"] or {}).get("options") != options.told:
        raise ValueError(
            f"{partial_path(path)} was begun with other options: resume with those, or begin anew with overwrite=True"
        )
    return state


def write_all(route: Route, sinks: Mapping[Path, Sink], failed: Mapping[str, str], *, resumed: bool = False) -> None:
    """Packs all members and finishes the files; what an error leaves can be resumed, if that can help. What was there before, to be
    resumed, stays in any case.

    Raises:
        ValueError: there was no member for one of the files.
        ReadError, Unfit, OSError: as :meth:`Route.run`.
    """
    try:
        route.run(failed)
        for path, sink in sinks.items():
            if not sink.count:
                why = f"; the first of {len(route.problems)} problems: {route.problems[0]}" if route.problems else ""
                raise ValueError(f"{path}: {route.name} has no member for it{why}")
        for sink in sinks.values():
            sink.finish()
    except BaseException as error:
        for path, sink in sinks.items():
            wrong = isinstance(error, (ValueError, TypeError)) and not isinstance(error, OSError)
            _leave(path, sink, useless=not resumed and (wrong or not sink.count))
        raise


def _leave(path: Path, sink: Sink, *, useless: bool) -> None:
    """Closes an unfinished file. Raises nothing: an error is on its way already."""
    with contextlib.suppress(OSError):
        sink.leave()
    if useless:  # the same error, or a file like this, is all that resuming could give
        with contextlib.suppress(OSError):
            drop_commit(partial_path(path))
            partial_path(path).unlink(missing_ok=True)


def _pack_table(source: Path, path: Path, options: Options, *, overwrite: bool, resume: bool, dry_run: bool) -> Packed:
    if options.layout != "stack" or options != Options(
        codec=options.codec, chunk_rows=options.chunk_rows, memory=options.memory, jobs=options.jobs, strict=options.strict
    ):
        raise ValueError(
            f"{source} is a table, whose columns become fields: layouts, filters, readers, sizes and labels are for files"
        )
    started = time.perf_counter()
    count, size = pack_columns(
        source,
        Output(path, overwrite, resume, options.bytes_each, None),
        options.resolved_codec,
        options.chunk_rows,
        dry_run=dry_run,
    )
    return Packed(path, "stack", count, size if dry_run else path.stat().st_size, size, (), time.perf_counter() - started, {})
