"""``H5Dataset``: rows by number in any process, and whole batches that nobody stacks again."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

torch = pytest.importorskip("torch")

from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, RandomSampler, Subset  # noqa: E402
from torch_files import CONTEXTS, check  # noqa: E402

import h5fast  # noqa: E402
from h5fast import CorruptChunkError, Field  # noqa: E402
from h5fast.torch import H5Dataset, collate  # noqa: E402

FORMS = [("image", "label"), {"x": "image", "y": "label"}, "label"]


def test_a_row_is_what_the_file_holds(shards: Shards) -> None:  # noqa: F811
    dataset = H5Dataset(shards.both, ("image", "label", "weight"))
    assert len(dataset) == len(shards.label)
    for row in (0, 5, ROWS - 1, ROWS, len(dataset) - 1, -1, -ROWS):
        image, label, weight = dataset[row]
        np.testing.assert_array_equal(image.numpy(), shards.image[row])
        assert label.shape == weight.shape == () and label == shards.label[row] and weight == shards.weight[row]
        assert (image.dtype, label.dtype, weight.dtype) == (torch.uint8, torch.int64, torch.float64)
    assert dataset[np.int64(3)][1] == dataset[torch.tensor(3)][1] == 3


def test_it_can_be_gone_through_as_any_sequence(shards: Shards) -> None:  # noqa: F811
    assert [int(label) for label in H5Dataset(shards.first, "label", rows=slice(10, 40, 10))] == [10, 20, 30]


@pytest.mark.parametrize("rows", [[7, 3, 3, -1], np.array([2, 1]), torch.tensor([5, 0]), slice(2, 9, 3), range(4, 0, -2)])
def test_a_batch_of_rows(shards: Shards, rows: Any) -> None:  # noqa: F811
    images, labels = H5Dataset(shards.both, ("image", "label"))[rows]
    expected = shards.label[rows if isinstance(rows, slice) else np.asarray(rows)]
    assert labels.tolist() == expected.tolist()
    np.testing.assert_array_equal(images.numpy(), shards.image[expected])


@pytest.mark.parametrize("form", FORMS, ids=["tuple", "dict", "single"])
@pytest.mark.parametrize("collating", [{}, {"collate_fn": collate}], ids=["default", "ours"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_whole_however_they_collate(shards: Shards, form: Any, collating: Any, workers: int) -> None:  # noqa: F811
    """default_collate takes a batch for a list of rows: it failed, or stacked two fields of one shape into one tensor."""
    batches = list(DataLoader(H5Dataset(shards.both, form), batch_size=100, shuffle=True, num_workers=workers, **collating))
    assert len(batches) == -(-len(shards.label) // 100)
    labels = [batch["y"] if isinstance(batch, dict) else batch[1] if isinstance(batch, (tuple, list)) else batch for batch in batches]
    assert sorted(torch.cat(labels).tolist()) == shards.label.tolist()
    for batch in batches if form != "label" else []:
        check((batch["x"], batch["y"]) if isinstance(batch, dict) else batch, shards)


def test_two_fields_of_one_shape_stay_two(shards: Shards) -> None:  # noqa: F811
    first = next(iter(DataLoader(H5Dataset(shards.first, ("label", "label")), batch_size=8)))
    assert isinstance(first, (tuple, list)) and len(first) == 2 and first[0].tolist() == first[1].tolist() == list(range(8))


def test_batches_are_one_gather_each(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    taken: list[int] = []
    whole = h5fast.Loader.take
    monkeypatch.setattr(h5fast.Loader, "take", lambda self, rows: (taken.append(len(rows)), whole(self, rows))[1])
    for batch in DataLoader(H5Dataset(shards.first, ("image", "label")), batch_size=128, shuffle=True):
        check(batch, shards)
    assert taken == [128] * (ROWS // 128) + [ROWS % 128]


def test_lists_as_batches_and_other_datasets(shards: Shards) -> None:  # noqa: F811
    dataset = H5Dataset(shards.first, ("image", "label"))
    batches = BatchSampler(RandomSampler(dataset), 64, drop_last=True)
    for batch in DataLoader(dataset, sampler=batches, batch_size=None):
        assert len(check(batch, shards)) == 64
    part = DataLoader(Subset(dataset, [9, 4, 7, 1]), batch_size=2, collate_fn=collate)
    assert [check(batch, shards).tolist() for batch in part] == [[9, 4], [7, 1]]
    both = DataLoader(ConcatDataset([dataset, H5Dataset(shards.second, ("image", "label"))]), batch_size=500)
    assert np.concatenate([check(batch, shards) for batch in both]).tolist() == shards.label.tolist()
    first, second = torch.utils.data.random_split(dataset, [1000, ROWS - 1000])
    rows = [check(batch, shards) for half in (first, second) for batch in DataLoader(half, batch_size=100)]
    assert sorted(np.concatenate(rows)) == list(range(ROWS))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("source", ["paths", "open file", "matrices"])
def test_workers_open_the_files_for_themselves(shards: Shards, context: str, source: str) -> None:  # noqa: F811
    with h5fast.File(shards.first) as file:
        given: Any = {"paths": shards.first, "open file": file, "matrices": {
            "image": h5fast.HDF5Matrix(shards.first, "image"), "label": h5fast.HDF5Matrix(shards.first, "label")}}[source]
        dataset = H5Dataset(given, ("image", "label"))
        check(dataset[[1, 2]], shards)  # open here as well, and used
        batches = DataLoader(dataset, batch_size=200, shuffle=True, num_workers=2, multiprocessing_context=context)
        assert sorted(np.concatenate([check(batch, shards) for batch in batches])) == list(range(ROWS))


def test_it_pickles(shards: Shards) -> None:  # noqa: F811
    dataset = H5Dataset(shards.both, ("image", "label"), rows=[5, 1, 1700])
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == 3 and check(copy[[0, 2]], shards).tolist() == [5, 1700]


def double(row: Any) -> Any:
    return row[1] * 2, row[0].float().mean()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_gets_one_row(shards: Shards, workers: int) -> None:  # noqa: F811
    dataset = H5Dataset(shards.first, ("image", "label"), transform=double)
    assert dataset[4][0] == 8
    twice, mean = next(iter(DataLoader(dataset, batch_size=10, num_workers=workers)))
    assert twice.tolist() == list(range(0, 20, 2))
    np.testing.assert_allclose(mean.numpy(), shards.image[:10].mean(axis=(1, 2, 3)), rtol=1e-6)


def test_casts_strings_and_byte_orders(shards: Shards, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "types.h5"
    with h5py.File(path, "w") as file:
        file["big"] = np.arange(10, dtype=">f4")
        file["bool"] = np.arange(10) % 2 == 0
        file["half"] = np.arange(10, dtype="f2")
        file["complex"] = np.arange(10) * 1j
    big, boolean, half, number = H5Dataset(path, ("big", "bool", "half", "complex"))[[3, 4]]
    assert (big.dtype, boolean.dtype, half.dtype, number.dtype) == (torch.float32, torch.bool, torch.float16, torch.complex128)
    assert big.tolist() == half.tolist() == [3, 4] and boolean.tolist() == [False, True] and number.tolist() == [3j, 4j]
    x, text = H5Dataset(shards.first, (Field("image", dtype="f4", scale=0.5, channels_first=True), Field("text", dtype=str)))[[8]]
    np.testing.assert_array_equal(x[0].numpy(), (shards.image[8] / 2).transpose(2, 0, 1))
    assert text.tolist() == ["row 8"]


def test_mistakes_are_named(shards: Shards, tmp_path: Path) -> None:  # noqa: F811
    dataset = H5Dataset(shards.first, "label")
    with pytest.raises(IndexError, match=f"index {ROWS} is out of bounds for axis 0 with size {ROWS}"):
        dataset[ROWS]
    with pytest.raises(IndexError, match="index 5000"):
        dataset.__getitems__([1, 5000])
    with pytest.raises(TypeError):
        dataset["label"]
    with pytest.raises(KeyError, match="no_such"):
        H5Dataset(shards.first, "no_such")
    with pytest.raises(OSError, match="none.h5"):
        H5Dataset(tmp_path / "none.h5", "label")
    with pytest.raises(TypeError, match="transform must be callable"):
        H5Dataset(shards.first, "label", transform=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_reaches_the_loop_with_its_words(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", data=np.arange(400).reshape(100, 4), chunks=(10, 4), compression="gzip")
        data.id.write_direct_chunk((20, 0), b"no deflate")
    batches = iter(DataLoader(H5Dataset(path, "d"), batch_size=10, num_workers=workers))
    assert len(next(batches)) == len(next(batches)) == 10
    with pytest.raises(CorruptChunkError, match="damaged.h5.*'/d'"):
        next(batches)
