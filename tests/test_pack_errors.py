"""What pack does with what it cannot pack: names the file, leaves nothing half-written in place, tells it by its status."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pack_files as files
import pytest

import h5fast
from h5fast.cli import main
from h5fast.target import partial_path

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("layout", ["stack", "encoded", "tree"])
def test_truncated_archive(kind: str, layout: str, tmp_path: Path) -> None:
    """Wherever it is cut: tarfile itself takes an archive that is cut between members for one that ends there."""
    whole = files.write_tar(
        tmp_path / f"whole.{kind}", files.images(12), "w" if kind == "tar" else "w:" + kind[4:]
    ).read_bytes()
    for keep in (len(whole) // 3, len(whole) // 3 // 512 * 512, len(whole) - 9000):
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(whole[:keep])
        with pytest.raises(h5fast.ReadError, match="cut"):
            h5fast.pack(cut, tmp_path / "out.h5", layout=layout, overwrite=True)
        assert not (tmp_path / "out.h5").exists()


def test_archive_cut_between_two_members(tmp_path: Path) -> None:
    whole = files.write_tar(tmp_path / "whole.tar", {"a": b"1" * 512, "b": b"2" * 512}).read_bytes()
    for keep in (1024, 2048):
        (tmp_path / "cut.tar").write_bytes(whole[:keep])
        with pytest.raises(h5fast.ReadError, match=r"damaged or cut off.*cut\.tar"):
            h5fast.pack(tmp_path / "cut.tar", tmp_path / "out.h5", layout="tree", overwrite=True)


def test_damaged_zip(tmp_path: Path) -> None:
    found = files.images(6)
    path = files.write_zip(tmp_path / "a.zip", found)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        bad = archive.infolist()[2]
        whole[bad.header_offset + 30 + len(bad.filename) + 40] ^= 255  # in its bytes: the checksum is wrong now
    path.write_bytes(whole)
    for layout in ("stack", "encoded", "tree"):
        done = h5fast.pack(path, tmp_path / "out.h5", layout=layout, overwrite=True)
        assert done.count == 5 and [problem.path for problem in done.problems] == [bad.filename]
    path.write_bytes(whole[:-30])
    with pytest.raises(h5fast.ReadError, match=r"a\.zip"):
        h5fast.pack(path, tmp_path / "out.h5", overwrite=True)


def test_members_that_lead_out_of_the_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("../up.png", "/etc/passwd", "in/../../up.png", "./fine.png", "fine.png", "fine.png/below.png"):
            about = tarfile.TarInfo(name)
            about.size = 3
            import io

            archive.addfile(about, io.BytesIO(b"abc"))
    done = h5fast.pack(tmp_path / "a.tar", tmp_path / "out.h5", layout="tree")
    assert done.count == 1
    assert {problem.path: problem.reason.split(",")[0] for problem in done.problems} == {
        "../up.png": "its path leads out of the archive",
        "/etc/passwd": "its path is absolute",
        "in/../../up.png": "its path leads out of the archive",
        "fine.png": "there is another file of that path before it",
        "fine.png/below.png": "a file and a folder have the same path",
    }
    done = h5fast.pack([("a\0b", b"1"), ("", b"1"), ("c", b"1")], tmp_path / "names.h5", layout="tree")
    assert done.count == 1 and len(done.problems) == 2
    done = h5fast.pack([(".h5fast/a", b"1"), ("b/.h5fast", b"1")], tmp_path / "index.h5", layout="tree")
    assert done.count == 1 and str(done.problems[0]) == ".h5fast/a: '.h5fast' is where the index of members lies"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with open(os.fsencode(tmp_path / "f") + b"/\xff\xfe.bin", "wb") as file:
        file.write(b"abc")
    for layout in ("encoded", "tree"):
        h5fast.pack(tmp_path / "f", tmp_path / "out.h5", layout=layout, overwrite=True)
        with h5fast.FileTree(tmp_path / "out.h5") as tree:
            assert [(os.fsencode(path), tree[path]) for path in tree] == [(b"\xff\xfe.bin", b"abc")]
    h5fast.pack(tmp_path / "f", tmp_path / "out.h5", reader=lambda path, data: len(data), overwrite=True)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["path"][0] == b"\xff\xfe.bin"


BAD = {"empty.png": b"", "text.png": b"no image", "cut.png": None, "cut.jpeg": None}


@pytest.mark.parametrize("jobs", [1, 2])
def test_images_that_cannot_be_decoded(jobs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(files.images(10))
    bad = {
        **BAD,
        "cut.png": next(iter(found.values()))[:700],
        "cut.jpeg": next(iter(files.images(1, 64, "JPEG").values()))[:900],
    }
    folder = files.write_folder(tmp_path / "f", {**found, **{f"china/{name}": data for name, data in bad.items()}})
    (folder / "china" / "secret.png").symlink_to(
        "/proc/1/mem" if os.getuid() else "/proc/self/mem"
    )  # is there, and cannot be read
    done = h5fast.pack(folder, tmp_path / "out.h5", jobs=jobs)
    assert done.count == 10
    reasons = {problem.path: problem.reason for problem in done.problems}
    assert reasons["china/empty.png"] == "is empty: it has 0 bytes"
    assert reasons["china/text.png"] == "is no image that Pillow knows"
    assert "cannot be decoded" in reasons["china/cut.png"] and "cannot be decoded" in reasons["china/cut.jpeg"]
    assert "china/secret.png" in reasons
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["image"][()], [files.pixels(data) for data in found.values()])
        assert len(file["label"]) == len(file["path"]) == 10
    assert main(["pack", str(folder), str(tmp_path / "cli.h5"), "--jobs", str(jobs)]) == 1
    said = capsys.readouterr()
    assert "china/text.png: is no image" in said.err and "5 could not be packed" in said.err and "10 packed" in said.out
    assert main(["pack", str(folder), str(tmp_path / "strict.h5"), "--strict", "--jobs", str(jobs)]) == 1
    assert "china/" in capsys.readouterr().err and not (tmp_path / "strict.h5").exists()


def test_empty_images(tmp_path: Path) -> None:
    """Files like any others where bytes are kept, and no rows of a stack."""
    found = {"a.jpg": b"", "b.txt": b"", **files.images(1)}
    for layout in ("encoded", "tree"):
        assert h5fast.pack(list(found.items()), tmp_path / "out.h5", layout=layout, overwrite=True).problems == ()
        with h5fast.FileTree(tmp_path / "out.h5") as tree:
            assert tree.read_many(found) == list(found.values())
    done = h5fast.pack(list(found.items()), tmp_path / "out.h5", ext=["jpg", "png"], overwrite=True)
    assert done.count == 1 and str(done.problems[0]) == "a.jpg: is empty: it has 0 bytes"


def test_images_of_different_shapes(tmp_path: Path) -> None:
    source = {"a.png": next(iter(files.images(1, 24).values())), "b/c.png": next(iter(files.images(1, 20).values()))}
    with pytest.raises(ValueError, match=r"b/c\.png is uint8 of shape \(20, 20, 3\).*a\.png.*\(24, 24, 3\).*resize= or pad="):
        h5fast.pack(list(source.items()), tmp_path / "out.h5")
    assert not list(tmp_path.iterdir())
    done = h5fast.pack(list(source.items()), tmp_path / "out.h5", pad=22)
    assert done.count == 1 and "does not fit into pad=22x22" in done.problems[0].reason


def test_existing_output(tmp_path: Path) -> None:
    (tmp_path / "out.h5").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        h5fast.pack([("a", b"1")], tmp_path / "out.h5", layout="tree")
    assert (
        main(["pack", str(files.write_folder(tmp_path / "f", {"a": b"1"})), str(tmp_path / "out.h5"), "--layout", "tree"]) == 2
    )
    assert (tmp_path / "out.h5").read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError, match="folder"):
        h5fast.pack([("a", b"1")], tmp_path / "no" / "out.h5", layout="tree")


def test_the_output_may_lie_in_the_folder(tmp_path: Path) -> None:
    files.write_folder(tmp_path, {"a": b"1", "b": b"2"})
    for _ in range(2):
        assert h5fast.pack(tmp_path, tmp_path / "out.h5", layout="tree", overwrite=True).count == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "line 3: has 1 of the 2 columns"),
        ("a,b\n1,2,3\n", "line 2: has 3 of the 2"),
        ("a,a\n1,2\n", "name the columns"),
        ("", "name the columns"),
        ("a\n", "no rows"),
        ("a/b\n1\n", "'a/b', which no dataset can be"),
        ("a\nx\0y\n", "line 2: column 'a' has a NUL"),
        ("a\n" + "x" * 200_000 + "\n", "no CSV in UTF-8: field larger"),
        ("a\nM\udcfcller\n", "no CSV in UTF-8"),
    ],
)
def test_tables_that_are_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"t\.csv") as caught:
        h5fast.pack(tmp_path / "t.csv", tmp_path / "out.h5")
    assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


def test_arrays_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    for array, message in (
        (np.zeros((3, 0)), "rows hold nothing"),
        (np.zeros(3, [("a", "U3")]), "no type"),
        (np.zeros(3, object), "no type"),
        (np.float32(3), "same number of rows"),
    ):
        np.savez(path, x=array)
        with pytest.raises((ValueError, h5fast.UnsupportedError), match=rf"t\.npz.*{message}"):
            h5fast.pack(path, tmp_path / "out.h5")
    np.savez(path, x=np.arange(1000))
    damaged = bytearray(path.read_bytes())
    damaged[3000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(h5fast.ReadError, match="damaged"):
        h5fast.pack(path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_archives_that_say_what_is_wrong_in_another_way(tmp_path: Path) -> None:
    """bz2 raises a bare OSError, zip NotImplementedError of a version from the future; both have to name the archive."""
    files.write_tar(tmp_path / "a.tar.bz2", files.images(40), "w:bz2")
    damaged = bytearray((tmp_path / "a.tar.bz2").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "a.tar.bz2").write_bytes(damaged)
    archive = files.write_zip(tmp_path / "a.zip", files.images(2))
    later = bytearray(archive.read_bytes())
    later[later.index(b"PK\1\2") + 6] = 177  # the version needed to extract it
    archive.write_bytes(later)
    for name in ("a.tar.bz2", "a.zip"):
        with pytest.raises(h5fast.ReadError, match=f"damaged or cut off.*{name}"):
            h5fast.pack(tmp_path / name, tmp_path / "out.h5", layout="tree", overwrite=True)


def test_zip_without_times(tmp_path: Path) -> None:
    """Some programs write the day 0 of the month 0, which no calendar has."""
    archive = files.write_zip(tmp_path / "a.zip", {"a": b"1"})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((1 << 5 | 1).to_bytes(2, "little"), b"\0\0"))
    assert h5fast.pack(archive, tmp_path / "out.h5", layout="tree", metadata=True).count == 1
    with h5py.File(tmp_path / "out.h5") as file:
        assert "Modified" not in file["a"].attrs


def test_label_tables_that_are_wrong(tmp_path: Path) -> None:
    found = list(files.images(4).items())
    (tmp_path / "short.csv").write_text("path,label\n" + found[0][0] + "\n")
    with pytest.raises(ValueError, match=r"short\.csv, line 2: has 1 of the 2 columns"):
        h5fast.pack(found, tmp_path / "out.h5", labels=tmp_path / "short.csv")
    done = h5fast.pack(found, tmp_path / "out.h5", labels={path: 5 for path, _ in found[1:]})
    assert done.count == 3 and "no class" in done.problems[0].reason
    for label, kind in ((1 << 64, TypeError), ("a\0b", ValueError), (1.5, TypeError)):
        with pytest.raises(kind, match="the class of"):
            h5fast.pack(found, tmp_path / "wrong.h5", labels=lambda path, label=label: label)
        assert not list(tmp_path.glob("wrong*"))


def test_labels_of_a_former_file_are_not_left(tmp_path: Path) -> None:
    """They lie beside the file, where they would be read as those of the new one."""
    found = list(files.images(4).items())
    h5fast.pack(found, tmp_path / "out.h5")
    assert (tmp_path / "out_h5_labels.json").exists()
    h5fast.pack(found, tmp_path / "out.h5", labels=None, overwrite=True)
    assert not (tmp_path / "out_h5_labels.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "heap"},
        {"layout": "encoded", "decode": True},
        {"layout": "tree", "resize": 3},
        {"resize": (1, 2, 3)},
        {"pad": True},
        {"regex": "("},
        {"keep": "nothing"},
        {"reader": "os.path:no_such"},
        {"jobs": 0},
        {"memory": "much"},
        {"codec": "lzq"},
        {"ext": ""},
        {"name": "label"},
        {"mode": "XYZ"},
        {"name": "/path"},
        {"name": "class_names"},
    ],
)
def test_options_that_mean_nothing(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError)):
        h5fast.pack([("a.png", b"1")], tmp_path / "out.h5", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tmp_path: Path) -> None:
    """As a limit on the size of files, which a write meets in the same way."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); from h5fast.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    folder = files.write_folder(tmp_path / "f", {f"{number}.bin": os.urandom(50_000) for number in range(20)})
    for layout in ("encoded", "tree"):
        done = subprocess.run(
            [sys.executable, "-c", code, "pack", str(folder), str(tmp_path / "out.h5"), "--layout", layout, "--overwrite"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 2 and "out.h5.partial: File too large" in done.stderr, done.stderr
        assert not (tmp_path / "out.h5").exists()


CHILD = """
import sys, h5fast
from h5fast.packing import routing
routing._FLUSH_BYTES = 20_000
h5fast.pack(sys.argv[1], sys.argv[2], layout=sys.argv[3], jobs=1, resume=True)
"""


@pytest.mark.parametrize("layout", ["stack", "encoded", "tree"])
def test_killed_and_resumed(layout: str, tmp_path: Path) -> None:
    """At random points: nothing stands under the file's name until it is complete, and then it is that of an undisturbed run."""
    found = {**files.images(400), "china/0/000a.png": b"no image"}
    tar = files.write_tar(tmp_path / "a.tar", dict(sorted(found.items())))
    whole = h5fast.pack(tar, tmp_path / "whole.h5", layout=layout)
    command = [sys.executable, "-c", CHILD, str(tar), str(tmp_path / "out.h5"), layout]
    random = np.random.default_rng(5)
    kills = 0
    for attempt in range(12):
        child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
        if attempt < 8:
            start = time.monotonic()
            while not partial_path(tmp_path / "out.h5").exists() and child.poll() is None and time.monotonic() < start + 60:
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.03) * attempt)  # the first as soon as there is something
            child.send_signal(signal.SIGKILL)
        _, said = child.communicate()
        kills += child.returncode == -signal.SIGKILL
        if (tmp_path / "out.h5").exists():
            break
        assert child.returncode == -signal.SIGKILL, said.decode()
    assert kills > 0
    with h5py.File(tmp_path / "whole.h5") as one, h5py.File(tmp_path / "out.h5") as two:
        assert sorted(one) == sorted(two)
        for name in one:
            if isinstance(one[name], h5py.Dataset):
                np.testing.assert_array_equal(one[name][()], two[name][()])
    if layout != "stack":
        with h5fast.FileTree(tmp_path / "out.h5") as tree:
            assert tree.read_many(found) == list(found.values())
    assert whole.count == 400 + (layout != "stack")


