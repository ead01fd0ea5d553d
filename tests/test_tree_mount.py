"""A mounted tree: what it answers, with and without a kernel that mounts."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tree_files import MIXED, make_folder, write_encoded, write_tree

import h5fast
from h5fast import FileTree
from h5fast.tree import mount as mounting
from h5fast.tree.operations import ReadOperations, WriteOperations


# --- without a kernel ---


def walked(operations: ReadOperations, path: str = "/") -> dict[str, bytes]:
    """All files, as a kernel would read them."""
    found = {}
    for name in operations.readdir(path, 0):
        place = path.rstrip("/") + "/" + name
        if name in (".", ".."):
            continue
        about = operations.getattr(place)
        if stat.S_ISDIR(about["st_mode"]):
            found |= walked(operations, place)
        elif stat.S_ISREG(about["st_mode"]):
            content = b"".join(operations.read(place, 4096, at, 0) for at in range(0, about["st_size"], 4096))
            assert len(content) == about["st_size"]
            found[place.lstrip("/")] = content
    return found


def failing(number: int, call: Any, *arguments: Any) -> None:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number


@pytest.mark.parametrize("write", [write_tree, write_encoded])
def test_what_the_kernel_is_told(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        file["d/x"] = np.frombuffer(b"x", "u1")
        file["d/x"].attrs.update({"text": "é", "number": 5, "list": [1.5, 2]})
        file["d/x"].attrs.update({"Modified": np.int64(10), "Permissions": np.uint32(0o100600)})
        file["link"] = h5py.SoftLink("/d/x")
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/")
        file["refs"] = file["d"].ref
    with FileTree(path) as tree:
        operations = ReadOperations(tree)
        assert walked(operations) == {**MIXED, "d/x": b"x", "refs": b""}
        assert operations.getattr("/d/x")["st_mtime"] == 10 * 10**9 and operations.getattr("/d/x")["st_mode"] == 0o100600
        assert operations.readlink("/link") == "d/x" and stat.S_ISLNK(operations.getattr("/link")["st_mode"])
        assert "outside" in operations.readlink("/outside")
        assert {"user.text", "user.Modified"} < set(operations.listxattr("/d/x")) and len(operations.listxattr("/d/x")) == 5
        for name, value in (("text", "é".encode()), ("number", b"5"), ("list", b"[1.5, 2.0]")):
            assert operations.getxattr("/d/x", f"user.{name}") == value
        failing(errno.ENODATA, operations.getxattr, "/d/x", "user.none")
        failing(errno.ENODATA, operations.getxattr, "/empty", "security.selinux")
        failing(errno.ENOENT, operations.getattr, "/nowhere")
        failing(errno.ENOTDIR, operations.getattr, "/empty/x")
        failing(errno.EOPNOTSUPP, operations.read, "/refs", 1, 0, 0)
        failing(errno.EISDIR, operations.read, "/deep", 1, 0, 0)
        assert operations.statfs("/")["f_bsize"] == 4096


def test_damage_is_an_input_error(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5", compression="gzip")
    with h5py.File(path) as file:
        about = file["big.bin"].id.get_chunk_info(0)
    with open(path, "r+b") as raw:
        raw.seek(about.byte_offset + 10)
        raw.write(b"\xa5" * 50)
    with FileTree(path) as tree:
        failing(errno.EIO, ReadOperations(tree).read, "/big.bin", 1000, 0, 0)


def test_writing(tmp_path: Path) -> None:
    write_tree(tmp_path / "f.h5")
    with FileTree(tmp_path / "f.h5", "a") as tree:
        operations = WriteOperations(tree)
        operations.mkdir("/new", 0o755)
        handle = operations.create("/new/file", 0o644)
        assert operations.write("/new/file", b"world", 6, handle) == 5
        assert operations.write("/new/file", b"hello ", 0, handle) == 6
        assert operations.getattr("/new/file")["st_size"] == 11 and "file" in operations.readdir("/new", 0)
        assert operations.read("/new/file", 100, 6, handle) == b"world"
        operations.utimens("/new/file", (1, 5 * 10**9))
        operations.chmod("/new/file", 0o100600)
        operations.flush("/new/file", handle)
        operations.release("/new/file", handle)
        handle = operations.open("/deep/one", os.O_RDWR)
        operations.write("/deep/one", b"22", 1, handle)
        operations.rename("/deep/one", "/deep/two")
        operations.release("/deep/one", handle)
        operations.truncate("/big.bin", 5)
        operations.truncate("/empty", 2)
        operations.unlink("/with spaces.txt")
        failing(errno.ENOTEMPTY, operations.rmdir, "/deep")
        failing(errno.ENOENT, operations.create, "/nowhere/x", 0o644)
        operations.rmdir("/nothing in it")
        assert operations.getattr("/new/file")["st_mtime"] == 5 * 10**9
        wanted = dict(MIXED)
        del wanted["with spaces.txt"], wanted["deep/one"]
        wanted |= {"new/file": b"hello world", "deep/two": b"122", "big.bin": MIXED["big.bin"][:5], "empty": b"\0\0"}
        assert walked(operations) == wanted
    with FileTree(tmp_path / "f.h5") as tree:
        assert dict(tree) == wanted and tree.stat("new/file").permissions == 0o100600


def test_files_that_are_open_move(tmp_path: Path) -> None:
    """Hazard: what was written after a file, or a folder above it, got another name was lost."""
    with FileTree(tmp_path / "f.h5", "w") as tree:
        operations = WriteOperations(tree)
        operations.mkdir("/d", 0o700)
        handle = operations.create("/d/x", 0o750)
        operations.write("/d/x", b"12", 0, handle)
        operations.rename("/d", "/e")
        operations.write("/e/x", b"34", 2, handle)
        operations.rename("/e/x", "/y")
        operations.write("/y", b"56", 4, handle)
        operations.flush("/y", handle)
        operations.release("/y", handle)
        assert dict(tree) == {"y": b"123456"} and tree.ls("/") == ["e", "y"]
        assert operations.getattr("/y")["st_mode"] == 0o100750 and operations.getattr("/e")["st_mode"] == 0o40700
        assert operations.statfs("/")["f_bavail"] > 0


@pytest.mark.parametrize("told, number", [("file write failed: errno = 28, error message", errno.ENOSPC), ("no", errno.EIO)])
def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, number: int) -> None:
    """The program that closes it is told, and what is there is what was there before."""
    with FileTree(write_tree(tmp_path / "f.h5"), "r+") as tree:
        operations = WriteOperations(tree)
        handle = operations.open("/deep/one", os.O_WRONLY)
        operations.write("/deep/one", b"new", 0, handle)

        def full(*_: Any, **__: Any) -> None:
            raise OSError(told)

        monkeypatch.setattr(h5py.Group, "create_dataset", full)
        failing(number, operations.flush, "/deep/one", handle)
        failing(number, operations.release, "/deep/one", handle)
        monkeypatch.undo()
        assert operations.read("/deep/one", 10, 0, 0) == b"1" and dict(tree) == MIXED


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(h5fast.UnsupportedError, match=r"pip install 'h5fast\[mount\]'"):
        mounting.mount(tmp_path / "f.h5", tmp_path)


def test_where_not_to_mount(tmp_path: Path) -> None:
    require_fuse(tmp_path)
    path = write_tree(tmp_path / "f.h5")
    with pytest.raises(NotADirectoryError, match="make one"):
        mounting.mount(path, tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="not empty"):
        mounting.mount(path, tmp_path)


# --- with the kernel ---

SERVE = "import sys; from h5fast.cli import main; sys.exit(main(['mount', *sys.argv[1:]]))"
_can_mount: dict[str, str] = {}


def require_fuse(tmp_path: Path) -> None:
    """Skips, with the reason, where nothing can be mounted."""
    if "reason" not in _can_mount:
        _can_mount["reason"] = ""
        try:
            mounting._fuse()
            write_tree(tmp_path / "try.h5", {"x": b""})
            with mounted(tmp_path / "try.h5", tmp_path / "try"):
                assert os.listdir(tmp_path / "try") == ["nothing in it", "x"]
        except (h5fast.UnsupportedError, TimeoutError) as error:
            _can_mount["reason"] = str(error)
    if _can_mount["reason"]:
        pytest.skip(f"nothing can be mounted here: {_can_mount['reason']}")


@contextlib.contextmanager
def mounted(path: Path, folder: Path, *options: str, end: int = signal.SIGTERM) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(path), str(folder), *options], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 30
        while not os.path.ismount(folder):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise TimeoutError(f"the mount did not come up: {process.communicate()[0]}")
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(end)
        told, _ = process.communicate(timeout=30)
        assert "Traceback" not in told
    assert process.returncode == 0 and told == "", told
    assert not os.path.ismount(folder) and os.listdir(folder) == []


def assert_same(one: Path, other: Path) -> None:
    found = filecmp.dircmp(one, other, ignore=[], hide=[])
    assert not found.left_only and not found.right_only and not found.funny_files
    assert filecmp.cmpfiles(one, other, found.common_files, shallow=False)[1:] == ([], [])
    for name in found.common_dirs:
        assert_same(one / name, other / name)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("write", [write_tree, write_encoded])
def test_mounted_folder_is_the_folder(tmp_path: Path, write: Any, end: int) -> None:
    require_fuse(tmp_path)
    source = make_folder(tmp_path / "source")
    with mounted(write(tmp_path / "f.h5"), tmp_path / "m", end=end):
        assert_same(source, tmp_path / "m")
        for command in (f"diff -r {source} m", "ls -lR m", "find m -type f -size +1k", "tar cf copy.tar -C m .",
                        "cp -r m copied"):
            subprocess.run(command, shell=True, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "m/new").write_bytes(b"")
    assert_same(source, tmp_path / "copied")


@pytest.mark.parametrize("layout", ["tree", "encoded"])
def test_packed_and_mounted_is_the_same(tmp_path: Path, layout: str) -> None:
    require_fuse(tmp_path)
    source = make_folder(tmp_path / "source")
    (source / "nothing in it").rmdir()
    for number in range(1, 300):
        (source / f"deep/{number} of many.jpg").write_bytes(MIXED["big.bin"][number : 3 * number])
    h5fast.pack(source, tmp_path / "f.h5", layout=layout)
    with mounted(tmp_path / "f.h5", tmp_path / "m"):
        subprocess.run(["diff", "-r", source, tmp_path / "m"], check=True)
        subprocess.run(["tar", "cf", tmp_path / "m.tar", "-C", tmp_path / "m", "."], check=True)
    with tarfile.open(tmp_path / "m.tar") as archive:
        assert archive.getmember("./big.bin").size == len(MIXED["big.bin"])


def test_writable_mount(tmp_path: Path) -> None:
    require_fuse(tmp_path)
    source = make_folder(tmp_path / "source")
    with mounted(tmp_path / "new.h5", tmp_path / "m", "--writable"):
        shutil.copytree(source, tmp_path / "m/copy")
        subprocess.run("echo more >> m/copy/deep/one; mv m/copy/empty m/copy/moved; rm 'm/copy/with spaces.txt'", shell=True,
                       check=True, cwd=tmp_path)
        os.utime(tmp_path / "m/copy/moved", (10**9, 10**9))
        assert os.stat(tmp_path / "m/copy/moved").st_mtime == 10**9
    with FileTree(tmp_path / "new.h5") as tree:
        wanted = {f"copy/{name}": data for name, data in MIXED.items()}
        wanted["copy/deep/one"] += b"more\n"
        wanted["copy/moved"] = wanted.pop("copy/empty")
        del wanted["copy/with spaces.txt"]
        assert dict(tree) == wanted and tree.isdir("copy/nothing in it")


def test_a_writable_mount_that_is_killed(tmp_path: Path) -> None:
    """Hazard: nothing was written before the end, and the file could not be opened any more."""
    require_fuse(tmp_path)
    with pytest.raises(AssertionError):  # it does not end as it should
        with mounted(tmp_path / "f.h5", tmp_path / "m", "--writable", end=signal.SIGKILL):
            make_folder(tmp_path / "m/in it")
    subprocess.run([shutil.which("fusermount3") or "fusermount", "-u", tmp_path / "m"], check=True)
    with FileTree(tmp_path / "f.h5") as tree:
        assert {name.removeprefix("in it/"): content for name, content in tree.items()} == MIXED


def test_extended_attributes(tmp_path: Path) -> None:
    require_fuse(tmp_path)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.frombuffer(b"x", "u1")
        file["x"].attrs["label"] = "cat"
    with mounted(tmp_path / "f.h5", tmp_path / "m"):
        assert os.listxattr(tmp_path / "m/x") == ["user.label"]
        assert os.getxattr(tmp_path / "m/x", "user.label") == b"cat"


def test_readers_at_once(tmp_path: Path) -> None:
    """Eight readers, for H5FAST_MOUNT_SECONDS seconds (3): each byte right, no call failed."""
    require_fuse(tmp_path)
    seconds = float(os.environ.get("H5FAST_MOUNT_SECONDS", "3"))
    path = write_tree(tmp_path / "f.h5", compression="gzip", chunks=(500,), maxshape=(None,))
    wrong: list[str] = []
    reads = [0] * 8

    def read(number: int) -> None:
        names = sorted(MIXED)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            name = names[(number + reads[number]) % len(names)]
            descriptor = os.open(tmp_path / "m" / name, os.O_RDONLY)
            if reads[number] % 5 == 0:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            at = 17 * reads[number] % (len(MIXED[name]) + 1)
            if os.pread(descriptor, 9000, at) != MIXED[name][at : at + 9000]:
                wrong.append(name)
            os.close(descriptor)
            reads[number] += 1

    with mounted(path, tmp_path / "m"):
        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [] and min(reads) > 10


def test_many_entries_in_a_folder(tmp_path: Path) -> None:
    require_fuse(tmp_path)
    wanted = {f"all/{i:06}": b"" if i % 1000 else b"%d" % i for i in range(100_000)}
    path = write_encoded(tmp_path / "f.h5", wanted)
    with mounted(path, tmp_path / "m"):
        assert sorted(os.listdir(tmp_path / "m/all")) == sorted(name[4:] for name in wanted)
        assert all((tmp_path / "m" / name).read_bytes() == data for name, data in wanted.items() if data)


def test_a_loader_of_images_in_folders_reads_the_mount(tmp_path: Path) -> None:
    """Classes are folders, as torchvision's ImageFolder finds them: with os.scandir and open()."""
    require_fuse(tmp_path)
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    with FileTree(tmp_path / "f.h5", "w") as tree:
        for label, name in enumerate(("dark", "light")):
            for number in range(20):
                with tree.open(f"{name}/{number}.png", "wb") as file:
                    image.fromarray(np.full((8, 8), 60 + 120 * label + number, "u1")).save(file, "PNG")
    with mounted(tmp_path / "f.h5", tmp_path / "m"):
        classes = sorted(entry.name for entry in os.scandir(tmp_path / "m") if entry.is_dir())
        samples = [(Path(folder) / name, classes.index(Path(folder).name))
                   for folder, _, names in os.walk(tmp_path / "m") for name in names]
        assert classes == ["dark", "light"] and len(samples) == 40
        levels = {0: 0.0, 1: 255.0}
        for _ in range(3):
            for path, label in samples:  # the mean of each class, learnt
                with open(path, "rb") as file:
                    levels[label] += 0.2 * (float(np.asarray(image.open(file)).mean()) - levels[label])
        assert all((abs(float(np.asarray(image.open(path)).mean()) - levels[0]) >
                    abs(float(np.asarray(image.open(path)).mean()) - levels[1])) == bool(label) for path, label in samples)
