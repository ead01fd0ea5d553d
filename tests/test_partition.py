"""What partition makes of files and archives: exact shares, reproducible, every row in its place."""

from __future__ import annotations

import os
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pack_files as files
import pytest

import h5fast
from h5fast import ReadError
from h5fast._encode import move_chunks
from h5fast.cli import main
from h5fast.methods import reader_of

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


def write_rows(path: Path, rows: int = 100, chunk: int = 1, **options: Any) -> Path:
    random = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=random.integers(0, 9, (rows, 6, 5), dtype="u1"), chunks=(chunk, 6, 5), **options)
        file.create_dataset("deep/label", data=np.arange(rows))
        file.create_dataset("label", data=np.repeat([0, 1], [rows // 5, rows - rows // 5]), dtype="i4")
        file.create_dataset("text", data=[f"row {row}" for row in range(rows)], dtype=h5py.string_dtype())
        file.create_dataset("class_names", data=["a", "b"], dtype=h5py.string_dtype())
        file["mean"] = 4.5
        file["image"].attrs["unit"] = "counts"
        file.attrs["source"] = "here"
        file["image"].dims[0].label = "row"
    return path


def parts_in(tmp_path: Path, tag: str = "") -> dict[str, Path]:
    return {name: tmp_path / f"{name}{tag}.h5" for name in SHARES}


@pytest.mark.parametrize("chunk", [1, 7])
@pytest.mark.parametrize("options", [{}, {"compression": "lzf"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_rows_go_to_one_part_each(chunk: int, options: dict[str, Any], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "all.h5", chunk=chunk, **options)
    done = h5fast.partition(source, parts_in(tmp_path), SHARES)
    assert dict(done.counts) == {"train": 70, "val": 20, "test": 10}
    assert sorted(np.concatenate(list(done.rows.values())).tolist()) == list(range(100))
    with h5py.File(source) as whole:
        for name, path in parts_in(tmp_path).items():
            rows = done.rows[name]
            with h5py.File(path) as part:
                for field in ("image", "deep/label", "label", "text"):
                    np.testing.assert_array_equal(part[field][()], whole[field][()][rows])
                    assert part[field].dtype == whole[field].dtype
                assert (
                    part["image"].chunks == (min(chunk, len(rows)), 6, 5)
                    and part["image"].compression == whole["image"].compression
                )
                assert part["image"].shuffle == whole["image"].shuffle and part["image"].fletcher32 == whole["image"].fletcher32
                assert part["image"].attrs["unit"] == "counts" and part.attrs["source"] == "here"
                assert part["class_names"][()].tolist() == [b"a", b"b"] and part["mean"][()] == 4.5
                assert np.bincount(part["label"][()]).tolist() == [len(rows) // 5, len(rows) - len(rows) // 5]


def test_chunks_move_without_being_decoded(tmp_path: Path) -> None:
    """The stored bytes are the same: also of a chunk that no decoder would take."""
    source = write_rows(tmp_path / "all.h5", compression="lzf")
    with h5py.File(source, "r+") as file:
        file["image"].id.write_direct_chunk((42, 0, 0), b"nothing that lzf knows")
    done = h5fast.partition(source, parts_in(tmp_path), SHARES, stratify=False)
    with h5py.File(source) as whole:
        for name, path in parts_in(tmp_path).items():
            with h5py.File(path) as part:
                for place, row in enumerate(done.rows[name].tolist()):
                    assert part["image"].id.read_direct_chunk((place, 0, 0)) == whole["image"].id.read_direct_chunk((row, 0, 0))


def test_chunks_that_were_never_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_dataset("x", (20, 3), "f4", chunks=(1, 3), fillvalue=7, compression="lzf")[5] = 1
    done = h5fast.partition(tmp_path / "all.h5", parts_in(tmp_path), SHARES)
    for name, path in parts_in(tmp_path).items():
        with h5py.File(path) as part:
            np.testing.assert_array_equal(part["x"][()], np.where(done.rows[name] == 5, 1, 7)[:, None] * np.ones(3, "f4"))


def test_same_seed_same_parts(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "all.h5", chunk=7, compression="lzf")
    made = {
        tag: h5fast.partition(source, parts_in(tmp_path, tag), SHARES, seed=seed)
        for tag, seed in (("a", 4), ("b", 4), ("c", 5))
    }
    for name in SHARES:
        one, two, three = ((tmp_path / f"{name}{tag}.h5").read_bytes() for tag in "abc")
        assert one == two != three
        assert made["a"].rows[name].tolist() == made["b"].rows[name].tolist() != made["c"].rows[name].tolist()


def test_splits_inside_one_file(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "all.h5")
    done = h5fast.partition(source, dict.fromkeys(SHARES), SHARES)
    for name, rows in done.rows.items():
        loader = h5fast.Loader(source, "deep/label", rows=name, batch_size=10)
        assert sorted(np.concatenate([np.asarray(batch).reshape(-1) for batch in loader]).tolist()) == rows.tolist()


@pytest.mark.parametrize("layout", ["encoded", "tree"])
@pytest.mark.parametrize("source", ["archive", "file"])
def test_files_of_an_archive_or_a_file(source: str, layout: str, tmp_path: Path) -> None:
    found = files.images(60)
    where = files.write_tar(tmp_path / "a.tar.gz", found, "w:gz")
    options: dict[str, Any] = {"layout": layout}
    if source == "file":
        h5fast.pack(where, tmp_path / "all.h5", layout=layout)
        where, options = tmp_path / "all.h5", {}
    done = h5fast.partition(where, parts_in(tmp_path), SHARES, **options)
    assert dict(done.counts) == {"train": 42, "val": 12, "test": 6}
    seen: dict[str, bytes] = {}
    for name, path in parts_in(tmp_path).items():
        with h5fast.FileTree(path) as tree:
            inside = {member: tree[member] for member in tree}
        assert sum(member.startswith("china/") for member in inside) == done.counts[name] / 2
        seen |= inside
        if layout == "encoded":
            with h5py.File(path) as file:
                assert [name.decode() for name in file["class_names"][()]] == ["china", "flower"]
                assert file["label"][()].tolist() == [int(text.startswith(b"flower/")) for text in file["paths"][()]]
    assert dict(sorted(seen.items())) == found


def test_a_file_of_hdfvfs_or_data2h5(tmp_path: Path) -> None:
    """Which say nothing of their layout: the names of their datasets do."""
    found = files.images(20)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for path, data in found.items():
            file.create_dataset(path, data=files.pixels(data), chunks=(24, 24, 3), compression="lzf")
    done = h5fast.partition(tmp_path / "all.h5", parts_in(tmp_path), SHARES)
    assert sum(done.counts.values()) == 20
    for path in parts_in(tmp_path).values():
        with h5py.File(path) as file, h5fast.FileTree(path) as tree:
            for member in tree:
                np.testing.assert_array_equal(file[member][()], files.pixels(found[member]))
                assert file[member].compression == "lzf"


def test_a_class_has_the_same_number_in_each_part(tmp_path: Path) -> None:
    """Also where a part has none of it: numbered by itself, the test set would call classes by other numbers."""
    source = [(f"{name}/{number}.bin", bytes(3)) for name, count in (("a", 1), ("b", 30), ("c", 30)) for number in range(count)]
    h5fast.partition(source, {"train": tmp_path / "1.h5", "test": tmp_path / "2.h5"}, [0.5, 0.5])
    numbers = []
    for path in (tmp_path / "1.h5", tmp_path / "2.h5"):
        with h5py.File(path) as file:
            assert [name.decode() for name in file["class_names"][()]] == ["a", "b", "c"]
            numbers.append(set(file["label"][()].tolist()))
    assert sorted(map(len, numbers)) == [2, 3]


def test_decoded_parts_of_an_archive(tmp_path: Path) -> None:
    found = files.images(30)
    tar = files.write_tar(tmp_path / "a.tar", found)
    h5fast.partition(tar, parts_in(tmp_path), SHARES, layout="stack")
    for path in parts_in(tmp_path).values():
        with h5py.File(path) as file:
            for name, image in zip(file["path"][()], file["image"][()]):
                np.testing.assert_array_equal(image, files.pixels(found[name.decode()]))


def odd_rows(path: Path, rows: int) -> Path:
    """Types that NumPy has no equal of, and what is no dataset of rows."""
    with h5py.File(path, "w") as file:
        chunked = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        chunked.set_chunk((1,))
        texts, halves = h5py.h5t.C_S1.copy(), h5py.h5t.IEEE_F32LE.copy()
        texts.set_size(5)
        texts.set_strpad(h5py.h5t.STR_SPACEPAD)
        halves.set_fields(15, 7, 8, 0, 7)  # bfloat16: in memory, NumPy's float32
        halves.set_size(2)
        halves.set_ebias(127)
        for name, kind, values in (
            ("padded", texts, np.array([b"ab   ", b"cd   "] * (rows // 2), "S5")),
            ("bits", h5py.h5t.STD_B8LE, np.arange(rows).astype("u1")),
            ("halves", halves, np.arange(rows).astype("f4")),
        ):
            dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple((rows,)), chunked)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values, h5py.h5t.NATIVE_FLOAT if name == "halves" else kind)
        file["image"] = np.arange(rows * 12).reshape(rows, 3, 4)
        file["aa"] = file["image"]  # another name of it, which comes before
        file["refers"] = np.array([file["image"].ref, file["padded"].ref] * (rows // 2), h5py.ref_dtype)
        file["nothing"], file["none each"] = h5py.Empty("f4"), np.zeros((rows, 0))
        file["soft"] = h5py.SoftLink("/image")
        file["image"].attrs["pair"] = np.array((1, 2.5), [("a", "i4"), ("b", "f8")])
        file["image"].attrs["mask"] = file["padded"].ref
        file["parts/empty"], file["kind"] = h5py.Empty("i1"), np.dtype([("a", "i2")])
        file["parts"].attrs["who"] = "me"
        file["label"] = np.arange(rows) % 2
    return path


@pytest.mark.parametrize("chunk", [1, 5])
def test_everything_in_the_file_goes_along(chunk: int, tmp_path: Path) -> None:
    """Types with all they say, every name of an object, attributes of groups, references to the copies."""
    source = odd_rows(tmp_path / "all.h5", 20)
    with h5py.File(source, "r+") as file:
        file.create_dataset("tiles", data=np.arange(20 * 36).reshape(20, 6, 6), chunks=(chunk, 4, 4), compression="gzip", fletcher32=True)
    done = h5fast.partition(source, {"a": tmp_path / "a.h5", "b": tmp_path / "b.h5"}, [0.7, 0.3])
    for name, rows in done.rows.items():
        with h5py.File(source) as whole, h5py.File(tmp_path / f"{name}.h5") as part:
            assert list(part) == list(whole)
            for field in ("aa", "bits", "halves", "image", "label", "none each", "padded", "tiles"):
                np.testing.assert_array_equal(part[field][()], whole[field][()][rows])
                assert part[field].id.get_type().equal(whole[field].id.get_type())
            assert part["aa"] == part["image"] and part.get("soft", getlink=True).path == "/image"
            assert part[part["refers"][0]] == part[("image", "padded")[rows[0] % 2]]
            assert part[part["image"].attrs["mask"]] == part["padded"] and part["image"].attrs["pair"].item() == (1, 2.5)
            assert part["parts"].attrs["who"] == "me" and part["nothing"].shape is None and part["kind"].dtype.names == ("a",)
            assert part["tiles"].compression == "gzip" and part["tiles"].fletcher32


def test_regions_of_rows_that_went_elsewhere(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["x"] = np.arange(10)
        file.attrs["some"] = file["x"].regionref[2:4]
    with pytest.raises(h5fast.UnsupportedError, match=r"'some' of '/'.*elements of '/x', of which not all are there"):
        h5fast.partition(tmp_path / "all.h5", {"a": tmp_path / "a.h5", "b": tmp_path / "b.h5"})
    assert [path.name for path in tmp_path.iterdir()] == ["all.h5"]


def test_classes_of_files_keep_their_numbers(tmp_path: Path) -> None:
    """Also in a part that lacks one, where who goes by the folders would count otherwise."""
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for number in range(9):
            file[f"{'abc'[number // 3]}/{number}.bin"] = np.arange(3, dtype="u1")
    h5fast.partition(tmp_path / "all.h5", {"x": tmp_path / "x.h5", "y": tmp_path / "y.h5"}, [0.9, 0.1], stratify=False)
    for name in "xy":
        assert json.loads((tmp_path / f"{name}_h5_labels.json").read_text()) == {"a": 0, "b": 1, "c": 2}
    source = write_rows(tmp_path / "rows.h5")
    h5fast.partition(source, {"x": tmp_path / "x.h5", "y": tmp_path / "y.h5"}, overwrite=True)
    assert json.loads((tmp_path / "x_h5_labels.json").read_text()) == {"a": 0, "b": 1}


@pytest.mark.parametrize("what", ["rows", "tree", "encoded"])
def test_parts_appear_together(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them stays where a later one cannot be written."""
    source = tmp_path / "all.h5"
    if what == "rows":
        write_rows(source)
    else:
        h5fast.pack([(f"{number}.bin", b"1234") for number in range(20)], source, layout=what)
    before, calls = h5py.File.flush, []

    def flush(file: h5py.File) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        before(file)

    monkeypatch.setattr(h5py.File, "flush", flush)
    with pytest.raises(OSError, match="No space"):
        h5fast.partition(source, {"a": tmp_path / "a.h5", "b": tmp_path / "b.h5"})
    assert len(calls) >= 2 and [path.name for path in tmp_path.iterdir()] == ["all.h5"]


def test_what_cannot_be_shared_out(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "all.h5")
    parts = parts_in(tmp_path)
    for given, options, message in [
        (parts, {"fractions": [0.9, 0.9, 0.9]}, "add up"),
        (parts, {"fractions": [1, 1]}, "2 fractions for 3"),
        (parts, {"fractions": {"train": 1}}, "fractions are of train"),
        ({}, {}, "empty"),
        ({"a": None, "b": tmp_path / "b.h5"}, {}, "either each"),
        ({"a": tmp_path / "b.h5", "b": tmp_path / "b.h5"}, {}, "same file"),
        ({"a": source, "b": tmp_path / "b.h5"}, {"overwrite": True}, "its own part"),
        (parts, {"layout": "tree"}, "keeps its layout"),
        (parts, {"by": "colour"}, "by is"),
        (parts, {"fractions": [1, 0.001, 0]}, "add up|gets none"),
    ]:
        with pytest.raises(ValueError, match=message):
            h5fast.partition(source, given, **{"fractions": SHARES if given is parts else None, **options})
        assert not any(path.exists() for path in parts.values())
    with pytest.raises(KeyError, match="no dataset 'colour'"):
        h5fast.partition(source, parts, SHARES, stratify="colour")
    parts["val"].write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        h5fast.partition(source, parts, SHARES)
    assert parts["val"].read_bytes() == b"mine" and not parts["train"].exists()
    with pytest.raises(TypeError, match="pass a list"):
        h5fast.partition(iter([("a", b"1")]), {"a": tmp_path / "c.h5"})


def test_command_tells_what_could_not_be_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {**files.images(20), "china/0/empty.png": b""}
    folder = files.write_folder(tmp_path / "f", found)
    parts = [f"{name}={tmp_path / name}.h5:0.5" for name in ("a", "b")]
    assert main(["partition", str(folder), *parts, "--layout", "stack"]) == 1
    said = capsys.readouterr()
    assert "china/0/empty.png: is empty" in said.err and "1 could not be packed" in said.err


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "all.h5")
    assert main(["partition", str(source), f"train={tmp_path}/train.h5:0.8", f"test={tmp_path}/test.h5:0.2"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"train: 80 in {tmp_path}/train.h5", f"test: 20 in {tmp_path}/test.h5"]
    assert main(["partition", str(source), f"train={tmp_path}/train.h5:0.8", f"test={tmp_path}/test.h5:0.2"]) == 2
    assert "train.h5: exists" in capsys.readouterr().err
    assert main(["partition", str(source), "train:0.5", "test:0.5", "--seed", "3"]) == 0
    with h5py.File(source) as file:
        assert len(file["splits/train"]) == 50
    tar = files.write_tar(tmp_path / "a.tar", files.images(20))
    assert (
        main(["partition", str(tar), f"a={tmp_path}/a.h5:0.5", f"b={tmp_path}/b.h5:0.5", "--layout", "tree", "--glob", "*.png"])
        == 0
    )
    with h5fast.FileTree(tmp_path / "a.h5") as tree:
        assert len(tree) == 10
    with pytest.raises(SystemExit, match="2"):
        main(["partition", str(source), "train=0.5"])


def test_moving_chunks_that_are_not_there(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "all.h5", chunk=4, compression="lzf")
    with h5fast.File(source) as file, h5py.File(tmp_path / "part.h5", "w") as part:
        target = part.create_dataset("image", (100, 6, 5), "u1", chunks=(4, 6, 5), compression="lzf")
        chunks = reader_of(file["image"]).parts()[0].chunks
        move_chunks(target.id, 0, chunks, np.array([8, 4]), str)
        np.testing.assert_array_equal(target[:8], np.concatenate([file["image"][8:12], file["image"][4:8]]))
        for row in (-4, 3, 100):
            with pytest.raises(ValueError, match=f"no chunk begins with row {row}"):
                move_chunks(target.id, 0, chunks, np.array([row]), str)
        os.truncate(source, 1000)
        with pytest.raises(ReadError, match="named: .*, chunk at .*the file ends before"):
            move_chunks(target.id, 0, chunks, np.arange(0, 100, 4), lambda: "named: all.h5")