def test_resume_with_other_options(tmp_path: Path) -> None:
    from h5fast.packing import routing

    tar = files.write_tar(tmp_path / "a.tar", files.images(200))
    tar.write_bytes(tar.read_bytes()[:-9000])
    before, routing._FLUSH_BYTES = routing._FLUSH_BYTES, 1000
    try:
        with pytest.raises(h5fast.ReadError):
            h5fast.pack(tar, tmp_path / "out.h5", jobs=1)
    finally:
        routing._FLUSH_BYTES = before
    with pytest.raises(FileExistsError, match="resume=True"):
        h5fast.pack(tar, tmp_path / "out.h5")
    with pytest.raises(ValueError, match="other options"):
        h5fast.pack(tar, tmp_path / "out.h5", resume=True, mode="L")
    files.write_tar(tmp_path / "a.tar", files.images(200))
    assert h5fast.pack(tar, tmp_path / "out.h5", resume=True).count == 200
    h5fast.pack(tar, tmp_path / "whole.h5")
    with h5py.File(tmp_path / "out.h5") as one, h5py.File(tmp_path / "whole.h5") as two:
        np.testing.assert_array_equal(one["image"][()], two["image"][()])
        np.testing.assert_array_equal(one["label"][()], two["label"][()])


def failing(path: str) -> str:
    raise ValueError("mine")


