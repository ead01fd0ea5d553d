"""Files opened with ``untrusted=True`` read like any other: names, shapes, attributes, elements; and what is refused says why.

h5py, which trusts the file, is the oracle. How the other process fails is in test_untrusted_process.py.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest

import h5fast
from h5fast.cli import main

TABLE = files.content((100, 6), "i4")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one of each kind of object, link and attribute that can be told."""
    with h5py.File(tmp_path / "f.h5", "w", libver="latest", track_order=True) as f:
        f["zulu/table"] = TABLE
        f.create_dataset("gzip", data=TABLE, chunks=(7, 4), compression="gzip", shuffle=True, maxshape=(None, 6), fillvalue=5)
        f.create_dataset("lzf", data=TABLE, chunks=(7, 6), compression="lzf", fletcher32=True)
        f.create_dataset("sparse", (50, 3), "f4", chunks=(5, 3), fillvalue=1.5)[10:12] = 2
        f["compound"] = files.content((9,), np.dtype([("a", "i4"), ("b", "f8", (2,)), ("s", "S3")]))
        f["bool"], f["scalar"], f["fixed"] = np.array([True, False]), 7, np.array([b"ab", b"c"])
        f.create_dataset("short", data=np.bytes_(b"ab"), dtype="S9")
        f["empty"], f["text"] = h5py.Empty("f4"), ["a", "bb"]
        f["soft"], f["hard"], f["type"] = h5py.SoftLink("/zulu/table"), f["gzip"], np.dtype("f4")
        f["external"] = h5py.ExternalLink("other.h5", "/x")
        f["zulu/up"] = f["/"]
        attributes = {"text": "héllo", "list": ["x", "y"], "big": np.arange(6, dtype=">i2").reshape(2, 3), "true": True,
                      "nothing": np.bytes_(b""), "void": h5py.Empty("S3"), "real": 1.5,
                      "enum": np.array([0, 1], h5py.enum_dtype({"a": 0, "b": 1}))}
        for where in (f, f["zulu"], f["gzip"]):
            for name, value in attributes.items():
                where.attrs[name] = value
        f["gzip"].dims[0].label = "rows"
        f["zulu"].attrs["reference"] = f["gzip"].ref
        compact = files.property_list()
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((10,))
        h5py.Dataset(h5py.h5d.create(f.id, b"compact", h5py.h5t.STD_I16LE, space, compact))[...] = np.arange(10)
    return tmp_path / "f.h5"


@pytest.fixture
def file(path: Path) -> Iterator[h5fast.File]:
    with h5fast.File(path, untrusted=True) as opened:
        yield opened


READABLE = ("zulu/table", "gzip", "lzf", "sparse", "compound", "bool", "scalar", "fixed", "short", "soft", "hard", "zulu/up/lzf",
            "compact")


def test_objects_are_described_as_h5py_describes_them(path: Path, file: h5fast.File) -> None:
    with h5py.File(path) as plain:
        assert list(file) == list(plain)
        assert list(file["zulu"]) == list(plain["zulu"])
        assert (file.mode, file.filename) == ("r", str(path))
        for name in (*READABLE, "text", "empty"):
            mine, theirs = file[name], plain[name]
            assert isinstance(mine, h5fast.Dataset)
            for what in ("shape", "maxshape", "dtype", "chunks", "compression", "compression_opts", "shuffle", "fletcher32"):
                assert getattr(mine, what) == getattr(theirs, what), (name, what)
            assert mine.name == theirs.name
        assert [file[name].fillvalue for name in ("gzip", "sparse", "lzf")] == [5, 1.5, 0]
        assert file["gzip"].dims[0].label == "rows"
        assert file["type"].dtype == plain["type"].dtype
        assert file["hard"] == file["gzip"]
        assert list(file["zulu/up"]) == list(file)


def test_attributes_are_h5pys(path: Path, file: h5fast.File) -> None:
    with h5py.File(path) as plain:
        for where in ("/", "zulu", "gzip"):
            mine, theirs = file[where].attrs, plain[where].attrs
            told = [name for name in theirs if name != "reference"]
            assert list(mine) == told
            for name in told:
                got, expected = mine[name], theirs[name]
                assert type(got) is type(expected), name
                if isinstance(expected, h5py.Empty):
                    assert got == expected
                else:
                    assert getattr(got, "dtype", None) == getattr(expected, "dtype", None), name
                    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", READABLE)
