"""Reads datasets of many files with one reader, each file in a fork of its own: for conformance_table.py, which starts it.

    python read_by.py READER < files.jsonl

A line in is ``{"path": …, "names": […]}``, a line out ``[path, name, outcome, hash or reason]``, with "read", "refused" or "crashed".
What ends a fork, or takes a minute, has crashed; the names behind it are read by another. READER is h5py, h5fast, hidefix or
pyfive; only that and NumPy need to be installed. The forks come before any thread: a reader makes its threads when it first reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # this process forks, so it must have no threads

import numpy as np
from canonical import sha_of

SECONDS = 60  # that the rest of a file may take
ADDRESS_SPACE_LIMIT = 12 << 30  # bytes

_Read = Callable[[str], tuple[Any, str]]


def by_h5fast() -> Callable[[str], _Read]:
    import h5fast

    def opened(path: str) -> _Read:
        file = h5fast.File(path)
        return lambda name: (file[name][()], file[name].reader)

    return opened


def by_h5py() -> Callable[[str], _Read]:
    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401 - registers its filters

    def opened(path: str) -> _Read:
        file = h5py.File(path)
        return lambda name: (file[name][()], "")

    return opened


def by_hidefix() -> Callable[[str], _Read]:
    import hidefix

    def opened(path: str) -> _Read:
        index = hidefix.Index(path)

        def read(name: str) -> tuple[Any, str]:
            dataset = index.dataset(name.lstrip("/"))
            return dataset[tuple(slice(0, extent) for extent in dataset.shape())], ""

        return read

    return opened


def by_pyfive() -> Callable[[str], _Read]:
    import pyfive

    def opened(path: str) -> _Read:
        file = pyfive.File(path)
        return lambda name: (file[name][()], "")

    return opened


READERS = {"h5py": by_h5py, "h5fast": by_h5fast, "hidefix": by_hidefix, "pyfive": by_pyfive}


def read_names(opened: Callable[[str], _Read], path: str, names: list[str], report: TextIO) -> None:
    """What a fork does: a line when a dataset is begun, and one with what came of it. Never raises for what the file contains."""
    try:
        os.chdir(os.path.dirname(path))  # external files and sources of virtual datasets are named relative to the file
        read = opened(path)
    except BaseException as error:  # noqa: BLE001 - a panic of Rust's is no Exception
        for name in names:
            print(json.dumps([name, "refused", repr(error)[:200]]), file=report)
        return
    for name in names:
        print(json.dumps([name, "begun", ""]), file=report, flush=True)
        try:
            whole, how = read(name)
            sha = sha_of(np.asarray(whole))
            told = [name, "read", f"{sha} {how}"] if sha else [name, "refused", "objects, where h5py has bytes"]
        except BaseException as error:  # noqa: BLE001
            told = [name, "refused", repr(error)[:200]]
        print(json.dumps(told), file=report, flush=True)


def fork_and_read(opened: Callable[[str], _Read], path: str, names: list[str]) -> dict[str, tuple[str, str]]:
    """What came of the first of the names, at least: a fork that ends early leaves the rest."""
    pipe, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)  # readers talk
        with os.fdopen(theirs, "w") as report:
            read_names(opened, path, names, report)
        os._exit(0)
    os.close(theirs)
    found: dict[str, tuple[str, str]] = {}
    begun = names[0]  # opening the file may be the end, too
    with os.fdopen(pipe) as lines:
        for line in lines:
            begun, outcome, told = json.loads(line)
            if outcome != "begun":
                found[begun] = outcome, told
    if os.waitpid(child, 0)[1] != 0:
        found.setdefault(begun, ("crashed", ""))
    return found


def main(reader: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_LIMIT, ADDRESS_SPACE_LIMIT))
    opened = READERS[reader]()
    for line in sys.stdin:
        asked = json.loads(line)
        left = list(asked["names"])
        while left:
            found = fork_and_read(opened, asked["path"], left)
            for name, (outcome, told) in found.items():
                print(json.dumps([asked["path"], name, outcome, told]), flush=True)
            left = [name for name in left if name not in found]


if __name__ == "__main__":
    main(sys.argv[1])
