"""gzip streams as small as zlib's, at the effort that the rows themselves show to be enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from h5fast import Spec, Writer
from h5fast._encode import EFFORT_OF_LEVEL, EFFORT_ZLIB, Encoder
from h5fast._storage import Storage
from h5fast.effort import choose_effort, gzip_level


def kinds() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-2, 3, (1500, 64, 64)), axis=2)
    return {
        "smooth images": (smooth % 256).astype("u1"),
        "few values": rng.choice(np.arange(8, dtype="u1"), (1500, 4096), p=[.5, .2, .1, .1, .04, .03, .02, .01]),
        "tables": np.round(np.cumsum(rng.standard_normal((20_000, 64)), axis=0), 1).astype("f4"),
        "noise": rng.integers(0, 256, (1500, 4096), dtype="u1"),
    }


@pytest.mark.parametrize("level", [1, 4, 6, 9])
@pytest.mark.parametrize("kind", kinds())
def test_streams_are_as_small_as_those_of_hdf5(tmp_path: Path, kind: str, level: int) -> None:
    rows = kinds()[kind]
    with Writer(tmp_path / "ours.h5", {"x": Spec.like(rows, codec=("gzip", level), chunk_rows=16)}) as writer:
        writer.append(x=rows)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.create_dataset("x", data=rows, chunks=(16, *rows.shape[1:]), compression="gzip", compression_opts=level,
                            shuffle=rows.dtype.itemsize > 1)
    with h5py.File(tmp_path / "ours.h5") as ours, h5py.File(tmp_path / "theirs.h5") as theirs:
        assert np.array_equal(ours["x"][...], rows)
        sizes = [file["x"].id.get_storage_size() for file in (ours, theirs)]
    assert sizes[0] <= 1.02 * sizes[1]


def gzip(level: int) -> Any:
    return ((1, (level,)),)


def encoder_of(level: int, chunk: int) -> Encoder:
    return Encoder(Storage((chunk,), (chunk,), 1, ((1, (level,)),)), 1024)


def test_the_least_effort_is_taken_that_makes_them_small() -> None:
    rows = kinds()["smooth images"][:1440].reshape(90, -1)
    encoder, sizes = encoder_of(9, rows.shape[1]), {}
    chosen = choose_effort(gzip(9), rows, 1, 2)
    for effort in (EFFORT_ZLIB, *range(1, 10)):
        encoder.start(rows, len(rows), 2, effort)
        encoder.finish()
        sizes[effort] = sum(len(encoder.chunk(number)[0]) for number in range(len(rows)))
    assert 1 <= chosen < 9 and sizes[chosen] <= 1.02 * sizes[EFFORT_ZLIB]
    assert chosen == 1 or sizes[chosen - 1] > 1.01 * sizes[EFFORT_ZLIB]


def test_where_zlib_is_not_reached_the_least_effort_is_taken_that_gains_nothing_more() -> None:
    rows = kinds()["smooth images"].reshape(1500, -1)[:1024]
    assert 1 <= choose_effort(gzip(9), rows, 1, 2) < 9


def test_too_few_rows_or_rows_that_do_not_shrink_go_by_the_level() -> None:
    assert choose_effort(gzip(9), np.zeros((100, 4096), "u1"), 1, 1) == EFFORT_OF_LEVEL
    assert choose_effort(gzip(9), kinds()["noise"][:1024], 1, 1) == EFFORT_OF_LEVEL


@pytest.mark.parametrize("shape,chunk", [((2, 1 << 20), 1), ((2, 3 << 20), 2), ((1 << 21, ), 1 << 21), ((1 << 21,), 1), ((5000, 300), 4999)])
def test_rows_and_chunks_of_any_size(shape: tuple[int, ...], chunk: int) -> None:
    rows = (np.arange(int(np.prod(shape))) // 7 % 251).astype("u1").reshape(shape)
    assert 0 <= choose_effort(gzip(6), rows[:len(rows) // chunk * chunk], chunk, 2) <= 9


@pytest.mark.parametrize("effort", [-2, 10])
def test_efforts_that_are_none(effort: int) -> None:
    with pytest.raises(ValueError, match="effort"):
        encoder_of(6, 64).start(np.zeros(64, "u1"), 1, 1, effort)


def test_the_level_among_filters() -> None:
    assert gzip_level(((2, (4,)), (1, (7,)))) == 7 and gzip_level(((1, ()),)) == 6 and gzip_level(((32000, ()),)) == 0
    assert gzip_level(((1, (0,)),)) == 0  # stored: nothing to search for


def test_a_writer_that_continues_keeps_the_effort(tmp_path: Path) -> None:
    rows = kinds()["smooth images"]
    spec, path = {"x": Spec.like(rows, codec=("gzip", 9), chunk_rows=1)}, tmp_path / "f.h5"
    with Writer(tmp_path / "whole.h5", spec) as whole:
        whole.append(x=rows[:1200])
        whole.flush()
        whole.append(x=rows[1200:])
    first = Writer(path, spec)
    first.append(x=rows[:1200])
    first.abandon()
    with Writer(path, spec, resume=True) as second:
        assert second.rows == 1200
        second.append(x=rows[1200:])
    with h5py.File(path) as ours, h5py.File(tmp_path / "whole.h5") as wanted:
        assert all(ours["x"].id.read_direct_chunk((row, 0, 0)) == wanted["x"].id.read_direct_chunk((row, 0, 0))
                   for row in range(len(rows)))
