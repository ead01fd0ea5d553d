"""``h5fast ls, cat, extract, add, rm, index, verify``: what they print, write and refuse."""

from __future__ import annotations

import filecmp
import os
import stat
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from tree_files import MIXED, make_folder, write_encoded, write_tree

from h5fast import FileTree
from h5fast.cli import main
from h5fast.tree import extract as extracting
from h5fast.tree.extract import extract
from h5fast.verifying import verify_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "f.h5")


def assert_same(one: Path, other: Path) -> None:
    """The same names, and the same bytes: ``diff -r``."""
    found = filecmp.dircmp(one, other, ignore=[], hide=[])
    assert not found.left_only and not found.right_only and not found.funny_files
    _, differ, wrong = filecmp.cmpfiles(one, other, found.common_files, shallow=False)
    assert not differ and not wrong
    for name in found.common_dirs:
        assert_same(one / name, other / name)


@pytest.mark.parametrize("write", [write_tree, write_encoded])
def test_folder_to_file_to_folder(tmp_path: Path, write: Any, capfd: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "source")
    os.chmod(source / "deep/one", 0o640)
    os.utime(source / "deep/one", (10**9, 10**9))
    added = tmp_path / "added.h5"
    assert main(["add", str(added), str(source)]) == 0
    assert main(["extract", str(added), "-C", str(tmp_path / "out")]) == 0
    assert_same(source, tmp_path / "out/source")
    about = os.stat(tmp_path / "out/source/deep/one")
    assert stat.S_IMODE(about.st_mode) == 0o640 and about.st_mtime == 10**9
    assert main(["extract", str(write(tmp_path / "f.h5")), "--to", str(tmp_path / "written")]) == 0
    assert_same(source, tmp_path / "written")
    assert capfd.readouterr() == ("", "")


