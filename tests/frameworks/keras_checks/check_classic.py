"""``model.fit(HDF5Matrix, HDF5Matrix)`` with the backend that ``KERAS_BACKEND`` names; test_keras.py runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters import array_slicing
from keras_models import BATCH, EXPECTED, ROWS, Counting, Noting, images, labels, model, path  # noqa: F401

import h5fast.keras
from h5fast import HDF5Matrix

pytestmark = EXPECTED
X, Y = images(np.arange(ROWS)), labels(np.arange(ROWS))
TRAINED = list(range(802))  # of validation_split=0.2


@pytest.fixture
def installed() -> Iterator[None]:
    h5fast.keras.install()
    yield
    h5fast.keras.uninstall()


def matrices(path: Path) -> tuple[HDF5Matrix, HDF5Matrix, Counting]:  # noqa: F811
    """Images and labels, and what counts the images that are read."""
    counting = Counting()
    found = HDF5Matrix(path, "image", normalizer=counting), HDF5Matrix(path, "label"), counting
    assert found[0].shape == (ROWS, 4)  # reads a row
    counting.rows = counting.most = 0
    return found


@pytest.mark.parametrize("call", [
    lambda x, y: model().fit(x, y, verbose=0),
    lambda x, y: model().fit(x, y, validation_split=0.2, verbose=0),
    lambda x, y: model().fit(X, Y, validation_data=(x, y), verbose=0),
    lambda x, y: model().fit({"x": x.part(0, 3)}, y.part(0, 3), verbose=0),
    lambda x, y: model().evaluate(x, y, verbose=0),
    lambda x, y: model().predict(x, verbose=0),
])
def test_without_it_keras_reads_nothing_and_the_message_names_both_ways(
    path: Path, call: Callable[[HDF5Matrix, HDF5Matrix], Any]  # noqa: F811
) -> None:
    """Keras makes arrays of its input, whose whole file it would read 2 * epochs + 1 times."""
    x, y, counting = matrices(path)
    with pytest.raises(ValueError, match=r"h5fast\.keras\.install\(\)[\s\S]*h5fast\.keras\.HDF5Sequence\(x, y, batch_size="):
        call(x, y)
    assert counting.rows == 0
    assert np.asarray(x).shape == (ROWS, 4)  # anyone else may have it


@pytest.mark.parametrize("shuffle", [True, "batch", "block", False])
def test_fit_reads_each_row_once_an_epoch(installed: None, path: Path, shuffle: Any) -> None:  # noqa: F811
    x, y, counting = matrices(path)
    noting = Noting()
    epochs = noting.fit(x, y, batch_size=BATCH, epochs=3, validation_split=0.2, shuffle=shuffle)
    assert [sorted(rows) for rows in epochs] == [TRAINED] * 3
    assert (epochs[0].tolist() == TRAINED) == (shuffle is False)
    noting.check_pairs()
    assert counting.most == BATCH
    assert counting.rows == 3 * ROWS


def test_batch_is_runs_of_rows_in_random_order(installed: None, path: Path) -> None:  # noqa: F811
    """As it was in Keras 2; Keras 3 itself would shuffle inside of batches and leave these in order."""
    (rows,) = Noting().fit(*matrices(path)[:2], batch_size=BATCH, shuffle="batch")
    firsts = [batch[0] for batch in np.split(rows, range(BATCH, ROWS, BATCH))]
    assert all(np.diff(batch).tolist() == [1] * (len(batch) - 1) for batch in np.split(rows, range(BATCH, ROWS, BATCH)))
    assert sorted(firsts) == list(range(0, ROWS, BATCH)) != firsts


@pytest.mark.parametrize("options", [
    {}, {"validation_split": 0.3}, {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}},
    {"sample_weight": np.arange(ROWS, dtype="f4") % 4},
    {"validation_data": (X[:90], Y[:90])}, {"steps_per_epoch": 4, "batch_size": None}, {"batch_size": None},
    {"sample_weight": np.arange(ROWS, dtype="f4") % 4, "validation_split": 0.3},
], ids=str)
def test_unshuffled_it_trains_as_on_arrays(installed: None, path: Path, options: dict[str, Any]) -> None:  # noqa: F811
    options = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0, **options}
    mine, same = model(), model()
    history = mine.fit(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), **options).history
    expected = same.fit(X, Y, **options).history
    assert history.keys() == expected.keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-5)
    for one, other in zip(mine.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_evaluate_and_predict(installed: None, path: Path) -> None:  # noqa: F811
    x, y, counting = matrices(path)
    made = model()
    np.testing.assert_allclose(made.evaluate(x, y, verbose=0), made.evaluate(X, Y, verbose=0), rtol=1e-4)
    np.testing.assert_allclose(made.predict(x, batch_size=BATCH, verbose=0), made.predict(X, verbose=0), rtol=1e-4, atol=1e-6)
    assert counting.most == BATCH


def test_weights_and_validation_data_from_files_and_datasets(installed: None, path: Path) -> None:  # noqa: F811
    with h5py.File(path) as file:
        noting = Noting()
        validation = HDF5Matrix(path, "image", 900), HDF5Matrix(path, "label", 900), HDF5Matrix(path, "weight", 900)
        epochs = noting.fit(file["image"], file["label"], sample_weight=HDF5Matrix(path, "weight"), epochs=2, batch_size=BATCH,
                            validation_data=validation)
        assert [sorted(rows) for rows in epochs] == [list(range(ROWS))] * 2
        noting.check_pairs()
        made = Noting()
        assert [sorted(rows) for rows in made.fit(file["image"], file["label"], validation_split=0.2)] == [TRAINED]


def test_the_seed_of_keras_is_the_seed_of_the_order(installed: None, path: Path) -> None:  # noqa: F811
    orders = []
    for seed in (1, 1, 2):
        noting = Noting()
        keras.utils.set_random_seed(seed)
        orders.append(noting.fit(*matrices(path)[:2], batch_size=BATCH)[0].tolist())
    assert orders[0] == orders[1] != orders[2]


def test_it_can_be_undone_and_done_twice() -> None:
    before = data_adapters.get_data_adapter, array_slicing.train_validation_split
    for _ in range(2):
        h5fast.keras.install()
    during = data_adapters.get_data_adapter, array_slicing.train_validation_split
    assert all(one is not other for one, other in zip(before, during))
    for _ in range(2):
        h5fast.keras.uninstall()
    assert (data_adapters.get_data_adapter, array_slicing.train_validation_split) == before


def test_what_is_in_no_file_goes_to_keras_as_ever(installed: None) -> None:
    history = model().fit(X, Y, batch_size=BATCH, epochs=1, validation_split=0.2, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    with pytest.raises(ValueError, match="Unrecognized data type"):
        model().fit(object(), verbose=0)


def test_a_split_that_leaves_nothing_is_refused(installed: None, path: Path) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="validation_split=0.9999 of 1,003 rows leaves none for training"):
        model().fit(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), validation_split=0.9999, verbose=0)


@pytest.mark.parametrize("count", [ROWS - 90, ROWS + 90])
def test_labels_that_are_more_or_fewer_are_refused_before_an_epoch(installed: None, path: Path, count: int) -> None:  # noqa: F811
    """Divided, the labels that came first were as many as the images: more were left out, fewer missed after an epoch."""
    noting = Noting()
    with pytest.raises(ValueError, match=f"as many rows as each other; they have {ROWS}, {count}"):
        noting.fit(HDF5Matrix(path, "image"), np.zeros(count), validation_split=0.2)
    assert not noting.epochs


@pytest.mark.parametrize("version", ["3.8.0", "3.16.0", "4.0.1", "2.15.0"])
def test_an_unknown_version_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = data_adapters.get_data_adapter
    monkeypatch.setattr(keras, "__version__", version)
    message = rf"knows Keras 3\.9 to 3\.15, and this is {version}.*HDF5Sequence.*fit_data"
    with pytest.raises(h5fast.UnsupportedError, match=message):
        h5fast.keras.install()
    assert data_adapters.get_data_adapter is before


@pytest.mark.parametrize("other", [None, lambda x, y: None], ids=["missing", "changed"])
def test_a_keras_that_was_changed_is_refused(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if other is None:
        monkeypatch.delattr(array_slicing, "train_validation_split")
    else:
        monkeypatch.setattr(array_slicing, "train_validation_split", other)
    before = data_adapters.get_data_adapter
    with pytest.raises(h5fast.UnsupportedError, match="train_validation_split"):
        h5fast.keras.install()
    assert data_adapters.get_data_adapter is before
