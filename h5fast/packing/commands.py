"""``h5fast pack`` and ``h5fast partition``: their arguments, and what they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from h5fast.packing.members import Problem
from h5fast.packing.options import LAYOUTS, Options
from h5fast.packing.pack import pack
from h5fast.packing.partition import partition
from h5fast.sizes import format_bytes, parse_bytes

__all__ = ["add_pack", "add_partition"]

# Problems that are told one by one; the rest is counted.
_SHOWN = 20
_FOUND_WRONG = 1
_CODECS = ("auto", "none", "lzf", "gzip", "zstd", "lz4", "blosc", "blosc2", "bitshuffle", "bzip2")


def add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command ``pack``."""
    command = commands.add_parser(
        "pack",
        help="make one HDF5 file of a folder, an archive or a table",
        description="Pack a folder, a tar or zip archive, or a .npy, .npz, .csv or .parquet file into one HDF5 file. What cannot be "
        "packed is told and counted at the end, and the exit status is then 1.",
    )
    command.add_argument("source", metavar="SOURCE", help="what to pack")
    command.add_argument("out", metavar="OUT", help="the HDF5 file to write")
    _add_members(command, layout="stack")
    command.add_argument("--overwrite", action="store_true", help="replace OUT in the moment the new file is complete")
    command.add_argument("--resume", action="store_true", help="continue what an interrupted packing left")
    command.add_argument("--strict", action="store_true", help="stop at the first file that cannot be packed")
    command.add_argument("--dry-run", action="store_true", help="only say what to expect")
    command.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show a bar (where errors go to a terminal, and tqdm is installed)",
    )
    command.set_defaults(run=_run_pack)


def _add_members(command: argparse.ArgumentParser, *, layout: str) -> None:
    """The options that say which members are packed, and how."""
    command.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=layout,
        help="one array of decoded images, the files' bytes back to back, or a dataset for each file (%(default)s)",
    )
    command.add_argument("--ext", action="append", metavar="EXT", help="only files that end so, in any case; may be repeated")
    command.add_argument(
        "--glob",
        action="append",
        metavar="PATTERN",
        help="only files whose path matches, or name where the pattern has no slash; may be repeated",
    )
    command.add_argument("--regex", metavar="EXPR", help="only files in whose path this is found")
    command.add_argument("--keep", metavar="MODULE:FUNCTION", help="only files of whose path this function says so")
    command.add_argument("--reader", metavar="MODULE:FUNCTION", help="decodes a file: takes path and bytes, gives an array")
    command.add_argument("--decode", action="store_true", help="with --layout tree: decoded arrays, not the files' bytes")
    command.add_argument("--name", default="image", help="the dataset of --layout stack (%(default)s)")
    command.add_argument(
        "--mode", default="RGB", help="what pixels are: RGB, L, RGBA …, or 'file' for what each has (%(default)s)"
    )
    command.add_argument("--resize", type=_size, metavar="H[xW]", help="bring images to this size")
    command.add_argument(
        "--pad",
        type=_size,
        nargs="?",
        const=True,
        metavar="H[xW]",
        help="fill images up to this size; alone, scale them into --resize and fill that up",
    )
    command.add_argument(
        "--labels",
        default="folder",
        metavar="HOW",
        help="classes: 'folder', the first of a path; 'parent', the one a file "
        "lies in; a CSV file; MODULE:FUNCTION; 'none' (%(default)s)",
    )
    command.add_argument(
        "--codec", choices=_CODECS, default="auto", help="how arrays are compressed: auto is lzf, and for files' own bytes none"
    )
    command.add_argument("--chunk-rows", type=_positive, metavar="N", help="rows of a chunk (chosen by their size)")
    command.add_argument("--metadata", action="store_true", help="keep times and permissions")
    command.add_argument("--jobs", type=_positive, metavar="N", help="decode this many at a time (all cores)")
    command.add_argument(
        "--memory", type=parse_bytes, default="192 MiB", metavar="SIZE", help="for files on their way (%(default)s)"
    )