def test_elements_are_h5pys(path: Path, file: h5fast.File, name: str) -> None:
    with h5py.File(path) as plain:
        expected, array = plain[name][()], np.asarray(plain[name])
    assert file[name].reader == "direct"
    np.testing.assert_array_equal(file[name][()], expected)
    assert np.asarray(file[name]).tobytes() == array.tobytes()
    assert np.asarray(file[name]).dtype == array.dtype
    if np.ndim(expected) > 1:
        np.testing.assert_array_equal(file[name][[7, 3, 3, -1]], expected[[7, 3, 3, -1]])
        np.testing.assert_array_equal(file[name][5:20:3, 1], expected[5:20:3, 1])
        np.testing.assert_array_equal(file[name].take([7, 3, 3], dtype="f4"), expected[[7, 3, 3]].astype("f4"))
        np.testing.assert_array_equal(np.stack(list(file[name])), expected)
        out = np.empty((10, *expected.shape[1:]), expected.dtype)
        file[name].read_direct(out, np.s_[5:15])
        np.testing.assert_array_equal(out, expected[5:15])


def test_all_routes_lead_to_the_same_objects(file: h5fast.File) -> None:
    met: dict[str, Any] = {}
    file.visititems(lambda name, found: met.update({name: type(found)}))
    assert met["gzip"] is h5fast.Dataset and met["zulu"] is h5fast.Group
    assert file.get("gzip", getclass=True) is h5fast.Dataset
    assert file.get("external", getlink=True).filename == "other.h5"
    assert file.get("soft", getlink=True).path == "/zulu/table"
    assert "gzip" in file and "zulu/table" in file and "nothing" not in file
    with pytest.raises(KeyError, match="'nothing' in .*f.h5"):
        file["nothing"]


def test_what_only_libhdf5_reads_is_refused(file: h5fast.File) -> None:
    """It would read a stranger's bytes in this process."""
    assert file["text"].reader.startswith("refused: ")
    for read in (lambda: file["text"][0], lambda: file["text"][...], lambda: file["text"].asstr()[0],
                 lambda: file["gzip"].fields("a")[0], lambda: file["gzip"].astype("c16")[0]):
        with pytest.raises((h5fast.UnsupportedError, ValueError)):
            read()
    with pytest.raises(h5fast.UnsupportedError, match=r"f.h5: dataset '/text': .*variable length.* without untrusted=True"):
        file["text"][...]
    with pytest.raises(h5fast.UnsupportedError, match=r"'external': it lies in another file, 'other.h5'.* without untrusted=True"):
        file["external"]
    with pytest.raises(h5fast.UnsupportedError, match="copies no objects"):
        file.copy("gzip", "other")
    assert file["empty"][()] == h5py.Empty("f4")


def test_libhdf5_has_no_element_to_hand_out(file: h5fast.File) -> None:
    """Zeros out of the stand-in would be taken for data."""
    out = np.empty((100, 6), "i4")
    for name in ("gzip", "lzf", "zulu/table", "compact"):
        with pytest.raises(OSError, match="no data can be read|fill value"):
            file[name].id.read(h5py.h5s.ALL, h5py.h5s.ALL, out[: file[name].shape[0]].astype(file[name].dtype))
    with pytest.raises((OSError, ValueError)):
        file["gzip"][0] = 1
    with pytest.raises((OSError, ValueError)):
        file["new"] = 1


@pytest.mark.parametrize("filter_name", ["virtual", "external", "zstd", "scaleoffset"])
def test_sources_elsewhere_and_foreign_filters_are_refused(tmp_path: Path, filter_name: str) -> None:
    path = tmp_path / "v.h5"
    with h5py.File(path, "w", libver="latest") as f:
        f["plain"] = TABLE
        if filter_name == "virtual":
            layout = h5py.VirtualLayout((100, 6), "i4")
            layout[...] = h5py.VirtualSource(".", "plain", (100, 6))
            f.create_virtual_dataset("d", layout)
        elif filter_name == "external":
            (tmp_path / "raw").write_bytes(TABLE.tobytes())
            f.create_dataset("d", (100, 6), "i4", external=[(str(tmp_path / "raw"), 0, TABLE.nbytes)])
        elif filter_name == "zstd":
            hdf5plugin = pytest.importorskip("hdf5plugin")
            f.create_dataset("d", data=TABLE, chunks=(10, 6), **hdf5plugin.Zstd())
        else:
            f.create_dataset("d", data=TABLE, chunks=(10, 6), scaleoffset=0)
    with h5fast.File(path, untrusted=True) as file:
        np.testing.assert_array_equal(file["plain"][...], TABLE)
        reason = {"virtual": "it is virtual", "external": "external storage", "zstd": "zstd", "scaleoffset": "scale-offset"}
        with pytest.raises(h5fast.UnsupportedError, match=reason[filter_name]):
            file["d"][...]


