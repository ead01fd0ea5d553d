"""One batch of an epoch by its number: what an iteration gives in its place, whoever asks and in whatever order."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_files import Shards, shards  # noqa: F401  # a fixture, used by name

import h5fast
from h5fast import Field, Loader

FIELDS = {"x": Field("image", dtype="f4", scale=1 / 255), "y": "label", "text": "text"}


def check_equal(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("options", [
    {}, {"shuffle": "block", "memory": "230 kB"}, {"shuffle": "batches"}, {"shuffle": False}, {"drop_last": True},
    {"shard": (1, 3)}, {"shuffle": "block", "shard": (2, 3)}, {"weights": "weight"}, {"rows": np.r_[700:100:-3, 5, 5, 5]},
], ids=str)
def test_any_batch_is_the_one_of_the_iteration(shards: Shards, options: dict[str, Any]) -> None:  # noqa: F811
    loader = Loader(shards.both, FIELDS, 64, seed=3, **options)
    for epoch in range(2):
        batches = list(loader)
        for step in np.random.default_rng(epoch).permutation(len(loader)).tolist():
            check_equal(loader.read(step, epoch), batches[step])
            np.testing.assert_array_equal(loader.batch_rows(step, epoch), batches[step]["y"])
    assert loader.epoch == 2


def test_reading_leaves_an_iteration_alone(shards: Shards) -> None:  # noqa: F811
    loader, twin = (Loader(shards.both, FIELDS, 64, seed=3, memory="230 kB") for _ in range(2))
    for epoch in range(2):
        for step, (batch, same) in enumerate(zip(loader, twin, strict=True)):
            check_equal(batch, same)
            loader.read((step * 7) % len(loader), epoch)
            assert loader.state_dict() == twin.state_dict()
    assert loader.stats()["rows"] == twin.stats()["rows"] == loader.rows


def test_by_default_of_the_epoch_that_comes_next(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.first, "label", 64)
    first = loader.read(5)
    assert loader.epoch == 0
    np.testing.assert_array_equal(first, list(loader)[5])
    assert loader.read(5).tolist() != first.tolist()


def test_from_many_threads(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.both, FIELDS, 64, transform=lambda batch: {**batch, "y": batch["y"] + 1})
    batches = list(loader)
    with ThreadPoolExecutor(8) as pool:
        for step, batch in enumerate(pool.map(lambda step: loader.read(step, 0), range(len(loader)))):
            check_equal(batch, batches[step])


def test_in_a_forked_child_while_an_iteration_is_under_way(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.both, FIELDS, 64)
    batches = list(loader)
    under_way = iter(loader)
    next(under_way)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for step, batch in enumerate(batches):
                check_equal(loader.read(step, 0), batch)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert sum(1 for _ in under_way) == len(loader) - 1


@pytest.mark.parametrize("step", [-1, 24, 1000])
def test_a_step_that_there_is_not(shards: Shards, step: int) -> None:  # noqa: F811
    loader = Loader(shards.first, "label", 64)
    assert len(loader) == 24
    with pytest.raises(IndexError, match=f"batch {step} of an epoch of 24"):
        loader.read(step)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        loader.read(0, -1)


def test_a_closed_loader_reads_nothing(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.first, "label", 64)
    loader.close()
    with pytest.raises(ValueError, match="closed"):
        loader.read(0)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_damaged_chunk_is_the_business_of_the_batches_that_need_it(tmp_path: Path, on_error: str) -> None:
    data = np.arange(1000, dtype="i4").reshape(-1, 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("data", data=data, chunks=(100, 1), compression="gzip")
        where = made.id.get_chunk_info(3).byte_offset
    with open(tmp_path / "a.h5", "r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 16)
    loader = Loader(tmp_path / "a.h5", "data", 50, shuffle=False, on_error=on_error)
    np.testing.assert_array_equal(loader.read(19), data[950:])
    if on_error == "skip":
        assert loader.read(6).shape == (0, 1)
    else:
        with pytest.raises(h5fast.CorruptChunkError, match=r"a\.h5"):
            loader.read(6)
    np.testing.assert_array_equal(loader.read(5), data[250:300])
