"""``File``, ``Group``, ``Dataset``: every route hands out h5fast's types, which are h5py's in all but the reading."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from object_files import COLUMNS, ROWS, TABLE, file, path  # noqa: F401  # fixtures, used by name

import h5fast
from h5fast.methods import reader_of


def visited(group: h5fast.Group, name: str) -> Any:
    """The object that ``visititems`` passes under `name`."""
    return group.visititems(lambda found, obj: obj if found == name else None)


ROUTES: dict[str, tuple[type, Callable[[h5fast.File], Any]]] = {
    "name": (h5fast.Dataset, lambda f: f["table"]),
    "bytes": (h5fast.Dataset, lambda f: f[b"table"]),
    "path": (h5fast.Dataset, lambda f: f["group/chunked"]),
    "absolute path": (h5fast.Dataset, lambda f: f["group"]["/table"]),
    "soft link": (h5fast.Dataset, lambda f: f["group/soft"]),
    "external link": (h5fast.Dataset, lambda f: f["group/external"]),
    "hard link": (h5fast.Dataset, lambda f: f["group"]["hard"]),
    "object reference": (h5fast.Dataset, lambda f: f[f["group/table references"][0]]),
    "region reference": (h5fast.Dataset, lambda f: f["group"][f["group"].attrs["region"]]),
    "reference to a group": (h5fast.Group, lambda f: f["table"].file[f["group"].attrs["group"]]),
    "get": (h5fast.Dataset, lambda f: f.get("group/soft")),
    "get with a default": (h5fast.Dataset, lambda f: f.get("table", None)),
    "get of a group": (h5fast.Group, lambda f: f.get("group")),
    "values": (h5fast.Dataset, lambda f: next(iter(f["group"].values()))),
    "reversed values": (h5fast.Group, lambda f: list(reversed(f.values()))[-1]),
    "items": (h5fast.Dataset, lambda f: dict(f["group"].items())["external"]),
    "iteration": (h5fast.Dataset, lambda f: f["group"][next(iter(f["group"]))]),
    "visititems": (h5fast.Dataset, lambda f: visited(f, "group/chunked")),
    "visititems of a group": (h5fast.Group, lambda f: visited(f, "group")),
    "visititems_links": (h5fast.Dataset, lambda f: f[f.visititems_links(lambda name, _: name if "soft" in name else None)]),
    "parent of a dataset": (h5fast.Group, lambda f: f["group/chunked"].parent),
    "parent of a group": (h5fast.Group, lambda f: f["group"].parent),
    "member of a parent": (h5fast.Dataset, lambda f: f["group/chunked"].parent["hard"]),
    "root": (h5fast.Group, lambda f: f["/"]),
    "file of a dataset": (h5fast.File, lambda f: f["group/chunked"].file),
    "file of a group": (h5fast.File, lambda f: f["group"].file),
    "file of a file": (h5fast.File, lambda f: f.file),
    "file behind an external link": (h5fast.File, lambda f: f["group/external"].file),
    "scale by number": (h5fast.Dataset, lambda f: f["table"].dims[0][0]),
    "scale by name": (h5fast.Dataset, lambda f: f["table"].dims[0]["row"]),
    "scales": (h5fast.Dataset, lambda f: f["table"].dims[0].values()[0]),
    "scale items": (h5fast.Dataset, lambda f: f["table"].dims[0].items()[0][1]),
    "scales by iteration": (h5fast.Dataset, lambda f: next(iter(f["table"].dims)).values()[0]),
    "context manager": (h5fast.File, lambda f: f.__enter__()),
}

WRITING_ROUTES: dict[str, tuple[type, Callable[[h5fast.File], Any]]] = {
    "create_group": (h5fast.Group, lambda f: f.create_group("new", track_order=True)),
    "require_group, new": (h5fast.Group, lambda f: f.require_group("new")),
    "require_group, old": (h5fast.Group, lambda f: f.require_group("group")),
    "create_dataset": (h5fast.Dataset, lambda f: f.create_dataset("new", data=TABLE)),
    "create_dataset, anonymous": (h5fast.Dataset, lambda f: f.create_dataset(None, data=TABLE)),
    "create_dataset with groups": (h5fast.Dataset, lambda f: f["group"].create_dataset("a/b/new", (3,), "f4")),
    "require_dataset, new": (h5fast.Dataset, lambda f: f.require_dataset("new", (3,), "f4")),
    "require_dataset, old": (h5fast.Dataset, lambda f: f.require_dataset("table", TABLE.shape, "i4")),
    "create_dataset_like": (h5fast.Dataset, lambda f: f.create_dataset_like("new", f["group/chunked"])),
    "create_virtual_dataset": (h5fast.Dataset, lambda f: f.create_virtual_dataset("new", virtual_layout(f))),
    "build_virtual_dataset": (h5fast.Dataset, lambda f: built(f)),
    "assignment": (h5fast.Dataset, lambda f: f.__setitem__("new", TABLE) or f["new"]),
    "setdefault": (h5fast.Dataset, lambda f: f.setdefault("table", None)),
    "pop": (h5fast.Dataset, lambda f: f.pop("table")),
    "copy": (h5fast.Dataset, lambda f: f.copy("table", f["group"]) or f["group/table"]),
}


def virtual_layout(f: h5fast.File) -> h5py.VirtualLayout:
    layout = h5fast.VirtualLayout(TABLE.shape, "i4")
    layout[:] = h5fast.VirtualSource(f["table"])
    return layout


def built(f: h5fast.File) -> Any:
    with f.build_virtual_dataset("new", TABLE.shape, "i4") as layout:
        layout[:] = h5fast.VirtualSource(f["table"])
    return f["new"]


def test_every_route_hands_out_h5fast_types(path: Path) -> None:
    """One route that ends at h5py's class is read a hundred times slower, and nobody notices."""
    with h5fast.File(path) as f:
        for route, (expected, go) in ROUTES.items():
            assert type(go(f)) is expected, route
    for route, (expected, go) in WRITING_ROUTES.items():
        with h5fast.File(path, "r+") as f:
            assert type(go(f)) is expected, route
            f.pop("new", None)
            if "table" not in f:
                f["table"] = TABLE
            f["group"].pop("table", None)


