"""The subcommands of ``h5fast`` that treat a file as a folder, and ``verify``: arguments in, lines out.

Lists go to standard output, one path a line, fit to be arguments again; what was left out and how far things are goes to
standard error. Exit status: 0; 1 where something was left out or damaged.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from h5fast.arguments import add_untrusted
from h5fast.errors import H5FastError
from h5fast.sizes import format_bytes
from h5fast.tree.extract import Done, add, extract, outermost, select
from h5fast.tree.entries import Stat
from h5fast.tree.filetree import FileTree
from h5fast.tree.saved import write_member_index
from h5fast.verifying import Verified, verify_file

__all__ = ["add_commands"]

_Commands = argparse._SubParsersAction
# Bytes that `cat` reads at a time, and seconds between two looks at the progress.
_PIECE = 8 << 20
_REFRESH = 0.2


def add_commands(commands: _Commands[argparse.ArgumentParser]) -> None:
    """Adds them to the parser of ``h5fast``."""
    _add_ls(commands)
    _add_cat(commands)
    _add_extract(commands)
    _add_add(commands)
    _add_rm(commands)
    _add_mount(commands)
    _add_index(commands)
    _add_verify(commands)


def _command(commands: _Commands[argparse.ArgumentParser], name: str, help_: str, run: Callable[[argparse.Namespace], int],
             more: str = "") -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.{more}")
    command.add_argument("file", metavar="FILE", help="an HDF5 file")
    command.set_defaults(run=run)
    return command


# --- looking and reading ---


def _add_ls(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "ls", "list the files in a file", _run_ls, " Folders end in a slash.")
    command.add_argument("paths", metavar="PATH", nargs="*", help="a folder to list, a file, or a pattern (*, ?, **)")
    command.add_argument("-l", "--long", action="store_true", help="permissions, size and time as well")
    command.add_argument("-R", "--recursive", action="store_true", help="what lies in folders below, too")
    command.add_argument("-0", "--null", action="store_true", help="end each path with a NUL instead of a newline")


def _run_ls(options: argparse.Namespace) -> int:
    end = b"\0" if options.null else b"\n"
    with FileTree(options.file) as tree:
        problems: list[str] = []
        out = sys.stdout.buffer
        for path in _listed(tree, options.paths or ["/"], options.recursive):
            out.write(os.fsencode(_line(tree, path, options.long, problems)) + end)
        out.flush()
        return _tell([*problems, *tree.skipped])


def _listed(tree: FileTree, paths: list[str], recursive: bool) -> Iterable[str]:
    for path in select(tree, paths):
        if not tree.isdir(path):
            yield path
        elif recursive:
            for folder, folders, files in tree.walk(path):
                yield from (f"{folder.rstrip('/')}/{name}" for name in sorted(folders + files))
        else:
            yield from (f"{path.rstrip('/')}/{name}" for name in tree.ls(path))


def _line(tree: FileTree, path: str, is_long: bool, problems: list[str]) -> str:
    shown = path.lstrip("/")
    if not is_long:
        return shown + ("/" if tree.isdir(path) else "")
    try:
        found = tree.stat(path)
    except (H5FastError, OSError) as error:
        problems.append(str(error))
        return f"?????????? {'?':>12} {'':16} {shown}"
    arrow = f" -> {found.target or '?'}" if found.kind == "link" else "/" if found.kind == "folder" else ""
    when = "" if found.modified is None else _minute(found.modified)
    return f"{stat.filemode(_mode(found))} {found.size:>12} {when:16} {shown}{arrow}"


def _mode(found: Stat) -> int:
    kind, usual = {"file": (stat.S_IFREG, 0o444), "folder": (stat.S_IFDIR, 0o555), "link": (stat.S_IFLNK, 0o777)}[found.kind]
    return kind | (usual if found.permissions is None else found.permissions & 0o7777)


def _minute(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"


def _add_cat(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "cat", "write files in a file to standard output", _run_cat)
    command.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a pattern")
    _add_raw(command)


def _run_cat(options: argparse.Namespace) -> int:
    with FileTree(options.file, raw=options.raw) as tree:
        chosen = select(tree, options.paths)
        folder = next(filter(tree.isdir, chosen), None)
        if folder is not None:
            raise IsADirectoryError(f"{options.file}: {folder!r} is a folder; {folder.rstrip('/')}/* leads to its files")
        for path in chosen:
            member = tree.member(path)
            for start in range(0, member.size, _PIECE):
                sys.stdout.buffer.write(member.read_at(start, start + _PIECE))
        sys.stdout.buffer.flush()
    return 0


def _add_extract(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "extract", "write files in a file into a folder", _run_extract,
                       " Nothing is written outside of it, whatever lies there and whatever the names in the file are.")
    command.add_argument("paths", metavar="PATH", nargs="*", help="a file, a folder with all below it, or a pattern (all)")
    command.add_argument("-C", "--to", metavar="DIR", default=".", help="the folder, made if it is not there (%(default)s)")
    _add_raw(command)
    _add_quiet(command)


def _run_extract(options: argparse.Namespace) -> int:
    with FileTree(options.file, raw=options.raw) as tree, _Progress(options) as progress:
        return _tell(extract(tree, options.to, select(tree, options.paths or ["/"]), report=progress.show).problems)


def _add_raw(command: argparse.ArgumentParser) -> None:
    command.add_argument("--raw", action="store_true", help="arrays as their elements alone, without the head of a .npy file")


def _add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="no progress")


# --- changing ---


def _add_add(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "add", "put files and folders from disk into a file", _run_add,
                       " The file is made if it is not there.")
    command.add_argument("paths", metavar="PATH", nargs="+", help="a file or folder on disk; it keeps its last name")
    command.add_argument("--into", metavar="FOLDER", default="/", help="the folder in the file (%(default)s)")
    _add_quiet(command)


def _run_add(options: argparse.Namespace) -> int:
    for path in options.paths:
        os.lstat(path)  # before the file is made
    with FileTree(options.file, "a") as tree, _Progress(options) as progress:
        return _tell(add(tree, options.paths, "/" + options.into.strip("/"), report=progress.show).problems)


def _add_rm(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "rm", "remove files from a file", _run_rm,
                       " HDF5 gives the room back when the file is repacked.")
    command.add_argument("paths", metavar="PATH", nargs="+", help="a file or link, or a pattern")
    command.add_argument("-r", "--recursive", action="store_true", help="folders, too, with all below them")


def _run_rm(options: argparse.Namespace) -> int:
    with FileTree(options.file, "r+") as tree:
        chosen = select(tree, options.paths)
        folders = [path for path in chosen if tree.stat(path).kind == "folder"]
        if folders and not options.recursive:
            raise IsADirectoryError(f"{options.file}: {folders[0]!r} is a folder; -r removes it with all that it holds")
        for path in outermost(tree, chosen):
            tree.rm(path, recursive=options.recursive)
    return 0


def _add_index(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "index", "note where the files in a file lie, so that they are found at once", _run_index)
    command.add_argument("--beside", action="store_true", help="in FILE.members, and leave the file as it is")


def _run_index(options: argparse.Namespace) -> int:
    os.stat(options.file)
    if not write_member_index(options.file, beside_it=options.beside):
        print(f"h5fast: {options.file}: no index was written, since it would not help this file", file=sys.stderr)
    return 0


def _add_mount(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "mount", "show the files in a file as a folder, until Ctrl-C", _run_mount,
                       " Any program can read them there. Attributes are extended attributes, user.NAME.")
    command.add_argument("folder", metavar="DIR", help="an empty folder")
    command.add_argument("--writable", action="store_true", help="allow changes; they go into the file as files are closed")
    command.add_argument("--raw", action="store_true", help="arrays as their elements alone, without the head of a .npy file")
    command.add_argument("--allow-other", action="store_true", help="for other users, too (/etc/fuse.conf must allow it)")


def _run_mount(options: argparse.Namespace) -> int:
    from h5fast.tree.mount import mount  # FUSE is looked for when it is wanted

    mount(options.file, options.folder, writable=options.writable, raw=options.raw, allow_other=options.allow_other)
    return 0


# --- verifying ---


def _add_verify(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "verify", "read every chunk of every dataset, and tell which cannot be read", _run_verify)
    command.add_argument("dataset", metavar="DATASET", nargs="?", help="only this dataset, or those below this group")
    add_untrusted(command)
    _add_quiet(command)


def _run_verify(options: argparse.Namespace) -> int:
    with _Progress(options) as progress:
        done = verify_file(options.file, options.dataset, untrusted=options.untrusted, report=progress.show_verified)
    for line in done.damage:
        print(line)
    for line in done.refused:
        print(f"{line} (not read)", file=sys.stderr)
    verdict = f"{len(done.damage)} damaged" if done.damage else "all can be read" if not done.refused else "the rest can be read"
    if done.refused:
        verdict = f"{len(done.refused)} not read, {verdict}"
    print(f"{options.file}: {done.datasets:,} datasets, {done.chunks:,} chunks, {format_bytes(done.nbytes)}: {verdict}")
    return 1 if done.damage else 0


# --- what is told on the way ---


class _Progress:
    """A line on the terminal that says how far it is; nothing where standard error is not one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._shows = sys.stderr.isatty() and not options.quiet
        self._next = time.monotonic() + _REFRESH

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._shows:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _print(self, text: str) -> None:
        now = time.monotonic()
        if self._shows and now >= self._next:
            self._next = now + _REFRESH
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def show(self, done: Done) -> None:
        self._print(f"{done.files:,} files, {format_bytes(done.nbytes)}")

    def show_verified(self, done: Verified) -> None:
        read = f"{done.datasets:,} datasets, {done.chunks:,} chunks, {format_bytes(done.nbytes)}"
        self._print(f"{read}, {len(done.damage)} damaged")


def _tell(problems: list[str]) -> int:
    for problem in problems:
        print(f"h5fast: {problem}", file=sys.stderr)
    return 1 if problems else 0
