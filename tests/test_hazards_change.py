"""Hazards of files that change or are shared while they are read."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest
from oracle import check, difference

import h5fast

STORAGE = pytest.mark.parametrize("storage", ["contiguous", "chunked", "gzip"])
OPTIONS = {"contiguous": {}, "chunked": {"chunks": (10, 4)}, "gzip": {"chunks": (10, 4), "compression": "gzip"}}


def _write(path: Path, data: np.ndarray, storage: str, **options: object) -> None:
    with h5py.File(path, "w", **({"libver": "latest"} if "maxshape" in options else {})) as file:
        file.create_dataset("d", data=data, **OPTIONS[storage], **options)


def _touch_later(path: Path) -> None:
    """Moves the modification time on: two writes within one tick of the kernel's clock have the same stamp."""
    later = time.time_ns() + 2_000_000_000
    os.utime(path, ns=(later, later))


@STORAGE
def test_file_open_for_writing_uses_general_path(tmp_path: Path, storage: str) -> None:
    """Row 14: what was written but not flushed is in libhdf5's caches only; pread sees the old bytes."""
    data = files.content((40, 8))
    _write(tmp_path / "f.h5", data, storage)
    with h5fast.File(tmp_path / "f.h5", "r+") as file:
        dataset = file["d"]
        assert dataset.reader.startswith("general")
        for value in (-1, -2):
            dataset[3:5] = value
            data[3:5] = value
            np.testing.assert_array_equal(dataset.take([4, 0, 3, 39]), data[[4, 0, 3, 39]])
            np.testing.assert_array_equal(dataset[...], data)
    check(tmp_path / "f.h5", direct=True)


@STORAGE
def test_written_by_h5py_in_the_same_process(tmp_path: Path, storage: str) -> None:
    """Row 14: the file is open for writing through plain h5py; a read-only h5fast handle shares its unflushed state."""
    data = files.content((40, 8))
    _write(tmp_path / "f.h5", data, storage)
    with h5py.File(tmp_path / "f.h5", "r+") as writer, h5fast.File(tmp_path / "f.h5", "r") as reader:
        writer["d"][7] = -5
        data[7] = -5
        np.testing.assert_array_equal(reader["d"].take([7, 6]), data[[7, 6]])
        np.testing.assert_array_equal(reader["d"][...], data)
        assert reader["d"].reader.startswith("general")


def test_new_file_is_read_through_the_general_path(tmp_path: Path) -> None:
    """Row 14: create, fill, read back before closing, as every tutorial does."""
    with h5fast.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("d", data=np.arange(30).reshape(10, 3), chunks=(4, 3), compression="lzf")
        np.testing.assert_array_equal(dataset.take([9, 9, 0]), [[27, 28, 29], [27, 28, 29], [0, 1, 2]])
        dataset[9] = 0
        np.testing.assert_array_equal(dataset[-1:], [[0, 0, 0]])


@STORAGE
def test_shrunk_dataset(tmp_path: Path, storage: str) -> None:
    """Row 16: shrinking deletes chunks and fills the edge, growing adds; an index from before reads what is no longer there."""
    if storage == "contiguous":
        pytest.skip("contiguous datasets cannot be resized")
    data = files.content((40, 8))
    _write(tmp_path / "f.h5", data, storage, maxshape=(None, 8), fillvalue=-7)
    with h5fast.File(tmp_path / "f.h5", "r+") as file:
        dataset = file["d"]
        np.testing.assert_array_equal(dataset[...], data)
        dataset.resize((13, 8))
        np.testing.assert_array_equal(dataset[...], data[:13])
        with pytest.raises(IndexError):
            dataset.take([13])
        dataset.resize((33, 8))
        grown = np.concatenate([data[:13], np.full((20, 8), -7, "i4")])
        np.testing.assert_array_equal(dataset[...], grown)
        np.testing.assert_array_equal(dataset.take([32, 12, 13]), grown[[32, 12, 13]])
    check(tmp_path / "f.h5", direct=True)


