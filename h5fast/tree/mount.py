"""``h5fast mount``: a tree as a folder of the operating system, through FUSE and the package mfusepy, imported here alone."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from h5fast.errors import UnsupportedError
from h5fast.tree.filetree import FileTree
from h5fast.tree.operations import ReadOperations, WriteOperations

__all__ = ["mount"]

# Seconds that the kernel may believe what it was told; the file does not change while it is mounted for reading.
_BELIEVED = 3600
# What libfuse 3 says when SIGINT, SIGTERM or SIGHUP ended it, after it has unmounted.
_ENDED_BY_SIGNAL = 8
_REMEDY = "apt-get install fuse3, or your system's package of that name"
# Threads of libfuse: more than these wait for the interpreter.
_THREADS = 8


def mount(path: str | os.PathLike[str], folder: str | os.PathLike[str], *, writable: bool = False, raw: bool = False,
          allow_other: bool = False) -> None:
    """Shows the files in a file as a folder, and returns when it is unmounted: by ``fusermount3 -u``, Ctrl-C or SIGTERM.

    Args:
        folder: an empty folder
        writable: allow changes. They go into the file as files are closed.
        raw: arrays are their elements alone, without the head of a ``.npy`` file
        allow_other: let other users in

    Raises:
        UnsupportedError: there is no FUSE here; the message says what is missing and how to get it.
        NotADirectoryError, FileExistsError: the folder is not one, or not empty.
        OSError: the file cannot be opened.
    """
    fuse = _fuse()
    place = os.path.abspath(os.fsdecode(folder))
    if not os.path.isdir(place):
        raise NotADirectoryError(f"{place} is not a folder; make one to mount on")
    if os.listdir(place):
        raise FileExistsError(f"{place} is not empty; mount on an empty folder")
    options: dict[str, Any] = {"fsname": "h5fast", "subtype": "h5fast", "foreground": True, "allow_other": allow_other}
    if writable:
        options["default_permissions"] = True
    else:
        options |= {"ro": True, "kernel_cache": True, "attr_timeout": _BELIEVED, "entry_timeout": _BELIEVED,
                    "ac_attr_timeout": _BELIEVED, "negative_timeout": _BELIEVED}
    if (fuse.fuse_version_major, fuse.fuse_version_minor) >= (3, 12):
        options |= {"max_threads": _THREADS, "max_idle_threads": _THREADS}
    with FileTree(path, "a" if writable else "r", raw=raw) as tree:
        operations = WriteOperations(tree) if writable else ReadOperations(tree)
        try:
            fuse.FUSE(operations, place, **options)
        except RuntimeError as error:
            if error.args == (_ENDED_BY_SIGNAL,):
                return
            raise UnsupportedError(f"{place} could not be mounted (FUSE ended with {error}); what it said is above") from error


def _fuse() -> Any:
    """The package mfusepy, where all that it needs is there."""
    try:
        import mfusepy
    except ImportError:
        raise UnsupportedError("mounting needs the package mfusepy: pip install 'h5fast[mount]'") from None
    except (OSError, AttributeError) as error:
        raise UnsupportedError(f"mounting needs libfuse ({error}): {_REMEDY}") from None
    if sys.platform == "linux" and not os.path.exists("/dev/fuse"):
        raise UnsupportedError("this kernel has no /dev/fuse: load the module fuse, or give the container that device and "
                               "the capability SYS_ADMIN; h5fast extract and fsspec need neither")
    if sys.platform == "linux" and os.geteuid() != 0 and not (shutil.which("fusermount3") or shutil.which("fusermount")):
        raise UnsupportedError(f"mounting needs the program fusermount3: {_REMEDY}")
    return mfusepy
