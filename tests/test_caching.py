"""Chunk caches: what is computed for shapes and datasets, and what ``File(chunk_cache=)`` does with it.

Prevents: slots that are no prime, caches that hold no chunk where one fits, direct reads that are slower for a larger cache.
"""

from __future__ import annotations

import inspect
import math
import pickle
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import h5fast
from h5fast import ChunkCache, chunk_cache, opened

MIB = 1 << 20
ACCESSES = ["random rows", "sequential", "crops"]


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


@given(shape=st.lists(st.integers(1, 10**6), min_size=1, max_size=4), access=st.sampled_from(ACCESSES),
       memory=st.integers(1, 1 << 40), dtype=st.sampled_from(["u1", "f4", "c16"]), data=st.data())
def test_what_holds_for_every_cache(shape: list[int], access: str, memory: int, dtype: str, data: st.DataObject) -> None:
    chunks = data.draw(st.one_of(st.none(), st.tuples(*(st.integers(1, length) for length in shape))), "chunks")
    crop = data.draw(st.one_of(st.none(), st.tuples(*(st.integers(1, 10**6) for _ in shape))), "crop") if access == "crops" else None
    cache = chunk_cache(shape, access, chunks=chunks, dtype=dtype, crop=crop, memory=memory)
    assert is_prime(cache.rdcc_nslots) and 521 <= cache.rdcc_nslots <= 131_071
    assert 0 < cache.rdcc_nbytes <= memory
    assert 0 <= cache.rdcc_w0 <= 1
    assert cache.kept_bytes >= 8 * MIB
    assert cache.reason.startswith(access)
    if chunks is not None:
        fit = cache.rdcc_nbytes // (math.prod(chunks) * np.dtype(dtype).itemsize)
        assert cache.rdcc_nslots >= min(100 * fit, 130_000)
        total = math.prod(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))
        if access == "random rows":
            assert fit >= min(total, memory // (math.prod(chunks) * np.dtype(dtype).itemsize))
        assert cache.rdcc_nbytes <= max(8 * MIB, total * math.prod(chunks) * np.dtype(dtype).itemsize)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.data())
