"""Hazards of reading chunks directly: where chunks are, what is in them, what is missing.

Each test says first which failure it prevents. Damaged chunks and indices are in test_hazards_damage.py, storage other than a
plain file is in test_hazards_storage.py, types are in test_hazards_types.py, files that change or are shared in
test_hazards_change.py.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest
from oracle import check, difference

import h5fast

CORPUS_FAST5 = "permissive/conformance/*/**/rle_example.fast5"
SLOW = os.environ.get("H5FAST_SLOW_TESTS") == "1"


def test_extensible_array_coordinates(tmp_path: Path) -> None:
    """Rows 1 and 29, section 0.1: libhdf5 reports wrong coordinates for extensible arrays whose unlimited dimension is not
    the first; read as reported, values land in wrong places, in bounds and without an error."""
    for number, (shape, maxshape, chunks) in enumerate([
        ((6, 6), (6, None), (2, 2)),
        ((6, 5), (6, None), (3, 1)),
        ((4, 5, 6), (4, None, 6), (2, 2, 3)),
        ((3, 4, 5, 6), (3, 7, 5, None), (2, 2, 2, 2)),
        ((5, 4), (9, None), (2, 3)),
    ]):
        path = tmp_path / f"{number}.h5"
        files.write(path, files.content(shape), chunks=chunks, maxshape=maxshape, libver="latest")
        check(path)


@pytest.mark.parametrize("pipeline", ["none", "gzip", "shuffle+lzf"])
def test_extensible_array_with_holes_and_resizes(tmp_path: Path, pipeline: str) -> None:
    """The same fault where chunks are missing, so that counting chunks cannot repair it, and where the extent has grown."""
    rng = random.Random(20)
    for number in range(40):
        rank = rng.randint(2, 4)
        unlimited = rng.randrange(1, rank)
        shape = tuple(rng.randint(1, 8) for _ in range(rank))
        limits: list[int | None] = [extent + rng.choice([0, 0, 1, 3, 6]) for extent in shape]
        limits[unlimited] = None
        chunks = tuple(min(rng.randint(1, 4), limit or 4) for limit in limits)
        path = tmp_path / f"{number}.h5"
        files.write(path, files.content(shape), chunks=chunks, maxshape=tuple(limits), libver="latest", fill=-1,
                    pipeline=files.PIPELINES[pipeline], store=rng.random() < 0.5)
        with h5py.File(path, "r+") as file:
            dataset = file["d"]
            for _ in range(4):
                dataset[tuple(rng.randrange(extent) for extent in shape)] = rng.randrange(1 << 30)
            if rng.random() < 0.3:
                grown = tuple(e + rng.randint(1, 9) * (axis == unlimited) for axis, e in enumerate(shape))
                dataset.resize(grown)
                dataset[tuple(extent - 1 for extent in grown)] = 5
        check(path, seed=number)


@pytest.mark.parametrize(("libver", "shape", "maxshape", "chunks"), [
    ("earliest", (50, 7), (None, 7), (8, 3)),  # B-tree version 1
    ("latest", (50, 7), (50, 7), (50, 7)),  # single chunk
    ("latest", (50, 7), (50, 7), (8, 3)),  # fixed array
    ("latest", (3000,), (3000,), (1,)),  # fixed array, paged
    ("latest", (50, 7), (None, 7), (8, 3)),  # extensible array
    ("latest", (3000, 2), (None, 2), (1, 2)),  # extensible array with data blocks
    ("latest", (50, 7), (None, None), (8, 3)),  # B-tree version 2
])
@pytest.mark.parametrize("pipeline", ["none", "shuffle+gzip"])
def test_every_chunk_index_type(tmp_path: Path, libver: str, shape: tuple, maxshape: tuple, chunks: tuple,
                                pipeline: str) -> None:
    """Section 2: the other direct readers miss most chunk indexes; each must be read directly and alike."""
    path = files.write(tmp_path / "f.h5", files.content(shape), chunks=chunks, maxshape=maxshape, libver=libver,
                       pipeline=files.PIPELINES[pipeline])
    check(path, direct=True)


def test_implicit_chunk_index(tmp_path: Path) -> None:
    """An implicit index (early allocation, no filter) stores no addresses at all: they are computed."""
    plist = files.property_list(chunks=(8, 3), alloc_time=h5py.h5d.ALLOC_TIME_EARLY)
    data = files.content((50, 7))
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        made = h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((50, 7)), plist)
        h5py.Dataset(made)[:30] = data[:30]
    check(tmp_path / "f.h5", direct=True)


def test_dimension_order(tmp_path: Path) -> None:
    """Row 29: axes must come out as they are stored, whichever is unlimited; nobody un-transposes MATLAB's arrays."""
    for number, maxshape in enumerate([(None, 5, 7), (4, None, 7), (4, 5, None), (None, 5, None), (None, None, None)]):
        for libver in ("earliest", "latest"):
            path = tmp_path / f"{number}{libver}.h5"
            files.write(path, files.content((4, 5, 7)), chunks=(2, 2, 3), maxshape=maxshape, libver=libver)
            check(path, seed=number)


