"""``HDF5Sequence`` under fit, evaluate and predict, with the backend that ``KERAS_BACKEND`` names. test_keras.py runs it."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras_models import BATCH, EXPECTED, ROWS, STEPS, Counting, Noting, images, labels, model, path  # noqa: F401

import h5fast
from h5fast import Field, HDF5Matrix
from h5fast.keras import HDF5DataGenerator, HDF5Sequence, fit_data
from h5fast.keras.dealing import Dealing

pytestmark = EXPECTED
ALL = list(range(ROWS))


def sequence(path: Path, **options: Any) -> HDF5Sequence:  # noqa: F811
    return HDF5Sequence(**{"x": "image", "y": "label", "batch_size": BATCH, "source": path, **options})


@pytest.mark.parametrize("shuffle", [True, "block", "batch", False])
def test_fit_gives_each_row_once_an_epoch(path: Path, shuffle: Any) -> None:  # noqa: F811
    noting = Noting()
    made = sequence(path, shuffle=shuffle, sample_weight="weight")
    epochs = noting.fit(made, epochs=3)
    assert [sorted(rows) for rows in epochs] == [ALL] * 3
    assert (epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()) == bool(shuffle)
    noting.check_pairs()
    assert not [thread for thread in threading.enumerate() if thread.name == "h5fast loader"]


@pytest.mark.parametrize("shuffle", [True, "batch", False])
def test_batches_come_in_the_loaders_order_and_are_read_once(path: Path, shuffle: Any) -> None:  # noqa: F811
    """Keras asks for them in an order of its own; following that would read nothing ahead and decode chunks many times."""
    counting = Counting()
    made = HDF5Sequence(HDF5Matrix(path, "image", normalizer=counting), HDF5Matrix(path, "label"), batch_size=BATCH, seed=5,
                        shuffle=shuffle)
    noting = Noting()
    for first in (0, 3):  # once to build the model, once with the model that is there
        counting.rows = 0
        epochs = noting.fit(made, epochs=3)
        assert made.epoch == first + 3
        for number, rows in enumerate(epochs, first):
            np.testing.assert_array_equal(rows, np.concatenate(list(made.loader.epoch_rows(number))))
        assert counting.rows == 3 * ROWS
    assert counting.most <= BATCH


def test_predictions_are_in_order_after_a_pass_that_was_not_ended(path: Path) -> None:  # noqa: F811
    """Indices that were dealt to fit in an order of its own must not be those that predict asks for."""
    made, x = sequence(path, shuffle=False), images(np.arange(ROWS))
    for end in (lambda: Noting(ends_after=8).fit(made), lambda: Noting(ends_after=1).fit(made),
                lambda: Noting().fit(made, steps_per_epoch=3), lambda: Noting().fit(made, steps_per_epoch=1),
                lambda: made[5], lambda: made.num_batches):
        try:
            end()
        except KeyboardInterrupt:
            assert made.epoch >= 0
        trained = model()
        for _ in range(2):  # of a model that is built by it, and that was built
            expected = trained.predict(x, batch_size=BATCH, verbose=0)
            np.testing.assert_allclose(trained.predict(made, verbose=0), expected, rtol=1e-4, atol=1e-6)
    fresh = sequence(path, shuffle=False)
    np.testing.assert_allclose(model().predict(fresh, steps=4, verbose=0), model().predict(x[: 4 * BATCH], verbose=0), rtol=1e-4)
    np.testing.assert_array_equal(fresh[7][0], x[7 * BATCH : 8 * BATCH])


def test_fits_of_one_step_each_go_on(path: Path) -> None:  # noqa: F811
    """The batch that a model is built with is given again; one that an epoch took is not."""
    made, noting = sequence(path), Noting()
    batches = [noting.fit(made, steps_per_epoch=steps)[0].tolist() for steps in (1, 1, 2, 2)]
    assert len({str(batch) for batch in batches}) == 4
    made = sequence(path, shuffle=False)
    epochs = Noting().fit(made, steps_per_epoch=1, epochs=STEPS)
    assert np.concatenate(epochs).tolist() == ALL


@pytest.mark.parametrize("rows", [1, 32, 33, 64, 65])
def test_a_few_batches_are_a_pass(path: Path, rows: int) -> None:  # noqa: F811
    made = HDF5Sequence(HDF5Matrix(path, "image", 0, rows), HDF5Matrix(path, "label", 0, rows), seed=1)
    epochs = Noting().fit(made, epochs=4)
    assert [sorted(epoch) for epoch in epochs] == [ALL[:rows]] * 4
    assert rows < 3 or len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("steps", [7, 3, 2])
def test_steps_per_epoch_goes_on_with_the_pass(path: Path, steps: int) -> None:  # noqa: F811
    made = sequence(path, batch_size=48 if steps == 2 else BATCH, drop_last=steps == 2)
    passes = len(made) // steps
    for noting in (Noting(), Noting()):  # the second one builds its model in the middle of nothing
        epochs = noting.fit(made, epochs=2 * passes, steps_per_epoch=steps)
        for number in range(2):
            rows = np.concatenate(epochs[number * passes : (number + 1) * passes])
            assert len(rows) == len(set(rows)) == min(ROWS, len(made) * made.batch_size)
    assert epochs[0].tolist() != epochs[passes].tolist()


def test_workers_and_processes_of_keras_are_not_used(path: Path) -> None:  # noqa: F811
    """Keras 3.15 trained on some batches twice and on others not with its own pool of two workers."""
    for shuffle in (True, False):
        noting = Noting()
        epochs = noting.fit(sequence(path, shuffle=shuffle, workers=3, use_multiprocessing=True, max_queue_size=4), epochs=2)
        assert [sorted(rows) for rows in epochs] == [ALL] * 2
        noting.check_pairs()
    assert not multiprocessing.active_children()


def test_an_interrupted_fit_leaves_a_sequence_that_works(path: Path) -> None:  # noqa: F811
    made = sequence(path)
    with pytest.raises(KeyboardInterrupt):
        Noting(ends_after=8).fit(made)
    assert [sorted(rows) for rows in Noting().fit(made, epochs=2)] == [ALL] * 2


def test_class_weight_is_that_of_arrays(path: Path) -> None:  # noqa: F811
    weight = {0: 0.1, 1: 3.0, 2: 1.0}
    one, other = model(), model()
    one.fit(sequence(path, shuffle=False), epochs=2, class_weight=weight, shuffle=False, verbose=0)
    other.fit(images(np.arange(ROWS)), labels(np.arange(ROWS)), batch_size=BATCH, epochs=2, class_weight=weight, shuffle=False,
              verbose=0)
    for mine, same in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, same, rtol=1e-4)
    with pytest.raises(ValueError, match="class_weight"):
        one.fit(sequence(path, sample_weight="weight"), class_weight=weight, verbose=0)


def test_evaluate_and_predict_are_those_of_arrays(path: Path) -> None:  # noqa: F811
    made, x, y = model(), images(np.arange(ROWS)), labels(np.arange(ROWS))
    weighed = sequence(path, shuffle=False, sample_weight="weight")
    for _ in range(2):
        expected = made.evaluate(x, y, batch_size=BATCH, sample_weight=(np.arange(ROWS) % 11).astype("f4"), verbose=0)
        np.testing.assert_allclose(made.evaluate(weighed, verbose=0), expected, rtol=1e-4)
        np.testing.assert_allclose(made.predict(HDF5Sequence("image", source=path, batch_size=BATCH, shuffle=False), verbose=0),
                                   made.predict(x, batch_size=BATCH, verbose=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(made.evaluate(weighed, steps=3, verbose=0),
                                   made.evaluate(x[: 3 * BATCH], y[: 3 * BATCH], batch_size=BATCH, verbose=0,
                                                 sample_weight=(np.arange(3 * BATCH) % 11).astype("f4")), rtol=1e-4)


def test_validation_beside_training(path: Path) -> None:  # noqa: F811
    noting = Noting()
    train, validation = fit_data("image", "label", source=path, validation_split=0.2, batch_size=BATCH)
    assert (train.samples, validation.samples) == (802, 201)
    epochs = noting.fit(train, validation_data=validation, epochs=3)
    assert [sorted(rows) for rows in epochs] == [ALL[:802]] * 3
    assert np.concatenate([batch[0][:, 0] for batch in validation]).tolist() == ALL[802:]
    first, last = fit_data(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), validation_rows="first", batch_size=BATCH)
    assert np.concatenate([batch[0][:, 0] for batch in last]).tolist() == ALL[:200]
    assert sorted(np.concatenate([batch[0][:, 0] for batch in first])) == ALL[200:]


def test_several_inputs_and_outputs(path: Path) -> None:  # noqa: F811
    matrix, label = HDF5Matrix(path, "image"), HDF5Matrix(path, "label")
    inputs = {"one": keras.Input((4,), name="one"), "two": keras.Input((4,), name="two")}
    both = keras.layers.Concatenate()(list(inputs.values()))
    made = keras.Model(inputs, [keras.layers.Dense(1, name="a")(both), keras.layers.Dense(1, name="b")(both)])
    made.compile("sgd", ["mse", "mse"])
    given = HDF5Sequence({"one": matrix, "two": matrix}, [label, np.arange(ROWS)], batch_size=BATCH, shuffle=False)
    x, y = given[3]
    np.testing.assert_array_equal(x["two"], images(np.arange(150, 200)))
    np.testing.assert_array_equal(y[1], np.arange(150, 200))
    assert np.isfinite(made.evaluate(given, verbose=0)).all()
    named = HDF5Sequence({"one": "image", "two": Field("image", dtype="f8", scale=2)}, "label", source=path, shuffle=False)
    np.testing.assert_array_equal(named[0][0]["two"], 2 * images(np.arange(32)))


def test_inputs_whose_names_look_alike_are_kept_apart() -> None:
    """Their places in the structure were joined by slashes, and one input got the data of the other."""
    one, two, three = np.arange(9), np.arange(9) + 100, np.arange(9) + 200
    x, y = HDF5Sequence({"a/b": one, "a": {"b": two}, "*": three}, {"": one, "b": two}, shuffle=False)[0]
    np.testing.assert_array_equal(x["a/b"], one)
    np.testing.assert_array_equal(x["a"]["b"], two)
    np.testing.assert_array_equal(x["*"], three)
    np.testing.assert_array_equal(y["b"], two)


def test_by_hand_an_index_is_a_batch_of_the_pass(path: Path) -> None:  # noqa: F811
    made, twin = sequence(path, seed=9), sequence(path, seed=9)
    for number in range(2):
        batches = list(made)
        for index in np.random.default_rng(0).permutation(STEPS).tolist():
            np.testing.assert_array_equal(twin[index][0], batches[index][0])
            np.testing.assert_array_equal(twin[index - STEPS][0], batches[index][0])
        np.testing.assert_array_equal(np.concatenate([x[:, 0] for x, _ in batches]),
                                      np.concatenate(list(made.loader.epoch_rows(number))))
        for one in (made, twin):
            one.on_epoch_end()
    assert np.concatenate([made[index][0][:, 0] for index in range(STEPS) if made.num_batches]).tolist() == \
        np.concatenate(list(made.loader.epoch_rows(made.epoch))).tolist()  # whatever one asks for meanwhile
    for index in range(STEPS):
        number = made.epoch
        made[index]
        assert index % 5 or made.num_batches == STEPS
        assert made.epoch == number
    made[0], made[1]
    assert [sorted(rows) for rows in Noting().fit(made)] == [ALL]
    for index in (STEPS, -STEPS - 1):
        with pytest.raises(IndexError, match=f"batch {index} of 21"):
            made[index]
    made.set_epoch(1)
    np.testing.assert_array_equal(made[4][0], batches[4][0])


def test_many_threads_by_hand(path: Path) -> None:  # noqa: F811
    made = sequence(path)
    with ThreadPoolExecutor(6) as pool:
        for number in range(3):
            batches = list(pool.map(made.__getitem__, range(STEPS)))
            for (x, _), rows in zip(batches, made.loader.epoch_rows(number), strict=True):
                np.testing.assert_array_equal(x[:, 0], rows)
            made.on_epoch_end()


def test_copies_in_other_processes(path: Path) -> None:  # noqa: F811
    made = sequence(path, seed=9)
    made.on_epoch_end()
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is type(made) and copy.epoch == 1
    np.testing.assert_array_equal(copy[7][0], made[7][0])
    matrices = HDF5Sequence(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), batch_size=BATCH, seed=9)
    matrices.on_epoch_end()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(matrices))[7][0], made[7][0])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for index, (x, _) in zip((3, 4, 20), pool.map(made.__getitem__, (3, 4, 20)), strict=True):
            np.testing.assert_array_equal(x, made[index][0])


def test_fewer_rows_than_a_batch(path: Path) -> None:  # noqa: F811
    few = HDF5Matrix(path, "image", 10, 15)
    made = HDF5Sequence(few, few, shuffle=False)
    assert len(made) == 1 and made.batch_size == 5
    assert model().predict(HDF5Sequence(few, shuffle=False), verbose=0).shape == (5, 3)
    with pytest.raises(ValueError, match="5 rows"):
        HDF5Sequence(few, drop_last=True)
    with pytest.raises(ValueError, match="batches of 5 rows"):
        HDF5Sequence(few, few, batch_size=5, memory=10)


def test_data_generator(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["labels"], file["other"] = images(np.arange(90)), labels(np.arange(90)), np.arange(90)
    noting = Noting()
    generator = HDF5DataGenerator(tmp_path / "a.h5", 32)
    assert len(generator) == 3 and isinstance(generator, keras.utils.Sequence)
    assert [sorted(rows) for rows in noting.fit(generator, epochs=2)] == [list(range(90))] * 2
    noting.check_pairs()
    plain = HDF5DataGenerator(str(tmp_path / "a.h5"), 32, False, labels="other")
    assert plain[2][1].tolist() == list(range(64, 90))
    assert pickle.loads(pickle.dumps(plain))[2][1].tolist() == list(range(64, 90))


def test_a_transform_sees_what_the_model_would(path: Path) -> None:  # noqa: F811
    made = sequence(path, shuffle=False, transform=lambda batch: (batch[0] * 2, batch[1]))
    np.testing.assert_array_equal(made[1][0], 2 * images(np.arange(50, 100)))
    assert made.loader.stats()["rows"] > 0
    made.close()
    with pytest.raises(ValueError, match="closed"):
        made[0]


def test_a_damaged_chunk_is_the_business_of_its_batches(tmp_path: Path) -> None:
    """The loader's iteration ends with the error: the batches behind it raised StopIteration, which ends the wrong thing."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("x", data=images(np.arange(400)), chunks=(100, 4), compression="gzip")
        where = made.id.get_chunk_info(1).byte_offset
    with open(tmp_path / "a.h5", "r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 16)
    made = HDF5Sequence("x", source=tmp_path / "a.h5", batch_size=50, shuffle=False)
    for _ in range(2):
        for index in range(8):
            if index in (2, 3):
                with pytest.raises(h5fast.CorruptChunkError, match=r"a\.h5"):
                    made[index]
            else:
                np.testing.assert_array_equal(made[index][0], images(np.arange(index * 50, index * 50 + 50)))
        made.on_epoch_end()


def test_fit_after_a_pass_by_hand_is_read_ahead(path: Path) -> None:  # noqa: F811
    made = sequence(path)
    assert len(list(made)) == STEPS
    assert [sorted(rows) for rows in Noting().fit(made, epochs=2)] == [ALL] * 2
    assert made.epoch == 3
    assert made.loader.stats()["rows"] == ROWS  # by the loader's iteration, not batch by batch


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"x": "image"}, TypeError, "x='image' names a dataset .* source='train.h5'"),
    ({"x": ("train.h5", "image")}, TypeError, "x/0='train.h5' names"),
    ({"x": np.zeros((9, 2)), "y": np.zeros(8)}, ValueError, "different numbers of rows"),
    ({"x": np.zeros((9, 2)), "sample_weight": np.zeros(9)}, ValueError, "there is no y"),
    ({"x": np.zeros((9, 2)), "batch": 3}, TypeError, "HDF5Sequence has no batch"),
    ({"x": np.zeros((9, 2)), "on_error": "skip"}, TypeError, "HDF5Sequence has no on_error"),
    ({"x": np.zeros((9, 2)), "transform": 3}, TypeError, "transform must be callable"),
    ({"x": np.zeros((9, 2)), "shuffle": "wild"}, ValueError, "'exact'"),
    ({"x": 5}, TypeError, "x must be an HDF5Matrix"),
    ({"x": {"a": np.zeros(9), "b": object()}}, TypeError, "x/b must be an HDF5Matrix"),
    ({"x": np.zeros(3), "source": "a.h5"}, TypeError, "x: with source="),
    ({"x": None, "y": np.zeros(9)}, TypeError, "x must be an HDF5Matrix, .* not None"),  # y was fed for x
    ({"x": [], "y": np.zeros(9)}, ValueError, "x is .*nothing in it"),
    ({"x": np.zeros(9), "y": {"a": [()]}}, ValueError, "y is .*nothing in it"),
], ids=str)
def test_what_cannot_be_is_said_at_once(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        HDF5Sequence(**options)


def test_a_group_is_no_dataset(path: Path) -> None:  # noqa: F811
    with h5py.File(path) as file, pytest.raises(TypeError, match=r"x is the group '/', .*'image', 'label'"):
        HDF5Sequence(file)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(HDF5Sequence(file["label"], shuffle=False)[0][0], labels(np.arange(32)))


def test_the_module_is_an_attribute_of_the_package() -> None:
    assert h5fast.keras.HDF5Sequence is HDF5Sequence


@pytest.mark.parametrize("seed", range(60))
def test_dealing_gives_each_step_once_whatever_the_order(seed: int) -> None:
    """As Keras asks: perhaps a look at some batches, then epochs that take a part of a shuffled pass each."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 40))
    dealing = Dealing(count)
    is_by_hand = rng.random() < 0.3
    if is_by_hand:
        assert [dealing.step(index)[:2] for index in (2, 3, 2)] == [(0, 2), (0, 3), (0, 2)]
    dealing.anew()
    if rng.random() < 0.5:  # before any epoch, as tensorflow does
        assert [dealing.step(index)[1] for index in (0, 1)] == [0, 1]
        dealing.anew()
        dealing.end()
    if rng.random() < 0.5:  # in an epoch of its own, as the others do
        dealing.begin()
        dealing.anew()
        assert dealing.step(int(rng.integers(count)))[1] == 0
        dealing.anew()
        dealing.end()
    parts = int(rng.choice([part for part in range(1, count // 2 + 1) if count % part == 0]))
    numbers = []
    for _ in range(3):
        steps = []
        order = rng.permutation(count).tolist()
        for part in range(parts):
            dealing.begin()
            if part == 0:
                dealing.anew()
            steps += [dealing.step(index)[:2] for index in order[part * count // parts : (part + 1) * count // parts]]
            if part == parts - 1 and rng.random() < 0.5:  # for the next pass, or when that begins
                dealing.anew()
            dealing.end()
        assert [step for _, step in steps] == list(range(count)) and len({number for number, _ in steps}) == 1
        numbers.append(steps[0][0])
    assert numbers == ([1, 2, 3] if is_by_hand else [0, 1, 2])


def test_everything_public_has_a_docstring() -> None:
    assert set(h5fast.keras.__all__) <= set(vars(h5fast.keras))
    for name in h5fast.keras.__all__:
        thing = getattr(h5fast.keras, name)
        assert inspect.getdoc(thing), name
        members = [member for member in vars(thing) if not member.startswith("_")] if inspect.isclass(thing) else []
        assert [member for member in members if not inspect.getdoc(getattr(thing, member))] == [], name