@pytest.mark.parametrize("mode", ["w", "w-", "x", "a"])
def test_files_open_in_every_mode_of_h5py(tmp_path: Path, mode: str) -> None:
    with h5fast.File(tmp_path / "new.h5", mode, libver="latest") as f:
        f["x"] = TABLE
        assert type(f) is h5fast.File and f.mode == "r+" and isinstance(f, h5py.File)
    with h5fast.File(tmp_path / "new.h5") as f:
        assert f.mode == "r" and np.array_equal(f["x"][:], TABLE)


def test_files_without_a_path(path: Path) -> None:
    with h5fast.File(io.BytesIO(path.read_bytes()), "r") as f:
        assert type(f["group/chunked"]) is h5fast.Dataset
        assert np.array_equal(f["group/chunked"][3:9], TABLE[3:9])
    if hasattr(h5py.File, "in_memory"):
        with h5fast.File.in_memory() as f:
            f["x"] = TABLE
            assert type(f) is h5fast.File and np.array_equal(f["x"][:], TABLE)


def test_get(file: h5fast.File) -> None:
    default = h5py.File(file.filename)["table"]
    assert file.get("none") is None
    assert file.get("none", default) is default and type(default) is h5py.Dataset
    assert file.get("none", getclass=True) is None
    assert file.get("none", h5py.Group, getclass=True) is h5py.Group
    assert file.get("table", getclass=True) is h5fast.Dataset
    assert file.get("group", getclass=True) is h5fast.Group
    assert file.get("type", getclass=True) is h5py.Datatype
    assert file.get("group/soft", getclass=True, getlink=True) is h5py.SoftLink
    assert file.get("group/soft", getlink=True).path == "/table"
    assert file.get("group/external", getlink=True).filename == "other.h5"
    assert isinstance(file.get("table", getlink=True), h5py.HardLink)


