"""What pack makes of folders, archives and iterables, read back by h5py and FileTree."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pack_files as files
import pytest

import h5fast
from h5fast.cli import main

COUNT = 40


def make_source(kind: str, tmp_path: Path, found: dict[str, bytes]) -> Any:
    if kind == "folder":
        return files.write_folder(tmp_path / "folder", found)
    if kind == "zip":
        return files.write_zip(tmp_path / "a.zip", found)
    if kind == "iterable":
        return list(found.items())
    return files.write_tar(tmp_path / f"a.{kind}", found, "w" if kind == "tar" else "w:" + kind.rpartition(".")[2])


SOURCES = ["folder", "tar", "tar.gz", "tar.xz", "tar.bz2", "zip", "iterable"]


@pytest.mark.parametrize("kind", SOURCES)
def test_stack_holds_the_pixels_that_pillow_sees(kind: str, tmp_path: Path) -> None:
    found = files.images(COUNT)
    done = h5fast.pack(make_source(kind, tmp_path, found), tmp_path / "out.h5")
    assert (done.count, done.problems, done.classes) == (COUNT, (), {"china": 0, "flower": 1})
    with h5py.File(tmp_path / "out.h5") as file:
        assert [path.decode() for path in file["path"][()]] == list(found)
        np.testing.assert_array_equal(file["image"][()], [files.pixels(data) for data in found.values()])
        assert file["image"].compression == "lzf"
        assert [file["class_names"][number].decode() for number in file["label"][()]] == [path.split("/")[0] for path in found]
    assert json.loads((tmp_path / "out_h5_labels.json").read_text()) == {"china": 0, "flower": 1}
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("layout", ["encoded", "tree"])
@pytest.mark.parametrize("kind", SOURCES)
def test_files_come_back_byte_by_byte(kind: str, layout: str, tmp_path: Path) -> None:
    found = files.images(COUNT)
    h5fast.pack(make_source(kind, tmp_path, found), tmp_path / "out.h5", layout=layout)
    with h5fast.FileTree(tmp_path / "out.h5") as tree:
        assert sorted(tree) == list(found)
        assert tree.read_many(found) == list(found.values())
    if layout == "tree":  # what Data2H5's and HDFVFS' readers do
        with h5py.File(tmp_path / "out.h5") as file:
            assert all(file[path][:].tobytes() == data for path, data in found.items())


def test_encoded_keeps_labels_beside_the_files(tmp_path: Path) -> None:
    """A file that is called as a table of the layout is a file nevertheless, in a folder."""
    found = {**files.images(6), "label/label": b"not a table"}
    h5fast.pack(list(found.items()), tmp_path / "out.h5", layout="encoded")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["label"][()].tolist() == [0, 0, 0, 1, 1, 1, 2]
        assert [name.decode() for name in file["class_names"][()]] == ["china", "flower", "label"]
        bounds = file["offsets"][()]
        assert file["data"][bounds[6] : bounds[7]].tobytes() == b"not a table"
    with h5fast.FileTree(tmp_path / "out.h5") as tree:
        assert sorted(tree) == sorted(found) and tree["label/label"] == b"not a table"


def test_a_tree_of_decoded_arrays(tmp_path: Path) -> None:
    """The file that Data2H5 writes: an array for each image under its path, lzf, one chunk."""
    found = files.images(6)
    h5fast.pack(list(found.items()), tmp_path / "out.h5", layout="tree", decode=True, mode="L")
    with h5py.File(tmp_path / "out.h5") as file:
        for path, data in found.items():
            np.testing.assert_array_equal(file[path][:], files.pixels(data, "L"))
            assert (file[path].compression, file[path].chunks) == ("lzf", file[path].shape)


@pytest.mark.parametrize("layout", ["stack", "encoded", "tree"])
def test_same_input_same_bytes(layout: str, tmp_path: Path) -> None:
    """Also with other numbers of jobs, and from an archive that lists the same files."""
    found = files.images(COUNT, kind="JPEG")
    folder = files.write_folder(tmp_path / "folder", found)
    written = []
    for number, (source, jobs) in enumerate([(folder, 1), (folder, 3), (files.write_tar(tmp_path / "a.tar", found), 2)]):
        h5fast.pack(source, tmp_path / f"{number}.h5", layout=layout, jobs=jobs)
        written.append((tmp_path / f"{number}.h5").read_bytes())
    assert written[0] == written[1] == written[2]


def test_filters_take_what_they_say(tmp_path: Path) -> None:
    data = b"x"
    names = ["a.jpg", "deep/B.JPG", "c.notajpg", "deep/d.jpeg", "e.txt", "deep/er/f.Jpg"]
    source = [(name, data) for name in names]

    def packed(**options: Any) -> list[str]:
        h5fast.pack(source, tmp_path / "out.h5", layout="tree", overwrite=True, labels=None, **options)
        with h5fast.FileTree(tmp_path / "out.h5") as tree:
            return sorted(tree)

    assert packed(ext="jpg") == packed(ext=".JPG") == ["a.jpg", "deep/B.JPG", "deep/er/f.Jpg"]
    assert packed(ext=["jpeg", "txt"]) == ["deep/d.jpeg", "e.txt"]
    assert packed(glob="*.jpg") == ["a.jpg"]
    assert packed(glob="deep/*") == ["deep/B.JPG", "deep/d.jpeg", "deep/er/f.Jpg"]
    assert packed(regex=r"/er/|^e") == ["deep/er/f.Jpg", "e.txt"]
    assert packed(keep=lambda path: len(path) == 5, ext="jpg") == ["a.jpg"]
    assert packed(keep="os.path:dirname") == ["deep/B.JPG", "deep/d.jpeg", "deep/er/f.Jpg"]
    with pytest.raises(ValueError, match="has no member"):
        packed(ext="tif")


def test_readers_decode_what_pillow_cannot(tmp_path: Path) -> None:
    source = [(f"{number}.raw", np.full(4, number, "<f4").tobytes()) for number in range(100)]
    for jobs in (1, 2):
        h5fast.pack(
            source,
            tmp_path / "out.h5",
            reader=lambda path, data: np.frombuffer(data, "<f4"),
            jobs=jobs,
            name="signal",
            overwrite=True,
        )
        with h5py.File(tmp_path / "out.h5") as file:
            np.testing.assert_array_equal(file["signal"][()], np.repeat(np.arange(100, dtype="f4"), 4).reshape(-1, 4))


def test_arrays_and_npy_files_are_rows(tmp_path: Path) -> None:
    rows = np.arange(60, dtype="i2").reshape(5, 3, 4)
    for number, row in enumerate(rows):
        np.save(tmp_path / f"{number}.npy", row)
    h5fast.pack(tmp_path, tmp_path / "out.h5", ext="npy", name="x")
    h5fast.pack([(str(number), row, number % 2) for number, row in enumerate(rows)], tmp_path / "two.h5", name="x")
    with h5py.File(tmp_path / "out.h5") as one, h5py.File(tmp_path / "two.h5") as two:
        np.testing.assert_array_equal(one["x"][()], rows)
        np.testing.assert_array_equal(two["x"][()], rows)
        assert (
            two["path"][3] == b"3"
            and two["label"][()].tolist() == [0, 1, 0, 1, 0]
            and "class_names" not in two
            and "label" not in one
        )


def test_sizes_are_made_alike(tmp_path: Path) -> None:
    def image(height: int, width: int) -> bytes:
        import io

        out = io.BytesIO()
        files.Image.fromarray(files.photographs()[0][:height, :width]).save(out, "PNG")
        return out.getvalue()

    source = [("a.png", image(20, 30)), ("b.png", image(40, 10))]
    shapes = {
        "resize": (dict(resize=16), (16, 16, 3)),
        "pad": (dict(pad=(40, 32)), (40, 32, 3)),
        "both": (dict(resize=(20, 20), pad=True), (20, 20, 3)),
    }
    for name, (options, shape) in shapes.items():
        h5fast.pack(source, tmp_path / f"{name}.h5", **options)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert file["image"].shape == (2, *shape)
            if name == "pad":
                np.testing.assert_array_equal(file["image"][0, :20, :30], files.photographs()[0][:20, :30])
                assert not file["image"][0, 20:].any() and not file["image"][0, :, 30:].any()
            if name == "both":  # 20x30 becomes 13x20, and 40x10 becomes 20x5
                assert not file["image"][0, 13:].any() and file["image"][0, :13, :20].any(axis=(1, 2)).all()
                assert not file["image"][1, :, 5:].any() and file["image"][1, :, :5].any(axis=(1, 2)).all()


def test_labels_from_elsewhere(tmp_path: Path) -> None:
    found = files.images(6)
    (tmp_path / "labels.csv").write_text(
        "label,note,path\n" + "".join(f"{number % 3},,{path}\n" for number, path in enumerate(found))
    )
    for labels, numbers, names in [
        (tmp_path / "labels.csv", [0, 1, 2, 0, 1, 2], None),
        (
            {path.rpartition("/")[2]: "odd" if number % 2 else "even" for number, path in enumerate(found)},
            [0, 1] * 3,
            ["even", "odd"],
        ),
        (lambda path: path[0], [0] * 3 + [1] * 3, ["c", "f"]),
        ("parent", [0, 1, 2, 0, 1, 2], None),
        (None, None, None),
    ]:
        h5fast.pack(list(found.items()), tmp_path / "out.h5", labels=labels, overwrite=True)
        with h5py.File(tmp_path / "out.h5") as file:
            assert (file["label"][()].tolist() if "label" in file else None) == numbers
            assert ([name.decode() for name in file["class_names"][()]] if "class_names" in file else None) == names


def test_classes_of_a_tree_that_are_no_folders(tmp_path: Path) -> None:
    for number, source in enumerate([[("a", b"1", "cat"), ("b", b"2", "dog")], [("a", b"1"), ("b", b"2")]]):
        labels = {"a": "cat", "b": "dog"} if number else "folder"
        done = h5fast.pack(source, tmp_path / f"{number}.h5", layout="tree", labels=labels)
        assert done.classes == {"cat": 0, "dog": 1}
        with h5py.File(tmp_path / f"{number}.h5") as file:
            assert [file[path].attrs["label"] for path in "ab"] == ["cat", "dog"]


@pytest.mark.parametrize("layout", ["tree", "encoded"])
def test_empty_folders_come_back(layout: str, tmp_path: Path) -> None:
    folder = files.write_folder(tmp_path / "f", {"a/b/file": b"1", "a/empty.jpg": b""})
    for path in ("a/none", "deep/er/est", "deep/other"):
        (folder / path).mkdir(parents=True)
    with tarfile.open(tmp_path / "f.tar", "w") as archive:
        archive.add(folder, ".")
    shutil.make_archive(str(tmp_path / "f"), "zip", folder)
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    for source in ("f", "f.tar", "f.zip"):
        done = h5fast.pack(tmp_path / source, tmp_path / "out.h5", layout=layout, overwrite=True, metadata=source != "f")
        assert done.count == 2 and done.problems == ()
        assert main(["extract", str(tmp_path / "out.h5"), "-C", str(tmp_path / f"{source}.out"), "--quiet"]) == 0
        assert sorted(str(path.relative_to(tmp_path / f"{source}.out")) for path in (tmp_path / f"{source}.out").rglob("*")) == there
    h5fast.pack(folder, tmp_path / "out.h5", layout=layout, overwrite=True, glob="*/b/*")
    with h5fast.FileTree(tmp_path / "out.h5") as tree:
        assert tree.ls("/a") == ["b"], "where a choice was made, folders are none of it"


def test_links_lead_to_files(tmp_path: Path) -> None:
    """In folders and tar archives; circles and links that lead nowhere are told, not followed."""
    import tarfile

    folder = files.write_folder(tmp_path / "f", {"a/one": b"1", "b/two": b"22"})
    (folder / "b" / "link").symlink_to("../a/one")
    (folder / "b" / "up").symlink_to("..")
    (folder / "gone").symlink_to("nowhere")
    with tarfile.open(tmp_path / "f.tar", "w") as archive:
        archive.add(folder / "b", "b")
        archive.add(folder / "a", "a")
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, "b/two"
        archive.addfile(hard)
    done = h5fast.pack(folder, tmp_path / "folder.h5", layout="tree")
    assert {problem.path: problem.reason.split(":")[0] for problem in done.problems} == {
        "b/up": "is a link to a folder that it lies in",
        "gone": "cannot be looked at",
    }
    with h5fast.FileTree(tmp_path / "folder.h5") as tree:
        assert {path: tree[path] for path in tree} == {"a/one": b"1", "b/link": b"1", "b/two": b"22"}
    done = h5fast.pack(tmp_path / "f.tar", tmp_path / "tar.h5", layout="encoded")
    assert [problem.path for problem in done.problems] == ["b/up"]
    with h5fast.FileTree(tmp_path / "tar.h5") as tree:
        assert {path: tree[path] for path in tree} == {"a/one": b"1", "b/link": b"1", "b/two": b"22", "hard": b"22"}


def test_long_files_go_through_in_pieces(tmp_path: Path) -> None:
    long = np.random.default_rng(0).bytes(20 << 20)
    source = {"a": b"1", "long": long, "z": b"2"}
    files.write_tar(tmp_path / "a.tar", source)
    for layout in ("encoded", "tree"):
        h5fast.pack(tmp_path / "a.tar", tmp_path / "out.h5", layout=layout, overwrite=True, memory="16 MiB")
        with h5fast.FileTree(tmp_path / "out.h5") as tree:
            assert {path: tree[path] for path in tree} == source


def test_times_and_permissions_where_asked_for(tmp_path: Path) -> None:
    folder = files.write_folder(tmp_path / "f", {"a/one": b"1"})
    os.utime(folder / "a/one", (1e9, 1e9))
    (folder / "a/one").chmod(0o640)
    for layout in ("encoded", "tree"):
        h5fast.pack(folder, tmp_path / "out.h5", layout=layout, metadata=True, overwrite=True)
        with h5fast.FileTree(tmp_path / "out.h5") as tree:
            about = tree.stat("a/one")
        assert (about.modified, (about.permissions or 0) & 0o777) == (10**9, 0o640)


def test_dry_run_tells_what_comes(tmp_path: Path) -> None:
    found = files.images(COUNT, 48)
    for options in ({}, {"layout": "encoded"}, {"layout": "tree"}):
        told = h5fast.pack(list(found.items()), tmp_path / "out.h5", dry_run=True, **options)
        assert not (tmp_path / "out.h5").exists()
        done = h5fast.pack(list(found.items()), tmp_path / "out.h5", **options)
        assert (told.count, told.read) == (done.count, done.read)
        with h5py.File(tmp_path / "out.h5") as file:
            stored = sum(file[name].id.get_storage_size() for name in ("image", "data") if name in file) or sum(
                map(len, found.values())
            )
        assert told.stored == pytest.approx(stored, rel=0.5, abs=30_000 if not options else 300_000)
        (tmp_path / "out.h5").unlink()


def test_the_member_index_of_a_tree_is_written(tmp_path: Path) -> None:
    h5fast.pack(list(files.images(COUNT).items()), tmp_path / "out.h5", layout="tree")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file[".h5fast"].attrs["version"] == 1
    with h5fast.FileTree(tmp_path / "out.h5") as tree:
        assert tree._saved is not None and tree._saved.load() is not None


def test_tables_become_fields(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    (tmp_path / "t.csv").write_text("n,value,name\n" + "".join(f"{k},{k / 4 if k != 3 else ''},row {k}\n" for k in range(50)))
    h5fast.pack(tmp_path / "x.npy", tmp_path / "npy.h5")
    h5fast.pack(tmp_path / "xy.npz", tmp_path / "npz.h5")
    assert h5fast.pack(tmp_path / "t.csv", tmp_path / "csv.h5").count == 50
    with h5py.File(tmp_path / "npy.h5") as npy, h5py.File(tmp_path / "npz.h5") as npz, h5py.File(tmp_path / "csv.h5") as table:
        np.testing.assert_array_equal(npy["data"][()], x)
        np.testing.assert_array_equal(npz["x"][()], x)
        np.testing.assert_array_equal(npz["y"][()], y)
        np.testing.assert_array_equal(table["n"][()], np.arange(50))
        values = np.arange(50) / 4
        values[3] = np.nan
        np.testing.assert_array_equal(table["value"][()], values)
        assert table["name"][7] == b"row 7" and table["n"].dtype == np.int64


def test_numbers_of_a_table_are_not_rounded(tmp_path: Path) -> None:
    """What float64 cannot hold stays text, and int64 takes all that it can."""
    (tmp_path / "t.csv").write_text("id,some,late,value\n9223372036854775807,9007199254740993,9007199254740993,1\n-5,,3,\n7,8,1.5,1e3\n")
    h5fast.pack(tmp_path / "t.csv", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["id"][()].tolist() == [9223372036854775807, -5, 7]
        assert file["some"][()].tolist() == [b"9007199254740993", b"", b"8"]
        assert file["late"][()].tolist() == [b"9007199254740993", b"3", b"1.5"]
        np.testing.assert_array_equal(file["value"][()], [1, np.nan, 1000])


def test_arrays_of_an_archive_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from h5fast.packing import tables

    monkeypatch.setattr(tables, "_BATCH_BYTES", 100)
    arrays = {"x": np.arange(300.0).reshape(100, 3), "y": np.asfortranarray(np.arange(200).reshape(100, 2)), "z": np.arange(100) % 2 == 0}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "t.npz", **arrays)
        h5fast.pack(tmp_path / "t.npz", tmp_path / "out.h5", overwrite=True)
        with h5py.File(tmp_path / "out.h5") as file:
            for name, array in arrays.items():
                np.testing.assert_array_equal(file[name][()], array)
    found = tables._read_npz(tmp_path / "t.npz")
    np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in found.batches(37)]), arrays["y"][37:])
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in found.batches(37)]), arrays["x"][37:])


def test_parquet_becomes_fields(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    pairs = arrow.FixedSizeListArray.from_arrays(arrow.array(range(40), arrow.float32()), 2)
    parquet.write_table(
        arrow.table({"n": arrow.array(range(20)), "name": [f"row {k}" for k in range(20)], "pair": pairs}),
        tmp_path / "t.parquet",
        row_group_size=7,
    )
    h5fast.pack(tmp_path / "t.parquet", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["n"][()].tolist() == list(range(20)) and file["name"][4] == b"row 4"
        np.testing.assert_array_equal(file["pair"][()], np.arange(40, dtype="f4").reshape(20, 2))
    lacking = arrow.array([[1.0, 2.0], None, [3.0, 4.0]], arrow.list_(arrow.float32(), 2))
    parquet.write_table(arrow.table({"pair": lacking}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: column 'pair' has rows without a list"):
        h5fast.pack(tmp_path / "t.parquet", tmp_path / "out.h5", overwrite=True)
    parquet.write_table(arrow.table({"n": arrow.array([1, None])}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"'n' has rows without a value"):
        h5fast.pack(tmp_path / "t.parquet", tmp_path / "out.h5", overwrite=True)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match=r"t\.parquet"):
        h5fast.pack(tmp_path / "t.parquet", tmp_path / "out.h5", overwrite=True)
