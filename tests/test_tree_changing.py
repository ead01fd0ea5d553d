"""Files put, moved and removed, in trees of each layout, against a dictionary; and the member index when the file changes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from amount import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tree_files import MIXED, write_encoded, write_tree

from h5fast import FileTree
from h5fast.tree import saved
from h5fast.tree.saved import SavedIndex, write_member_index

NAMES = st.sampled_from(["a", "b", "c d", "é", "e"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
DEEDS = st.sampled_from(["put", "rm", "mv", "mkdir", "get"])
STEPS = st.lists(st.tuples(DEEDS, PATHS, PATHS, st.binary(max_size=20)), max_size=25)


class Model:
    """What a tree should do: files by path, and folders."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.folders = {"nothing in it"}
        for path in files:
            self._above(path)

    def _above(self, path: str) -> None:
        names = path.split("/")
        self.folders |= {"/".join(names[:end]) for end in range(1, len(names))}

    def _free(self, path: str) -> bool:
        """Whether the folders above are, or can be."""
        names = path.split("/")
        return not any("/".join(names[:end]) in self.files for end in range(1, len(names)))

    def put(self, path: str, data: bytes) -> bool:
        if path in self.folders or not self._free(path):
            return False
        self._above(path)
        self.files[path] = data
        return True

    def mkdir(self, path: str) -> bool:
        if path in self.files or path in self.folders or not self._free(path):
            return False
        self._above(path + "/x")
        return True

    def rm(self, path: str) -> bool:
        found = path in self.files or path in self.folders
        self.files = {one: data for one, data in self.files.items() if not f"{one}/".startswith(path + "/")}
        self.folders = {one for one in self.folders if not f"{one}/".startswith(path + "/")}
        return found

    def mv(self, old: str, new: str) -> bool:
        if old not in self.files and old not in self.folders:
            return False
        if new in self.folders:
            new = f"{new}/{old.rpartition('/')[2]}"
        if not self._free(new):
            return False
        if new == old:
            return True
        if f"{new}/".startswith(old + "/") or new in self.folders:
            return False
        self._above(new)
        moved = {one: one for one in [*self.files, *self.folders] if f"{one}/".startswith(old + "/")}
        self.files.pop(new, None)
        for one in moved:
            place = new + one[len(old):]
            if one in self.files:
                self.files[place] = self.files.pop(one)
            else:
                self.folders.discard(one)
                self.folders.add(place)
        return True


@pytest.mark.parametrize("write", [write_tree, write_encoded])
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_tree_does_what_a_dictionary_does(tmp_path: Path, write: Any, steps: list[tuple[str, str, str, bytes]]) -> None:
    start = {"a/b": b"ab", "e": b"", "c d/é/a": b"deep"}
    path = tmp_path / "f.h5"
    path.unlink(missing_ok=True)
    write(path, start)
    model = Model(start)
    with FileTree(path, "r+") as tree:
        for what, one, other, data in steps:
            done = _try(tree, what, one, other, data)
            if what == "get":
                assert done == model.files.get(one)
            else:
                wanted = {"put": lambda: model.put(one, data), "rm": lambda: model.rm(one), "mv": lambda: model.mv(one, other),
                          "mkdir": lambda: model.mkdir(one)}[what]()
                assert done == wanted, (what, one, other)
        assert dict(tree) == model.files
    with FileTree(path) as tree:
        assert dict(tree) == model.files
        assert {folder.strip("/") for folder, _, _ in tree.walk("/")} - {""} == model.folders


def _try(tree: FileTree, what: str, one: str, other: str, data: bytes) -> Any:
    try:
        if what == "put":
            tree.put(one, data)
        elif what == "rm":
            tree.rm(one, recursive=True)
        elif what == "mv":
            tree.mv(one, other)
        elif what == "mkdir":
            tree.mkdir(one)
        else:
            return tree[one]
    except (OSError, ValueError):
        return False
    except KeyError:
        return None
    return True