def test_ls(path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def listed(*arguments: str) -> list[bytes]:
        assert main(["ls", str(path), *arguments]) == 0
        return capfdbinary.readouterr().out.splitlines()

    assert listed() == sorted([b".hidden", b"big.bin", b"deep/", "déjà vu/".encode(), b"empty", b"nothing in it/",
                               b"no\xffutf8", b"trailing. ", b"with spaces.txt"])
    assert listed("deep") == [b"deep/er/", b"deep/one"]
    assert listed("**/*.bin") == [b"big.bin", b"deep/er/and/deeper.bin"]
    assert len(listed("-R")) == len(MIXED) + 5
    long = listed("-l", "big.bin", "deep")
    assert long[0].split() == [b"-r--r--r--", b"300000", b"big.bin"] and long[1].split() == [b"dr-xr-xr-x", b"0", b"deep/er/"]
    main(["ls", str(path), "-0", "deep"])
    assert capfdbinary.readouterr().out == b"deep/er/\0deep/one\0"
    assert main(["ls", str(path), "nothing*there"]) == 2
    assert b"nothing*there" in capfdbinary.readouterr().err


def test_ls_into_a_pipe_that_closes(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5", {f"file {i}": b"" for i in range(20_000)})
    done = files.run_python("import subprocess, sys; r = subprocess.run(f'{sys.executable} -m h5fast.cli ls {sys.argv[1]} "
                            "| head -1', shell=True, capture_output=True, text=True); print(r.stdout, r.stderr)", path)
    assert done.stdout.split("\n")[0] == "file 0" and "rror" not in done.stdout


def test_cat(path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", str(path), "deep/one", "big.bin"]) == 0
    assert capfdbinary.readouterr().out == b"1" + MIXED["big.bin"]
    assert main(["cat", str(path), "deep"]) == 2
    assert b"folder" in capfdbinary.readouterr().err
    assert main(["cat", str(path), "*"]) == 2  # nothing of it, rather than what comes before the folder
    assert capfdbinary.readouterr().out == b""


def test_rm(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", str(path), "deep"]) == 2 and "-r" in capsys.readouterr().err
    assert main(["rm", str(path), "deep", "*.bin", "-r"]) == 0
    assert main(["index", str(path)]) == 0
    with FileTree(path) as tree:
        assert dict(tree) == {name: data for name, data in MIXED.items() if not name.startswith("deep") and name != "big.bin"}


def test_rm_of_all(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hazard: of the root, nothing was removed and nothing was told."""
    assert main(["rm", str(path), "/", "-r"]) == 2 and "root" in capsys.readouterr().err
    with FileTree(path) as tree:
        assert dict(tree) == MIXED
    assert main(["rm", str(path), "**", "-r"]) == 0
    with FileTree(path) as tree:
        assert tree.ls() == []


def test_add_of_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Hazard: a folder that could not be listed was left out without a word."""
    source = make_folder(tmp_path / "source", {"a": b"a", "shut/b": b"b", "closed": b"c"})
    scandir, open_ = os.scandir, open

    def list_(place: Any) -> Any:
        if str(place).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    def read(place: Any, *options: Any, **more: Any) -> Any:
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return open_(place, *options, **more)

    monkeypatch.setattr(os, "scandir", list_)
    monkeypatch.setattr("builtins.open", read)
    assert main(["add", str(source / "f.h5"), str(source)]) == 1
    monkeypatch.undo()
    told = capsys.readouterr().err
    assert "shut: Permission denied" in told and "closed: Permission denied" in told and "f.h5: the file that it would" in told
    with FileTree(source / "f.h5") as tree:
        assert dict(tree) == {"source/a": b"a"}


def test_add_tells_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "source", {"a": b"a"})
    (source / "link").symlink_to("/etc/passwd")
    (source / "folder link").symlink_to("/etc")
    os.mkfifo(source / "pipe")
    assert main(["add", str(tmp_path / "f.h5"), str(source), "--into", "x/y"]) == 1
    told = capsys.readouterr().err
    assert told.count("symbolic link") == 2 and "pipe: neither" in told
    with FileTree(tmp_path / "f.h5") as tree:
        assert dict(tree) == {"x/y/source/a": b"a"}
    assert main(["add", str(tmp_path / "g.h5"), str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "g.h5").exists()


# --- nothing outside of the target ---


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_bytes(b"kept")
    (tmp_path / "target").mkdir()
    return tmp_path / "outside"


def untouched(outside: Path) -> bool:
    return [(one.name, one.read_bytes()) for one in outside.iterdir()] == [("kept", b"kept")]


def test_extract_does_not_follow_links_in_the_target(tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tree(tmp_path / "f.h5", {"d/new": b"new", "d/e/new": b"new", "kept": b"overwritten"})
    target = tmp_path / "target"
    (target / "d").symlink_to(outside)
    (target / "kept").symlink_to(outside / "kept")
    assert main(["extract", str(path), "-C", str(target)]) == 1
    assert untouched(outside) and "'d'" in capsys.readouterr().err
    assert (target / "kept").read_bytes() == b"overwritten" and not (target / "kept").is_symlink()


def test_extract_does_not_write_through_hard_links(tmp_path: Path, outside: Path) -> None:
    path = write_tree(tmp_path / "f.h5", {"kept": b"overwritten"})
    os.link(outside / "kept", tmp_path / "target/kept")
    assert main(["extract", str(path), "-C", str(tmp_path / "target")]) == 0
    assert untouched(outside) and (tmp_path / "target/kept").read_bytes() == b"overwritten"


def test_extract_of_hostile_names_and_links(tmp_path: Path, outside: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["../outside"] = np.frombuffer(b"x", "u1")
        file["a/ok"] = np.frombuffer(b"ok", "u1")
        file["a/up"] = h5py.SoftLink("/a/ok")
        file["a/round"] = file["/"]
        file["a/far"] = h5py.SoftLink("../../../outside/kept")
        file["a/ext"] = h5py.ExternalLink(str(outside / "kept"), "/")
        file["a/ok\\..\\x"] = np.frombuffer(b"backslash", "u1")
    write_encoded(tmp_path / "f.h5", {"../outside/new": b"x", "fine": b"f"}, group="e")
    with FileTree(tmp_path / "f.h5") as tree:
        done = extract(tree, tmp_path / "target")
    assert untouched(outside)
    target = tmp_path / "target"
    assert (target / "a/ok").read_bytes() == b"ok" and (target / "e/fine").read_bytes() == b"f"
    assert os.readlink(target / "a/up") == "ok" and os.path.realpath(target / "a/round") == str(target)
    assert len(done.problems) == 4  # the name .., the links far and ext, and the path that leads out of e
    assert sorted(os.listdir(tmp_path)) == ["f.h5", "outside", "target"]


def test_extract_of_what_a_pattern_matches_twice(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hazard: "**" matches a folder and what is in it, and each file was written once for each folder above it."""
    written: list[str] = []
    write = extracting._Folder.write

    def count(folder: Any, file: Any, data: Any) -> None:
        written.append(file.path)
        write(folder, file, data)

    monkeypatch.setattr(extracting._Folder, "write", count)
    assert main(["extract", str(path), "**", "deep/one", "-C", str(tmp_path / "out")]) == 0
    assert sorted(written) == sorted("/" + name for name in MIXED)


def test_half_a_file_does_not_stay(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    """Hazard: on a full disk, empty and shortened files stayed under the names of whole ones."""
    utime = os.utime
    with FileTree(path, "r+") as tree:
        tree.note("big.bin", modified=5)

    def full(place: Any, times: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "utime", full)
    assert main(["extract", str(path), "-C", str(tmp_path / "out")]) == 1
    monkeypatch.setattr(os, "utime", utime)
    assert "/big.bin: No space left" in capsys.readouterr().err
    assert {str(one.relative_to(tmp_path / "out")) for one in (tmp_path / "out").rglob("*") if one.is_file()} == set(MIXED) - {
        "big.bin"}


def test_extract_into_many_folders(tmp_path: Path) -> None:
    """More folders than a process may have files open."""
    wanted = {f"{i}/{j}": b"%d" % i for i in range(600) for j in range(2)}
    path = write_encoded(tmp_path / "f.h5", wanted)
    with FileTree(path) as tree:
        done = extract(tree, tmp_path / "out")
    assert (done.files, done.problems) == (1200, [])
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in wanted.items())


def test_extract_goes_on_after_damage(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5", compression="gzip")
    _damage(path, "big.bin")
    with FileTree(path) as tree:
        done = extract(tree, tmp_path / "out")
    assert len(done.problems) == 1 and "big.bin" in done.problems[0] and "gzip" in done.problems[0]
    assert done.files == len(MIXED) - 1


# --- verify ---


def _damage(path: Path, name: str, chunk: int = 0) -> tuple[tuple[int, ...], int]:
    """Overwrites part of a chunk: where it begins, in elements and in the file."""
    with h5py.File(path) as file:
        about = file[name].id.get_chunk_info(chunk)
    with open(path, "r+b") as raw:
        raw.seek(about.byte_offset + about.size // 2)
        raw.write(b"\xa5" * 20)
    return about.chunk_offset, about.byte_offset


def _everything(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        data = np.random.default_rng(0).integers(0, 50, (70, 30), "i4")
        for name, options in (("gzip", {"compression": "gzip"}), ("lzf", {"compression": "lzf", "shuffle": True}),
                              ("plain", {}), ("sums", {"fletcher32": True}), ("offset", {"scaleoffset": 0})):
            file.create_dataset(f"d/{name}", data=data, chunks=(16, 16), **options)
        file["contiguous"] = np.arange(10)
        file["scalar"] = 1.0
        file["text"] = ["a", "b"]
        file["null"] = h5py.Empty("f4")
        file.create_dataset("unwritten", (100,), "f4", chunks=(10,))
    return path


def test_verify_says_that_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _everything(tmp_path / "f.h5")
    assert main(["verify", str(path)]) == 0
    assert "10 datasets" in capsys.readouterr().out
    assert verify_file(str(path), "d/gzip").chunks == 10


def test_verify_tells_every_damaged_chunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _everything(tmp_path / "f.h5")
    wrong = [_damage(path, "d/gzip", 1), _damage(path, "d/gzip", 7), _damage(path, "d/sums", 3)]
    found = verify_file(str(path)).damage
    assert len(found) == 3
    for corner, offset in wrong:
        assert [line for line in found if f"chunk at {corner}" in line and f"file offset {offset}:" in line], (corner, offset)
    assert main(["verify", str(path)]) == 1
    assert "3 damaged" in capsys.readouterr().out
    assert main(["verify", str(path), "d/lzf"]) == 0


def test_verify_of_a_truncated_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["first"] = np.zeros(10)
        file["data"] = np.zeros(500_000)
    os.truncate(tmp_path / "f.h5", os.path.getsize(tmp_path / "f.h5") - 2_000_000)
    try:
        found = verify_file(str(tmp_path / "f.h5")).damage
    except OSError as error:
        found = [str(error)]  # HDF5 refuses the file as a whole
    assert found and "truncated" in found[0]


def test_names_that_are_no_utf8(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path)]) == 0
    assert main(["info", str(path)]) == 0
    assert "no\\xffutf8" in capsys.readouterr().out
