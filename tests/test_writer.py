"""The writer against h5py: what is written here is read there, and by h5fast, with every codec, batch size and kind of row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from amount import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import h5fast
from h5fast import Spec, Writer

BUILT_IN = [None, "lzf", "gzip", ("gzip", 1), ("gzip", 9)]
PLUGINS = ["zstd", ("zstd", 1), "lz4", "blosc", "blosc2", "bitshuffle", "bzip2"]


def rows_of(count: int, shape: tuple[int, ...], dtype: Any, kind: str, seed: int) -> np.ndarray:
    """Rows that compress, that do not, that are all the same, or that compress here and there."""
    rng = np.random.default_rng(seed)
    if kind == "walk":
        return files.content((count, *shape), dtype, seed)
    size = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
    noise = rng.integers(0, 256, size, np.uint8)
    if kind == "equal":
        noise[:] = 7
    if kind == "patches":
        noise[rng.integers(0, max(1, size), size // 3)] = 0
        noise[: size // 2] = np.arange(size // 2) // 50 % 251
    rows = noise.view(dtype) if np.dtype(dtype).kind in "iu" else (noise.astype("f8").repeat(8)[: size].astype(dtype))
    return rows[: count * int(np.prod(shape))].reshape(count, *shape)


def write_in_batches(path: Path, data: dict[str, np.ndarray], specs: dict[str, Spec], batches: list[int], **options: Any) -> None:
    with Writer(path, specs, **options) as writer:
        first = 0
        for count in batches:
            writer.append({name: rows[first:first + count] for name, rows in data.items()})
            first += count
        writer.append({name: rows[first:] for name, rows in data.items()})


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip(tmp_path: Path, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 300), "rows")
    codecs = BUILT_IN + (PLUGINS if files.plugin_pipelines() else [])
    specs, rows = {}, {}
    for number in range(data.draw(st.integers(1, 3), "fields")):
        shape = tuple(data.draw(st.lists(st.integers(1, 6), max_size=3), "shape"))
        dtype = data.draw(st.sampled_from(["u1", "i1", "<u2", ">i4", "<i8", "<f4", ">f8", "bool"]), "dtype")
        specs[f"group/f{number}"] = Spec(
            shape, dtype, codec=data.draw(st.sampled_from(codecs), "codec"), shuffle=data.draw(st.sampled_from([None, True, False])),
            fletcher32=data.draw(st.booleans(), "fletcher32"),
            chunk_rows=data.draw(st.one_of(st.just("auto"), st.integers(1, 40)), "chunk_rows"))
        kind = data.draw(st.sampled_from(["walk", "noise", "equal", "patches"]), "kind")
        rows[f"group/f{number}"] = (rows_of(count, shape, "u1", kind, number) > 100 if dtype == "bool" else
                                    rows_of(count, shape, dtype, kind, number))
    batches = data.draw(st.lists(st.integers(0, 60), max_size=8), "batches")
    path = tmp_path / "w.h5"
    write_in_batches(path, rows, specs, batches, rows=data.draw(st.sampled_from([None, count]), "announced"), overwrite=True,
                     memory=data.draw(st.sampled_from(["1 MiB", "64 MiB"]), "memory"))
    with h5py.File(path) as theirs, h5fast.File(path) as ours:
        for name, expected in rows.items():
            assert theirs[name].dtype == expected.dtype and theirs[name].shape == expected.shape
            assert theirs[name][...].tobytes() == expected.tobytes()
            assert ours[name][...].tobytes() == expected.tobytes()
            assert ours[name].reader == "direct"
    assert [p.name for p in tmp_path.iterdir()] == ["w.h5"]


# --- what cannot be written, and says so -----------------------------------------------------------------------------

IMAGE, LABEL = Spec((4, 4), "u1"), Spec((), "i2")


@pytest.mark.parametrize(("make", "kind", "text"), [
    (lambda: Spec((3, 0), "u1"), ValueError, "at least 1"), (lambda: Spec((-1,), "u1"), ValueError, "at least 1"),
    (lambda: Spec((2.5,), "u1"), TypeError, "integer"), (lambda: Spec((), "nonsense"), TypeError, "nonsense"),
    (lambda: Spec((), "U5"), TypeError, "dtype=str"), (lambda: Spec((), "M8[s]"), TypeError, "int64"),
    (lambda: Spec((), object), TypeError, "vlen_dtype"), (lambda: Spec((), "u1", chunk_rows=0), ValueError, "chunk_rows"),
    (lambda: Spec((), "u1", chunk_rows="big"), ValueError, "chunk_rows"), (lambda: Spec((), "u1", codec="lzff"), ValueError, "lzff"),
    (lambda: Spec((), "u1", codec=("gzip", 10)), ValueError, "0 to 9"), (lambda: Spec((), "u1", codec=("lzf", 3)), ValueError, "lzf"),
    (lambda: Spec((), "u1", codec=("lz4", 3)), ValueError, "no level"), (lambda: Spec.like(3), ValueError, "axis")])
def test_wrong_specs(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()


@pytest.mark.parametrize(("fields", "options", "kind", "text"), [
    ({}, {}, ValueError, "at least one"), ([IMAGE], {}, ValueError, "mapping"), ({"a": "u1"}, {}, TypeError, "Spec"),
    ({"": IMAGE}, {}, ValueError, "path"), ({"a//b": IMAGE}, {}, ValueError, "path"), ({"a\0": IMAGE}, {}, ValueError, "path"),
    ({"..": IMAGE, ".": LABEL}, {}, ValueError, "path"), ({"a": IMAGE, "a/b": LABEL}, {}, ValueError, "group"),
    ({"a": IMAGE}, {"rows": -1}, ValueError, "rows"), ({"a": IMAGE}, {"rows": 2.5}, TypeError, "integer"),
    ({"a": IMAGE}, {"access": "any"}, ValueError, "sequential"), ({"a": IMAGE}, {"memory": "lots"}, ValueError, "500 MB"),
    ({"a": Spec((1 << 20,), "u1")}, {"memory": "1 MiB"}, ValueError, "too little"),
    ({"a": Spec((1 << 30,), "f8")}, {}, ValueError, "4 GiB"), ({"a": IMAGE}, {"live": True, "resume": True}, ValueError, "in place")])
def test_wrong_writers(tmp_path: Path, fields: Any, options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        Writer(tmp_path / "w.h5", fields, **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_places(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        Writer(tmp_path, {"a": LABEL})
    with pytest.raises(FileNotFoundError, match="folder"):
        Writer(tmp_path / "no" / "w.h5", {"a": LABEL})


@pytest.mark.parametrize(("batch", "kind", "text"), [
    ({"image": np.zeros((2, 4, 4), "u1")}, ValueError, "lacks 'label'"),
    ({"image": np.zeros((2, 4, 4), "u1"), "label": [1, 2], "more": [1, 2]}, ValueError, "unknown 'more'"),
    ({"image": np.zeros((2, 4, 4), "u1"), "label": [1]}, ValueError, "2 of 'image', 1 of 'label'"),
    ({"image": np.zeros((2, 4, 5), "u1"), "label": [1, 2]}, ValueError, r"\(n, 4, 4\), not \(2, 4, 5\)"),
    ({"image": np.zeros((4, 4), "u1"), "label": [1, 2]}, ValueError, r"not \(4, 4\)"),
    ({"image": np.zeros((1, 4, 4), "f4"), "label": [1]}, TypeError, "convert"),
    ({"image": np.full((1, 4, 4), 256), "label": [1]}, ValueError, "uint8, which cannot hold 256"),
    ({"image": np.full((1, 4, 4), -1), "label": [1]}, ValueError, "cannot hold -1"),
    ({"image": np.zeros((1, 4, 4), "u1"), "label": np.uint64([1 << 63])}, ValueError, "cannot hold"),
    ({"image": np.zeros((1, 4, 4), "u1"), "label": ["one"]}, TypeError, "convert"), ({"image": 3, "label": 3}, ValueError, "shape"),
    ({"image": np.zeros((9, 4, 4), "u1"), "label": range(9)}, ValueError, "8 announced")])
def test_nothing_of_a_wrong_batch_is_taken(tmp_path: Path, batch: Any, kind: type[Exception], text: str) -> None:
    path = tmp_path / "w.h5"
    with Writer(path, {"image": IMAGE, "label": LABEL}, rows=8) as writer:
        writer.append(image=np.ones((3, 4, 4), "u1"), label=[1, 2, 3])
        with pytest.raises(kind, match=text):
            writer.append(batch)
        writer.append(image=np.ones((5, 4, 4), "i8"), label=np.arange(5.0).astype("u1"))
    with h5py.File(path) as file:
        assert file["image"][...].all() and file["label"][...].tolist() == [1, 2, 3, 0, 1, 2, 3, 4]


PAIR = np.dtype([("a", "i1"), ("b", "f4")])


@pytest.mark.parametrize(("dtype", "rows", "kind", "text"), [
    (str, ["fine", "a\0b"], ValueError, "NUL"), (str, [b"fine", b"a\0b"], ValueError, "NUL"), (str, ["fine", 1], TypeError, "of type int"),
    (str, [None], TypeError, "NoneType"), (str, ["\ud800"], ValueError, "UTF-8"), (str, [["a"]], TypeError, "list"),
    (h5py.vlen_dtype("f4"), [None], ValueError, "one axis"), (h5py.vlen_dtype("f4"), [[[1, 2], [3, 4]]], ValueError, r"\(2, 2\)"),
    (h5py.vlen_dtype("u1"), [[1], [300]], ValueError, "cannot hold 300"), (h5py.vlen_dtype("u1"), [["a"]], TypeError, "convert"),
    (h5py.ref_dtype, [1], TypeError, "references"), ("f4", [1e300], ValueError, "too large"), ("f2", np.float32([7e4]), ValueError, "too large"),
    (PAIR, np.array([(300, 1)], [("a", "i4"), ("b", "f4")]), ValueError, r"x\.a.*cannot hold 300"),
    (PAIR, np.array([(3, 1)], [("a", "i1"), ("c", "f4")]), TypeError, "members a, b, not a, c")])
def test_an_element_that_hdf5_would_refuse_later(tmp_path: Path, dtype: Any, rows: Any, kind: type[Exception], text: str) -> None:
    """Or wrap, or cut, or crash at: h5py sees elements of variable length when their chunk is written, many batches later."""
    with Writer(tmp_path / "w.h5", {"x": Spec((), dtype), "n": LABEL}) as writer:
        with pytest.raises(kind, match=text):
            writer.append(x=rows, n=np.zeros(len(rows), "i8"))
        writer.append(x=np.empty(0, "S1" if dtype is str else dtype), n=[])
    with h5py.File(tmp_path / "w.h5") as file:
        assert len(file["x"]) == len(file["n"]) == 0


def test_members_of_compounds_go_by_their_names(tmp_path: Path) -> None:
    with Writer(tmp_path / "w.h5", {"x": Spec((), PAIR)}) as writer:
        writer.append(x=np.array([(2.5, 1)], [("b", "f8"), ("a", "i8")]))
    with h5py.File(tmp_path / "w.h5") as file:
        assert file["x"][0].tolist() == (1, 2.5)


def test_fewer_rows_than_announced(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with pytest.raises(ValueError, match="3 of the 8 announced"):
        with Writer(path, {"label": LABEL}, rows=8) as writer:
            writer.append(label=[1, 2, 3])
    assert not path.exists()
    with Writer(path, {"label": LABEL}, rows=8, resume=True) as writer:
        writer.append(label=[4, 5, 6, 7, 8])
    with h5py.File(path) as file:
        assert file["label"][...].tolist() == [1, 2, 3, 4, 5, 6, 7, 8] and file["label"].maxshape == (8,)


def test_closed_twice_and_used_afterwards(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "w.h5", {"label": LABEL})
    writer.append(label=[1])
    writer.close()
    writer.close()
    writer.abandon()
    assert writer.closed and writer.rows == 1
    for use in (lambda: writer.append(label=[2]), writer.flush, lambda: writer.file):
        with pytest.raises(ValueError, match="closed"):
            use()


# --- how it is stored -------------------------------------------------------------------------------------------------

def test_kinds_of_elements_and_attributes(tmp_path: Path) -> None:
    """Also what HDF5 alone can write: text and rows of any length, compounds; resumed in the middle."""
    pair = np.dtype([("a", "<i4"), ("b", "<f8"), ("c", "u1", (3,))])
    specs = {"text": Spec((), str, attrs={"language": "en"}), "ragged": Spec((), h5py.vlen_dtype("<f4"), chunk_rows=3),
             "pair": Spec((2,), pair, codec="gzip", shuffle=True), "fixed": Spec((), "S6"), "complex": Spec((2,), "<c8"),
             "flag": Spec((3,), "bool"), "filled": Spec((2,), "<i4", chunk_rows=8, fillvalue=-7), "half": Spec((), "<f2")}
    pairs = np.zeros((10, 2), pair)
    pairs["a"], pairs["c"] = np.arange(20).reshape(10, 2), 9
    rows: dict[str, Any] = {
        "text": [f"Zeile {n} ä" for n in range(10)], "ragged": [np.arange(n, dtype="f4") for n in range(10)], "pair": pairs,
        "fixed": np.array(["äß" if n % 2 else "x" for n in range(10)]), "complex": np.full((10, 2), 1 + 2j, "c8"),
        "flag": np.arange(30).reshape(10, 3) % 2 == 0, "filled": np.arange(20).reshape(10, 2), "half": np.arange(10, dtype="f4")}
    path = tmp_path / "w.h5"
    for first in (0, 4, 8):
        writer = Writer(path, specs, resume=True)
        assert writer.rows == first
        writer.append({name: values[first:first + 4] for name, values in rows.items()})
        writer.file.attrs["step"] = first
        writer.file["text"].attrs["note"] = "mine"
        writer.abandon() if first < 8 else writer.close()
    with h5py.File(path) as file:
        assert file.attrs["step"] == 8 and dict(file["text"].attrs).items() >= {"language": "en", "note": "mine"}.items()
        assert list(file["text"].asstr()[...]) == rows["text"]
        assert all(np.array_equal(a, b) for a, b in zip(file["ragged"][...], rows["ragged"], strict=True))
        assert file["fixed"][...].tolist() == [value.encode() for value in rows["fixed"]]
        for name in ("pair", "complex", "flag", "filled", "half"):
            assert file[name][...].tobytes() == np.asarray(rows[name]).astype(file[name].dtype).tobytes(), name
        file["filled"].id.get_space()  # what lies behind the last row is the fill value
    with h5py.File(path, "r+") as file:
        file["filled"].resize(14, axis=0)
        assert (file["filled"][10:] == -7).all()


def test_text_that_is_too_long(tmp_path: Path) -> None:
    with Writer(tmp_path / "w.h5", {"s": Spec((), "S3")}) as writer:
        with pytest.raises(ValueError, match="one has 4"):
            writer.append(s=["ab", "äö"])
        writer.append(s=["ab", "äö"[:1]])


@pytest.mark.parametrize("codec", ["lzf", "gzip", ("gzip", 9)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_incompressible_chunks_are_left_alone(tmp_path: Path, codec: Any, shuffle: bool) -> None:
    """Neither larger nor shuffled: the filter mask says that nothing was done to them but the checksum."""
    noise = np.random.default_rng(0).integers(0, 1 << 62, (20, 100))
    noise[10:] = 5
    path = tmp_path / "w.h5"
    with Writer(path, {"x": Spec((100,), "i8", chunk_rows=10, codec=codec, shuffle=shuffle, fletcher32=True)}) as writer:
        writer.append(x=noise[:, :] * 2 + (noise != 5) * np.random.default_rng(1).integers(0, 2, noise.shape))
    chunks = files.stored_chunks(path, "x")
    assert [chunk.filter_mask for chunk in chunks] == ([0b011, 0] if shuffle else [0b01, 0])
    assert chunks[0].size == 10 * 100 * 8 + 4 and chunks[1].size < 400


@pytest.mark.parametrize("name", sorted(files.PIPELINES))
def test_the_bytes_are_those_that_h5py_writes(tmp_path: Path, name: str) -> None:
    """Of shuffles and checksums, byte for byte; of compressors what h5py decodes, in the same place, with the same options."""
    data = files.content((40, 30), "<i4")
    theirs = files.write(tmp_path / "t.h5", data, chunks=(9, 30), pipeline=files.PIPELINES[name], maxshape=(None, 30))
    with h5py.File(theirs) as file:
        spec = Spec.of(file["d"])
        with Writer(tmp_path / "w.h5", {"d": spec}) as writer:
            writer.append(d=data)
        with h5py.File(tmp_path / "w.h5") as mine:
            assert np.array_equal(mine["d"][...], data)
            ours, expected = (list(h5fast.plugins.pipeline(f["d"].id.get_create_plist())) for f in (mine, file))
            assert ours == expected
            if not {"gzip", "lzf"} & set(name.split("+")):
                for first in range(0, 40, 9):
                    assert mine["d"].id.read_direct_chunk((first, 0)) == file["d"].id.read_direct_chunk((first, 0))


def test_chunks_are_chosen_for_the_access_and_say_why(tmp_path: Path) -> None:
    def chunk(row_bytes: int, count: int | None = None, **options: Any) -> tuple[int, str]:
        path = tmp_path / "w.h5"
        codec = options.pop("codec", "lzf")
        with Writer(path, {"x": Spec((row_bytes,), "u1", codec=codec)}, overwrite=True, **options) as writer:
            if count:
                writer.append(x=np.zeros((count, row_bytes), "u1"))
        with h5py.File(path) as file:
            return file["x"].chunks[0], file["x"].attrs["h5fast_chunk_rows"] + "; " + file["x"].attrs["h5fast_codec"]

    assert chunk(12288)[0] == 1 and chunk(4)[0] == 4096 and chunk(100)[0] == 163
    assert "decoded for a random row" in chunk(100)[1] and "random rows" in chunk(100)[1] and "lzf" in chunk(100)[1]
    assert chunk(100, access="sequential")[0] == 10485 and "one after the other" in chunk(100, access="sequential")[1]
    assert chunk(100, codec=None)[0] == 10485 and "copied" in chunk(100, codec=None)[1]
    rows, reason = chunk(100, 7, rows=7)
    assert rows == 7 and "all 7 rows" in reason
    rows, reason = chunk(1000, codec=None, memory="1 MiB")
    assert rows * 1000 * 4 < 1 << 20 and "memory" in reason


def test_codec_auto(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {"noise": rng.integers(0, 256, (3000, 400), np.uint8), "zeros": np.zeros((3000, 400), "u1"),
            "text": np.array([f"{n}" for n in range(3000)], object)}
    path = tmp_path / "w.h5"
    specs = {"noise": Spec((400,), "u1", codec="auto"), "zeros": Spec((400,), "u1", codec="auto"), "text": Spec((), str, codec="auto")}
    with Writer(path, specs) as writer:
        for first in range(0, 3000, 100):
            writer.append({name: values[first:first + 100] for name, values in rows.items()})
    with h5fast.File(path) as file:
        assert file["noise"].id.get_create_plist().get_nfilters() == 0
        assert file["zeros"].id.get_create_plist().get_nfilters() > 0
        assert "none 1.00" in file["zeros"].attrs["h5fast_codec"] and "lzf" in file["zeros"].attrs["h5fast_codec"]
        assert file["text"].compression == "lzf"
        assert np.array_equal(file["noise"][...], rows["noise"]) and not file["zeros"][...].any()
    with Writer(tmp_path / "empty.h5", specs) as writer:
        assert writer.rows == 0
    with h5py.File(tmp_path / "empty.h5") as file:
        assert {name: file[name].shape for name in specs} == {"noise": (0, 400), "zeros": (0, 400), "text": (0,)}


def test_chunks_move_from_file_to_file(tmp_path: Path) -> None:
    data = {"a": files.content((95, 6), "<i4"), "b": rows_of(95, (4,), "u1", "noise", 0)}
    write_in_batches(tmp_path / "from.h5", data, {"a": Spec((6,), "<i4", chunk_rows=10, fletcher32=True), "b": Spec((4,), "u1", chunk_rows=7)}, [])
    with h5py.File(tmp_path / "from.h5") as file:
        with Writer(tmp_path / "to.h5", {name: Spec.of(file[name]) for name in data}, resume=True) as writer:
            for name in data:
                dataset, rows = file[name], 0
                while rows < 95:
                    mask, stored = dataset.id.read_direct_chunk((rows, 0))
                    count = min(dataset.chunks[0], 95 - rows)
                    writer.append_chunk(name, stored, mask=mask, rows=count)
                    rows += count
                    if name == "a":
                        with pytest.raises(ValueError, match="same number"):
                            writer.flush()
                        with pytest.raises(ValueError, match="missing"):
                            writer.append({name: values[:1] for name, values in data.items()})
            with pytest.raises(ValueError, match="do not fill"):
                writer.append_chunk("a", b"")
            with pytest.raises(KeyError, match="no field 'c'"):
                writer.append_chunk("c", b"")
            assert writer.rows == 95
            writer.flush()
    with h5py.File(tmp_path / "to.h5") as file:
        assert all(np.array_equal(file[name][...], values) for name, values in data.items())


def test_chunks_and_rows_in_turn(tmp_path: Path) -> None:
    rows = files.content((40, 3), "<i8")
    with Writer(tmp_path / "w.h5", {"x": Spec((3,), "<i8", chunk_rows=10, codec=None)}) as writer:
        writer.append(x=rows[:10])
        writer.append_chunk("x", rows[10:20])
        writer.append(x=rows[20:25])
        with pytest.raises(ValueError, match="do not fill"):
            writer.append_chunk("x", rows[25:35])
        with pytest.raises(ValueError, match="1 to 10"):
            writer.append_chunk("x", rows[25:35], rows=11)
        writer.append(x=rows[25:])
    with h5py.File(tmp_path / "w.h5") as file:
        assert np.array_equal(file["x"][...], rows)


def test_many_threads_append(tmp_path: Path) -> None:
    from at_once import run_in_threads

    path = tmp_path / "w.h5"
    with Writer(path, {"x": Spec((50,), "<i4", chunk_rows=3)}, memory="1 MiB") as writer:
        def add(worker: int) -> None:
            for batch in range(40):
                writer.append(x=np.full((7, 50), worker * 40 + batch))

        run_in_threads([lambda worker=worker: add(worker) for worker in range(4)])
    with h5py.File(path) as file:
        stored = file["x"][...].reshape(160, 7 * 50)
        assert sorted(stored[:, 0].tolist()) == list(range(160)) and (stored == stored[:, :1]).all()


MEASURED = """
    import sys
    import numpy as np
    from h5fast import Spec, Writer, set_num_threads
    set_num_threads(2)
    codec, rows = sys.argv[2], int(sys.argv[3])
    batch = np.random.default_rng(0).integers(0, 50, (16, 512, 512), np.uint8)
    held = lambda what: next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(what))
    with Writer(sys.argv[1] + "0", {"x": Spec((512, 512), "u1", codec=codec)}, memory="32 MiB") as writer:
        writer.append(x=batch[:2])
    before = held("RssAnon")
    most = 0
    with Writer(sys.argv[1], {"x": Spec((512, 512), "u1", codec=codec)}, memory="32 MiB", flush_every="100 MB") as writer:
        while writer.rows < rows:
            writer.append(x=batch)
            most = max(most, held("RssAnon"))
    print(most - before)
