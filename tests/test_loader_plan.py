"""What a loader says an epoch will cost, against what it costs; and how well it says an order mixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

from h5fast import Loader
from h5fast._feed import Schedule, simulate


@pytest.mark.parametrize("memory", ["64 kB", "100 kB", "10 MB"])
@pytest.mark.parametrize("shuffle", ["exact", "block", "batches", False])
def test_the_plan_is_what_happens(shards: Shards, shuffle: Any, memory: str) -> None:  # noqa: F811
    """Found on the way: a cache whose rows were keyed for the wrong epoch decoded as if it were not there."""
    loader = Loader(shards.first, ("image", "label"), 64, shuffle=shuffle, memory=memory)
    plan = loader.plan()
    assert (plan.rows, plan.batches) == (ROWS, len(loader))
    found = []
    for _ in range(3):
        for _ in loader:
            pass
        found.append(loader.stats()["fields"])
    for field in plan.fields:
        assert field.chunks == found[0][field.name]["chunks"]
        for said, real in ((field.decodes[0], found[0]), (field.decodes[1], found[2])):
            assert abs(said - real[field.name]["decodes"]) <= 0.05 * field.chunks + 0.02 * said
    assert f"{ROWS:,} rows" in str(plan) and "decodes per chunk" in str(plan)


@pytest.mark.parametrize("options", [{"shuffle": "exact"}, {"shuffle": "block"}, {"shuffle": "batches"}, {"shuffle": False},
                                     {"shuffle": "exact", "rows": slice(0, None, 3)}, {"shuffle": "block", "rows": "listed"},
                                     {"shuffle": "exact", "shard": (1, 3), "drop_last": True}, {"weights": "drawn"},
                                     {"shuffle": "exact", "memory": "2 MB", "shard": (0, 3)}], ids=str)
def test_the_plan_of_more_rows_than_are_simulated(tmp_path: Path, options: dict[str, Any]) -> None:
    """Batches, memory and rows were taken in proportion, and the length of a chunk was not: up to 30 times too many decodes."""
    path = tmp_path / "a.h5"
    rows = 200_000
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(rows) % 251, dtype="u1", chunks=(500,), compression="lzf")
    options = dict(options)
    if options.get("rows") == "listed":
        options["rows"] = np.sort(np.random.default_rng(0).permutation(rows)[:rows // 2])
    if "weights" in options:
        options["weights"] = np.ones(rows)
    memory = 24 * rows * ("rows" in options) + 48 * rows * ("weights" in options) + 600_000
    loader = Loader(path, "x", 256, **{"memory": memory, **options})
    plan = loader.plan()
    (field,) = plan.fields
    assert (plan.rows, plan.batches) == (sum(map(len, loader.epoch_rows(0))), len(loader))
    found = []
    for _ in range(3):
        for _ in loader:
            pass
        found.append(loader.stats()["decodes"])
    for said, real in zip(field.decodes, (found[0], found[2])):
        assert abs(said - real) <= 0.1 * field.chunks + 0.15 * real, (field.decodes, found)


def test_an_exact_shuffle_is_uniform_and_others_are_told_apart(shards: Shards) -> None:  # noqa: F811
    quality = {shuffle: Loader(shards.both, "label", 64, shuffle=shuffle).plan().shuffle
               for shuffle in ("exact", "block", "batches", False)}
    assert abs(quality["exact"].displacement - 1) < 0.1 and abs(quality["exact"].spread - 1) < 0.1
    assert quality[False].displacement == 0 and quality[False].spread < 0.2
    assert quality["batches"].spread < 0.2 < quality["batches"].displacement


def test_nothing_to_decode(shards: Shards) -> None:  # noqa: F811
    plan = Loader(shards.first, "raw", 64).plan()
    assert plan.fields == () and "nothing has to be decoded" in str(plan)


@pytest.mark.parametrize(("chunk", "share", "decodes"), [(32, 0.05, 7.7), (32, 0.10, 5.3), (32, 0.25, 2.9), (32, 0.50, 2.0),
                                                         (100, 0.10, 7.6), (100, 0.25, 3.9), (100, 0.50, 2.0)])
def test_no_more_decodes_than_a_cache_that_knows_the_future_needs(chunk: int, share: float, decodes: float) -> None:
    """The figures are those of a simulation of an exact shuffle of 100,000 rows in batches of 256."""
    schedules = [Schedule("exact", 100_000, key=epoch, batch=256, rank=0, world=1, drop_last=False, epoch=epoch)
                 for epoch in range(4)]
    *_, later = simulate(schedules, np.append(np.arange(0, 100_000, chunk), 100_000), int(100_000 * share))
    assert later / (100_000 / chunk) <= 1.02 * decodes


def test_plot(shards: Shards) -> None:  # noqa: F811
    plan = Loader(shards.first, ("image", "label"), 64, memory="64 kB").plan()
    pytest.importorskip("matplotlib").use("Agg")
    axes = plan.plot()
    assert [line.get_label() for line in axes.get_lines()] == [field.name for field in plan.fields]


def test_progress(shards: Shards, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    pytest.importorskip("tqdm")
    loader = Loader(shards.first, "label", 64, progress=True)
    assert sum(len(labels) for labels in loader) == ROWS
    assert f"{len(loader)}/{len(loader)}" in capsys.readouterr().err


def test_orders_of_huge_data_take_no_memory() -> None:
    """A table of 1,000,000,000 rows would take 8 GB and a minute."""
    schedule = Schedule("exact", 10**9, key=7, batch=256, rank=3, world=8, drop_last=False, epoch=0)
    items = np.concatenate([schedule.items(step) for step in (0, 1, schedule.steps - 1)])
    assert len(set(items)) == len(items) and items.max() < 10**9 and schedule.steps == -(-(10**9) // 8 // 256)