def test_filter_mask(tmp_path: Path) -> None:
    """Row 2: bit i of a chunk's mask means that filter i was skipped; ignored, raw bytes are taken for encoded ones."""
    data = files.content((40, 6), "i4")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 6), pipeline=files.PIPELINES["shuffle+gzip"])
    shuffled = [np.ascontiguousarray(block.view("u1").reshape(-1, 4).T).tobytes() for block in np.split(data, 4)]
    files.write_chunk(path, (0, 0), data[:10].tobytes(), mask=0b11)
    files.write_chunk(path, (10, 0), files.deflate(data[10:20].tobytes()), mask=0b01)
    files.write_chunk(path, (20, 0), shuffled[2], mask=0b10)
    assert difference(h5py.File(path)["d"][()], data) is None
    check(path, direct=True)


def test_filter_mask_of_all_ones(tmp_path: Path) -> None:
    """Row 2: a mask of 0xFFFFFFFF (HDFGroup/hdf5#1261) has more bits than there are filters."""
    data = files.content((20, 6), "i4")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 6), pipeline=files.PIPELINES["shuffle+gzip+fletcher32"])
    files.write_chunk(path, (10, 0), data[10:].tobytes(), mask=0xFFFFFFFF)
    check(path, direct=True)


@pytest.mark.parametrize("pipeline", ["lzf", "shuffle+lzf", "shuffle+lzf+fletcher32"])
def test_lzf_skips_incompressible_chunks(tmp_path: Path, pipeline: str) -> None:
    """Row 2: lzf never expands a chunk; it sets the mask bit by itself, here for every other chunk."""
    data = files.content((40, 512), "u1")
    data[10:20] = np.random.default_rng(1).integers(0, 256, (10, 512))
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 512), pipeline=files.PIPELINES[pipeline])
    assert {bool(chunk.filter_mask) for chunk in files.stored_chunks(path)} == {True, False}
    check(path, direct=True)


@pytest.mark.parametrize("pipeline", [name for name in files.PIPELINES if name != "none"])
@pytest.mark.parametrize("maxshape", [(23, 11), (None, 11), (None, None)])
def test_unfiltered_partial_edge_chunks(tmp_path: Path, pipeline: str, maxshape: tuple) -> None:
    """Row 3: with H5Pset_chunk_opts edge chunks are stored unfiltered although their mask is 0 (shuffle: silently wrong)."""
    path = files.write(tmp_path / "f.h5", files.content((23, 11)), chunks=(5, 4), maxshape=maxshape, libver="latest",
                       pipeline=files.PIPELINES[pipeline], raw_edges=True)
    check(path, direct=True)


@pytest.mark.parametrize(("shape", "chunks"), [((7, 5, 3), (3, 4, 3)), ((10, 3), (2, 5)), ((5, 5), (64, 64)), ((1,), (9,))])
@pytest.mark.parametrize("pipeline", ["none", "gzip", "lzf"])
def test_partial_edge_chunks(tmp_path: Path, shape: tuple, chunks: tuple, pipeline: str) -> None:
    """Row 4: edge chunks are stored whole; not clipped, their padding overwrites neighbours (hidefix, a real NeXus file)."""
    path = files.write(tmp_path / "f.h5", files.content(shape), chunks=chunks, maxshape=(None,) * len(shape),
                       pipeline=files.PIPELINES[pipeline])
    check(path, direct=True)


@pytest.mark.parametrize("case", ["gzip", "lzf", "unfiltered", "skipped by mask", "shuffle+gzip"])
def test_short_chunk_raises(tmp_path: Path, case: str) -> None:
    """Row 5, section 0.2: a chunk that decodes to too few bytes; libhdf5 hands out live heap memory for the rest."""
    data, part = files.content((30, 100), "u1"), files.content((2, 100), "u1")
    pipeline = {"unfiltered": "none", "skipped by mask": "gzip"}.get(case, case)
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 100), pipeline=files.PIPELINES[pipeline], libver="earliest")
    stored = part.tobytes() if case in ("unfiltered", "skipped by mask") else files.deflate(part.tobytes())
    if case == "lzf":
        stored = bytes([31]) + part.tobytes()[:32]
    files.write_chunk(path, (10, 0), stored, mask=int(case == "skipped by mask"))
    if case == "unfiltered":  # libhdf5 keeps the full size; the v1 B-tree's key says it: size u32, mask u32, 3 coordinates
        address = files.stored_chunks(path)[1].byte_offset
        files.patch_bytes(path, files.find_address(path, address)[0] - 32, len(stored).to_bytes(4, "little"))
    assert [chunk.size for chunk in files.stored_chunks(path) if chunk.chunk_offset == (10, 0)] == [len(stored)]
    with h5fast.File(path) as file:
        dataset = file["d"]
        for read in (lambda: dataset[...], lambda: dataset[19], lambda: dataset.take([3, 15, 29])):
            with pytest.raises(h5fast.H5FastError):
                read()
        np.testing.assert_array_equal(dataset.take([29, 0, 9]), data[[29, 0, 9]])