@pytest.mark.parametrize("pipeline", sorted(files.PIPELINES))
@pytest.mark.parametrize("form", ["earliest", "latest", "extensible", "user block", "edges"])
def test_every_own_filter_and_index(tmp_path: Path, pipeline: str, form: str) -> None:
    data = files.content((33, 10), "f4")
    options: dict[str, Any] = {"earliest": {"libver": "earliest"}, "latest": {"libver": "latest"},
                               "extensible": {"libver": "latest", "maxshape": (33, None)}, "user block": {"userblock": 1024},
                               "edges": {"libver": "latest", "raw_edges": True}}[form]
    path = files.write(tmp_path / "f.h5", data, chunks=(4, 3), pipeline=files.PIPELINES[pipeline], **options)
    with h5fast.File(path, untrusted=True) as file:
        np.testing.assert_array_equal(file["d"][...], data)
        np.testing.assert_array_equal(file["d"][[30, 2, 2]], data[[30, 2, 2]])


def test_matrix_and_loader(path: Path) -> None:
    matrix = h5fast.HDF5Matrix(path, "gzip", 10, 90, untrusted=True)
    trusted = h5fast.HDF5Matrix(path, "gzip", 10, 90)
    np.testing.assert_array_equal(matrix[[3, 1, 1]], trusted[[3, 1, 1]])
    copy = pickle.loads(pickle.dumps(matrix))
    np.testing.assert_array_equal(copy[...], TABLE[10:90])
    assert matrix._source is not None and matrix._source.data.id != trusted._source.data.id  # no handle is shared across trust
    for options in ({"shuffle": False}, {"shuffle": "exact"}, {"shuffle": "block"}):
        batches = [list(h5fast.Loader(path, ("gzip", "lzf"), batch_size=30, untrusted=untrusted, **options))
                   for untrusted in (True, False)]
        for (a, b), (c, d) in zip(*batches, strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)
    with h5fast.File(path, untrusted=True) as opened:
        np.testing.assert_array_equal(np.concatenate(list(h5fast.Loader(opened, "lzf", 50, shuffle=False))), TABLE)
        np.testing.assert_array_equal(h5fast.HDF5Matrix(opened, "lzf")[...], TABLE)
    with h5fast.File(path) as opened, pytest.raises(ValueError, match="was trusted"):
        h5fast.Loader(opened, "lzf", untrusted=True)
    with pytest.raises(ValueError, match="File\\(path, untrusted=True\\)"):
        h5fast.Loader({"x": TABLE}, "x", untrusted=True)


def test_loader_needs_no_process_while_it_reads(path: Path) -> None:
    """A thousand files would be a thousand idle processes."""
    before = files_of_children()
    loader = h5fast.Loader([path, path], "gzip", 50, shuffle=False, untrusted=True)
    assert files_of_children() == before
    np.testing.assert_array_equal(np.concatenate(list(loader)), np.concatenate([TABLE, TABLE]))


def test_samples_and_splits_of_untrusted_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as f:
        for number in range(5):
            f.create_dataset(f"s_{number}/x", data=TABLE + number, chunks=(10, 6), compression="gzip")
        f["y"] = np.arange(20)
    h5fast.write_split(tmp_path / "s.h5", {"train": np.array([3, 5, 7])})
    rows = np.concatenate(list(h5fast.Loader(tmp_path / "s.h5", "s_*/x", 5, shuffle=False, untrusted=True)))
    np.testing.assert_array_equal(rows, np.stack([TABLE + number for number in range(5)]))
    chosen = np.concatenate(list(h5fast.Loader(tmp_path / "s.h5", "y", 3, shuffle=False, rows="train", untrusted=True)))
    np.testing.assert_array_equal(chosen, [3, 5, 7])


def files_of_children() -> list[str]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    if not tasks.exists():
        pytest.skip("no /proc to count processes in")
    return sorted(child for task in tasks.iterdir() for child in (task / "children").read_text().split())


def test_nothing_is_left_behind(path: Path) -> None:
    gc.collect()
    descriptors, children = len(os.listdir("/dev/fd")), files_of_children()
    for _ in range(3):
        with h5fast.File(path, untrusted=True) as file:
            file["gzip"][0]
            assert len(files_of_children()) == len(children) + 1
    dataset = h5fast.File(path, untrusted=True)["gzip"]  # the file lives as long as the dataset
    gc.collect()
    np.testing.assert_array_equal(dataset[...], TABLE)
    assert dataset.file.filename == str(path)
    del dataset, file
    gc.collect()
    assert files_of_children() == children
    assert len(os.listdir("/dev/fd")) == descriptors


