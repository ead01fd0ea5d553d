"""The ``h5fast`` command: parses its arguments, runs a subcommand, turns errors into one line and an exit status.

Exit status: 0; 1 if something was wrong with what was found, 2 if the arguments or the file were; 130 after Ctrl-C and
141 when the reader of its output went away, as the shell counts signals.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import h5fast
from h5fast import bench, info, tree_commands, tuning_commands
from h5fast.arguments import add_target, add_untrusted, positive, positive_seconds, target_of
from h5fast.errors import H5FastError
from h5fast.packing.commands import add_pack, add_partition

__all__ = ["main"]

_FOUND_WRONG, _USED_WRONG, _INTERRUPTED, _BROKEN_PIPE = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (``sys.argv`` if none are given) and return its exit status.

    Raises ``SystemExit`` only for ``--help``, ``--version`` and arguments that do not parse, as argparse does.
    """
    options = _parsed(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    except H5FastError as error:
        return _complain(error, _FOUND_WRONG)
    except (OSError, ImportError, KeyError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError: h5py, of a damaged file
        return _complain(error, _USED_WRONG)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments. argparse gives a list of any length nothing of what stands behind an option: `ls FILE -l PATH`."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "paths") or any(one.startswith("-") for one in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.paths += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="h5fast", description="HDF5 files for training, and files in them: look at them, measure "
                                     "how fast they read, make them, share them out.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_info(commands)
    _add_bench(commands)
    tree_commands.add_commands(commands)
    add_pack(commands)
    add_partition(commands)
    tuning_commands.add_commands(commands)
    return parser


class _Version(argparse.Action):
    """As argparse's own, but looks the version up only when it is asked for: that takes longer than all the parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"h5fast {h5fast.__version__}")
        parser.exit()


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "info",
        help="how datasets are stored, what reads them, what would make them faster",
        description="Tell how each dataset of a file is stored, which path reads it and why, and what would make it faster.",
    )
    add_target(command, "only this dataset, or those below this group")
    add_untrusted(command)
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=_run_info)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "bench",
        help="time random batches through h5py, h5fast and from memory",
        description="Time random batches of a dataset through h5py, h5fast and from memory, after comparing the bytes.",
    )
    add_target(command, "the dataset to time; without one, the largest")
    command.add_argument("--batch", type=positive, default=256, metavar="N", help="rows a batch (%(default)s)")
    command.add_argument("--rounds", type=positive, default=15, metavar="N", help="rounds, at least 3 (%(default)s)")
    command.add_argument("--threads", type=positive, metavar="N", help="most threads to try (as many as may be used)")
    command.add_argument(
        "--seconds", type=positive_seconds, default=30.0, metavar="S", help="stop after about this long (%(default)g)"
    )
    command.set_defaults(run=_run_bench)


def _run_info(options: argparse.Namespace) -> int:
    report = info.describe_file(*target_of(options), untrusted=options.untrusted)
    print(info.json_report(report) if options.json else info.format_report(report))
    if not report.problems:
        return 0
    more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
    return _complain(ValueError(f"{report.path}: {report.problems[0]}{more}"), _FOUND_WRONG)


def _run_bench(options: argparse.Namespace) -> int:
    path, name = target_of(options)
    report = bench.run_bench(
        path, name, batch=options.batch, rounds=options.rounds, threads=options.threads, seconds=options.seconds
    )
    print(bench.format_bench(report))
    return 0


def _complain(error: Exception, status: int) -> int:
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
    else:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    print(f"h5fast: {' '.join(text.split())}", file=sys.stderr)
    return status


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, or the interpreter would complain about it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
