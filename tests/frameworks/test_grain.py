"""``h5fast.grain``: batches for Grain, by number and by iteration, resumed exactly; sharded arrays that read their part alone."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from at_once import run_in_threads
from loader_files import Shards, shards  # noqa: F401  # a fixture, used by name

grain = pytest.importorskip("grain")
jax = pytest.importorskip("jax")

import h5fast  # noqa: E402
from h5fast import CorruptChunkError, Loader  # noqa: E402
from h5fast.grain import BatchDataset, BatchSource, make_array  # noqa: E402

FIELDS = ("image", "label")


def rows_of(batches: Any, shards: Shards) -> list[list[int]]:  # noqa: F811
    found = []
    for images, labels in batches:
        np.testing.assert_array_equal(images, shards.image[labels])
        found.append(labels.tolist())
    return found


def expected(shards: Shards, epoch: int, **options: Any) -> list[list[int]]:  # noqa: F811
    return [rows.tolist() for rows in Loader(shards.both, FIELDS, 64, **options).epoch_rows(epoch)]


# By number.


def test_elements_are_batches(shards: Shards) -> None:  # noqa: F811
    source = BatchSource(shards.both, FIELDS, 64)
    assert len(source) == 30
    assert rows_of((source[number] for number in range(30)), shards) == expected(shards, 0, shuffle=False)
    assert source[-1][1].tolist() == source[29][1].tolist()
    for number in (30, -31):
        with pytest.raises(IndexError, match=f"batch {number} of 30"):
            source[number]


def test_epochs_follow_each_other(shards: Shards) -> None:  # noqa: F811
    source = BatchSource(shards.both, FIELDS, 64, shuffle="exact", seed=4, epochs=3)
    assert len(source) == 90
    assert rows_of(map(source.__getitem__, range(90)), shards) == [r for e in range(3) for r in expected(shards, e, seed=4)]


def test_grain_shuffles_maps_and_reads_ahead(shards: Shards) -> None:  # noqa: F811
    dataset = grain.MapDataset.source(BatchSource(shards.both, FIELDS, 64)).seed(3).shuffle().repeat(2)
    batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    found = rows_of(batches, shards)
    assert sorted(found[:30]) == sorted(found[30:]) == sorted(expected(shards, 0, shuffle=False))
    assert found[:30] != found[30:] and found[:30] != expected(shards, 0, shuffle=False)


@pytest.mark.parametrize("stop", [0, 1, 17, 30, 44])
def test_grain_resumes_by_number(shards: Shards, stop: int) -> None:  # noqa: F811
    dataset = grain.MapDataset.source(BatchSource(shards.both, FIELDS, 64)).seed(3).shuffle().repeat(2).to_iter_dataset()
    whole = rows_of(dataset, shards)
    iterator = iter(dataset)
    taken = rows_of(itertools.islice(iterator, stop), shards)
    resumed = iter(dataset)
    resumed.set_state(json.loads(json.dumps(iterator.get_state())))
    assert taken + rows_of(resumed, shards) == whole


def test_any_thread_and_any_copy_sees_the_same(shards: Shards) -> None:  # noqa: F811
    source = BatchSource(shards.both, FIELDS, 64, shuffle="block", epochs=2)
    whole = rows_of(map(source.__getitem__, range(60)), shards)
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source) and "BatchSource(" in repr(source) and "shuffle='block'" in repr(source)

    def look(seed: int, at: Any) -> None:
        for number in np.random.default_rng(seed).permutation(60).tolist():
            assert at[number][1].tolist() == whole[number]

    run_in_threads([lambda: look(0, source), lambda: look(1, source), lambda: look(2, copy), lambda: look(3, copy)])


# By iteration.


def test_an_iteration_has_the_loaders_epochs(shards: Shards) -> None:  # noqa: F811
    dataset = BatchDataset(shards.both, FIELDS, 64, seed=2, epochs=2)
    for _ in range(2):  # each begins anew
        assert rows_of(dataset, shards) == expected(shards, 0, seed=2) + expected(shards, 1, seed=2)
    endless = iter(BatchDataset(shards.both, FIELDS, 64, seed=2, epochs=None))
    assert rows_of(itertools.islice(endless, 95), shards)[90:] == expected(shards, 3, seed=2)[:5]


def test_it_maps_and_filters(shards: Shards) -> None:  # noqa: F811
    dataset = BatchDataset(shards.both, FIELDS, 64, shuffle=False).map(lambda batch: batch[1] * 2).filter(lambda y: y[0] % 256 == 0)
    assert [int(y[0]) for y in dataset] == list(range(0, 2 * 1911, 256))


@pytest.mark.parametrize("shuffle", ["exact", "block"])
@pytest.mark.parametrize("stop", [0, 1, 29, 30, 31, 60])
def test_an_iteration_resumes_exactly(shards: Shards, stop: int, shuffle: str) -> None:  # noqa: F811
    dataset = BatchDataset(shards.both, FIELDS, 64, shuffle=shuffle, epochs=2, memory="600 kB").map(lambda batch: batch)
    whole = rows_of(dataset, shards)
    iterator = iter(dataset)
    taken = rows_of(itertools.islice(iterator, stop), shards)
    resumed = iter(dataset)
    next(resumed)  # it stood elsewhere
    resumed.set_state(json.loads(json.dumps(iterator.get_state())))
    assert taken + rows_of(resumed, shards) == whole


def test_a_state_of_another_seed_is_refused(shards: Shards) -> None:  # noqa: F811
    state = iter(BatchDataset(shards.first, FIELDS, 64)).get_state()
    with pytest.raises(ValueError, match="its seed is '0', here it is '1'"):
        iter(BatchDataset(shards.first, FIELDS, 64, seed=1)).set_state(state)


def test_slices_share_the_batches(shards: Shards) -> None:  # noqa: F811
    shares = []
    for number in range(3):
        dataset = BatchDataset(shards.both, FIELDS, 64, seed=2)
        dataset.set_slice(slice(number, None, 3))
        shares.append(rows_of(dataset, shards))
    assert [b for step in itertools.zip_longest(*shares) for b in step if b is not None] == expected(shards, 0, seed=2)


def test_damage_reaches_the_loop_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", data=np.arange(400).reshape(100, 4), chunks=(10, 4), compression="gzip")
        data.id.write_direct_chunk((20, 0), b"no deflate")
    for make in (lambda: iter(BatchDataset(path, "d", 10, shuffle=False)),
                 lambda: iter(grain.MapDataset.source(BatchSource(path, "d", 10)).to_iter_dataset())):
        batches = make()
        assert len(next(batches)) == len(next(batches)) == 10
        with pytest.raises(CorruptChunkError, match="damaged.h5"):
            next(batches)


def test_mistakes_are_named(shards: Shards) -> None:  # noqa: F811
    for kind in (BatchSource, BatchDataset):
        with pytest.raises(KeyError, match="no_such"):
            kind(shards.first, "no_such")
        with pytest.raises(ValueError, match="epochs must be at least 1"):
            kind(shards.first, "label", epochs=0)
    with pytest.raises(TypeError, match="not ndarray"):
        make_array(np.zeros(3), None)


def test_grain_is_missed_by_name() -> None:
    code = "import sys; sys.modules['grain'] = None\ntry:\n    import h5fast.grain\nexcept ImportError as error:\n    print(error)"
    assert "pip install 'h5fast[grain]'" in files.run_python(code).stdout


# Arrays.

ON_FOUR_DEVICES = """
import sys
import h5py, jax, numpy as np, h5fast
from h5fast.grain import make_array
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P, SingleDeviceSharding

