"""Files in files, for the tests: a real folder of mixed files, and HDF5 files in each layout that holds it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from h5fast.tree import encoded

MIXED: dict[str, bytes] = {
    "empty": b"",
    "with spaces.txt": b"a line\n",
    "déjà vu/naïve ☃.txt": "größe".encode(),
    "deep/er/and/deeper.bin": bytes(range(256)) * 40,
    "deep/one": b"1",
    ".hidden": b"dot",
    "no\udcffutf8": b"its name is no UTF-8",
    "trailing. ": b"\0\n\0",
    "big.bin": np.random.default_rng(0).integers(0, 256, 300_000, dtype="u1").tobytes(),
}


def make_folder(root: Path, files: dict[str, bytes] = MIXED) -> Path:
    """The files on disk, and an empty folder beside them."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "nothing in it").mkdir(parents=True)
    return root


def as_name(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def write_tree(path: Path, files: dict[str, bytes] = MIXED, **options: object) -> Path:
    """One dataset for each file; `options` are create_dataset's, for those that are not empty."""
    with h5py.File(path, "w") as file:
        for name, content in files.items():
            data = np.frombuffer(content, "u1")
            file.create_dataset(as_name("/" + name), data=data, **(options if len(content) else {}))
        file.create_group("nothing in it")
    return path


def write_encoded(path: Path, files: dict[str, bytes] = MIXED, group: str = "/", **options: object) -> Path:
    """All files in one dataset; `options` are create_dataset's, for it."""
    with h5py.File(path, "a") as file:
        into = file.require_group(group)
        into.attrs[encoded.ATTRIBUTE] = "encoded"
        into.create_dataset("data", data=np.frombuffer(b"".join(files.values()), "u1"), **options)
        into.create_dataset("offsets", data=np.cumsum([0, *map(len, files.values()), 0], dtype="u8"))
        names = [*map(as_name, files), b"nothing in it/"]
        into.create_dataset("paths", data=np.array(names, object), dtype=h5py.string_dtype())
    return path