@pytest.mark.parametrize("pipeline", ["gzip", "shuffle"])
def test_short_but_complete_chunk(tmp_path: Path, pipeline: str) -> None:
    """Row 5: a last chunk that holds just the rows inside the extent is short, yet every needed element is there."""
    data = files.content((15, 4), "u1")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 4), pipeline=files.PIPELINES[pipeline])
    stored = data[10:].tobytes()
    files.write_chunk(path, (10, 0), files.deflate(stored) if pipeline == "gzip" else stored)
    with h5fast.File(path) as file:
        np.testing.assert_array_equal(file["d"][...], data)
        np.testing.assert_array_equal(file["d"].take([14, 0, 10]), data[[14, 0, 10]])


def test_real_fast5_short_but_complete() -> None:
    """Row 5: a real nanopore file whose last chunk decodes to 961 of 1,032 records, all that its extent needs."""
    corpus = Path(os.environ.get("H5FAST_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")
    found = sorted(corpus.rglob("rle_example.fast5"))
    if not found:
        pytest.skip(f"no rle_example.fast5 in {corpus}")
    names: list[str] = []
    with h5py.File(found[0]) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    for name in names:
        check(found[0], name)


@pytest.mark.parametrize("fill", [None, 7, -1])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("maxshape", [(40, 6), (None, 6), (None, None)])
def test_unallocated_chunks_and_fill_value(tmp_path: Path, fill: int | None, libver: str, maxshape: tuple) -> None:
    """Rows 6 and 8: missing chunks read as the fill value of the file, not as zeros (2,023 corpus datasets, netCDF above all)."""
    data = files.content((40, 6), ">i4")
    files.write(tmp_path / "f.h5", data, chunks=(7, 4), maxshape=maxshape, libver=libver, fill=fill, store=False)
    check(tmp_path / "f.h5", direct=True)
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["d"][15:17, 5] = 3
    check(tmp_path / "f.h5", direct=True)


@pytest.mark.parametrize("value", [np.float32(9.96921e36), np.float32(np.nan), np.array((3, -2.5), "i2,>f4"),
                                   np.bytes_(b"fill"), np.complex64(1 - 2j), np.array(True)])
def test_fill_value_of_every_type(tmp_path: Path, value: np.ndarray) -> None:
    """Row 6: the fill value is stored in the file's type, byte order and padding included."""
    value = np.asarray(value)
    path = files.write(tmp_path / "f.h5", np.zeros((9, 3), value.dtype), chunks=(4, 2), fill=value, store=False)
    check(path)


@pytest.mark.parametrize("fill_time", [h5py.h5d.FILL_TIME_NEVER, h5py.h5d.FILL_TIME_ALLOC, h5py.h5d.FILL_TIME_IFSET])
@pytest.mark.parametrize("chunks", [None, (4, 3)])
def test_unallocated_storage_and_fill_time(tmp_path: Path, fill_time: int, chunks: tuple | None) -> None:
    """Row 6: contiguous storage that was never allocated has no offset; with FILL_TIME_NEVER nothing defines its content."""
    plist = files.property_list(chunks=chunks, fill=np.int32(5), fill_time=fill_time)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((9, 6)), plist)
    check(tmp_path / "f.h5")


@pytest.mark.parametrize("userblock", [512, 1024, 8192])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("chunks", [None, (8, 3)])
def test_user_block(tmp_path: Path, userblock: int, libver: str, chunks: tuple | None) -> None:
    """Row 7: addresses are relative to the end of the user block (MATLAB, .h5mu, NeXus); HDF5 before 1.14.4 forgot it."""
    path = files.write(tmp_path / "f.h5", files.content((50, 7)), chunks=chunks, userblock=userblock, libver=libver,
                       pipeline=files.PIPELINES["gzip" if chunks else "none"])
    files.patch_bytes(path, 0, b"\xa5" * userblock)
    check(path, direct=True)


