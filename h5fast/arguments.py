"""Arguments that several subcommands of ``h5fast`` share: which dataset of which file, and numbers."""

from __future__ import annotations

import argparse
import os

__all__ = ["add_target", "add_untrusted", "positive", "positive_seconds", "target_of"]


def add_target(command: argparse.ArgumentParser, dataset: str) -> None:
    """Takes ``FILE[::DATASET] [DATASET]``; `dataset` says what the dataset is for."""
    command.add_argument("file", metavar="FILE[::DATASET]", help="an HDF5 file")
    command.add_argument("dataset", metavar="DATASET", nargs="?", help=f"{dataset}; may also follow FILE behind two colons")


def add_untrusted(command: argparse.ArgumentParser) -> None:
    """Takes ``--untrusted``."""
    command.add_argument("--untrusted", action="store_true",
                         help="nobody vouches for the file: parse it in another process, under limits")


def target_of(options: argparse.Namespace) -> tuple[str, str | None]:
    """File and dataset of ``FILE::DATASET`` or ``FILE DATASET``; a file whose own name has a ``::`` is taken whole if it
    exists, and if the dataset stands apart."""
    path, separator, name = options.file.partition("::")
    if options.dataset is not None or not separator or os.path.exists(options.file):
        return options.file, options.dataset
    return path, name or None


def positive(text: str) -> int:
    """A number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return value


def positive_seconds(text: str) -> float:
    """A time above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return value
