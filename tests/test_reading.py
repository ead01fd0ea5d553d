"""The reader of one dataset: which path it takes, when it indexes, what it keeps."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import subprocess
import sys
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

import h5fast
from h5fast import _blocks, _gather, _index
from h5fast.methods import reader_of

SHAPE = (400, 6, 5)


def _write(path: Path, **options: object) -> np.ndarray:
    data = np.random.default_rng(7).integers(0, 100, SHAPE).astype("i4")
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=data, **options)
    return data


def _virtual(folder: Path) -> np.ndarray:
    parts = []
    for number in range(3):
        parts.append(np.arange(20).reshape(5, 4) + 100 * number)
        with h5py.File(folder / f"part{number}.h5", "w") as file:
            file["d"] = parts[-1]
    layout = h5py.VirtualLayout((17, 4), "i8")
    for number in range(3):
        layout[number * 6:number * 6 + 5] = h5py.VirtualSource(f"part{number}.h5", "d", (5, 4))
    with h5py.File(folder / "all.h5", "w") as file:
        file.create_virtual_dataset("v", layout, fillvalue=-1)
    with h5py.File(folder / "all.h5") as file:
        return file["v"][...]


def test_plain_virtual_dataset_reads_its_sources_directly(tmp_path: Path) -> None:
    expected = _virtual(tmp_path)
    assert (expected[5] == -1).all()
    with h5fast.File(tmp_path / "all.h5") as file:
        dataset = file["v"]
        assert dataset.reader == "direct"
        for key in (..., 0, (3, 2), slice(None, None, -2), [16, 0, 5, 5, -1], ([4, 7], slice(1, 3)), (slice(1, 9, 3), [3, 1])):
            np.testing.assert_array_equal(dataset[key], expected[key])
        np.testing.assert_array_equal(dataset.take([7, 5, 0], dtype="f4", scale=2), expected[[7, 5, 0]] * 2)


def test_virtual_dataset_with_a_missing_source_is_left_to_hdf5(tmp_path: Path) -> None:
    expected = _virtual(tmp_path)
    (tmp_path / "part1.h5").unlink()
    with h5fast.File(tmp_path / "all.h5") as file:
        assert "missing source" in file["v"].reader
        rows = file["v"].take([7, 0, 16])
    np.testing.assert_array_equal(rows, [[-1] * 4, expected[0], expected[16]])


def test_scalar_of_the_general_path_is_the_element(tmp_path: Path) -> None:
    """A detached copy of a 0-d result once came back uninitialised."""
    _write(tmp_path / "f.h5", chunks=(8, 6, 5), scaleoffset=0)
    with h5py.File(tmp_path / "f.h5") as plain, h5fast.File(tmp_path / "f.h5") as file:
        assert file["d"].reader.startswith("general")
        for index in ((5, 3, 2), (399, 5, 4), (0, 0, 0)):
            assert file["d"][index] == plain["d"][index]
            assert file["d"][tuple(np.array(i) for i in index)] == plain["d"][index]


def test_first_rows_are_read_without_an_index(tmp_path: Path) -> None:
    data = _write(tmp_path / "f.h5", chunks=(1, 6, 5), compression="gzip")
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        np.testing.assert_array_equal(dataset[17], data[17])
        assert reader_of(dataset)._direct.index is None
        np.testing.assert_array_equal(dataset[100:150], data[100:150])
        assert reader_of(dataset)._direct.index.allocated == 400


def test_row_by_row_decodes_a_chunk_twice_at_most(tmp_path: Path) -> None:
    """Without keeping the chunk, a loop over rows decodes a chunk of 40 rows 40 times; h5py's chunk cache does not."""
    data = _write(tmp_path / "f.h5", chunks=(40, 6, 5), compression="gzip", shuffle=True)
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        for row in [*range(5, 60), 39, 38, 0]:
            np.testing.assert_array_equal(dataset[row], data[row])
            np.testing.assert_array_equal(dataset[row, 2:4], data[row, 2:4])
            if row == 5:
                assert reader_of(dataset)._direct.file.pool.bytes == 40 * 120
            if row == 41:
                assert reader_of(dataset)._direct.file.pool.bytes == 2 * 40 * 120