def test_a_crop_touches_no_more_chunks_than_counted(length: int, width: int, chunk: int, other: int, data: st.DataObject) -> None:
    shape, chunks = (length, width), (min(chunk, length), min(other, width))
    crop = (data.draw(st.integers(1, length)), data.draw(st.integers(1, width)))
    start = tuple(data.draw(st.integers(0, whole - part)) for whole, part in zip(shape, crop, strict=True))
    touched = math.prod((first + part - 1) // c - first // c + 1 for first, part, c in zip(start, crop, chunks, strict=True))
    memory = touched * math.prod(chunks) * 4
    assert memory == 1 or "allowed" in chunk_cache(shape, "crops", chunks=chunks, crop=crop, memory=memory - 1).reason
    most = math.prod(min(-(-whole // c), (part + c - 2) // c + 1) for whole, part, c in zip(shape, crop, chunks, strict=True))
    assert touched <= most
    assert "allowed" not in chunk_cache(shape, "crops", chunks=chunks, crop=crop, memory=most * math.prod(chunks) * 4).reason


@pytest.mark.parametrize(("access", "nbytes", "w0", "kept"), [
    ("random rows", 100 * MIB, 0.0, 100 * MIB),  # all of it
    ("sequential", 16 * MIB, 1.0, 8 * MIB),  # two rows of four chunks of 2 MiB
    ("crops", 100 * MIB, 0.0, 100 * MIB),
])
def test_the_size_by_access(access: str, nbytes: int, w0: float, kept: int) -> None:
    cache = chunk_cache((100, 1024, 1024), access, chunks=(8, 512, 512), dtype="u1")
    whole = 13 * 4 * 2 * MIB
    assert cache.rdcc_nbytes == (whole if nbytes == 100 * MIB else nbytes)
    assert (cache.rdcc_w0, cache.kept_bytes) == (w0, whole if kept == 100 * MIB else kept)


def test_too_little_memory_is_told() -> None:
    cache = chunk_cache((1000, 4096, 4096), "sequential", chunks=(8, 512, 512), dtype="f4", memory="64 MiB")
    assert "more than the 64.0 MiB allowed" in cache.reason and cache.rdcc_nbytes == 64 * MIB


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of 12 MiB, which HDF5's own cache cannot hold; and small ones."""
    path = tmp_path_factory.mktemp("caching") / "f.h5"
    data = np.tile(files.content((16, 3, 1 << 10), "u1"), 1 << 10)
    files.write(path, data, "large", chunks=(4, 3, 1 << 20), pipeline=files.PIPELINES["lzf"])
    with h5py.File(path, "a") as file:
        file.create_dataset("group/small", data=np.arange(1000), chunks=(10,), compression="gzip")
        file.create_dataset("plain", data=np.arange(1000), chunks=(10,))
        file["contiguous"] = np.arange(10)
        file["scalar"] = 1
        file["empty"] = h5py.Empty("f4")
        file["text"] = ["a", "b"]
    return path


def cache_of(file: Any) -> tuple[int, int, float]:
    _, slots, size, preemption = file.id.get_access_plist().get_cache()
    return slots, size, preemption


def test_of_a_dataset(path: Path) -> None:
    with h5py.File(path) as file:
        large = chunk_cache(file["large"])
        assert large.rdcc_nbytes == 48 * MIB and large.rdcc_w0 == 0
        assert chunk_cache(file["plain"]).rdcc_nbytes == 0 and "as they are" in chunk_cache(file["plain"]).reason
        assert chunk_cache(file["plain"], "sequential").rdcc_nbytes == 8 * MIB
        assert "not chunked" in chunk_cache(file["contiguous"]).reason and "not chunked" in chunk_cache(file["scalar"]).reason
        with pytest.raises(ValueError, match="no shape"):
            chunk_cache(file["empty"])
        with pytest.raises(TypeError, match="its own chunks"):
            chunk_cache(file["large"], chunks=(1, 1, 1))
    with h5fast.File(path) as ours:
        assert chunk_cache(ours["large"]) == large
    with h5py.File(path, **large.options) as file:
        assert cache_of(file) == (large.rdcc_nslots, large.rdcc_nbytes, 0.0)


@pytest.mark.parametrize("asked", ["auto", *ACCESSES])
def test_a_file_gets_the_cache_of_its_largest_dataset(path: Path, asked: str) -> None:
    with h5fast.File(path, chunk_cache=asked) as file:
        expected = chunk_cache(file["large"], "random rows" if asked == "auto" else asked)
        slots, size, preemption = cache_of(file)
        assert (size, preemption) == (expected.rdcc_nbytes, expected.rdcc_w0)
        assert slots == max(chunk_cache(file[name], file_access).rdcc_nslots for name in ("large", "group/small")
                            for file_access in ["random rows" if asked == "auto" else asked])
        with h5py.File(path) as plain:
            assert np.array_equal(file["large"][3], plain["large"][3])


def test_only_that_which_holds_all_is_kept_by_h5fast_too(path: Path) -> None:
    """A larger pool decodes whole chunks for it, and more of them than it saves, unless it has room for all."""
    with h5fast.File(path, chunk_cache="auto") as file:
        assert opened.limit_of(file.id) == 48 * MIB + 8000
    small = ChunkCache(16 * MIB, 1009, 0.0, 8 * MIB, "by hand")
    with h5fast.File(path, chunk_cache=small) as file:
        assert cache_of(file)[1] == 16 * MIB and opened.limit_of(file.id) == 8 * MIB
        for row in (0, 5, 1, 15, 2, 9, 8, 0, 4) * 2:
            file["large"][row]
        assert file._watched.file.pool.bytes <= 8 * MIB
    with h5fast.File(path) as file:
        assert opened.limit_of(file.id) is None


def test_a_pickled_copy_has_the_same_cache(path: Path) -> None:
    with h5fast.File(path, chunk_cache="sequential") as file:
        told = pickle.dumps(file)
        expected, kept = cache_of(file), opened.limit_of(file.id)
    with pickle.loads(told) as file:
        assert cache_of(file) == expected
        assert opened.limit_of(file.id) == kept
    assert not opened._limits, "entries of closed files"


def test_files_without_a_chunk(tmp_path: Path) -> None:
    with h5fast.File(tmp_path / "new.h5", "a", chunk_cache="auto") as file:  # nothing to look at yet
        default = cache_of(file)
        file["x"] = np.arange(3)
    with h5fast.File(tmp_path / "new.h5", chunk_cache="auto") as file:
        assert cache_of(file)[1] == 8 * MIB and file["x"][1] == 1
    with h5py.File(tmp_path / "new.h5", "a") as file:
        assert default == cache_of(file)


def test_writing_keeps_a_cache(tmp_path: Path) -> None:
    """Without one, each piece that is written to a compressed chunk decodes and encodes it."""
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file.create_dataset("x", data=np.arange(1000), chunks=(10,))
    with h5fast.File(tmp_path / "plain.h5", chunk_cache="auto") as file:
        assert cache_of(file)[1] == 0
    with h5fast.File(tmp_path / "plain.h5", "r+", chunk_cache="auto") as file:
        assert cache_of(file)[1] >= MIB


@pytest.mark.parametrize(("options", "words"), [
    ({"chunk_cache": "large"}, "'auto'.*'crops'.*not 'large'"),
    ({"chunk_cache": 5}, "not 5"),
    ({"chunk_cache": "auto", "rdcc_nbytes": 1000}, "chunk_cache and rdcc_nbytes"),
    ({"chunk_cache": "auto", "mode": "w"}, "mode 'w' makes a new one"),
    ({"chunk_cache": "auto", "mode": "x"}, "mode 'x' makes a new one"),
])
def test_refused_before_anything_is_opened(path: Path, options: dict[str, Any], words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        h5fast.File(path, **options)
    assert path.read_bytes() == before


def test_refused_shapes() -> None:
    with pytest.raises(ValueError, match="'random rows', 'sequential' or 'crops', not 'rows'"):
        chunk_cache((10,), "rows")
    with pytest.raises(ValueError, match="do not tile"):
        chunk_cache((10, 10), chunks=(5,))
    with pytest.raises(ValueError, match="not of a dataset of shape"):
        chunk_cache((10, 10), "crops", crop=(5,))
    with pytest.raises(TypeError, match="access is 'random rows'"):
        chunk_cache((10, 10), crop=(5, 5))
    with pytest.raises(ValueError, match="at least 1"):
        chunk_cache(())
    with pytest.raises(ValueError, match="a size is"):
        chunk_cache((10,), memory="much")


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent.h5"):
        h5fast.File(tmp_path / "absent.h5", chunk_cache="auto")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(OSError, match="text.h5"):
        h5fast.File(tmp_path / "text.h5", chunk_cache="auto")
    with open(tmp_path / "text.h5", "rb") as stream, pytest.raises(ValueError, match="needs its path"):
        h5fast.File(stream, chunk_cache="auto")


def test_the_signature_tells_of_it() -> None:
    assert inspect.signature(h5fast.File).parameters["chunk_cache"].default is None
    assert list(inspect.signature(h5py.File).parameters)[:3] == list(inspect.signature(h5fast.File).parameters)[:3]