@pytest.mark.parametrize("layout", ["stack", "encoded", "tree"])
def test_resume_from_another_source(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was packed before and what comes now would be a file that nobody asked for."""
    from h5fast.packing import routing

    monkeypatch.setattr(routing, "_FLUSH_BYTES", 1000)
    found = files.images(200)
    cut = files.write_tar(tmp_path / "a.tar", found)
    cut.write_bytes(cut.read_bytes()[:-9000])
    with pytest.raises(h5fast.ReadError, match="cut off"):
        h5fast.pack(cut, tmp_path / "out.h5", layout=layout)
    paths, large = list(found), io.BytesIO()
    np.save(large, np.zeros((300, 300, 3), "u1"))  # more than all that was packed
    others = [
        {f"x/{path}": data for path, data in found.items()},
        {path: found[path] for path in paths[1:]},
        {path: found[path] for path in paths[:4]},
        {path: data + (b"more" if path == paths[4] else b"") for path, data in found.items()},
        {path: found[path] for path in (*paths[1:], paths[0])},
        {"a.npy": large.getvalue(), **found},
    ]
    for other in others:
        with pytest.raises(h5fast.ReadError, match=r"other files.*out\.h5"):
            h5fast.pack(list(other.items()), tmp_path / "out.h5", layout=layout, resume=True)
    with pytest.raises(ValueError, match="mine"):
        h5fast.pack(list(found.items()), tmp_path / "out.h5", layout=layout, resume=True, labels=failing)
    assert h5fast.pack(list(found.items()), tmp_path / "out.h5", layout=layout, resume=True).count == 200
    h5fast.pack(list(found.items()), tmp_path / "whole.h5", layout=layout)
    with h5py.File(tmp_path / "out.h5") as one, h5py.File(tmp_path / "whole.h5") as two:
        for name in two:
            if isinstance(two[name], h5py.Dataset):
                np.testing.assert_array_equal(one[name][()], two[name][()])


@pytest.mark.parametrize("layout", ["stack", "encoded"])
def test_killed_between_the_last_commit_and_the_name(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables that are written at the end were there already, and the packing could never be finished."""
    from h5fast.packing import routing

    monkeypatch.setattr(routing, "_FLUSH_BYTES", 1000)  # there has to be a commit to go on from
    found = files.images(30)
    tar = files.write_tar(tmp_path / "a.tar", dict(sorted(found.items())))
    h5fast.pack(tar, tmp_path / "whole.h5", layout=layout)

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "rename", die)
        patched.setattr(os, "link", die)
        h5fast.pack(tar, tmp_path / "out.h5", layout=layout)
    assert not (tmp_path / "out.h5").exists()
    h5fast.pack(tar, tmp_path / "out.h5", layout=layout, resume=True)
    with h5py.File(tmp_path / "whole.h5") as one, h5py.File(tmp_path / "out.h5") as two:
        assert sorted(one) == sorted(two)
        for name in one:
            np.testing.assert_array_equal(one[name][()], two[name][()])
