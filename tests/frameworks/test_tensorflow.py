"""``h5fast.tensorflow.dataset``: the loader's batches through tf.data, with exact signature and cardinality."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

tf = pytest.importorskip("tensorflow")

from h5fast import Field, Loader  # noqa: E402
from h5fast.tensorflow import dataset  # noqa: E402

FIELDS = ("image", "label")


def rows_of(batches: Any, shards: Shards) -> list[list[int]]:  # noqa: F811
    found = []
    for images, labels in batches:
        np.testing.assert_array_equal(images.numpy(), shards.image[labels.numpy()])
        found.append(labels.numpy().tolist())
    return found


def expected(shards: Shards, epoch: int, **options: Any) -> list[list[int]]:  # noqa: F811
    return [rows.tolist() for rows in Loader(shards.both, FIELDS, 64, **options).epoch_rows(epoch)]


@pytest.mark.parametrize("options", [{}, {"shuffle": "block", "memory": "500 kB"}, {"shuffle": False}, {"drop_last": True},
                                     {"shard": (1, 2)}, {"threads": 1, "prefetch": 4}], ids=str)
def test_the_loaders_batches_epoch_by_epoch(shards: Shards, options: dict[str, Any]) -> None:  # noqa: F811
    batches = dataset(shards.both, FIELDS, 64, seed=3, **options)
    assert int(batches.cardinality()) == len(batches) == len(expected(shards, 0, **options))
    for epoch in range(3):
        assert rows_of(batches, shards) == expected(shards, epoch, seed=3, **options)


def test_the_signature_is_exact(shards: Shards) -> None:  # noqa: F811
    fields = {"x": Field("image", dtype="f4", scale=1 / 255, channels_first=True), "y": "label", "text": "text"}
    spec = dataset(shards.first, fields, 64).element_spec
    assert spec == {"x": tf.TensorSpec((None, 3, 6, 5), tf.float32), "y": tf.TensorSpec((None,), tf.int64),
                    "text": tf.TensorSpec((None,), tf.string)}
    assert dataset(shards.first, "weight", 64, drop_last=True).element_spec == tf.TensorSpec((64,), tf.float64)
    assert dataset(shards.first, "weight", 64, rows=slice(0, 640)).element_spec == tf.TensorSpec((64,), tf.float64)
    for batch in dataset(shards.first, fields, 64):
        rows = batch["y"].numpy()
        np.testing.assert_array_equal(batch["x"], (shards.image[rows].astype("f4") * np.float32(1 / 255)).transpose(0, 3, 1, 2))
        assert batch["text"].numpy().tolist() == [f"row {row}".encode() for row in rows]


def test_text_types_and_byte_orders(tmp_path: Path) -> None:
    path = tmp_path / "types.h5"
    with h5py.File(path, "w") as file:
        file["big"] = np.arange(10, dtype=">f4")
        file["bool"] = np.arange(10) % 2 == 0
        file["half"] = np.arange(10, dtype="f2")
        file["u16"] = np.arange(10, dtype="u2")
        file["fixed"] = np.array([b"ab", b"c"] * 5)
        file["text"] = ["ä"] * 10
    fields = ("big", "bool", "half", "u16", "fixed", Field("text", dtype=str))
    big, boolean, half, number, fixed, text = next(iter(dataset(path, fields, 10, shuffle=False)))
    assert big.dtype == tf.float32 and big.numpy().tolist() == half.numpy().tolist() == number.numpy().tolist() == list(range(10))
    assert boolean.numpy().tolist() == [True, False] * 5 and fixed.numpy().tolist() == [b"ab", b"c"] * 5
    assert text.numpy().tolist() == ["ä".encode()] * 10


def test_it_composes(shards: Shards) -> None:  # noqa: F811
    batches = dataset(shards.both, FIELDS, 64, seed=1)
    mapped = batches.map(lambda x, y: (tf.cast(x, tf.float32) / 255.0, y), num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    for epoch in range(2):
        labels = [y.numpy().tolist() for x, y in mapped]
        assert labels == expected(shards, epoch, seed=1)
    unbatched = dataset(shards.first, FIELDS, 64).unbatch().batch(100, drop_remainder=True)
    assert sum(len(y) for _, y in unbatched) == ROWS // 100 * 100
    assert rows_of(dataset(shards.both, FIELDS, 64, seed=1).take(3), shards) == expected(shards, 0, seed=1)[:3]
    assert rows_of(dataset(shards.both, FIELDS, 64, seed=1).skip(28), shards) == expected(shards, 0, seed=1)[28:]


def test_each_round_of_repeat_is_another_epoch(shards: Shards) -> None:  # noqa: F811
    found = rows_of(dataset(shards.both, FIELDS, 64, seed=1).repeat(3), shards)
    assert found == [rows for epoch in range(3) for rows in expected(shards, epoch, seed=1)]


def test_a_cache_keeps_the_first_epoch(shards: Shards) -> None:  # noqa: F811
    cached = dataset(shards.both, FIELDS, 64, seed=1).cache()
    assert rows_of(cached, shards) == rows_of(cached, shards) == expected(shards, 0, seed=1)


def test_iterations_at_once_do_not_disturb_each_other(shards: Shards) -> None:  # noqa: F811
    batches = dataset(shards.both, FIELDS, 64, seed=1)
    found = [(one.numpy().tolist(), two.numpy().tolist()) for (_, one), (_, two) in zip(batches, batches)]
    assert sorted([[one for one, _ in found], [two for _, two in found]]) == sorted([expected(shards, 0, seed=1), expected(shards, 1, seed=1)])


def test_what_is_given_up_is_let_go(shards: Shards) -> None:  # noqa: F811
    """Its thread waited for ever, with the batches that it had made."""
    batches = dataset(shards.both, FIELDS, 64)
    before = sum(thread.name == "h5fast loader" for thread in threading.enumerate())
    for _ in range(5):
        for _ in batches.take(2):
            pass
    list(batches.take(1))
    gc.collect()
    assert sum(thread.name == "h5fast loader" for thread in threading.enumerate()) <= before + 2


def test_keras_trains_on_it(shards: Shards) -> None:  # noqa: F811
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip(f"Keras runs on {keras.backend.backend()} here")
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    fields = (Field("image", dtype="f4", scale=1 / 255), Field("weight", dtype="f4"))
    history = model.fit(dataset(shards.first, fields, 64), epochs=3, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 3 and np.isfinite(history.history["loss"]).all()


def test_in_a_graph(shards: Shards) -> None:  # noqa: F811
    batches = dataset(shards.first, "label", 64)

    @tf.function
    def total() -> Any:
        found = tf.constant(0, tf.int64)
        for labels in batches:
            found += tf.reduce_sum(labels)
        return found

    assert int(total()) == int(total()) == sum(range(ROWS))


def test_a_transform_may_change_everything(shards: Shards) -> None:  # noqa: F811
    def change(batch: Any) -> Any:
        return {"mean": batch[0].mean(axis=(1, 2, 3)), "y": {"label": batch[1], "even": batch[1] % 2 == 0}}

    batches = dataset(shards.first, FIELDS, 64, transform=change)
    assert batches.element_spec["y"]["even"] == tf.TensorSpec((None,), tf.bool)
    for batch in batches:
        rows = batch["y"]["label"].numpy()
        np.testing.assert_allclose(batch["mean"], shards.image[rows].mean(axis=(1, 2, 3)))


def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", data=np.arange(400).reshape(100, 4), chunks=(10, 4), compression="gzip")
        data.id.write_direct_chunk((20, 0), b"no deflate")
    return path


def test_damage_reaches_the_loop_with_its_words(tmp_path: Path) -> None:
    batches = iter(dataset(damaged(tmp_path), "d", 10, shuffle=False))
    assert len(next(batches)) == len(next(batches)) == 10
    with pytest.raises(tf.errors.InvalidArgumentError, match="CorruptChunkError.*damaged.h5"):
        next(batches)


@pytest.mark.parametrize("shuffle", [False, "exact"])
def test_damaged_rows_may_be_left_out(tmp_path: Path, shuffle: Any) -> None:
    batches = dataset(damaged(tmp_path), "d", 10, shuffle=shuffle, on_error="skip")
    assert int(batches.cardinality()) == tf.data.UNKNOWN_CARDINALITY
    for _ in range(2):
        assert sorted(int(row[0]) for batch in batches for row in batch) == [4 * row for row in range(100) if not 20 <= row < 30]


def test_a_loader_of_ones_own_is_resumed(shards: Shards) -> None:  # noqa: F811
    first = Loader(shards.both, FIELDS, 64, seed=6)
    taken = [labels.tolist() for _, (_, labels) in zip(range(11), first)]
    resumed = Loader(shards.both, FIELDS, 64, seed=6)
    resumed.load_state_dict(first.state_dict())
    batches = dataset(resumed)
    assert taken + rows_of(batches, shards) == expected(shards, 0, seed=6)
    assert rows_of(batches, shards) == expected(shards, 1, seed=6)


def test_a_program_ends_in_silence(shards: Shards) -> None:  # noqa: F811
    """TensorFlow keeps functions to the very end, and with them the open files: closing them then failed, loudly."""
    code = "import sys; from h5fast.tensorflow import dataset\nfor _ in dataset(sys.argv[1], 'label', 64): pass"
    assert "Exception ignored" not in files.run_python(code, shards.first).stderr


def test_what_no_tensor_can_be_made_of_is_named(tmp_path: Path, shards: Shards) -> None:  # noqa: F811
    path = tmp_path / "ragged.h5"
    with h5py.File(path, "w") as file:
        ragged = file.create_dataset("r", (4,), h5py.vlen_dtype("i4"))
        for row in range(4):
            ragged[row] = np.arange(row + 1)
        file["s"] = np.zeros(4, [("a", "i4"), ("b", "f4")])
    for name in ("r", "s"):
        with pytest.raises(TypeError, match="cannot be a tensor"):
            dataset(path, name, 2)
    with pytest.raises(TypeError, match="leave them out"):
        dataset(Loader(shards.first, "label"), "label")
    with pytest.raises(KeyError, match="no_such"):
        dataset(shards.first, "no_such")


def test_tensorflow_is_missed_by_name() -> None:
    code = "import sys; sys.modules['tensorflow'] = None\ntry:\n    import h5fast.tensorflow\nexcept ImportError as error:\n    print(error)"
    assert "pip install 'h5fast[tensorflow]'" in files.run_python(code).stdout


