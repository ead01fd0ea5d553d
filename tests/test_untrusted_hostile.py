"""Damaged and hostile files, opened as untrusted: h5py's data or an exception, in time, and this process goes on.

The mutants are made here, the same in every run. What h5py reads of them is asked of it in a process of its own, since some of
them kill it. The corpus of others' hostile files is read by untrusted_corpus.py, where there is one.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import conformance
import h5py
import hdf5_files as files
import numpy as np
import pytest
from canonical import sha_of

import h5fast

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 10.0
MUTANTS = 25  # of each file; 4 a second


def _contiguous(path: Path) -> None:
    files.write(path, files.content((40, 6), "i4"), libver="earliest")


def _gzip(path: Path) -> None:
    pipeline = files.PIPELINES["shuffle+gzip+fletcher32"]
    files.write(path, files.content((40, 6), "f4"), chunks=(7, 6), pipeline=pipeline, libver="earliest")


def _lzf(path: Path) -> None:
    data = files.content((40, 6), "i2")
    files.write(path, data, chunks=(7, 4), pipeline=files.PIPELINES["lzf"], libver="latest", maxshape=(40, None))


def _many(path: Path) -> None:
    with h5py.File(path, "w", libver="latest", track_order=True) as f:
        for number in range(4):
            f[f"g/d{number}"] = files.content((5, number + 1), "u2")
        f["c"] = files.content((6,), np.dtype([("a", "i4"), ("s", "S3")]))
        f["g"].attrs["words"], f.attrs["numbers"] = ["a", "bb"], np.arange(5.0)
        f["soft"] = h5py.SoftLink("/g/d1")


MADE: dict[str, Callable[[Path], None]] = {"contiguous": _contiguous, "gzip": _gzip, "lzf": _lzf, "many": _many}


def mutants(original: bytes, seed: str) -> list[bytes]:
    """Bytes changed, numbers made extreme, parts repeated, zeroed or cut off: what fuzzers do."""
    chosen = random.Random(seed)
    made = []
    for number in range(MUTANTS):
        changed = bytearray(original)
        for _ in range(chosen.choice((1, 1, 2, 8))):
            # Headers and trees make up the start of such small files.
            place = chosen.randrange(min(len(changed), 2048) if chosen.random() < 0.7 else len(changed))
            if number % 5 == 0:
                extremes = (b"\xff" * 8, bytes(8), (1 << 63).to_bytes(8, "little"), b"\x01" + bytes(7))
                changed[place : place + 8] = chosen.choice(extremes)
            elif number % 5 == 1:
                other = chosen.randrange(len(changed))
                changed[place : place + 16] = changed[other : other + 16]
            else:
                changed[place] ^= 1 << chosen.randrange(8)
        if number % 12 == 11:
            changed = changed[: chosen.randrange(len(changed))]
        made.append(bytes(changed))
    return made


# What h5py reads of the files in a folder: a hash for each dataset, one line of JSON a file. It is started again behind a file
# that ended it.
ORACLE = """
import json, sys
from pathlib import Path
import h5py
from canonical import sha_of
for path in sorted(Path(sys.argv[1]).iterdir()):
    if path.name <= sys.argv[2]:
        continue
    print(json.dumps({"file": path.name}), flush=True)
    found, names = {}, []
    try:
        with h5py.File(path) as file:
            file.visit(names.append)
            for name in names:
                try:
                    if isinstance(file[name], h5py.Dataset) and file[name].size < 1 << 20:
                        found[str(name)] = sha_of(file[name][()])
                except Exception:
                    continue
    except Exception:
        pass
    print(json.dumps({"file": path.name, "read": found}), flush=True)
