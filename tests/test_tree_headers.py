"""Headers of plain datasets, read from the file's bytes: exactly what libhdf5 says of them, or libhdf5 is asked."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from h5fast import FileTree
from h5fast._gather import Source
from h5fast._members import FILE, NO_TIME, look_up, scan


def write_datasets(path: Path, **options: Any) -> Path:
    """One of each kind that headers tell of, and of those that they do not."""
    draw = np.random.default_rng(0)
    row, table = draw.integers(0, 9, 300, dtype="u1"), draw.normal(size=(6, 10)).astype(">f4")
    filters = ({}, {"compression": "lzf"}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf", "fletcher32": True})
    with h5py.File(path, "w", **options) as file:
        for number, kept in enumerate(filters):
            file.create_dataset(f"row {number}", data=row, chunks=row.shape, **kept)
            file.create_dataset(f"table {number}", data=table, chunks=table.shape, maxshape=(None, 10), **kept)
            file.create_dataset(f"several {number}", data=row, chunks=(100,), **kept)
            file.create_dataset(f"larger chunk {number}", data=row[:50], chunks=(64,), maxshape=(None,), **kept)
        for name in ("u1", "<i8", ">i2", "<f2", "?", "c8", "S3", "V5", "i1"):
            file[f"type {name}"] = np.zeros(7, "u1").repeat(np.dtype(name).itemsize).view(name)
        file["empty"], file["scalar"], file["null"], file["text"] = row[:0], 5, h5py.Empty("u1"), "text"
        file.create_dataset("never written", (10,), "u1")
        file.create_dataset("filled", (10,), "u1", fillvalue=7)
        file.create_dataset("many axes", data=np.zeros((1,) * 9, "u1"))
        file.create_group("folder")["link"] = h5py.SoftLink("/empty")
        for number, (modified, permissions) in enumerate([(np.int64(-5), np.uint32(0o644)), (np.int32(-5), np.int64(-1)), (7.5, "x"),
                                                          (np.array([3, 4]), np.array([8])), (np.uint64(2**64 - 1), np.uint8(4))]):
            noted = file.create_dataset(f"noted {number}", data=row)
            noted.attrs.update({"other": "é", "Modified": modified, "Permissions": permissions})
        file["many attributes"] = row
        for number in range(30):
            file["many attributes"].attrs[f"a{number}"] = np.arange(number)
        file["replaced"] = row
        file["replaced"].attrs["Modified"] = "not yet"
        file["replaced"].attrs["Modified"] = np.int64(9)
    return path


def assert_same(path: Path) -> None:
    with h5py.File(path) as file, path.open("rb") as raw:
        source = Source(raw.fileno())
        names, members, forms = scan(file["/"].id)
        found = scan(file["/"].id, False, source)
        assert found[0] == names and found[1].tolist() == members.tolist() and found[2] == forms
        some = look_up(file["/"].id, names[::3], False, source)
        assert some[0].tolist() == members[::3].tolist()


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"track_order": True}], ids=["earliest", "latest", "in order"])
def test_headers_say_what_libhdf5_says(tmp_path: Path, options: dict[str, Any]) -> None:
    assert_same(write_datasets(tmp_path / "f.h5", **options))


def test_headers_are_read(tmp_path: Path) -> None:
    """Of another file of the same size, they tell of that file; libhdf5 tells of what has no plain header."""
    one, other = write_datasets(tmp_path / "one.h5"), write_datasets(tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        file["noted 0"].attrs.modify("Modified", np.int64(1234))
        file["noted 2"].attrs.modify("Modified", 1234.0)
    with h5py.File(one) as file, other.open("rb") as raw:
        members, _ = look_up(file["/"].id, ["noted 0", "noted 2"], False, Source(raw.fileno()))
    assert members["modified"].tolist() == [1234, 7]


@pytest.mark.parametrize("options", [{"userblock_size": 512}, {"fs_strategy": "page"}], ids=["user block", "paged"])
def test_other_files_are_read_too(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_datasets(tmp_path / "f.h5", **options)
    with h5py.File(path) as file:
        wanted = {name: file[name][()].tobytes() for name in file if name.startswith(("row", "several", "noted"))}
    with FileTree(path) as tree:
        assert {name: tree[name] for name in wanted} == wanted


def outcome(path: Path) -> bytes:
    """Whether headers and libhdf5 agree on what is in a damaged file. Where libhdf5 refuses a dataset, bytes may be told all the same."""
    with h5py.File(path) as file, path.open("rb") as raw:
        try:
            names, members, forms = scan(file["/"].id)
        except Exception:
            return b"libhdf5 cannot list it"
        found = scan(file["/"].id, False, Source(raw.fileno()))
    told, known = ({at: rest for at, *rest in one} for one in (found[2], forms))
    for at, name in enumerate(names):
        is_refused = members["kind"][at] != FILE
        if members["modified"][at] == NO_TIME:  # it reads no attribute where it cannot read one of the others
            found[1]["modified"][at] = NO_TIME
        if members["permissions"][at] == 0:
            found[1]["permissions"][at] = 0
        if not is_refused and (found[1][at] != members[at] or told.get(at) != known.get(at)):
            return f"{name}: {found[1][at]} {told.get(at)}, libhdf5: {members[at]} {known.get(at)}".encode()
    return b"same"


def in_child(path: Path) -> bytes:
    """libhdf5 dies of some damage, and then says nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, outcome(path))
        except OSError:
            os.write(writer, b"libhdf5 cannot open it")
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    return b"libhdf5 died" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV and not told else told


def test_damaged_headers(tmp_path: Path) -> None:
    """Whatever libhdf5 says of a damaged header, reading it here says the same."""
    path = write_datasets(tmp_path / "f.h5")
    content, draw = path.read_bytes(), random.Random(0)
    with h5py.File(path) as file:
        places = [(h5py.h5o.get_info(file[name].id).addr, 500) for name in file]
    at = content.find(b"TREE\1")
    while at >= 0:
        places.append((at, 80))
        at = content.find(b"TREE\1", at + 1)
    seen = set()
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 3])):
            start, length = draw.choice(places)
            damaged[min(start + draw.randrange(length), len(content) - 1)] = draw.choice([0, 1, 2, 8, 127, 128, 255, draw.randrange(256)])
        path.write_bytes(damaged)
        seen.add(in_child(path))
    assert b"same" in seen
    assert seen <= {b"same", b"libhdf5 cannot list it", b"libhdf5 cannot open it", b"libhdf5 died"}