@STORAGE
@pytest.mark.parametrize("change", ["overwritten", "truncated", "grown", "replaced", "deleted", "folder", "no permission"])
def test_concurrent_modification_detected(tmp_path: Path, storage: str, change: str) -> None:
    """Row 15: another program changes the file under an open reader: ReadError or the old bytes, never other rows' data."""
    path, other = tmp_path / "f.h5", tmp_path / "other.h5"
    data = files.content((4000, 8))
    _write(path, data, storage)
    _write(other, data[::-1] + 9, storage)
    with h5fast.File(path) as file:
        dataset = file["d"]
        np.testing.assert_array_equal(dataset.take([3999, 0]), data[[3999, 0]])
        if change == "overwritten":
            shutil.copyfile(other, path)
        elif change == "truncated":
            os.truncate(path, 3000)
        elif change == "grown":
            with open(path, "ab") as stream:
                stream.write(b"\0" * 100_000)
        elif change == "replaced":
            os.replace(other, path)
        elif change in ("deleted", "folder"):
            path.unlink()
            if change == "folder":
                path.mkdir()
        else:
            path.chmod(0)
        if path.is_file():
            _touch_later(path)
        for read, rows in ((lambda: dataset.take([3000, 17]), [3000, 17]), (lambda: dataset[...], slice(None)),
                           (lambda: dataset[3990:], slice(3990, None))):
            try:
                got = read()
            except (h5fast.ReadError, h5fast.CorruptFileError):
                continue
            np.testing.assert_array_equal(got, data[rows])


@STORAGE
@pytest.mark.parametrize("handle", ["same dataset object", "new dataset object"])
def test_in_place_change_is_noticed(tmp_path: Path, storage: str, handle: str) -> None:
    """Row 15: the stamp (device, inode, size, modification time) differs, the size does not: the index may be stale.

    libhdf5's metadata are as old as the open file, whenever the dataset object was made: so is the stamp to compare with.
    """
    path = tmp_path / "f.h5"
    data = files.content((400, 8))
    _write(path, data, storage)
    with h5fast.File(path) as file:
        dataset = file["d"]
        np.testing.assert_array_equal(dataset.take([399, 0]), data[[399, 0]])
        raw = path.read_bytes()
        with open(path, "r+b") as stream:
            stream.write(raw[:512] + bytes(len(raw) - 512))
        _touch_later(path)
        if handle == "new dataset object":
            dataset = file["d"]
        with pytest.raises((h5fast.ReadError, h5fast.CorruptChunkError, h5fast.CorruptFileError)):
            dataset.take([200, 1])


def test_reader_of_a_swmr_writer(tmp_path: Path) -> None:
    """Row 15: under SWMR the old extent stays valid until refresh(), and after refresh() the new rows are there."""
    path = tmp_path / "f.h5"
    script = """
        import h5py, numpy as np, sys
        file = h5py.File(sys.argv[1], "w", libver="latest")
        dataset = file.create_dataset("d", (100, 4), "i4", chunks=(10, 4), maxshape=(None, 4), compression="gzip")
        dataset[...] = np.arange(400).reshape(100, 4)
        file.swmr_mode = True
        dataset.flush()
        print("ready", flush=True)
        sys.stdin.readline()
        dataset.resize((200, 4))
        dataset[100:] = np.arange(400, 800).reshape(100, 4)
        dataset.flush()
        print("grown", flush=True)
        sys.stdin.readline()
    """
    expected = np.arange(800, dtype="i4").reshape(200, 4)
    with files.start_python(script, path) as writer:
        assert writer.stdout.readline() == "ready\n"
        with h5fast.File(path, "r", swmr=True) as file:
            dataset = file["d"]
            np.testing.assert_array_equal(dataset.take([99, 0]), expected[[99, 0]])
            print("grow", file=writer.stdin, flush=True)
            assert writer.stdout.readline() == "grown\n"
            assert dataset.shape == (100, 4)
            np.testing.assert_array_equal(dataset.take([98, 7]), expected[[98, 7]])
            dataset.refresh()
            assert dataset.shape == (200, 4)
            np.testing.assert_array_equal(dataset.take([199, 0, 100]), expected[[199, 0, 100]])
            np.testing.assert_array_equal(dataset[...], expected)


