"""The subcommands ``repack`` and ``tune`` of ``h5fast``: arguments in, lines out."""

from __future__ import annotations

import argparse
from typing import Any

from h5fast.arguments import add_target, positive, positive_seconds, target_of
from h5fast.caching import CACHE_ACCESSES
from h5fast.chunking import ACCESSES
from h5fast.repacking import RepackReport, repack
from h5fast.sizes import format_bytes
from h5fast.tuning import format_tuning, json_tuning, tune

__all__ = ["add_commands"]

_Commands = argparse._SubParsersAction


def add_commands(commands: _Commands[argparse.ArgumentParser]) -> None:
    """Adds them to the parser of ``h5fast``."""
    _add_repack(commands)
    _add_tune(commands)


def _add_repack(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "repack",
        help="store a file in other chunks or through other filters, bit for bit the same",
        description="Write a file anew, in place or as OUT, with its datasets of numbers in other chunks or through other filters, "
                    "and compare both bit for bit before the new one gets its name.",
    )
    command.add_argument("file", metavar="FILE", help="an HDF5 file")
    command.add_argument("out", metavar="OUT", nargs="?", help="the new file; without one, it takes the place of FILE")
    command.add_argument("--path", action="append", metavar="NAME",
                         help="a dataset, or a group for all below it; may be repeated (all datasets of numbers)")
    command.add_argument("--codec", type=_codec, default="keep", metavar="CODEC",
                         help="keep, none, auto, lzf, gzip, gzip:9, zstd, lz4 … (%(default)s)")
    command.add_argument("--chunk-rows", type=_chunk_rows, default="auto", metavar="N",
                         help="rows of a chunk, auto or keep (%(default)s)")
    command.add_argument("--chunks", type=_shape, metavar="N,N,…", help="the shape of a chunk, for the datasets of --path")
    command.add_argument("--access", choices=ACCESSES, default=ACCESSES[0], help="what automatic chunks are for (%(default)s)")
    command.add_argument("--threads", type=positive, metavar="N", help="as many as may be used, by default")
    command.add_argument("--memory", default="256 MiB", metavar="SIZE", help="for elements on their way (%(default)s)")
    command.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare the files")
    command.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    command.set_defaults(run=_run_repack)


def _add_tune(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "tune",
        help="measure which chunks, codec and chunk cache suit a dataset",
        description="Store a part of a dataset in several ways, read from each as stated, and tell which chunks, codec and chunk "
                    "cache suit it.",
    )
    add_target(command, "the dataset; without one, the largest")
    command.add_argument("--access", choices=CACHE_ACCESSES, default=CACHE_ACCESSES[0], help="how it is read (%(default)s)")
    command.add_argument("--crop", type=_shape, metavar="N,N,…", help="the shape of a crop (that of a chunk)")
    command.add_argument("--seconds", type=positive_seconds, default=20.0, metavar="S",
                         help="try nothing more after this long (%(default)g)")
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument("--apply", action="store_true", help="repack the file in the best way, in place, compared bit for bit")
    command.set_defaults(run=_run_tune)


def _run_repack(options: argparse.Namespace) -> int:
    report = repack(options.file, options.out, paths=options.path, chunk_rows=options.chunk_rows, chunks=options.chunks,
                    codec=options.codec, access=options.access, threads=options.threads, memory=options.memory,
                    verify=options.verify, overwrite=options.overwrite)
    _print_repacked(report)
    return 0


def _run_tune(options: argparse.Namespace) -> int:
    path, name = target_of(options)
    report = tune(path, name, access=options.access, crop=options.crop, seconds=options.seconds)
    print(json_tuning(report) if options.json else format_tuning(report))
    if options.apply and not report.best.present:
        done = repack(path, paths=[report.name], chunks=report.best.chunks, codec=report.best.codec_option)
        if not options.json:
            _print_repacked(done)
    return 0


def _print_repacked(report: RepackReport) -> None:
    for one in report.datasets:
        before = "no chunks" if one.chunks_before is None else f"chunks of {one.chunks_before}"
        print(f"{one.name}: {before}, {one.codec_before}, {format_bytes(one.stored_before)} -> "
              f"chunks of {one.chunks}, {one.codec}, {format_bytes(one.stored)}")
    compared = "compared bit for bit" if report.verified else "not compared"
    print(f"{report.out}: {format_bytes(report.bytes_before)} -> {format_bytes(report.bytes)}, "
          f"{len(report.datasets)} datasets stored in another way; {compared}")


def _codec(text: str) -> Any:
    name, separator, level = text.partition(":")
    if separator and not level.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a codec and its level, such as gzip:9")
    return (name, int(level)) if separator else None if text == "none" else text


def _chunk_rows(text: str) -> int | str:
    return text if text in ("auto", "keep") else positive(text)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.replace("x", ",").split(",")))