"""


@pytest.mark.parametrize("codec", ["lzf", "none", "gzip"])
def test_memory_is_bounded(tmp_path: Path, codec: str) -> None:
    done = files.run_python(MEASURED, tmp_path / "w.h5", codec, 2400 if codec != "gzip" else 800)
    assert int(done.stdout) < 40 << 20


# --- live -------------------------------------------------------------------------------------------------------------

READING = """
    import sys
    import numpy as np, h5py
    with h5py.File(sys.argv[1], "r", libver="latest", swmr=True) as file:
        print("open", flush=True)
        for line in sys.stdin:
            file["x"].id.refresh(), file["deep/y"].id.refresh()
            rows = min(len(file["x"]), len(file["deep/y"]))
            numbers = np.arange(rows)
            assert (file["x"][:rows] == (numbers[:, None] * np.arange(20)).astype("i4")).all()
            assert (file["deep/y"][:rows] == numbers).all()
            print(rows, flush=True)
"""


@pytest.mark.parametrize("codec", ["lzf", None, "gzip"])
def test_live_file_is_read_while_it_grows(tmp_path: Path, codec: Any) -> None:
    path = tmp_path / "w.h5"
    specs = {"x": Spec((20,), "<i4", codec=codec, chunk_rows=16), "deep/y": Spec((), "<i8", codec=codec, chunk_rows=500)}
    with Writer(path, specs, live=True, memory="1 MiB") as writer:
        assert path.exists()
        child = files.start_python(READING, path)
        with child:
            assert child.stdout.readline() == "open\n"
            for count in [1, 5, 16, 17, 100, 0, 3, 1000, 2, 700]:
                numbers = np.arange(writer.rows, writer.rows + count)
                writer.append({"x": numbers[:, None] * np.arange(20), "deep/y": numbers})
                writer.flush()
                child.stdin.write("now\n")
                child.stdin.flush()
                assert child.stdout.readline() == f"{writer.rows}\n"
            child.stdin.close()
        assert child.returncode == 0
        rows = writer.rows
    with h5fast.File(path) as file:
        assert np.array_equal(file["deep/y"][...], np.arange(rows))
        assert file["x"][-1, 1] == rows - 1
    stored = files.stored_chunks(path, "deep/y")
    assert all(chunk.filter_mask == 0 for chunk in stored), "chunks that were shown half full stay unencoded"


def test_a_live_file_is_not_lost_to_wrong_options(tmp_path: Path) -> None:
    """It is written in place: what is wrong has to be found before the old one is gone."""
    path = tmp_path / "w.h5"
    path.write_bytes(b"old")
    for field, options in ((Spec((1 << 20,), "u1", chunk_rows=8192), {}), (Spec((1 << 20,), "u1"), {"memory": "1 MiB"})):
        with pytest.raises(ValueError, match="'a'"):
            Writer(path, {"a": field}, live=True, overwrite=True, **options)
        assert path.read_bytes() == b"old"


def test_live_file_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with pytest.raises(ZeroDivisionError):
        with Writer(path, {"x": Spec((), "i4")}, live=True) as writer:
            writer.append(x=[1, 2, 3])
            1 / 0
    with h5py.File(path) as file:
        assert file["x"][...].tolist() == [1, 2, 3]
    with pytest.raises(FileExistsError):
        Writer(path, {"x": Spec((), "i4")}, live=True)
    with Writer(path, {"x": Spec((), "i4")}, live=True, overwrite=True) as writer:
        writer.append(x=[4])
    with h5py.File(path) as file:
        assert file["x"][...].tolist() == [4]