def test_datatypes_and_attributes_stay_h5pys(file: h5fast.File) -> None:
    assert type(file["type"]) is h5py.Datatype
    assert type(file.attrs) is h5py.AttributeManager
    assert type(file["group"].attrs["region"]) is h5py.RegionReference


def test_missing_members_raise_what_h5py_raises(file: h5fast.File, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="none"):
        file["none"]
    with pytest.raises(TypeError, match="bytes or str"):
        file[3]
    with pytest.raises(FileNotFoundError, match=r"missing\.h5"):
        h5fast.File(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("this is no HDF5 file")
    with pytest.raises(OSError, match="signature"):
        h5fast.File(tmp_path / "text.h5")


def test_objects_equal_and_hash_as_h5pys(path: Path) -> None:
    with h5fast.File(path) as ours, h5py.File(path) as theirs:
        for name in ("table", "group", "type"):
            assert ours[name] == theirs[name] and theirs[name] == ours[name] == ours[name]
            assert hash(ours[name]) == hash(theirs[name])
            assert isinstance(ours[name], type(theirs[name]))
        assert ours["table"] != ours["group/chunked"] and ours["table"] != TABLE.tolist()
        assert ours["group/hard"] == ours["table"] and len({ours["table"], theirs["group/hard"]}) == 1
        assert ours["table"].file == ours and ours["table"] in ours["group"].values()
        axis = ours["table"].dims[0]
        assert axis == ours["table"].dims[0] and hash(axis) == hash(h5py.Dataset(ours["table"].id).dims[0])
        assert axis != ours["table"].dims[1]
        assert repr(ours["table"]) == repr(theirs["table"]) and repr(ours) == repr(theirs)


def test_reader_says_how_a_dataset_is_read(path: Path) -> None:
    with h5fast.File(path) as f:
        assert f["table"].reader.startswith("direct")
    with h5fast.File(path, "r+") as f:
        assert f["table"].reader.startswith("general: ")


@pytest.mark.parametrize("name", ["table", "group/chunked"])
def test_reads_and_views(file: h5fast.File, name: str) -> None:
    dataset = file[name]
    assert np.array_equal(dataset[[7, 3, 3, -1]], TABLE[[7, 3, 3, -1]])
    assert np.array_equal(dataset[::-2], TABLE[::-2])
    assert dataset[4, 5] == TABLE[4, 5] and type(dataset[4, 5]) is np.int32
    assert len(dataset) == dataset.len() == ROWS
    assert [tuple(part) for part in dataset.iter_chunks()] if dataset.chunks else dataset.chunks is None
    assert np.array_equal(dataset.take([9, 0, 9], dtype="f4", scale=0.5), TABLE[[9, 0, 9]].astype("f4") * 0.5)


@pytest.mark.parametrize("target", ["i8", "f8", "f4", "u2", ">i8", ">f8", "i4"])
@pytest.mark.parametrize("key", [(), 3, (3, 2), np.s_[2:9:3], np.s_[[1, 4]]], ids=repr)
def test_astype_converts_as_hdf5_does(path: Path, target: str, key: Any) -> None:
    """numpy wraps where HDF5 clips: only conversions that keep every value may be done by numpy."""
    with h5py.File(path, "r+") as f:
        f["table"][3] = -7
    with h5py.File(path) as theirs, h5fast.File(path) as ours:
        expected, found = theirs["table"].astype(target)[key], ours["table"].astype(target)[key]
    assert type(found) is type(expected) and found.dtype == expected.dtype and np.array_equal(found, expected)


def test_fields_and_strings_read_as_h5pys(tmp_path: Path) -> None:
    records = np.array([(1, 2.5, b"a"), (3, 4.5, b"bc")], dtype=[("i", "i4"), ("f", "f8"), ("s", "S3")])
    with h5py.File(tmp_path / "records.h5", "w") as f:
        f["records"] = records
        f["text"] = np.array(["ä", "b"], dtype=h5py.string_dtype())
        f["empty"] = h5py.Empty("f4")
        f["scalar"] = 2.5
    with h5fast.File(tmp_path / "records.h5") as f:
        assert np.array_equal(f["records"]["i"], records["i"])
        assert np.array_equal(f["records"].fields("f")[1:], records["f"][1:])
        assert np.array_equal(f["records"].fields(["i", "s"])[:], records[["i", "s"]])
        assert list(f["text"].asstr()[:]) == ["ä", "b"]
        assert f["empty"][()] == h5py.Empty("f4") and f["empty"].reader.startswith("general")
        assert f["scalar"][()] == 2.5 and np.asarray(f["scalar"]) == 2.5
        with pytest.raises(TypeError, match="scalar"):
            list(f["scalar"])
        assert list(f["text"]) == ["ä".encode(), b"b"]


@pytest.mark.parametrize("chunks", [None, (1, COLUMNS), (8, 2), (ROWS, 1)])
@pytest.mark.parametrize("shape", [(ROWS, COLUMNS), (ROWS * COLUMNS,), (0, COLUMNS)])
def test_iteration_yields_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: Any, shape: Any
) -> None:
    """Rows are read many at a time: a row that were a view would keep all of them alive, and share what is written to it."""
    monkeypatch.setattr("h5fast.methods._ITERATION_BYTES", 3 * COLUMNS * 4)
    data = TABLE.reshape(shape) if shape[0] else TABLE[:0]
    with h5py.File(tmp_path / "rows.h5", "w") as f:
        kwds = {} if chunks is None else {"chunks": chunks[: len(shape)], "maxshape": (None,) * len(shape)}
        f.create_dataset("rows", data=data, **kwds)
    with h5fast.File(tmp_path / "rows.h5") as f:
        rows = list(f["rows"])
    assert len(rows) == len(data) and all(np.array_equal(row, expected) for row, expected in zip(rows, data, strict=True))
    assert all(type(row) is np.int32 or row.base is None for row in rows)