def test_what_is_there_stays_where_nothing_can_be_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hazard: the old file was removed first, and the new one then could not be written."""
    with FileTree(write_tree(tmp_path / "f.h5"), "r+") as tree:
        for wrong in ({"modified": 2**70}, {"modified": "now"}, {"permissions": -1}):
            with pytest.raises(ValueError, match="modified is whole seconds"):
                tree.put("deep/one", b"new", **wrong)  # type: ignore[arg-type]

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(h5py.Group, "create_dataset", full)
        with pytest.raises(OSError, match="No space left"):
            tree.put("deep/one", b"new")
        monkeypatch.undo()
        assert dict(tree) == MIXED
        tree.put("deep/one", b"new", modified=7, permissions=0o100640)
        assert tree["deep/one"] == b"new" and tree.stat("deep/one").permissions == 0o100640


@pytest.mark.parametrize("name", [".h5fast", ".h5fast/x", "data", "offsets", "label", "class_names", "modified/x"])
@pytest.mark.parametrize("write", [write_tree, write_encoded])
def test_names_that_are_taken(tmp_path: Path, write: Any, name: str) -> None:
    """Hazard: a file of such a name was written, and never seen again, or made the whole folder unreadable."""
    path = write(tmp_path / "f.h5")
    with FileTree(path, "r+") as tree:
        if write is write_tree and not name.startswith("."):
            tree.put(name, b"x")
            assert tree[name] == b"x"
            return
        for attempt in (lambda: tree.put(name, b"x"), lambda: tree.mkdir(name), lambda: tree.mv("deep/one", name)):
            with pytest.raises(ValueError, match="name is taken by"):
                attempt()
        assert dict(tree) == MIXED
    with FileTree(path) as tree:
        assert dict(tree) == MIXED


def test_what_may_be_put(tmp_path: Path) -> None:
    with FileTree(tmp_path / "f.h5", "w") as tree:
        array = np.arange(6.0).reshape(2, 3)
        for name, data in (("bytes", b"x"), ("array", array), ("text", "é"), ("view", memoryview(b"abc")), ("empty", b"")):
            tree.put(name, data, modified=7, permissions=0o644)
        with tree.open("new", "wb") as file:
            file.write(b"12")
        with pytest.raises(RuntimeError, match="given up"), tree.open("half", "wb") as file:
            file.write(b"1")
            raise RuntimeError("given up")
        for wrong in (5, [1, 2], None, np.array(["a"], object)):
            with pytest.raises(TypeError, match="put"):
                tree.put("wrong", wrong)
        with pytest.raises(ValueError, match="root"):
            tree.put("/", b"")
        with pytest.raises(IsADirectoryError, match="recursive"):
            tree.mkdir("folder")
            tree.rm("folder")
        with pytest.raises(TypeError, match="open for writing"):
            tree.__reduce__()
    with FileTree(tmp_path / "f.h5") as tree:
        wanted = {"bytes": b"x", "text": "é".encode(), "view": b"abc", "empty": b"", "new": b"12"}
        assert {name: tree[name] for name in wanted} == wanted
        assert np.array_equal(np.load(io.BytesIO(tree["array"])), array)
        assert tree.stat("bytes").modified == 7 and tree.stat("bytes").permissions == 0o644
        assert "wrong" not in tree and "half" not in tree
        with pytest.raises(io.UnsupportedOperation, match="'r\\+'"):
            tree.put("x", b"")
    assert h5py.File(tmp_path / "f.h5")["bytes"].dtype == np.dtype("u1")


@pytest.mark.parametrize("write", [write_tree, write_encoded])
def test_names_that_are_no_utf8_change(tmp_path: Path, write: Any) -> None:
    """Hazard: h5py cannot tell whether there is a link of such a name."""
    name = "no\udcffutf8"
    with FileTree(write(tmp_path / "f.h5"), "r+") as tree:
        tree.put(name, b"new")
        tree.note(name, modified=5)
        tree.mv(name, f"deep/{name}")
        assert tree[f"deep/{name}"] == b"new" and name not in tree and tree.stat(f"deep/{name}").modified == 5
        tree.mv("deep", f"{name}-folder")
        tree.rm(f"{name}-folder/{name}")
        tree.rm(f"{name}-folder", recursive=True)
        assert dict(tree) == {path: data for path, data in MIXED.items() if path != name and not path.startswith("deep/")}
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file.id.links.create_soft(b"link\xff", b"/to\xff")
        file[b"to\xff"] = np.frombuffer(b"x", "u1")
    with FileTree(tmp_path / "f.h5") as tree:
        assert tree["link\udcff"] == b"x" and tree.stat("link\udcff").target == "/to\udcff"


def test_links_are_removed_and_not_what_they_lead_to(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["g/x"] = np.frombuffer(b"other", "u1")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["d/a"] = np.frombuffer(b"a", "u1")
        file["link"] = h5py.SoftLink("/d")
        file["outside"] = h5py.ExternalLink("other.h5", "/g")
    with FileTree(tmp_path / "f.h5", "r+") as tree:
        tree.put("link/b", b"b")
        with pytest.raises(Exception, match="other.h5"):
            tree.put("outside/new", b"never")
        tree.rm("link")
        tree.rm("outside")
        assert dict(tree) == {"d/a": b"a", "d/b": b"b"}
    with h5py.File(tmp_path / "other.h5") as file:
        assert list(file["g"]) == ["x"]


# --- the member index ---


def is_used(path: Path) -> bool:
    with h5py.File(path) as file:
        index = SavedIndex.find(str(path), file)
        return index is not None and index.load() is not None


def _add(file: h5py.File) -> None:
    file["another"] = np.frombuffer(b"1", "u1")


def _remove(file: h5py.File) -> None:
    del file["deep/one"]


def _replace(file: h5py.File) -> None:
    content = np.frombuffer(b"2", "u1")
    del file["deep/one"]
    file["deep/one"] = content


def _rename(file: h5py.File) -> None:
    file.move("deep/one", "deep/uno")


def _exchange(file: h5py.File) -> None:
    file.move("deep/one", "deep/x")
    file.move("empty", "deep/one")
    file.move("deep/x", "empty")


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("change", [_add, _remove, _replace, _rename, _exchange])
def test_an_index_is_not_believed_after_a_change(tmp_path: Path, change: Any, beside: bool) -> None:
    """A stale index would read the bytes of other files, or of none: silently wrong data."""
    path = write_tree(tmp_path / "f.h5", compression="lzf")
    assert write_member_index(path, beside_it=beside) and is_used(path)
    with h5py.File(path, "r+") as file:
        change(file)
    assert not is_used(path)
    with h5py.File(path) as file:
        truth: dict[str, bytes] = {}
        file.visititems(lambda name, found: truth.update({os.fsdecode(name): found[()].tobytes()})
                        if isinstance(found, h5py.Dataset) and not os.fsdecode(name).startswith(saved.INDEX_GROUP) else None)
    with FileTree(path) as tree:
        assert dict(tree) == truth


@pytest.mark.parametrize("beside", [False, True])
def test_an_index_is_believed_of_a_copy(tmp_path: Path, beside: bool) -> None:
    path = write_tree(tmp_path / "f.h5")
    assert write_member_index(path, beside_it=beside)
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    if beside:
        Path(saved.beside(str(copy))).write_bytes(Path(saved.beside(str(path))).read_bytes())
    os.utime(copy, (1, 1))
    assert is_used(copy)


def test_overwritten_contents_are_read_through_an_index(tmp_path: Path) -> None:
    """Bytes of a file may change where they lie: the index says where, not what."""
    path = write_tree(tmp_path / "f.h5")
    assert write_member_index(path)
    with h5py.File(path, "r+") as file:
        file["deep/one"][...] = 255
    assert is_used(path)
    with FileTree(path) as tree:
        assert dict(tree) == {**MIXED, "deep/one": b"\xff"}


def test_an_index_that_contradicts_itself_is_not_used(tmp_path: Path) -> None:
    """Its hash can be forged, so nothing in it may lead the reader outside of its memory: it gets bytes, or an error."""
    outcomes = set()
    path = write_tree(tmp_path / "f.h5", compression="gzip", chunks=(1000,), maxshape=(None,))
    for field, value in (("pipeline", 99), ("head", 99), ("chunks", 2**31), ("address", 2**63), ("stored", 2**62),
                         ("size", 2**61), ("chunk_bytes", 0), ("kind", 0), ("offset", 2**60)):
        assert write_member_index(path)
        with h5py.File(path, "r+") as file:
            members = file[saved.INDEX_GROUP]["members"]
            rows = members[()]
            rows[field] = value
            members[...] = rows
        _forge(path)
        with FileTree(path) as tree:
            try:
                outcomes.add(all(isinstance(data, bytes) for data in dict(tree).values()))
            except (OSError, ValueError, MemoryError) as error:
                outcomes.add(type(error) is not Exception)
    assert outcomes == {True}


def _forge(path: Path) -> None:
    with h5py.File(path) as file:
        group = file[saved.INDEX_GROUP]
        parts = {name: group[name][()] for name in ("members", "chunks")}
        at = group["stamp"].id.get_offset()
    size = path.stat().st_size
    held = np.concatenate([saved._held(parts["members"], parts["chunks"]), [[at, at + 24]]])
    try:
        digest = saved._digest(str(path), saved._gaps(held, size))
    except (OSError, ValueError, OverflowError):
        return  # not even hashed
    with open(path, "r+b") as raw:
        raw.seek(at)
        raw.write(size.to_bytes(8, "little") + digest)


def test_an_index_whose_folders_hold_one_another_is_not_used(tmp_path: Path) -> None:
    """Hazard: there were then more folders to list than it has, and listing ended in a StopIteration."""
    path = write_tree(tmp_path / "f.h5")
    assert write_member_index(path)
    with h5py.File(path, "r+") as file:
        folders = file[saved.INDEX_GROUP]["folders"]
        folders[-1] = folders[0]
    _forge(path)
    with FileTree(path) as tree:
        assert tree.ls() and dict(tree) == MIXED


def test_an_index_is_kept_up_by_the_tree(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5")
    assert write_member_index(path)
    with FileTree(path, "r+") as tree:
        tree.put("new", b"new")
        tree.rm("deep", recursive=True)
    assert is_used(path)
    with FileTree(path) as tree:
        assert dict(tree) == {name: data for name, data in MIXED.items() if not name.startswith("deep")} | {"new": b"new"}
        assert ".h5fast" not in tree.ls() and not tree.exists(".h5fast")


def test_no_index_where_it_would_not_help(tmp_path: Path) -> None:
    """Strings lie in heaps, which the hash would have to cover: finding two members is faster than reading 8 MB."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["text"] = ["x" * 1000] * 8000
        file["a"] = np.frombuffer(b"a", "u1")
    assert not write_member_index(tmp_path / "f.h5")
    with FileTree(tmp_path / "f.h5") as tree:
        assert tree["a"] == b"a" and tree.ls() == ["a", "text"]
    assert ".h5fast" not in h5py.File(tmp_path / "f.h5")