assert jax.device_count() == 4, jax.devices()
with h5py.File(sys.argv[1], "w") as file:
    data = np.arange(64 * 12 * 5, dtype=">i4").reshape(64, 12, 5)
    file.create_dataset("d", data=data, chunks=(8, 4, 5), compression="gzip")
mesh, grid = Mesh(np.array(jax.devices()), "x"), Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
file = h5fast.File(sys.argv[1])

class Counting(h5fast.HDF5Matrix):
    reads = []
    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.reads.append(found.shape)
        return found

for sharding, reads in [
    (NamedSharding(mesh, P("x")), [(16, 12, 5)] * 4),
    (NamedSharding(mesh, P(None, "x")), [(64, 3, 5)] * 4),
    (NamedSharding(grid, P("x", "y")), [(32, 6, 5)] * 4),
    (NamedSharding(grid, P("y")), [(32, 12, 5)] * 2),       # two devices hold the same: it is read once
    (NamedSharding(mesh, P()), [(64, 12, 5)]),
    (SingleDeviceSharding(jax.devices()[2]), [(64, 12, 5)]),
]:
    Counting.reads.clear()
    array = make_array(Counting(sys.argv[1], "d"), sharding)
    assert Counting.reads == reads, (sharding, Counting.reads)
    assert array.sharding == sharding and array.dtype == "int32"
    np.testing.assert_array_equal(np.asarray(array), data)
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), data[shard.index])
half = make_array(h5fast.HDF5Matrix(sys.argv[1], "d", 16, 48, h5fast.Normalize(scale=0.5)), NamedSharding(mesh, P("x")))
np.testing.assert_array_equal(np.asarray(half), data[16:48].astype("f4") / 2)
for dataset in (file["d"], h5py.File(sys.argv[1])["d"]):
    wide = make_array(dataset, NamedSharding(mesh, P("x")), dtype="f8")
    assert wide.dtype == "float32" and float(wide.sum()) == data.sum()