def test_lock_is_released_when_the_file_is_closed(tmp_path: Path) -> None:
    """Row 21: HDF5's flock belongs to the open file description: a forgotten duplicate of the descriptor keeps writers out."""
    _write(tmp_path / "f.h5", files.content((40, 8)), "gzip")
    append = "import h5py, sys; h5py.File(sys.argv[1], 'r+')['d'][0] = 1"
    file = h5fast.File(tmp_path / "f.h5")
    dataset = file["d"]
    dataset.take([3, 1])
    file.close()
    files.run_python(append, tmp_path / "f.h5", environment={"HDF5_USE_FILE_LOCKING": "TRUE"})
    assert not dataset


def test_other_readers_are_not_locked_out(tmp_path: Path) -> None:
    """Row 21: reading takes no lock that another reader of the file could meet, in this process or another."""
    data = files.content((40, 8))
    _write(tmp_path / "f.h5", data, "gzip")
    with h5fast.File(tmp_path / "f.h5") as file, h5py.File(tmp_path / "f.h5") as plain:
        np.testing.assert_array_equal(file["d"].take([3, 1]), data[[3, 1]])
        np.testing.assert_array_equal(plain["d"][1:4:2], data[[1, 3]])
        files.run_python("import h5fast, sys; h5fast.File(sys.argv[1])['d'].take([1])", tmp_path / "f.h5",
                         environment={"HDF5_USE_FILE_LOCKING": "TRUE"})


def test_reading_from_a_closed_file(tmp_path: Path) -> None:
    """Row 14: a dataset whose file is closed raises what h5py raises; it must not read from a reused descriptor."""
    _write(tmp_path / "f.h5", files.content((40, 8)), "chunked")
    dataset = h5fast.File(tmp_path / "f.h5")["d"]
    dataset.take([1])
    dataset.file.close()
    with open(tmp_path / "f.h5", "rb"):
        for read in (lambda: dataset[0], lambda: dataset.take([0]), lambda: dataset[...]):
            with pytest.raises((ValueError, RuntimeError, h5fast.ReadError)):
                read()


@STORAGE
def test_fork_with_open_reader(tmp_path: Path, storage: str) -> None:
    """Row 24: threads do not survive a fork and the descriptor's position is shared: children read with pread, on new threads."""
    _write(tmp_path / "f.h5", files.content((4000, 8)), storage)
    files.run_python("""
        import h5fast, numpy as np, os, sys
        h5fast.set_num_threads(2)
        dataset = h5fast.File(sys.argv[1])["d"]
        whole = dataset[...]
        children = []
        for seed in range(6):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    for turn in range(20):
                        rows = np.random.default_rng(100 * seed + turn).integers(0, 4000, 500)
                        assert np.array_equal(dataset.take(rows), whole[rows])
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        for turn in range(20):
            rows = np.random.default_rng(turn).integers(0, 4000, 500)
            assert np.array_equal(dataset.take(rows), whole[rows])
        assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)
    """, tmp_path / "f.h5")


def test_same_answer_after_reopening(tmp_path: Path) -> None:
    """Row 15: no cache may outlive the file it was made from: the path names another file now."""
    for number in range(3):
        data = files.content((40, 8), seed=number) + number
        _write(tmp_path / "f.h5", data, "gzip")
        with h5fast.File(tmp_path / "f.h5") as file:
            assert difference(file["d"][...], data) is None
