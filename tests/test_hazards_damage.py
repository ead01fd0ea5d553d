"""Hazards of bytes that are not what they were: checksums, and an index that points to the wrong place.

Each test says first which failure it prevents.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest

import h5fast


def test_fletcher32_verified(tmp_path: Path) -> None:
    """Row 27: a changed byte under an unchanged checksum must raise, where the whole chunk is decoded."""
    data = files.content((40, 64), "u1")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 64), pipeline=files.PIPELINES["fletcher32"])
    files.patch_bytes(path, files.stored_chunks(path)[1].byte_offset + 100, b"\xff")
    _second_chunk_is_refused(path, data)


def test_adler32_verified(tmp_path: Path) -> None:
    """Row 27: libdeflate's zlib mode can be told to skip the Adler-32 sum; h5py raises on a wrong one, so h5fast must."""
    data = files.content((40, 64), "u1")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 64), pipeline=files.PIPELINES["gzip"])
    stored = bytearray(files.deflate(data[10:20].tobytes()))
    stored[-1] ^= 1
    files.write_chunk(path, (10, 0), bytes(stored))
    _second_chunk_is_refused(path, data)


def _second_chunk_is_refused(path: Path, data: np.ndarray) -> None:
    with h5fast.File(path) as file:
        with pytest.raises(h5fast.CorruptChunkError):
            file["d"][...]
        with pytest.raises(h5fast.CorruptChunkError):
            file["d"][10:20]
        np.testing.assert_array_equal(file["d"].take([35, 2, 9, 20]), data[[35, 2, 9, 20]])


def _one_chunk_moved(path: Path, address: int, by: int) -> None:
    places = files.find_address(path, address)
    assert len(places) == 1, "the chunk's address stands once, in its B-tree node"
    files.patch_bytes(path, places[0], ((address + by) % (1 << 64)).to_bytes(8, "little"))


@pytest.mark.parametrize("where", ["past the end", "partly past the end", "wraps", "undefined"])
@pytest.mark.parametrize("pipeline", ["none", "gzip"])
def test_chunk_address_beyond_end_of_file(tmp_path: Path, where: str, pipeline: str) -> None:
    """Row 28: an address from the file must be checked, without overflow, before it is read from (cve-2024-32615)."""
    data = files.content((40, 64), "i4")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 64), pipeline=files.PIPELINES[pipeline], libver="earliest")
    last = files.stored_chunks(path)[-1]
    size = path.stat().st_size
    target = {"past the end": size + 4096, "partly past the end": size - last.size // 2, "wraps": (1 << 64) - 64,
              "undefined": (1 << 64) - 1}[where]
    _one_chunk_moved(path, last.byte_offset, target - last.byte_offset)
    rows = slice(last.chunk_offset[0], last.chunk_offset[0] + 10)
    with h5py.File(path) as file:
        try:
            expected = file["d"][rows]
        except OSError:
            expected = None
    with h5fast.File(path) as file:
        if where == "undefined" and expected is not None:  # libhdf5 takes it for a chunk that was never allocated
            try:
                np.testing.assert_array_equal(file["d"][rows], expected)
            except (h5fast.ReadError, h5fast.CorruptFileError):
                pass
            return
        for read in (lambda: file["d"][rows], lambda: file["d"][...], lambda: file["d"].take([rows.start])):
            with pytest.raises((h5fast.H5FastError, OSError)):
                read()


@pytest.mark.parametrize("pipeline", ["none", "gzip"])
def test_overlapping_chunks(tmp_path: Path, pipeline: str) -> None:
    """Row 28: two chunks at one address. Legal to read (h5py does), and no reason to crash or to coalesce them wrongly."""
    data = files.content((40, 64), "i4")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 64), pipeline=files.PIPELINES[pipeline], libver="earliest")
    first, *_, last = files.stored_chunks(path)
    _one_chunk_moved(path, last.byte_offset, first.byte_offset - last.byte_offset)
    try:
        expected = h5py.File(path)["d"][...]
    except OSError:
        expected = None  # the stored sizes of deflated chunks differ: the moved one is cut or has a tail
    with h5fast.File(path) as file:
        if expected is None:
            with pytest.raises((h5fast.H5FastError, OSError)):
                file["d"][...]
        else:
            np.testing.assert_array_equal(file["d"][...], expected)


def test_duplicated_chunk_coordinates(tmp_path: Path) -> None:
    """Row 28: two B-tree keys with the same coordinates. h5py's search finds one of them; h5fast reads the same or raises."""
    data = files.content((40,), "i4")
    path = files.write(tmp_path / "f.h5", data, chunks=(10,), libver="earliest")
    chunks = files.stored_chunks(path)
    # a key of the v1 B-tree: size u32, mask u32, coordinate u64 per axis, u64 0; then the child's address
    key = files.find_address(path, chunks[3].byte_offset)[0] - 16
    assert Path(path).read_bytes()[key : key + 8] == (30).to_bytes(8, "little")
    files.patch_bytes(path, key, (20).to_bytes(8, "little"))
    with h5py.File(path) as plain, h5fast.File(path) as fast:
        try:
            got = fast["d"][...]
        except (h5fast.H5FastError, OSError):
            return
        np.testing.assert_array_equal(got, plain["d"][...])