READ_DIRECT: dict[str, tuple[Any, Any, Any]] = {
    # name: shape of the destination, source selection, destination selection
    "all": (TABLE.shape, None, None),
    "range of rows": ((10, COLUMNS), np.s_[5:15], None),
    "every third row": ((10, COLUMNS), np.s_[5:35:3], None),
    "into the middle": ((20, COLUMNS), np.s_[5:15], np.s_[3:13]),
    "one row": ((COLUMNS,), np.s_[7], None),
    "one row into one row": ((4, COLUMNS), np.s_[7], np.s_[2]),
    "ellipsis": (TABLE.shape, np.s_[...], np.s_[...]),
    "whole trailing axis": ((10, COLUMNS), np.s_[5:15, :], np.s_[:, ...]),
    "one row broadcast": ((4, COLUMNS), np.s_[7], None),
    "inner columns": ((ROWS, 2), np.s_[:, 1:3], None),
    "list of rows": ((2, COLUMNS), np.s_[[1, 4]], None),
    "strided destination": ((20, COLUMNS), np.s_[5:15], np.s_[::2]),
    "wrong shape": ((11, COLUMNS), np.s_[5:15], None),
    "backwards": ((10, COLUMNS), np.s_[15:5:-1], None),
    "negative row": ((COLUMNS,), np.s_[-1], None),
    "out of range": ((COLUMNS,), np.s_[ROWS], None),
    "nothing": ((0, COLUMNS), np.s_[5:5], None),
    "too many axes": ((10, COLUMNS), np.s_[5:15, :, :], None),
}


