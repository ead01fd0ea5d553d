"""The loader: every order, at every size of memory, gives each row once, with its own fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

import h5fast
from h5fast import Field, Loader

ORDERS = ["exact", "block", "batches", False]
# Too little to keep a row of the images, enough for some, for all.
MEMORIES = ["180 kB", "230 kB", "10 MB"]

FIELDS = {"x": Field("image", dtype="f4", scale=1 / 255, channels_first=True), "y": "label",
          "part": Field("image", crop=(4, None, slice(0, 2)), dtype="f4"), "raw": "raw", "text": "text"}


def check_batch(batch: dict[str, Any], shards: Shards) -> None:
    rows = batch["y"]
    np.testing.assert_array_equal(batch["x"], (shards.image[rows].astype("f4") * np.float32(1 / 255)).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(batch["part"], shards.image[rows][:, 1:5, :, :2].astype("f4"))
    np.testing.assert_array_equal(batch["raw"], shards.image[rows])
    assert [text.decode() for text in batch["text"]] == [f"row {row}" for row in rows]


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("shuffle", ORDERS)
@pytest.mark.parametrize("files", ["first", "both"])
def test_each_row_once_with_its_fields(shards: Shards, files: str, shuffle: Any, memory: str, reuse: bool) -> None:  # noqa: F811
    loader = Loader(getattr(shards, files), FIELDS, 64, shuffle=shuffle, memory=memory, reuse_buffers=reuse, seed=3)
    orders = []
    for _ in range(3):
        seen = []
        for batch in loader:
            check_batch(batch, shards)
            seen.append(batch["y"].copy())
        orders.append(np.concatenate(seen))
        assert len(seen) == len(loader)
        assert sorted(orders[-1]) == list(range(loader.rows))
    if shuffle is False:
        assert orders[0].tolist() == list(range(loader.rows))
    else:
        assert orders[0].tolist() != orders[1].tolist() != list(range(loader.rows))


def test_once_the_data_fits_the_second_epoch_decodes_nothing(shards: Shards) -> None:  # noqa: F811
    loader = Loader(shards.first, ("image", "label"), 64)
    for epoch in range(3):
        assert sum(len(labels) for _, labels in loader) == ROWS
        stats = loader.stats()
        assert stats["chunks"] == -(-ROWS // 32) + -(-ROWS // 100)
        assert stats["decodes"] == (stats["chunks"] if epoch == 0 else 0)


@pytest.mark.parametrize("shuffle", ["block", False, "batches"])
def test_blocks_and_runs_decode_each_chunk_once(shards: Shards, shuffle: Any) -> None:  # noqa: F811
    """Memory for 400 of 1,511 rows."""
    loader = Loader(shards.first, ("image", "label"), 64, shuffle=shuffle, memory="64 kB", threads=1)
    for _ in range(3):
        for _ in loader:
            pass
        stats = loader.stats()
        # A run of 64 rows that starts in the middle of a chunk needs three, and its neighbours come much later.
        assert stats["fields"]["image"]["decodes"] <= (stats["fields"]["image"]["chunks"] * (2 if shuffle == "batches" else 1))


@pytest.mark.parametrize("shuffle", ORDERS)
def test_the_order_depends_on_neither_memory_nor_threads_nor_prefetch(shards: Shards, shuffle: Any) -> None:  # noqa: F811
    def order(**options: Any) -> list[list[int]]:
        if shuffle == "block":
            options["memory"] = "300 kB"  # which is part of its state
        return [batch.tolist() for batch in Loader(shards.both, "label", 50, shuffle=shuffle, seed="s", **options)]

    expected = order()
    for options in ({"memory": "100 kB"}, {"threads": 1}, {"threads": 5}, {"prefetch": 1}, {"prefetch": 9}, {"reuse_buffers": True}):
        assert order(**options) == expected


@pytest.mark.parametrize("shuffle", ORDERS)
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [2, 3])
def test_shards_are_disjoint_and_cover(shards: Shards, shuffle: Any, drop_last: bool, world: int) -> None:  # noqa: F811
    taken = [[row for batch in Loader(shards.both, "label", 32, shuffle=shuffle, shard=(rank, world), drop_last=drop_last)
              for row in batch] for rank in range(world)]
    assert len({len(rows) for rows in taken}) == 1
    together = np.concatenate(taken)
    total = len(shards.label)
    if drop_last:
        assert len(set(together)) == len(together) == total // (32 * world) * 32 * world
    else:
        assert set(together) == set(range(total)) and len(together) - total < world


@pytest.mark.parametrize("shuffle", ORDERS)
def test_resume_at_every_batch(shards: Shards, shuffle: Any) -> None:  # noqa: F811
    options = {"shuffle": shuffle, "seed": 5, "batch_size": 100, "memory": "100 kB", "shard": (1, 2)}
    loader = Loader(shards.both, ("image", "label"), **options)
    whole = [labels.tolist() for _, labels in loader]
    following = [labels.tolist() for _, labels in loader]
    for done in range(len(whole) + 1):
        first = Loader(shards.both, ("image", "label"), **options)
        batches = iter(first)
        for _ in range(done):
            next(batches)
        second = Loader(shards.both, ("image", "label"), threads=1, prefetch=1, **options)
        second.load_state_dict(first.state_dict())
        rest = []
        if done < len(whole):
            for images, labels in second:
                np.testing.assert_array_equal(images, shards.image[labels])
                rest.append(labels.tolist())
        assert rest == whole[done:]
        assert [labels.tolist() for _, labels in second] == following


def test_exact_goes_on_with_other_processes(shards: Shards) -> None:  # noqa: F811
    two = [Loader(shards.first, "label", 64, shard=(rank, 2), seed=1) for rank in range(2)]
    running = [iter(loader) for loader in two]
    taken = [row for _ in range(4) for batches in running for row in next(batches)]
    for rank in range(3):
        three = Loader(shards.first, "label", 50, shard=(rank, 3), seed=1)
        three.load_state_dict(two[0].state_dict())
        taken += [row for batch in three for row in batch]
    assert set(taken) == set(range(ROWS)) and len(taken) - ROWS < 3


@pytest.mark.parametrize("rows", [slice(100, 900), slice(3, None, 7), slice(None, None, -2), [5, 900, 7, 7, -1], np.arange(ROWS) % 3 == 0])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_some_rows(shards: Shards, rows: Any, shuffle: Any) -> None:  # noqa: F811
    expected = shards.label[:ROWS][rows]
    for memory in MEMORIES:
        seen = []
        for images, labels in Loader(shards.first, ("image", "label"), 5, rows=rows, shuffle=shuffle, memory=memory):
            np.testing.assert_array_equal(images, shards.image[labels])
            seen += labels.tolist()
        assert sorted(seen) == sorted(expected.tolist())
        if shuffle is False:
            assert seen == expected.tolist()


def test_weights_draw_rows_as_often_as_they_say(shards: Shards) -> None:  # noqa: F811
    weights = np.where(np.arange(ROWS) % 10 == 0, 9.0, 0.0)
    weights[7] = 9 * weights.sum()
    for memory in MEMORIES:
        loader = Loader(shards.first, ("image", "label"), 64, weights=weights, memory=memory)
        drawn = []
        for _ in range(2):
            for images, labels in loader:
                np.testing.assert_array_equal(images, shards.image[labels])
                drawn += labels.tolist()
        assert len(drawn) == 2 * ROWS and set(drawn) <= set(np.flatnonzero(weights))
        assert abs(drawn.count(7) / len(drawn) - 0.9) < 0.05
    by_field = [labels.tolist() for labels in Loader(shards.both, "label", 64, weights="weight", seed=2)]
    by_array = [labels.tolist() for labels in Loader(shards.both, "label", 64, weights=shards.weight, seed=2)]
    assert by_field == by_array


def test_a_mapping_is_a_source(shards: Shards) -> None:  # noqa: F811
    with h5fast.File(shards.first) as file:
        matrix = h5fast.HDF5Matrix(shards.first, "image", 100, 500, normalizer=h5fast.Normalize(scale=0.5, channels_first=True))
        plain = h5fast.HDF5Matrix(shards.first, "image", 100, 500, normalizer=lambda rows: rows.mean(axis=(1, 2)))
        source = {"m": matrix, "p": plain, "d": file["label"], "a": np.arange(400) * 2}
        with pytest.raises(ValueError, match="different numbers of rows"):
            Loader(source)
        source["d"] = h5fast.HDF5Matrix(file["label"], start=100, end=500)
        for m, p, d, a in Loader(source, batch_size=64):
            np.testing.assert_array_equal(a, (d - 100) * 2)
            np.testing.assert_array_equal(m, matrix[d - 100])
            np.testing.assert_array_equal(p, plain[d - 100])


def test_splits_are_kept_in_the_file(shards: Shards, tmp_path: Path) -> None:  # noqa: F811
    import shutil

    paths = [shutil.copy(path, tmp_path) for path in shards.both]
    for path, count in zip(paths, (ROWS, len(shards.label) - ROWS)):
        h5fast.write_split(path, h5fast.split(count, {"train": 0.8, "val": 0.2}))
    parts = {name: np.concatenate(list(Loader(paths, "label", 64, rows=name))) for name in ("train", "val")}
    assert sorted(np.concatenate(list(parts.values()))) == shards.label.tolist()
    with pytest.raises(KeyError, match=r"no split 'test'.*\['train', 'val'\]"):
        Loader(paths, "label", rows="test")


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"rows": []}, ValueError, "no rows"),
    ({"rows": [5000]}, IndexError, "5000"),
    ({"batch_size": 5000}, ValueError, "more than the 1,511 rows"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"weights": -np.ones(ROWS)}, ValueError, "not negative"),
    ({"weights": np.full(ROWS, np.nan)}, ValueError, "finite"),
    ({"weights": np.zeros(ROWS)}, ValueError, "all zero"),
    ({"weights": np.ones(7)}, ValueError, "7 weights for 1,511 rows"),
    ({"shard": (2, 2)}, ValueError, "rank must be from 0 to world"),
    ({"shard": 3}, TypeError, "rank, world"),
    ({"memory": "1 kB"}, ValueError, "are too few"),
    ({"memory": "much"}, ValueError, "not 'much'"),
    ({"fields": "nothing"}, KeyError, "no dataset 'nothing' in"),
    ({"fields": ()}, ValueError, "fields is empty"),
    ({"shuffle": "wild"}, ValueError, "not 'wild'"),
    ({"on_error": "ignore"}, ValueError, "on_error"),
    ({"transform": 3}, TypeError, "callable"),
    ({"fields": Field("image", crop=(9,))}, ValueError, "crop to 9 of the 6"),
])
def test_what_cannot_be_is_said_at_once(shards: Shards, options: dict[str, Any], error: type, message: str) -> None:  # noqa: F811
    with pytest.raises(error, match=message):
        Loader(shards.first, **{"fields": ("image", "label"), "batch_size": 64, **options})


def test_files_that_do_not_fit_together_are_named(shards: Shards, tmp_path: Path) -> None:  # noqa: F811
    import h5py

    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["image"], file["label"], file["raw"] = np.zeros((5, 6, 5, 4), "u1"), np.zeros(5, int), shards.image[:7]
    with pytest.raises(ValueError, match=r"field 'image': rows of .*a\.h5 are .* those of .*c\.h5"):
        Loader([shards.first, tmp_path / "c.h5"], ("image", "label"))
    with pytest.raises(ValueError, match=r"different numbers of rows.*c\.h5: 'raw' \(7\), 'label' \(5\)"):
        Loader([shards.first, tmp_path / "c.h5"], ("raw", "label"))
    for name, sizes in (("d.h5", (5, 9)), ("e.h5", (9, 5))):  # fourteen of each, and no two that belong together
        with h5py.File(tmp_path / name, "w") as file:
            file["image"], file["label"] = np.zeros((sizes[0], 2)), np.zeros(sizes[1])
    with pytest.raises(ValueError, match=r"d\.h5: 'image' \(5\), 'label' \(9\)"):
        Loader([tmp_path / "d.h5", tmp_path / "e.h5"], ("image", "label"))
    with pytest.raises(FileNotFoundError, match="no file matches"):
        Loader(str(tmp_path / "x*.h5"), "label")


def test_a_state_of_another_loader_is_refused(shards: Shards) -> None:  # noqa: F811
    state = Loader(shards.first, "label", 64).state_dict()
    for other in (Loader(shards.second, "label", 64), Loader(shards.first, "raw", 64), Loader(shards.first, "label", 64, seed=1),
                  Loader(shards.first, "label", 64, shuffle=False), Loader(shards.first, "label", 64, rows=slice(0, 1000))):
        with pytest.raises(ValueError, match="belongs to another loader"):
            other.load_state_dict(state)


def test_a_state_of_other_data_of_the_same_form_is_refused(tmp_path: Path) -> None:
    """Training went on with rows that had nothing to do with those it had begun with. The same data stored otherwise is welcome."""
    data = np.arange(3000).reshape(1000, 3)
    for name, rows, options in (("a", data, {}), ("again", data, {"chunks": (100, 3), "compression": "gzip"}), ("b", data + 1, {})):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=rows, **options)
    first = Loader(tmp_path / "a.h5", "x", 64)
    next(iter(first))
    state = json.loads(json.dumps(first.state_dict()))
    again = Loader(tmp_path / "again.h5", "x", 64)
    again.load_state_dict(state)
    np.testing.assert_array_equal(next(iter(again)), data[list(first.epoch_rows(0))[1]])
    with pytest.raises(ValueError, match="belongs to another loader: its data is"):
        Loader(tmp_path / "b.h5", "x", 64).load_state_dict(state)
    for broken in (None, 7, {}, {**state, "taken": 1 << 65}, {**state, "epoch": -1}):
        with pytest.raises(ValueError, match="state|at least"):
            first.load_state_dict(broken)  # type: ignore[arg-type]