def test_what_was_kept_is_read_whatever_the_selection(tmp_path: Path) -> None:
    data = _write(tmp_path / "f.h5", chunks=(50, 4, 5), compression="gzip")
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        for _ in range(3):
            np.testing.assert_array_equal(dataset[::-3, 1:5:2], data[::-3, 1:5:2])
            np.testing.assert_array_equal(dataset[...], data)
            np.testing.assert_array_equal(dataset[[70, 3, 3, -1], 2], data[[70, 3, 3, -1], 2])
            np.testing.assert_array_equal(dataset.take([5, 399, 5], dtype="f4", scale=0.5),
                                          data[[5, 399, 5]] * np.float32(0.5))
        assert reader_of(dataset)._direct.file.pool.bytes == 16 * 50 * 4 * 5 * data.itemsize


@pytest.mark.parametrize(("cache", "kept"), [(0, 0), (3 << 20, 3 << 20), (16 << 20, 16 << 20), (None, 8 << 20)])
def test_chunks_are_kept_as_far_as_the_chunk_cache_goes(tmp_path: Path, cache: int | None, kept: int) -> None:
    data = np.random.default_rng(0).integers(0, 9, (24, 1024, 1024), "u1")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("d", data=data, chunks=(1, 1024, 1024), compression="lzf")
    with h5fast.File(tmp_path / "f.h5", **({} if cache is None else {"rdcc_nbytes": cache})) as file:
        dataset = file["d"]
        for row in [*range(24)] * 2 + [1, 1, 0, 0]:
            np.testing.assert_array_equal(dataset[row, 5], data[row, 5])
        few = list(range(kept // (1 << 20)))
        for row in few * 3:
            np.testing.assert_array_equal(dataset[row, 7:9], data[row, 7:9])
        assert reader_of(dataset)._direct.file.pool.bytes == kept


def test_sources_of_a_virtual_dataset_share_what_is_kept(tmp_path: Path) -> None:
    """Each kept 8 MiB of its own: a dataset of a thousand files, 8 GB."""
    layout = h5py.VirtualLayout((12, 1024, 1024), "u1")
    for number in range(12):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file.create_dataset("d", data=np.full((1, 1024, 1024), number, "u1"), chunks=(1, 1024, 1024), compression="gzip")
        layout[number] = h5py.VirtualSource(f"{number}.h5", "d", (1, 1024, 1024))[0]
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    with h5fast.File(tmp_path / "v.h5", rdcc_nbytes=4 << 20) as file:
        dataset = file["v"]
        assert dataset.reader == "direct"
        for row in [0, 0, 1, 1, *range(12), *range(12)] * 2:
            assert (dataset[row, 3] == row).all()
        assert 0 < file._watched.file.pool.bytes <= 4 << 20


def test_a_dataset_that_is_opened_again_is_known(tmp_path: Path) -> None:
    """``file["d"][rows]`` in a loop indexed the chunks anew for each batch."""
    data = _write(tmp_path / "f.h5", chunks=(1, 6, 5), compression="lzf")
    with h5fast.File(tmp_path / "f.h5") as file:
        file["d"][np.arange(400)[::-1]]
        index = reader_of(file["d"])._prepared().index
        assert index is not None and reader_of(file["d"])._prepared().index is index
        np.testing.assert_array_equal(file["d"][[7, 3]], data[[7, 3]])
    with h5fast.File(tmp_path / "f.h5") as file, h5fast.File(tmp_path / "f.h5") as twin:
        assert reader_of(file["d"])._prepared().index is None
        file.close()
        np.testing.assert_array_equal(twin["d"][[7, 3]], data[[7, 3]])
    with h5py.File(tmp_path / "f.h5", "r+") as file:  # nothing holds the file open
        file["d"][3] = 1


def test_opening_does_not_walk_the_chunk_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for its address by ``h5o.get_info``, libhdf5 sums up the index: the first row of a million chunks took 85 ms."""
    def walk(*_: object) -> None:
        raise AssertionError("this walks the chunk index")

    data = _write(tmp_path / "f.h5", chunks=(1, 6, 5), compression="lzf")
    with h5fast.File(tmp_path / "f.h5") as file:
        monkeypatch.setattr(h5py.h5o, "get_info", walk)
        np.testing.assert_array_equal(file["d"][17], data[17])
        assert reader_of(file["d"])._prepared().index is None


def test_a_virtual_dataset_opened_with_a_prefix(tmp_path: Path) -> None:
    """The prefix leads to another source of the same name; it was read from the one beside the file."""
    for folder, factor in ((tmp_path, 1), (tmp_path / "sub", 100)):
        folder.mkdir(exist_ok=True)
        with h5py.File(folder / "s.h5", "w") as file:
            file["d"] = np.arange(4) * factor
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource("s.h5", "d", (4,))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    for _ in range(2):  # opened without the prefix before, and after
        with h5py.File(tmp_path / "v.h5") as plain:
            expected = plain.require_dataset("v", (4,), "i8", virtual_prefix=str(tmp_path / "sub"))[:]
        with h5fast.File(tmp_path / "v.h5") as file:
            assert file["v"][:].tolist() == [0, 1, 2, 3] and file["v"].reader == "direct"
            prefixed = file.require_dataset("v", (4,), "i8", virtual_prefix=str(tmp_path / "sub"))
            np.testing.assert_array_equal(prefixed[:], expected)
            assert "prefix" in prefixed.reader


def test_a_chunk_damaged_behind_the_wanted_rows_still_gives_them(tmp_path: Path) -> None:
    """The second touch tries to decode the chunk whole. It fails; the rows in front of the damage are sound."""
    data = _write(tmp_path / "f.h5", chunks=(400, 6, 5), compression="lzf")
    with h5py.File(tmp_path / "f.h5") as file:
        info = file["d"].id.get_chunk_info(0)
    with open(tmp_path / "f.h5", "r+b") as raw:
        raw.seek(info.byte_offset + info.size - 40)
        raw.write(b"\xff" * 40)
    with h5fast.File(tmp_path / "f.h5") as file:
        for _ in range(3):
            np.testing.assert_array_equal(file["d"][3], data[3])
            with pytest.raises(h5fast.CorruptChunkError):
                file["d"][399]


def test_memory_of_a_freed_result_is_used_again(tmp_path: Path) -> None:
    data = _write(tmp_path / "f.h5")
    with h5fast.File(tmp_path / "f.h5") as file:
        rows = np.tile(np.arange(400), 3)
        first = file["d"].take(rows)
        address = first.ctypes.data
        del first
        assert _blocks.kept_bytes() >= rows.size * 120
        second = file["d"].take(rows)
        assert second.ctypes.data == address
        np.testing.assert_array_equal(second, data[rows])
        second.resize((10, 6, 5), refcheck=False)
        np.testing.assert_array_equal(second, data[:10])


def test_kept_memory_is_bounded() -> None:
    for size in range(100_000, 9_000_000, 200_000):
        _blocks.empty((size,), np.dtype("u1"))
    assert _blocks.kept_bytes() <= 16 << 20


def test_steady_state_allocates_nothing_that_grows(tmp_path: Path) -> None:
    _write(tmp_path / "f.h5", chunks=(8, 6, 5), compression="lzf", shuffle=True)
    rng = np.random.default_rng(3)
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        out = np.empty((64, *SHAPE[1:]), "i4")
        for _ in range(20):
            dataset.take(rng.integers(0, 400, 64), out=out)
        scratch = _gather.scratch_bytes()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(200):
                dataset.take(rng.integers(0, 400, 64), out=out)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert _gather.scratch_bytes() == scratch
        assert grown < 20_000


@pytest.mark.skipif(importlib.util.find_spec("deflate") is None, reason="the package deflate is not installed")
def test_deflate_falls_back_to_zlib(tmp_path: Path) -> None:
    data = _write(tmp_path / "f.h5", chunks=(32, 6, 5), compression="gzip")
    assert _gather.use_deflate("zlib") == "zlib"
    try:
        with h5fast.File(tmp_path / "f.h5") as file:
            np.testing.assert_array_equal(file["d"][...], data)
            np.testing.assert_array_equal(file["d"].take([399, 3, 3]), data[[399, 3, 3]])
    finally:
        assert _gather.use_deflate("libdeflate") == "libdeflate"


def test_index_of_a_sparse_dataset_is_small(tmp_path: Path) -> None:
    """A table for every possible chunk of 2**40 would be a bomb."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("d", (1 << 40, 4), "u1", chunks=(1, 4), fillvalue=9)
        for row in (5, 1 << 39, 77):
            dataset[row] = 1
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        np.testing.assert_array_equal(dataset.take([77, 1 << 39, 6, 5]), [[1] * 4, [1] * 4, [9] * 4, [1] * 4])
        index = reader_of(dataset)._direct.index
        assert index.allocated == 3 and index.nbytes <= 3 * 32


def test_closed_file_can_be_written_while_a_dataset_object_lives(tmp_path: Path) -> None:
    """A duplicate of libhdf5's descriptor would hold its file lock."""
    _write(tmp_path / "f.h5")
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        dataset.take([1, 0])
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["e"] = 1
    with pytest.raises(ValueError, match="closed"):
        dataset.take([1])


@pytest.mark.parametrize("bad", [{"dtype": "i4", "scale": 0.5}, {"out": np.empty((2, 6, 5), "f8")}, {"out": [1, 2]}])
def test_take_refuses_what_it_cannot_do(tmp_path: Path, bad: dict[str, object]) -> None:
    _write(tmp_path / "f.h5")
    with h5fast.File(tmp_path / "f.h5") as file, pytest.raises(TypeError):
        file["d"].take([0, 1], **bad)


@pytest.mark.parametrize("bad", [{"scale": [1, 2]}, {"out": np.empty((3, 6, 5), "i4")}, {"out": np.empty((5, 6, 2), "i4").T}])
def test_take_refuses_shapes_that_do_not_fit(tmp_path: Path, bad: dict[str, object]) -> None:
    _write(tmp_path / "f.h5")
    with h5fast.File(tmp_path / "f.h5") as file, pytest.raises(ValueError):
        file["d"].take([0, 1], **bad)


def test_a_sound_row_of_a_damaged_chunk_stays_readable(tmp_path: Path) -> None:
    """Keeping the whole chunk decoded must not ask for more than the read itself does."""
    data = _write(tmp_path / "f.h5", chunks=(40, 6, 5), compression="gzip")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["d"].id.write_direct_chunk((40, 0, 0), zlib.compress(data[40:60].tobytes()))
    with h5fast.File(tmp_path / "f.h5") as file:
        for _ in range(3):
            np.testing.assert_array_equal(file["d"][41], data[41])
        with pytest.raises(h5fast.CorruptChunkError, match="fewer bytes"):
            file["d"][40:80]


@pytest.mark.parametrize("options", [{}, {"chunks": (8, 6, 5)}, {"chunks": (8, 3, 5), "compression": "gzip"}])
def test_elements_that_are_arrays(tmp_path: Path, options: dict[str, object]) -> None:
    """Their axes are axes of the row: a cast that counted elements left most of the output unwritten."""
    data = np.random.default_rng(5).random((20, 6, 5, 3)).astype("f4")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("d", (20, 6, 5), np.dtype(("f4", (3,))), **options)
        dataset[...] = data
    with h5fast.File(tmp_path / "f.h5") as file:
        dataset = file["d"]
        rows = [4, 4, 19, 0]
        np.testing.assert_array_equal(dataset.take(rows), data[rows])
        np.testing.assert_array_equal(dataset.take(rows, channels_first=True), np.moveaxis(data[rows], -1, 1))
        expected = data[rows].astype("f8") * 2.0 + 1.0
        np.testing.assert_array_equal(dataset.take(rows, dtype="f8", scale=2, offset=1), expected)


def test_virtual_sources_are_found_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative names of sources are relative to the file, not to where the process has gone since."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = _virtual(tmp_path / "a")
    _virtual(tmp_path / "b")
    for number in range(3):
        with h5py.File(tmp_path / "b" / f"part{number}.h5", "r+") as file:
            file["d"][...] = -7
    monkeypatch.chdir(tmp_path / "a")
    with h5fast.File("all.h5") as file:
        dataset = file["v"]
        monkeypatch.chdir(tmp_path / "b")
        np.testing.assert_array_equal(dataset[...], expected)


def test_virtual_sources_are_closed_with_the_file(tmp_path: Path) -> None:
    _virtual(tmp_path)
    with h5fast.File(tmp_path / "all.h5") as file:
        dataset = file["v"]
        dataset[0]
    with h5py.File(tmp_path / "part0.h5", "r+") as file:
        file["e"] = 1
    with pytest.raises(ValueError, match="closed"):
        dataset[0]


def test_errors_tell_the_offset_in_the_file(tmp_path: Path) -> None:
    """A chunk that was found without an index does not know where it lies."""
    _write(tmp_path / "f.h5", chunks=(1, 6, 5), compression="gzip")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["d"].id.write_direct_chunk((9, 0, 0), b"nothing that inflates")
    with h5py.File(tmp_path / "f.h5") as file:
        offset = file["d"].id.get_chunk_info_by_coord((9, 0, 0)).byte_offset
    with h5fast.File(tmp_path / "f.h5") as file, pytest.raises(h5fast.CorruptChunkError, match=f"file offset {offset}"):
        file["d"][9]


def test_plugins_are_registered_for_h5pys_own_ways(tmp_path: Path) -> None:
    """Direct reads need no registration, but astype views and conversions go through libhdf5."""
    data = np.arange(600).reshape(60, 10)
    make = ("import hdf5plugin, h5py, numpy, sys\n"
            "h5py.File(sys.argv[1], 'w').create_dataset('d', data=numpy.arange(600).reshape(60, 10), chunks=(7, 10),"
            " **hdf5plugin.Zstd())")
    use = ("import h5fast, sys\nassert 'hdf5plugin' not in sys.modules\nd = h5fast.File(sys.argv[1])['d']\n"
           "assert d.reader == 'direct', d.reader\nprint(d.astype('f4')[3, 4], d[3, 4])")
    for script in (make, use):
        done = subprocess.run([sys.executable, "-c", script, tmp_path / "f.h5"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{data[3, 4]}.0", str(data[3, 4])]


def test_too_many_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="4096"):
        h5fast.set_num_threads(2**31)


def test_libhdf5_faults_are_recognised_by_trying() -> None:
    assert isinstance(_index.addresses_lack_user_block(), bool)


def test_scalars_on_the_general_path(tmp_path: Path) -> None:
    kind = h5py.enum_dtype({"a": 1, "b": 2}, basetype="i1")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("d", data=np.int8(2), dtype=kind)
        file.create_dataset("s", data="text")
    with h5fast.File(tmp_path / "f.h5") as file:
        for name in ("d", "s"):
            value = file[name][()]
            assert file[name][None].shape == (1,) and file[name][None][0] == value
            assert file[name][...] == value


def test_several_fields_of_listed_rows(tmp_path: Path) -> None:
    data = np.array([(i, i / 2, i * 3) for i in range(20)], [("a", "i4"), ("b", "f8"), ("c", "u2")])
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("d", data=data, chunks=(6,), compression="gzip")
    with h5fast.File(tmp_path / "f.h5") as file:
        expected = data[[3, 1, 1]][["a", "c"]]
        assert file["d"][[3, 1, 1], "a", "c"].tolist() == expected.tolist()
        mask = np.arange(20) % 3 == 0
        assert file["d"][mask, "c", "b"].tolist() == data[mask][["c", "b"]].tolist()