def test_closed_file(path: Path) -> None:
    file = h5fast.File(path, untrusted=True)
    dataset = file["gzip"]
    file.close()
    for read in (lambda: dataset[0], lambda: file["gzip"]):
        with pytest.raises(ValueError, match="closed"):
            read()
    with h5fast.File(path, untrusted=True) as one, h5fast.File(path, untrusted=True) as other:
        one.close()
        np.testing.assert_array_equal(other["lzf"][...], TABLE)


def _rows_in_a_fork(dataset: h5fast.Dataset, results: Any) -> None:
    results.put(dataset[3:5].tolist())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_fork_asks_a_process_of_its_own(file: h5fast.File) -> None:
    """Two that read one pipe would take each other's answers."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    forked = context.Process(target=_rows_in_a_fork, args=(file["gzip"], results))
    forked.start()
    assert results.get(timeout=60) == TABLE[3:5].tolist()
    forked.join()
    np.testing.assert_array_equal(file["gzip"][...], TABLE)


def test_pickles_open_untrusted_again(path: Path, file: h5fast.File) -> None:
    dataset = pickle.loads(pickle.dumps(file["gzip"]))
    np.testing.assert_array_equal(dataset[...], TABLE)
    assert dataset.file.driver == "core"
    os.replace(path, path.with_name("moved.h5"))
    with pytest.raises(TypeError, match="moved, replaced or deleted"):
        pickle.dumps(file)


def test_changed_file_is_noticed(path: Path, file: h5fast.File) -> None:
    with open(path, "ab") as end:
        end.write(b"more")
    with pytest.raises(h5fast.ReadError, match="changed on disk"):
        file["gzip"][...]


@pytest.mark.parametrize(("options", "error"), [
    ({"mode": "r+"}, "mode 'r\\+'"), ({"driver": "core"}, "driver"), ({"swmr": True}, "swmr"),
    ({"chunk_cache": "auto"}, "rdcc_nbytes"),
])
def test_options_without_a_meaning_are_named(path: Path, options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        h5fast.File(path, untrusted=True, **options)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="absent"):
        h5fast.File(tmp_path / "absent", untrusted=True)
    for name in (".", "pipe"):
        with pytest.raises(OSError, match="directory|regular"):
            h5fast.File(tmp_path / name, untrusted=True)
    with open(os.devnull, "rb") as stream, pytest.raises(TypeError, match="path"):
        h5fast.File(stream, untrusted=True)
    (tmp_path / "text").write_text("no HDF5")
    with pytest.raises(h5fast.CorruptFileError, match="signature not found"):
        h5fast.File(tmp_path / "text", untrusted=True)


def test_validate(path: Path) -> None:
    done = h5fast.validate(path)
    assert done.datasets == 12 and done.damage == []
    assert [line.split(": ")[1] for line in done.refused] == ["dataset '/text'"]
    with h5py.File(path) as plain:
        place = plain["lzf"].id.get_chunk_info(3).byte_offset
    files.patch_bytes(path, place + 20, b"\xff\xff\xff\xff")
    with pytest.raises(h5fast.CorruptFileError, match=rf"'/(zulu/up/)?lzf', chunk at \(21, 0\).*{place}"):
        h5fast.validate(path)


def test_commands(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--untrusted", str(path)]) == 0
    assert "1 not read, the rest can be read" in capsys.readouterr().out
    assert main(["info", "--untrusted", "--json", str(path)]) == 0
    untrusted = {one["name"]: one for one in json.loads(capsys.readouterr().out)["datasets"]}
    assert main(["info", "--json", str(path)]) == 0
    trusted = {one["name"]: one for one in json.loads(capsys.readouterr().out)["datasets"]}
    assert untrusted.keys() == trusted.keys()
    told = ("shape", "maxshape", "dtype", "layout", "chunks", "chunks_stored", "logical_bytes", "stored_bytes", "reader")
    for name in trusted:
        if untrusted[name]["reader"] == "direct":
            assert [untrusted[name][what] for what in told] == [trusted[name][what] for what in told]
    (path.parent / "text").write_text("no HDF5")
    assert main(["verify", "--untrusted", str(path.parent / "text")]) == 1
    assert "signature not found" in capsys.readouterr().err
