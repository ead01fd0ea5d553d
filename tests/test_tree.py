"""A tree reads the bytes that h5py reads, whichever way they are stored."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tree_files import MIXED, write_encoded, write_tree

import h5fast
from h5fast import FileTree
from h5fast.tree.saved import write_member_index

LAYOUTS: dict[str, Any] = {
    "tree": (write_tree, {}),
    "tree, gzip": (write_tree, {"compression": "gzip", "chunks": (1000,), "maxshape": (None,)}),
    "tree, lzf of one chunk": (write_tree, {"compression": "lzf", "shuffle": True}),
    "tree, chunks alone": (write_tree, {"chunks": (777,), "maxshape": (None,)}),
    "encoded": (write_encoded, {}),
    "encoded, gzip": (write_encoded, {"compression": "gzip", "chunks": (5000,)}),
    "encoded, chunks alone": (write_encoded, {"chunks": (999,)}),
}


@pytest.fixture(params=LAYOUTS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write, options = LAYOUTS[request.param]
    return write(tmp_path / "f.h5", **options)


@pytest.mark.parametrize("index", ["none", "in the file", "beside it"])
def test_all_files_come_back(stored: Path, index: str) -> None:
    if index != "none":
        assert write_member_index(stored, beside_it=index == "beside it")
    with FileTree(stored) as tree:
        assert dict(tree) == MIXED
        assert len(tree) == len(MIXED)
        names = list(MIXED) * 3
        random.Random(0).shuffle(names)
        assert tree.read_many(names) == [MIXED[name] for name in names]
        assert tree.ls() == sorted([name for name in MIXED if "/" not in name] + ["deep", "déjà vu", "nothing in it"],
                                   key=lambda name: name.encode("utf-8", "surrogateescape"))
        assert tree.ls("nothing in it") == [] and tree.isdir("nothing in it")
        assert tree.skipped == []


def test_without_listing(stored: Path) -> None:
    """One file of a million is found without looking at the others."""
    with FileTree(stored) as tree:
        assert tree["deep/er/and/deeper.bin"] == MIXED["deep/er/and/deeper.bin"]
        assert "deep/one" in tree and "deep/two" not in tree and "deep" not in tree
        with pytest.raises(KeyError, match="no 'deep/two'"):
            tree["deep/two"]
        with pytest.raises(KeyError, match="folder"):
            tree["deep/er"]
        with pytest.raises(NotADirectoryError):
            tree.read_bytes("empty/x")


def test_ranges(stored: Path) -> None:
    random_ = random.Random(1)
    want = MIXED["big.bin"]
    with FileTree(stored) as tree, tree.open("big.bin") as file:
        for _ in range(50):
            at, size = random_.randrange(len(want) + 10), random_.randrange(3000)
            file.seek(at)
            assert file.read(size) == want[at : at + size]
        assert file.seek(-5, io.SEEK_END) == len(want) - 5
        assert file.read() == want[-5:] and file.read() == b""
        member = tree.member("big.bin")
        assert member.read_at(10, 10) == b"" and member.read_at(len(want), len(want) + 1) == b""


def test_paths(stored: Path) -> None:
    with FileTree(stored) as tree:
        tree.cd("deep/er")
        assert tree["and/deeper.bin"] == tree["../er/./and//deeper.bin"] == tree["/deep/er/and/deeper.bin"]
        assert tree["../../../../../empty"] == b""
        assert set(tree) == {"/" + name for name in MIXED} and all(path in tree for path in tree)
        tree.cd("../../../..")
        assert tree.cwd == "/"
        with pytest.raises(ValueError, match="NUL"):
            tree.read_bytes("a\0b")
        with pytest.raises(NotADirectoryError):
            tree.cd("empty")
        with pytest.raises(TypeError, match="str"):
            tree.read_bytes(b"empty")  # type: ignore[arg-type]


def test_paths_that_cannot_be(stored: Path) -> None:
    with FileTree(stored) as tree:
        for path in ("a\0b", "a/\ud800", "\udfff"):
            assert path not in tree and not tree.exists(path) and not tree.isdir(path)
            with pytest.raises(ValueError, match="no path holds"):
                tree.stat(path)
        with pytest.raises(TypeError, match="several paths"):
            tree.read_many("empty")


def test_walk_and_glob(stored: Path) -> None:
    with FileTree(stored) as tree:
        found = {(path.rstrip("/") + "/" + name).lstrip("/") for path, _, files in tree.walk() for name in files}
        assert found == set(MIXED)
        assert next(iter(tree.walk("deep"))) == ("/deep", ["er"], ["one"])
        assert tree.glob("**/*.bin") == ["big.bin", "deep/er/and/deeper.bin"]
        assert tree.glob("deep/*") == ["deep/er", "deep/one"]
        assert tree.glob("*[st].txt") == ["with spaces.txt"] and tree.glob("/d?ep/one") == ["/deep/one"]
        assert set(tree.glob("**")) >= set(MIXED)
        for path, folders, _ in tree.walk("/"):
            if path == "/":
                folders.remove("deep")
            assert not path.startswith("/deep")


def test_threads_and_processes(stored: Path) -> None:
    with FileTree(stored) as tree:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: tree[name] == MIXED[name], list(MIXED) * 40))
        copy = pickle.loads(pickle.dumps(tree))
        assert dict(copy) == MIXED
        copy.close()
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as workers:
            assert workers.map(tree.__getitem__, list(MIXED)) == list(MIXED.values())


def test_mount_of_an_encoded_group(tmp_path: Path) -> None:
    """A group of the layout lies anywhere, and what is beside the files is shown beside them."""
    path = write_encoded(tmp_path / "f.h5", group="train/a")
    with h5py.File(path, "r+") as file:
        file["train/a/labels"] = np.arange(5)
        file["train/a/deep/new"] = np.frombuffer(b"new", "u1")
        file["train/a/deep/one"] = np.frombuffer(b"one", "u1")
    with FileTree(path) as tree:
        want = {f"train/a/{name}": content for name, content in MIXED.items()}
        want |= {"train/a/deep/new": b"new", "train/a/deep/one": b"one"}
        assert np.array_equal(np.load(io.BytesIO(tree["train/a/labels"])), np.arange(5))
        assert set(tree) == {*want, "train/a/labels"}
        assert all(tree[name] == content for name, content in want.items())


# --- what datasets are as files ---


def _datasets() -> dict[str, tuple[Any, bytes | np.ndarray]]:
    random_ = np.random.default_rng(0)
    image = random_.integers(0, 256, (40, 30, 3), dtype="u1")
    record = np.array([(1, 2.5), (3, 4.5)], [("a", "<i4"), ("b", ">f8")])
    return {
        "image": (image, image), "scalar": (np.float32(2.5), np.array(2.5, "f4")),
        "one big-endian": (np.array(2.5, ">f8"),) * 2,
        "one big-endian record": (np.array((1, 2.5), [("a", ">i4"), ("b", ">f8")]),) * 2,
        "big-endian": (np.arange(6, dtype=">i4").reshape(2, 3),) * 2,
        "bool": (np.array([True, False]),) * 2, "complex": (np.array([1 + 2j]),) * 2, "record": (record, record),
        "int8": (np.arange(5, dtype="i1"),) * 2, "no rows": (np.zeros((0, 3), "f4"),) * 2,
        "text": ("grüße", "grüße".encode()), "fixed": (np.bytes_(b"abc"), b"abc"), "lines": (["a", "b c"], b"a\nb c\n"),
        "opaque": (np.void(b"\x00\x01"), b"\x00\x01"), "null": (h5py.Empty("f4"), b""),
    }


@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip"},
                                     {"chunks": True, "compression": "lzf", "shuffle": True}],
                         ids=["contiguous", "gzip", "shuffle+lzf"])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_datasets_as_files(tmp_path: Path, options: dict[str, Any], mode: str) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, (value, _) in _datasets().items():
            chunked = isinstance(value, np.ndarray) and value.ndim and value.size
            file.create_dataset(name, data=value, **(options if chunked else {}))
    with FileTree(tmp_path / "f.h5", mode) as tree, FileTree(tmp_path / "f.h5", "r", raw=True) if mode == "r" else tree as raw:
        for name, (_, want) in _datasets().items():
            got = tree[name]
            assert tree.stat(name).size == len(got)
            if isinstance(want, bytes):
                assert got == want, name
                continue
            array = np.load(io.BytesIO(got))
            assert array.dtype == want.dtype and array.shape == want.shape and np.array_equal(array, want), name
            assert mode != "r" or raw[name] == want.tobytes()
            with tree.open(name) as file:
                for at in range(0, len(got), 7):
                    file.seek(at)
                    assert file.read(11) == got[at : at + 11], (name, at)


def test_wide_rows_in_ranges(tmp_path: Path) -> None:
    """Chunks that split rows are no row of bytes; ranges of them are put together from boxes."""
    data = np.random.default_rng(0).integers(0, 2**60, (3, 4, 60_000))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("x", data=data, chunks=(2, 3, 1000))
        file.create_dataset("filled", (10, 10), "i4", chunks=(5, 10), fillvalue=7)
    with FileTree(tmp_path / "f.h5", raw=True) as tree:
        want, member = data.tobytes(), tree.member("x")
        assert tree["x"] == want and member.size == len(want)
        for at in random.Random(0).sample(range(len(want)), 20):
            assert member.read_at(at, at + 700_001) == want[at : at + 700_001]
        assert tree["filled"] == np.full((10, 10), 7, "i4").tobytes()


def test_what_cannot_be_a_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["ok"] = np.frombuffer(b"ok", "u1")
        file.create_dataset("refs", data=file["ok"].ref, dtype=h5py.ref_dtype)
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("f4"))
        file["type"] = np.dtype("f8")
        file[".."] = np.frombuffer(b"up", "u1")
    with FileTree(tmp_path / "f.h5") as tree:
        assert tree.ls() == ["ok", "ragged", "refs"]
        assert sorted(text.partition(":")[0] for text in tree.skipped) == ["'/..'", "'/type'"]
        for name in ("refs", "ragged"):
            with pytest.raises(h5fast.UnsupportedError, match=name):
                tree.read_bytes(name)
        with pytest.raises(KeyError):
            tree[".."]


def test_h5vfs_attributes(tmp_path: Path) -> None:
    """H5VFS keeps times and permissions of files in attributes; others may be of any type, and are no numbers then."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, modified, permissions in (("a", np.int64(1_600_000_000), np.uint32(0o100640)), ("b", "yesterday", [1, 2]),
                                            ("c", None, None)):
            file["d/" + name] = np.frombuffer(b"x", "u1")
            if modified is not None:
                file["d/" + name].attrs["Modified"] = modified
                file["d/" + name].attrs["Permissions"] = permissions
    with FileTree(tmp_path / "f.h5") as tree:
        assert (tree.stat("d/a").modified, tree.stat("d/a").permissions) == (1_600_000_000, 0o100640)
        assert (tree.stat("d/b").modified, tree.stat("d/b").permissions) == (None, None)
        assert tree.attributes("d/b")["Modified"] == "yesterday"
        assert tree.stat("d/a").has_attributes and not tree.stat("d/c").has_attributes


