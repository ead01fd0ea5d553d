"""Links in a tree, and folders that lie deep."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from tree_files import write_encoded

import h5fast
from h5fast import FileTree


def test_links(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.frombuffer(b"secret", "u1")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["d/real"] = np.frombuffer(b"real", "u1")
        file["soft"] = h5py.SoftLink("/d/real")
        file["d/near"] = h5py.SoftLink("real")
        file["folder"] = h5py.SoftLink("/d")
        file["broken"] = h5py.SoftLink("/d/nothing")
        file["up"] = h5py.SoftLink("../../etc/passwd")
        file["round"] = h5py.SoftLink("/round")
        file["outside"] = h5py.ExternalLink("other.h5", "/secret")
        file["d/hard"] = file["d/real"]
        file["d/circle"] = file["/"]
    with FileTree(tmp_path / "f.h5") as tree:
        for name in ("soft", "d/near", "folder/real", "folder/near", "d/hard", "d/circle/d/real",
                     "d/circle/folder/circle/soft"):
            assert tree[name] == b"real", name
        assert tree.stat("soft").kind == "link" and tree.stat("soft").target == "/d/real"
        assert tree.stat("d/circle").target == "/"
        assert tree.stat("soft", follow=True).path == "/d/real"
        assert set(tree) == {"d/real", "d/near", "d/hard", "soft"}
        for name in ("broken", "up", "round"):
            with pytest.raises(KeyError, match=name):
                tree[name]
        with pytest.raises(h5fast.UnsupportedError, match="other.h5"):
            tree.read_bytes("outside")


# --- damage ---


def test_links_in_circles(tmp_path: Path) -> None:
    """Hazards: folders on the way that are links again ended in a RecursionError, and took twice as long for each link more."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"], file["b"], file["self"] = h5py.SoftLink("/b/x"), h5py.SoftLink("/a/x"), h5py.SoftLink("/self/self")
        file["d/s0"] = h5py.SoftLink("/d")
        for number in range(1, 60):
            file[f"d/s{number}"] = h5py.SoftLink(f"/d/s{number - 1}/s{number - 1}")
        file["d/x"] = np.frombuffer(b"x", "u1")
    with FileTree(tmp_path / "f.h5") as tree:
        assert tree.ls() == ["a", "b", "d", "self"] and dict(tree) == {"d/x": b"x"} and "a" not in tree
        assert tree["d/s3/x"] == b"x" and tree.glob("**/x") == ["d/x"] and tree.stat("d/s4", follow=True).path == "/d"
        for path in ("a", "self", "self/self/self", "d/s59"):
            with pytest.raises(FileNotFoundError, match="leads to itself"):
                tree.stat(path, follow=True)
        assert tree["d/x"] == b"x"


@pytest.mark.parametrize("is_encoded", [False, True])
def test_deep_folders(tmp_path: Path, is_encoded: bool) -> None:
    """Hazard: deeper than Python calls itself (1,000 times; here fewer, since so deep paths are slow)."""
    path, usual = "g/" * 200 + "file", sys.getrecursionlimit()
    with h5py.File(tmp_path / "f.h5", "w") as file:
        group: h5py.Group = file
        for _ in range(0 if is_encoded else 200):
            group = group.create_group("g")
        if not is_encoded:
            group["file"] = np.frombuffer(b"x", "u1")
    if is_encoded:
        write_encoded(tmp_path / "f.h5", {path: b"x"})
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        with FileTree(tmp_path / "f.h5") as tree:
            assert tree[path] == b"x" and tree.isdir("g/" * 150)
        with FileTree(tmp_path / "f.h5", "r+") as tree:
            assert tree.glob("**/file") == [path] and len(tree) == 1 and sum(1 for _ in tree.walk()) == 201 + is_encoded
            tree.put("h/" * 200 + "file", b"y")
            assert tree["h/" * 200 + "file"] == b"y"
    finally:
        sys.setrecursionlimit(usual)