@pytest.mark.parametrize("userblock", [512, 1024])
def test_user_block_without_storage(tmp_path: Path, userblock: int) -> None:
    """Rows 6 and 7 together: H5Dget_offset adds the user block to "undefined" (2**64 - 1 + 512 = 511), which is no address."""
    path = files.write(tmp_path / "f.h5", files.content((50, 7)), userblock=userblock, fill=9, store=False)
    check(path, direct=True)


def test_chunk_index_is_linear(tmp_path: Path) -> None:
    """Row 9: H5Dget_chunk_info iterates anew on each call: 100,000 chunks took minutes. Limit far above what one pass needs."""
    data = files.content((100_000,), "u1")
    path = files.write(tmp_path / "f.h5", data, chunks=(1,), libver="latest", maxshape=(None,))
    rows = np.random.default_rng(2).integers(0, data.size, 50_000)
    with h5fast.File(path) as file:
        started = time.perf_counter()
        got = file["d"].take(rows)
        assert time.perf_counter() - started < 5
    np.testing.assert_array_equal(got, data[rows])


def test_chunk_larger_than_4_gib(tmp_path: Path) -> None:
    """Row 25: HDF5 2.0 allows chunks of 4 GiB and more; 32-bit sizes and offsets wrap. The file is sparse."""
    if h5py.version.hdf5_version_tuple < (2, 0, 0):
        pytest.skip("HDF5 before 2.0 has no chunks of 4 GiB")
    rows, row_bytes = 5 << 20, 1024
    plist = files.property_list(chunks=(rows, row_bytes), alloc_time=h5py.h5d.ALLOC_TIME_EARLY,
                                fill_time=h5py.h5d.FILL_TIME_NEVER)
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver="latest") as file:
        space = h5py.h5s.create_simple((2 * rows, row_bytes))
        made = h5py.h5d.create(file.id, b"d", h5py.h5t.STD_U8LE, space, plist)
        addresses = [made.get_chunk_info(i).byte_offset for i in range(2)]
    wanted = np.array([0, 2_097_151, 2_097_152, 4_194_304, rows - 1, rows, rows + 4_194_305, 2 * rows - 1])
    data = files.content((wanted.size, row_bytes), "u1")
    for row, content in zip(wanted, data):
        files.patch_bytes(path, addresses[row // rows] + int(row % rows) * row_bytes, content.tobytes())
    with h5fast.File(path) as file:
        assert file["d"].reader == "direct"
        np.testing.assert_array_equal(file["d"].take(wanted[::-1]), data[::-1])
        np.testing.assert_array_equal(file["d"][rows - 1 : rows + 1, 5:9], data[4:6, 5:9])


@pytest.mark.skipif(not SLOW, reason="needs 6 GB of memory and disk; set H5FAST_SLOW_TESTS=1")
@pytest.mark.parametrize("chunks", [None, (1, 1 << 20)])
def test_read_larger_than_2_gib(tmp_path: Path, chunks: tuple | None) -> None:
    """Row 25: Linux caps one read near 2 GiB; a read that is not looped comes back short."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (2_300, 1 << 20), "u1", chunks=chunks)
        for row in (0, 2_047, 2_048, 2_299):
            file["d"][row] = files.content((1 << 20,), "u1", row)
    with h5fast.File(path) as file:
        whole = file["d"][...]
    for row in (0, 1, 2_047, 2_048, 2_299):
        expected = files.content((1 << 20,), "u1", row) if row != 1 else 0
        np.testing.assert_array_equal(whole[row], expected)


def test_partial_decode_at_every_row(tmp_path: Path) -> None:
    """Section 0.5: decoding stops at the last needed byte; one row at a time must equal the whole chunk's decoding."""
    data = files.content((64, 33), "i4")
    for pipeline in ("gzip", "lzf", "shuffle+lzf", "shuffle+gzip+fletcher32", "gzip+lzf"):
        path = files.write(tmp_path / f"{pipeline}.h5", data, chunks=(32, 33), pipeline=files.PIPELINES[pipeline])
        with h5fast.File(path) as file:
            for row in range(64):
                np.testing.assert_array_equal(file["d"].take([row]), data[[row]])


def test_deflate_stream_with_a_tail(tmp_path: Path) -> None:
    """Section 0.5: inflate stops at the end of the stream; bytes behind it are ignored by h5py and must be here."""
    data = files.content((20, 64), "u1")
    path = files.write(tmp_path / "f.h5", data, chunks=(10, 64), pipeline=files.PIPELINES["gzip"])
    files.write_chunk(path, (10, 0), zlib.compress(data[10:].tobytes()) + b"tail" * 9)
    check(path)