@pytest.mark.parametrize("dtype", ["i4", "f8", ">i4"])
@pytest.mark.parametrize("case", READ_DIRECT)
@pytest.mark.parametrize("name", ["table", "group/chunked"])
def test_read_direct_is_h5pys(path: Path, name: str, case: str, dtype: str) -> None:
    """A destination that is filled otherwise than h5py fills it is silent corruption of the caller's own array."""
    shape, source, dest = READ_DIRECT[case]

    def outcome(package: Any) -> tuple[np.ndarray[Any, Any], Any]:
        array = np.full(shape, -1, dtype=dtype)
        with package.File(path) as f:
            try:
                f[name].read_direct(array, source, dest)
            except Exception as error:
                return array, type(error)
        return array, None

    expected, found = outcome(h5py), outcome(h5fast)
    assert found[1] is expected[1] and np.array_equal(found[0], expected[0])


@pytest.mark.parametrize("flaw", ["read-only", "not contiguous", "a list"])
def test_read_direct_refuses_what_h5py_refuses(file: h5fast.File, flaw: str) -> None:
    dest: Any = np.empty(TABLE.shape, "i4")
    if flaw == "read-only":
        dest.setflags(write=False)
    elif flaw == "not contiguous":
        dest = np.asfortranarray(dest)
    else:
        dest = dest.tolist()
    with pytest.raises((TypeError, AttributeError)):
        file["table"].read_direct(dest)


def test_as_numpy_array(file: h5fast.File) -> None:
    dataset = file["group/chunked"]
    assert np.array_equal(np.asarray(dataset), TABLE) and np.asarray(dataset).dtype == "i4"
    assert np.asarray(dataset, dtype="f8").dtype == "f8"
    assert np.array_equal(np.add(dataset, 1), TABLE + 1)
    with pytest.raises(ValueError, match="copy"):
        dataset.__array__(copy=False)


def test_resize_and_refresh_invalidate_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that keeps the old extent after resize() reads beyond the data, or misses its end."""
    with h5fast.File(tmp_path / "grow.h5", "w") as f:
        dataset = f.create_dataset("x", data=np.arange(4), maxshape=(None,), chunks=(2,))
        assert dataset[:].tolist() == [0, 1, 2, 3]
        calls: list[str] = []
        monkeypatch.setattr(type(reader_of(dataset)), "invalidate", lambda self: calls.append("invalidate"))
        dataset.resize((6,))
        dataset.resize(7, axis=0)
        dataset.shape = (5,)
        dataset.refresh()
        assert calls == ["invalidate"] * 4
        monkeypatch.undo()
        dataset.resize((3,))
        assert dataset[:].tolist() == [0, 1, 2] and len(dataset) == 3


def test_one_line_swap() -> None:
    """``import h5fast as h5py`` is all that existing code changes."""
    for name in ("special_dtype", "string_dtype", "h5t", "h5s", "version", "Datatype", "Empty", "is_hdf5", "_objects"):
        assert getattr(h5fast, name) is getattr(h5py, name)
    for name in ("File", "Group", "Dataset"):
        assert issubclass(getattr(h5fast, name), getattr(h5py, name)) and getattr(h5fast, name) is not getattr(h5py, name)
    from h5fast import UNLIMITED, h5d

    assert h5d is h5py.h5d and UNLIMITED == h5py.UNLIMITED
    assert {"File", "take", "h5t"} - set(dir(h5fast)) == {"take"}
    public = {name for name in dir(h5py) if not name.startswith("_")}
    assert public <= set(dir(h5fast)) and all(hasattr(h5fast, name) for name in public)


def test_name_that_neither_package_has() -> None:
    with pytest.raises(AttributeError, match="neither h5fast nor h5py has the attribute 'Fille'"):
        h5fast.Fille  # noqa: B018
    with pytest.raises(ImportError, match="Fille"):
        from h5fast import Fille  # noqa: F401
    assert not hasattr(h5fast, "__wrapped__") and isinstance(h5fast.__version__, str)
    assert h5fast.__version__ != h5py.__version__ and set(h5fast.__all__) <= set(dir(h5fast))


def test_a_missing_member_is_named_with_its_file(tmp_path):
    """``object 'x' doesn't exist`` does not tell in which of the many files that a training run has open."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["g/x"] = np.arange(10)
    with h5py.File(path) as plain, h5fast.File(path) as fast:
        for where, name in (("/", "missing"), ("/", "a/b"), ("/", "g/x/y"), ("g", b"missing"), ("/", "")):
            with pytest.raises(KeyError) as expected:
                plain[where][name]
            with pytest.raises(KeyError) as got:
                fast[where][name]
            within = " in group '/g'" if where == "g" else ""
            assert got.value.args == (f"{expected.value.args[0]}: {name!r}{within} in {path}",)
            assert fast[where].get(name) is None
        with h5fast.patched(), pytest.raises(KeyError) as got:
            plain["missing"]
        assert str(path) not in str(got.value)


