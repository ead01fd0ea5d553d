"""``H5IterableDataset``: each row once and the same batches at any number of workers; epochs; resuming."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_files import Shards, shards  # noqa: F401  # a fixture, used by name

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402
from torch_files import CONTEXTS, check  # noqa: E402

import h5fast  # noqa: E402
from h5fast import CorruptChunkError  # noqa: E402
from h5fast.torch import H5IterableDataset  # noqa: E402

FIELDS = ("image", "label")


def expected(shards: Shards, epoch: int, **options: Any) -> list[list[int]]:  # noqa: F811
    loader = h5fast.Loader(shards.both, FIELDS, 64, **options)
    return [rows.tolist() for rows in loader.epoch_rows(epoch)]


def taken(batches: Any, shards: Shards) -> list[list[int]]:  # noqa: F811
    return [check(batch, shards).tolist() for batch in batches]


@pytest.mark.parametrize("options", [{}, {"shuffle": "block", "memory": "500 kB"}, {"shuffle": False}, {"drop_last": True},
                                     {"shard": (1, 2)}], ids=str)
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_the_same_batches_in_the_same_order(shards: Shards, workers: int, options: dict[str, Any]) -> None:  # noqa: F811
    dataset = H5IterableDataset(shards.both, FIELDS, 64, seed=4, **options)
    batches = DataLoader(dataset, batch_size=None, num_workers=workers)
    for epoch in range(2):  # workers are made anew for each
        assert taken(batches, shards) == expected(shards, epoch, seed=4, **options)
    assert len(batches) == len(dataset) == len(expected(shards, 0, **options))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_count_epochs_however_they_are_made(shards: Shards, context: str, persistent: bool) -> None:  # noqa: F811
    """Workers that are made anew each began with epoch 0: the same order again and again."""
    dataset = H5IterableDataset(shards.both, FIELDS, 64, seed=1)
    batches = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=context, persistent_workers=persistent)
    assert taken(batches, shards) == expected(shards, 0, seed=1)
    if persistent or context == "fork":  # else it takes long
        for _ in itertools.islice(batches, 3):  # given up: it counts
            pass
        assert taken(batches, shards) == expected(shards, 2, seed=1)
    dataset.set_epoch(7)
    assert taken(batches, shards) == expected(shards, 7, seed=1)
    assert taken(batches, shards) == expected(shards, 8, seed=1)


def test_more_workers_than_batches(shards: Shards) -> None:  # noqa: F811
    batches = DataLoader(H5IterableDataset(shards.first, FIELDS, 700), batch_size=None, num_workers=5)
    for _ in range(2):
        assert [len(rows) for rows in taken(batches, shards)] == [700, 700, 111]


def test_copies_and_pickles_have_epochs_of_their_own(shards: Shards) -> None:  # noqa: F811
    dataset = H5IterableDataset(shards.both, FIELDS, 64, seed=2)
    for twin in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        twin.set_epoch(5)
        assert taken(DataLoader(twin, batch_size=None, num_workers=2), shards) == expected(shards, 5, seed=2)
        assert taken(DataLoader(dataset, batch_size=None, num_workers=1), shards)[0] != expected(shards, 5, seed=2)[0]


def backwards(batch: Any) -> Any:
    return batch[0][::-1, :, ::-1], batch[1][::-1]


def test_a_transform_may_turn_rows_round(shards: Shards) -> None:  # noqa: F811
    """PyTorch has no strides below zero."""
    for images, rows in DataLoader(H5IterableDataset(shards.first, FIELDS, 64, transform=backwards), batch_size=None):
        np.testing.assert_array_equal(images.numpy(), shards.image[rows.numpy()][:, :, ::-1])


def make_float(batch: Any) -> Any:
    return {"x": batch[0].astype("f4") / 255, "rows": batch[1]}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_transform_runs_in_the_workers(shards: Shards, workers: int) -> None:  # noqa: F811
    dataset = H5IterableDataset(shards.first, FIELDS, 64, transform=make_float)
    for batch in DataLoader(dataset, batch_size=None, num_workers=workers):
        assert batch["x"].dtype == torch.float32
        np.testing.assert_array_equal(batch["x"].numpy(), shards.image[batch["rows"]].astype("f4") / 255)


@pytest.mark.parametrize("stop", [0, 1, 11, 30])
def test_a_state_resumes_in_the_middle(shards: Shards, stop: int) -> None:  # noqa: F811
    dataset = H5IterableDataset(shards.both, FIELDS, 64)
    batches = iter(DataLoader(dataset, batch_size=None))
    first = [check(batch, shards).tolist() for batch in itertools.islice(batches, stop)]
    resumed = H5IterableDataset(shards.both, FIELDS, 64)
    resumed.load_state_dict(json.loads(json.dumps(dataset.state_dict())))
    loader = DataLoader(resumed, batch_size=None)
    rest = taken(loader, shards)
    assert first + rest == expected(shards, 0) if stop < 30 else rest == expected(shards, 1)
    assert taken(loader, shards) == expected(shards, 1 if stop < 30 else 2)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("stop", [0, 7, 30])
def test_workers_resume_what_the_dataset_was_told(shards: Shards, stop: int, persistent: bool) -> None:  # noqa: F811
    """Only this process went on where the state was taken: workers began the epoch, and the count, again."""
    dataset = H5IterableDataset(shards.both, FIELDS, 64, seed=3, memory="1 MB")
    dataset.set_epoch(4)
    batches = iter(dataset)
    first = [check(batch, shards).tolist() for batch in itertools.islice(batches, stop)]
    resumed = H5IterableDataset(shards.both, FIELDS, 64, seed=3)
    loader = DataLoader(resumed, batch_size=None, num_workers=3, persistent_workers=persistent)
    if persistent:
        assert taken(loader, shards) == expected(shards, 0, seed=3)
    resumed.load_state_dict(json.loads(json.dumps(dataset.state_dict())))
    if stop < 30:
        assert first + taken(loader, shards) == expected(shards, 4, seed=3)
    assert taken(loader, shards) == expected(shards, 5, seed=3)
    resumed.set_epoch(4)
    assert taken(loader, shards) == expected(shards, 4, seed=3)


def test_two_loaders_over_one_dataset_begin_an_epoch_each(shards: Shards) -> None:  # noqa: F811
    dataset = H5IterableDataset(shards.first, FIELDS, 256, seed=3)
    loaders = [DataLoader(dataset, batch_size=None, num_workers=2) for _ in range(2)]
    epochs = [[], []]  # type: ignore[var-annotated]
    for batches in zip(*loaders):
        for epoch, batch in zip(epochs, batches):
            epoch.append(check(batch, shards).tolist())
    wanted = [[rows.tolist() for rows in h5fast.Loader(shards.first, FIELDS, 256, seed=3).epoch_rows(number)] for number in (0, 1)]
    assert sorted(epochs) == sorted(wanted)


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("stop", [1, 13, 30])
def test_stateful_data_loader_resumes_exactly_and_reads_nothing_again(
    shards: Shards, workers: int, stop: int, caplog: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        dataset = H5IterableDataset(shards.both, FIELDS, 64, seed=9)
        return stateful.StatefulDataLoader(dataset, batch_size=None, num_workers=workers, snapshot_every_n_steps=1)

    loader = make()
    assert taken(loader, shards) == expected(shards, 0, seed=9)
    batches = iter(loader)
    first = [check(batch, shards).tolist() for batch in itertools.islice(batches, stop)]
    state = loader.state_dict()
    del batches
    resumed = make()
    resumed.load_state_dict(state)
    assert first + taken(resumed, shards) == expected(shards, 1, seed=9)
    assert not [record for record in caplog.records if "fast-forward" in record.message]
    assert taken(resumed, shards) == expected(shards, 2, seed=9)


def test_a_state_of_another_seed_is_refused(shards: Shards) -> None:  # noqa: F811
    state = H5IterableDataset(shards.both, FIELDS, 64).state_dict()
    with pytest.raises(ValueError, match="its seed is '0', here it is '1'"):
        H5IterableDataset(shards.both, FIELDS, 64, seed=1).load_state_dict(state)


def test_mistakes_are_told_before_anything_is_read(shards: Shards) -> None:  # noqa: F811
    with pytest.raises(KeyError, match="no_such"):
        H5IterableDataset(shards.first, "no_such")
    with pytest.raises(TypeError, match="num_workers"):
        H5IterableDataset(shards.first, "label", worker=(0, 2))
    with pytest.raises(TypeError, match="shufle"):
        H5IterableDataset(shards.first, "label", shufle=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_reaches_the_loop_with_its_words(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", data=np.arange(400).reshape(100, 4), chunks=(10, 4), compression="gzip")
        data.id.write_direct_chunk((20, 0), b"no deflate")
    batches = iter(DataLoader(H5IterableDataset(path, "d", 10, shuffle=False), batch_size=None, num_workers=workers))
    assert len(next(batches)) == len(next(batches)) == 10
    with pytest.raises(CorruptChunkError, match="damaged.h5.*'/d'"):
        next(batches)