def _options(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "layout",
        "ext",
        "glob",
        "regex",
        "keep",
        "reader",
        "decode",
        "name",
        "resize",
        "pad",
        "metadata",
        "jobs",
        "memory",
    )
    return {
        **{name: getattr(options, name) for name in names},
        "mode": None if options.mode == "file" else options.mode,
        "labels": None if options.labels == "none" else options.labels,
        "codec": None if options.codec == "none" else options.codec,
        "chunk_rows": options.chunk_rows or "auto",
    }


def _run_pack(options: argparse.Namespace) -> int:
    shown = sys.stderr.isatty() if options.progress is None else options.progress
    done = pack(
        options.source,
        options.out,
        **_options(options),
        overwrite=options.overwrite,
        resume=options.resume,
        strict=options.strict,
        dry_run=options.dry_run,
        progress=shown,
    )
    if options.dry_run:
        print(
            f"{done.path}: {done.count:,} to pack, {format_bytes(done.read)}; the file would take about {format_bytes(done.stored)}"
        )
    else:
        rate = f", {done.count / done.seconds:,.0f} a second" if done.seconds > 0 else ""
        print(
            f"{done.path}: {done.count:,} packed as {done.layout}, {format_bytes(done.read)} in a file of {format_bytes(done.stored)}{rate}"
        )
    return _tell_problems(done.problems)


def _tell_problems(problems: Sequence[Problem]) -> int:
    for problem in problems[:_SHOWN]:
        print(f"h5fast: {problem}", file=sys.stderr)
    if problems:
        more = f", of which {_SHOWN} are told" if len(problems) > _SHOWN else ""
        print(f"h5fast: {len(problems):,} could not be packed{more}", file=sys.stderr)
    return _FOUND_WRONG if problems else 0


def add_partition(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command ``partition``."""
    command = commands.add_parser(
        "partition",
        help="share a file or an archive out to several files",
        description="Share the rows of an HDF5 file, or the files of a folder or archive, out to several HDF5 files, at random and "
        "reproducibly: h5fast partition all.h5 train=train.h5:0.8 test=test.h5:0.2",
    )
    command.add_argument("source", metavar="SOURCE", help="an HDF5 file, a folder or an archive")
    command.add_argument(
        "parts",
        metavar="NAME=FILE:SHARE",
        nargs="+",
        type=_part,
        help="a part, its file and its share; NAME:SHARE keeps the part as a named split in SOURCE itself, an HDF5 file",
    )
    command.add_argument("--seed", type=int, default=0, help="another one gives another partition (%(default)s)")
    command.add_argument(
        "--no-stratify", dest="stratify", action="store_false", help="do not keep the proportions of the classes"
    )
    command.add_argument("--overwrite", action="store_true", help="replace files that are there")
    _add_members(command, layout="encoded")
    command.set_defaults(run=_run_partition)


def _run_partition(options: argparse.Namespace) -> int:
    usual = Options()
    given = {key: value for key, value in _options(options).items() if value != getattr(usual, key)}
    given.pop("layout", None)
    if options.layout != "encoded":
        given["layout"] = options.layout
    parts = {name: file for name, file, _ in options.parts}
    fractions = {name: share for name, _, share in options.parts}
    if len(parts) < len(options.parts):
        raise ValueError("two parts have the same name")
    done = partition(
        options.source,
        parts,
        fractions=fractions,
        seed=options.seed,
        stratify=options.stratify,
        overwrite=options.overwrite,
        **given,
    )
    for name, count in done.counts.items():
        print(f"{name}: {count:,}" + ("" if parts[name] is None else f" in {parts[name]}"))
    return _tell_problems(done.problems)


def _part(text: str) -> tuple[str, str | None, float]:
    head, colon, share = text.rpartition(":")
    name, equals, file = head.partition("=")
    try:
        fraction = float(share)
    except ValueError:
        fraction = -1.0
    if not colon or not name or (equals and not file) or not 0 <= fraction <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE:SHARE such as train=train.h5:0.8")
    return name, file or None, fraction


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a height and width such as 64x96") from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return value