print("right")
"""


def test_arrays_read_their_part_alone(tmp_path: Path) -> None:
    done = files.run_python(ON_FOUR_DEVICES, tmp_path / "a.h5", environment={
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"})
    assert done.stdout.strip() == "right"


def test_what_lies_elsewhere_is_not_touched(tmp_path: Path) -> None:
    """All chunks of the other rows are damaged: reading one of them would raise."""
    path = tmp_path / "part.h5"
    data = np.arange(8000, dtype="i4").reshape(400, 20)
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("d", data=data, chunks=(100, 20), compression="gzip")
        for row in (0, 200, 300):
            stored.id.write_direct_chunk((row, 0), b"no deflate")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    array = make_array(h5fast.HDF5Matrix(path, "d", 100, 200), sharding)
    np.testing.assert_array_equal(np.asarray(array), data[100:200])
    with pytest.raises(CorruptChunkError, match="part.h5"):
        make_array(h5fast.HDF5Matrix(path, "d", 100, 201), sharding)


@pytest.mark.parametrize(("dtype", "value"), [("i8", 2**40), ("u8", 2**63), ("i8", -(2**31) - 1), ("u4", 2**32 - 1), ("i8", 2**31 - 1)])
def test_whole_numbers_stay_what_they_are(tmp_path: Path, dtype: str, value: int) -> None:
    """JAX has int32 for int64: row numbers and times beyond it became others, without a word."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", data=np.array([0, value], dtype))
        bounds = np.iinfo(jax.dtypes.canonicalize_dtype(np.dtype(dtype)))
        if bounds.min <= value <= bounds.max:
            assert np.asarray(make_array(data, sharding)).tolist() == [0, value]
        else:
            with pytest.raises(ValueError, match=r'HDF5 dataset "d".*jax_enable_x64'):
                make_array(data, sharding)


def test_one_number_is_an_array_without_axes(tmp_path: Path) -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with h5fast.File(tmp_path / "a.h5", "w") as file:
        file["d"] = 3.5
        array = make_array(file["d"], sharding)
    assert array.shape == () and float(array) == 3.5


def doubled(batch: Any) -> Any:
    return batch


def test_a_source_is_described_alike_in_every_process(shards: Shards) -> None:  # noqa: F811
    """grain.DataLoader compares descriptions when it resumes; the address of a function is another one each time."""
    for kind in (BatchSource, BatchDataset):
        text = repr(kind(shards.first, "label", 8, transform=doubled, seed=3))
        assert "0x" not in text and "transform=doubled" in text and "seed=3" in text and ", 8, " in text
