"""Changing files of the layout `encoded`: its tables keep what they had, and grow by what is new alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tree_files import write_encoded

from h5fast import FileTree


def test_files_that_are_called_as_tables_are(tmp_path: Path) -> None:
    """Hazard: removing a file "data" of the layout `encoded` removed the dataset that holds the bytes of all of them."""
    files = {"data": b"1", "paths": b"22", "offsets/x": b"333", "z": b"4"}
    path = write_encoded(tmp_path / "f.h5", files)
    with FileTree(path, "r+") as tree:
        tree.note("data", modified=1)
        assert dict(tree) == files and tree.attributes("data") == {}
        tree.mv("data", "a")
        tree.rm("paths")
        tree.rm("offsets/x")
        wanted = {"a": b"1", "z": b"4"}
        assert dict(tree) == wanted
    with FileTree(path) as tree:
        assert dict(tree) == wanted


@pytest.mark.parametrize("text", [h5py.string_dtype(), "S8"])
def test_paths_of_an_encoded_group_change_in_place(tmp_path: Path, text: Any) -> None:
    """Hazard: each removal wrote all paths anew: the file grew by all of them, and those that are not shown were lost."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.attrs["h5fast_layout"] = "encoded"
        file["data"], file["offsets"] = np.frombuffer(b"123456", "u1"), np.arange(7)
        file.create_dataset("paths", data=np.array([b"d/a", b"../x", b"d/b", b"e/f", b"", b"d/c"], object).astype(
            text if isinstance(text, str) else object), dtype=text)
    with FileTree(path, "r+") as tree:
        tree.rm("d/b")
        tree.put("d/a", b"new")
        tree.mv("e/f", "e/g")
        tree.put("n", b"n")
        assert tree.ls("d") == ["a", "c"] and dict(tree) == {"d/a": b"new", "d/c": b"6", "e/g": b"4", "n": b"n"}
        tree.mv("e/g", "a long name")
        tree.note("d", modified=3)
        assert dict(tree) == {"d/a": b"new", "d/c": b"6", "a long name": b"4", "n": b"n"}
    with h5py.File(path) as file:
        assert file["paths"][()].tolist() == [b"", b"../x", b"", b"a long name", b"", b"d/c"]
    with FileTree(path) as tree:
        assert dict(tree) == {"d/a": b"new", "d/c": b"6", "a long name": b"4", "n": b"n"}


def test_removing_many_of_an_encoded_group(tmp_path: Path) -> None:
    """Each takes time and room for one path, not for all."""
    path = write_encoded(tmp_path / "f.h5", {f"d/{number}": b"x" for number in range(20_000)})
    size = path.stat().st_size
    with FileTree(path, "r+") as tree:
        for number in range(0, 4_000, 2):
            tree.rm(f"d/{number}")
        assert len(tree) == 18_000
    assert path.stat().st_size < size + (1 << 20)
    with FileTree(path) as tree:
        assert len(tree) == 18_000 and tree["d/1"] == b"x" and "d/2" not in tree


def test_times_go_with_a_file_that_leaves_its_group(tmp_path: Path) -> None:
    write_encoded(tmp_path / "f.h5", {"a": b"1", "b/c": b"2"}, "/group")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["group/modified"], file["group/permissions"] = [5, 6, 7], np.array([0o100600, 0o100640, 0o40700], "u4")
    with FileTree(tmp_path / "f.h5", "r+") as tree:
        tree.mv("group/a", "a")
        tree.mv("group/b", "b")
        about = {path: (tree.stat(path).modified, tree.stat(path).permissions) for path in ("a", "b/c")}
        assert about == {"a": (5, 0o100600), "b/c": (6, 0o100640)} and dict(tree) == {"a": b"1", "b/c": b"2"}