# --- links ---


def test_damaged_chunk_names_its_file(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5", compression="gzip")
    with h5py.File(path) as file:
        at = file["big.bin"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(at + 100)
        raw.write(bytes(64))
    with FileTree(path) as tree:
        with pytest.raises(h5fast.CorruptChunkError, match=r"'/big.bin', .* file offset .*gzip"):
            tree.read_many(list(MIXED))
        rest = [name for name in MIXED if name != "big.bin"]
        assert tree.read_many(rest) == [MIXED[name] for name in rest]


def test_truncated_and_changed(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5")
    with FileTree(path) as tree:
        list(tree)
        os.truncate(path, os.path.getsize(path) - 5000)
        with pytest.raises(h5fast.ReadError, match="truncated from"):
            tree.read_many(list(MIXED))


@pytest.mark.parametrize("wrong", ["offsets", "short offsets", "float offsets", "paths", "data"])
def test_encoded_that_contradicts_itself(tmp_path: Path, wrong: str) -> None:
    path = write_encoded(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        if wrong == "offsets":
            file["offsets"][1] = 2**63
        elif wrong == "short offsets":
            offsets = file["offsets"][:-1]
            del file["offsets"]
            file["offsets"] = offsets
        elif wrong == "float offsets":
            offsets = file["offsets"][()].astype("f8")
            del file["offsets"]
            file["offsets"] = offsets
        elif wrong == "paths":
            del file["paths"]
        else:
            del file["data"]
            file["data"] = np.zeros(10)
    with FileTree(path) as tree, pytest.raises(h5fast.CorruptFileError, match=wrong.rpartition(" ")[2]):
        tree.ls()


def test_paths_that_lead_out_of_an_encoded_group(tmp_path: Path) -> None:
    files = {"ok": b"1", "../up": b"2", "/root": b"3", "a//b": b"4", "a/./b": b"5", "ok/below": b"6", "x": b"7"}
    path = write_encoded(tmp_path / "f.h5", files)
    with h5py.File(path, "r+") as file:
        paths = file["paths"][()]
        paths[-2] = b"ok"
        file["paths"][...] = paths
    with FileTree(path) as tree:
        assert dict(tree) == {"ok": b"1"}
        assert len(tree.skipped) == 6


@pytest.mark.parametrize("options", [{}, {"chunks": (100,), "maxshape": (None,)}, {"compression": "lzf"}])
def test_file_with_a_user_block(tmp_path: Path, options: dict[str, Any]) -> None:
    """libhdf5 reports some addresses relative to the end of the user block, and some that are none as if they were."""
    with h5py.File(tmp_path / "f.h5", "w", userblock_size=512) as file:
        for name, content in MIXED.items():
            file.create_dataset(name.encode("utf-8", "surrogateescape"), data=np.frombuffer(content, "u1"),
                                **(options if len(content) > 100 else {}))
        file.create_dataset("unwritten", (10,), "u1")
    for _ in range(2):
        with FileTree(tmp_path / "f.h5") as tree:
            assert dict(tree) == {**MIXED, "unwritten": bytes(10)}
        assert write_member_index(tmp_path / "f.h5")


def test_data_in_other_places(tmp_path: Path) -> None:
    """Compact, external, virtual, early allocated and scale-offset data: none of them lies where a plain dataset does."""
    data = np.arange(50, dtype="u1")
    (tmp_path / "raw").write_bytes(data.tobytes())
    with h5py.File(tmp_path / "f.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((50,)), plist)
        h5py.Dataset(compact)[...] = data
        file.create_dataset("external", (50,), "u1", external=[(str(tmp_path / "raw"), 0, 50)])
        layout = h5py.VirtualLayout((50,), "u1")
        layout[:] = h5py.VirtualSource("f.h5", "compact", (50,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("scaled", data=data, scaleoffset=0, chunks=(50,))
        file.create_dataset("filled", (50,), "u1", fillvalue=7)
        file.create_dataset("filled chunks", (50,), "u1", fillvalue=7, chunks=(10,))
    with FileTree(tmp_path / "f.h5") as tree:
        assert dict(tree) == {**dict.fromkeys(("compact", "external", "virtual", "scaled"), data.tobytes()),
                              "filled": bytes([7]) * 50, "filled chunks": bytes([7]) * 50}
        with tree.open("scaled") as file:
            file.seek(40)
            assert file.read(5) == data[40:45].tobytes()