def test_take_says_what_cannot_be_scaled(tmp_path):
    """For strings, the advice was to pass dtype="float32", also to those who had."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["text"], file["fixed"] = ["a", "b"], np.array([b"a", b"b"])
        file["number"], file["bool"] = np.arange(6).reshape(3, 2), [True, False]
    with h5fast.File(tmp_path / "f.h5") as file:
        for name in ("text", "fixed"):
            for dtype in ("float32", None):
                with pytest.raises(TypeError, match="need numbers, and the rows of this dataset are strings"):
                    file[name].take([0], dtype=dtype, scale=2)
        with pytest.raises(TypeError, match="need a floating output, not int32: pass dtype='float32'"):
            file["number"].take([0], dtype="i4", offset=1)
        for wrong in ("a", ["1", "2"], 1j):
            with pytest.raises(TypeError, match="scale must be one number or one for each of the 2 channels"):
                file["number"].take([0], scale=wrong)
        assert file["number"].take([0], scale=2).dtype == file["bool"].take([0], offset=1).dtype == np.float32


def test_take_raises_what_it_documents(file: h5fast.File) -> None:
    for rows in ([1.5], ["a"], None, {1, 2}):
        with pytest.raises(IndexError, match="integer"):
            file["table"].take(rows)
    for rows in (3, [[1, 2]]):
        with pytest.raises(TypeError, match="one-dimensional"):
            file["table"].take(rows)


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_a_file_that_is_not_hdf5_is_named(tmp_path, kind):
    """``file signature not found`` does not tell of which file; for paths as bytes it still did not."""
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(OSError, match=str(tmp_path / "text.h5")):
        h5fast.File(kind(tmp_path / "text.h5"))


def test_astype_to_its_own_type_is_read_by_h5fast(path: Path) -> None:
    """Newer h5py hands out the dataset itself, as one more route to it; older ones a view."""
    with h5py.File(path) as plain, h5fast.File(path) as fast:
        theirs, ours = plain["table"].astype("i4"), fast["table"].astype("i4")
        assert type(ours) is (h5fast.Dataset if type(theirs) is h5py.Dataset else type(theirs))
        assert np.array_equal(ours[...], TABLE)


@pytest.mark.skipif(int(np.__version__.split(".")[0]) < 2, reason="numpy 1 knows no copy=False")
def test_an_array_without_a_copy_is_refused_in_h5pys_words(file: h5fast.File) -> None:
    with pytest.raises(ValueError, match="memory allocation cannot be avoided"):
        np.array(file["table"], copy=False)


def test_the_chunk_cache_as_h5py_cache_calls_it(path: Path) -> None:  # noqa: F811
    with h5fast.File(path, "r", chunk_cache_mem_size=1024**2 * 30) as file:
        assert file.id.get_access_plist().get_cache()[2] == 1024**2 * 30
    with pytest.raises(TypeError, match="chunk_cache_mem_size"):
        h5fast.File(path, "r", chunk_cache_mem_size=1024**2, rdcc_nbytes=1024)