"""


def _read_by_h5py(folder: Path) -> dict[str, dict[str, str]]:
    read: dict[str, dict[str, str]] = {}
    last = ""
    while True:
        command, variables = files._command(ORACLE, [folder, last], None)
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=20, check=False)
            lines, ended = done.stdout, done.returncode == 0
        except subprocess.TimeoutExpired as error:
            lines, ended = (error.stdout or b"").decode(), False
        for line in lines.splitlines():
            told = json.loads(line)
            last = told["file"]
            if "read" in told:
                read[last] = told["read"]
        if ended:
            return read


@pytest.mark.parametrize("made", sorted(MADE))
def test_mutants_end_in_an_exception_or_the_right_data(tmp_path: Path, made: str) -> None:
    MADE[made](tmp_path / "original")
    folder = tmp_path / "mutants"
    folder.mkdir()
    for number, content in enumerate(mutants((tmp_path / "original").read_bytes(), made)):
        (folder / f"{number:03}").write_bytes(content)
    mine: dict[str, dict[str, str]] = {}
    for path in sorted(folder.iterdir()):
        began = time.monotonic()
        try:
            with h5fast.File(path, untrusted=True) as file:
                mine[path.name] = _hashes(file)
        except h5fast.CorruptFileError as error:
            assert str(path) in str(error)
        assert time.monotonic() - began < SECONDS
    theirs = _read_by_h5py(folder)
    differing = [(name, dataset) for name, read in mine.items() for dataset, sha in read.items()
                 if theirs.get(name, {}).get(dataset, sha) != sha]
    assert not differing
    assert any(mine.values()), "no mutant was readable: nothing was compared"


def _hashes(file: h5fast.File) -> dict[str, str]:
    found = {}
    names: list[str] = []
    file.visit(names.append)
    for name in names:
        try:
            if isinstance(file[name], h5py.Dataset) and file[name].size < 1 << 20:
                found[str(name)] = sha_of(file[name][()])
        except (h5fast.H5FastError, MemoryError):
            continue
    return found


def test_bomb_is_bounded_by_its_chunk(tmp_path: Path) -> None:
    """A gigabyte of zeros in a chunk of a hundred bytes decodes to a hundred bytes."""
    path = files.write(tmp_path / "f.h5", np.zeros(400, "u1"), chunks=(100,), pipeline=files.PIPELINES["gzip"])
    files.write_chunk(path, (100,), files.deflate(bytes(1 << 24)))
    with h5fast.File(path, untrusted=True) as file:
        np.testing.assert_array_equal(file["d"][:100], np.zeros(100, "u1"))
        with pytest.raises(h5fast.CorruptChunkError, match=r"chunk at \(100,\)"):
            file["d"][...]


def test_sizes_that_no_memory_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as f:
        f.create_dataset("d", (1 << 39, 1 << 20), "f8", chunks=(1, 1 << 20), compression="gzip")
        f.create_dataset("more", (1 << 40, 1 << 20), "f8", chunks=(1, 1 << 20), compression="gzip")
        f.create_dataset("big chunks", (1 << 30,), "u1", chunks=(1 << 30,), compression="gzip")
    with h5fast.File(tmp_path / "f.h5", untrusted=True) as file:
        with pytest.raises((MemoryError, ValueError)):
            file["d"][...]
        with pytest.raises(h5fast.UnsupportedError, match="more than 9223372036854775807 bytes"):
            file["more"][0]
        assert file["d"][5, 3] == 0 and file["big chunks"][7] == 0


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    """libhdf5 lists such names, and whoever makes files of them writes where he should not."""
    path = files.write(tmp_path / "f.h5", np.arange(3), name="abcd")
    for name in (b"a/cd", b"./cd"):
        content = path.read_bytes()
        assert content.count(b"abcd\0") == 1
        changed = tmp_path / "changed.h5"
        changed.write_bytes(content.replace(b"abcd\0", name + b"\0"))
        with pytest.raises(h5fast.CorruptFileError, match="a member whose name is a path"):
            h5fast.File(changed, untrusted=True)


def test_corpus_of_hostile_files(tmp_path: Path) -> None:
    """All of them, and one in twenty of the others."""
    corpus, reason = conformance.find_corpus(REPOSITORY)
    if corpus is None:
        pytest.skip(reason)
    command = [sys.executable, str(REPOSITORY / "tests" / "untrusted_corpus.py"), "--corpus", str(corpus), "--every", "20",
               "--out", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"] > 100 and report["equal"] > 100
