"""Keras 2, as the package tf_keras has it, takes the same sequence; test_keras.py runs it."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from keras_models import BATCH, ROWS, images, labels, path  # noqa: F401

from h5fast import HDF5Matrix
from h5fast.keras import HDF5DataGenerator, HDF5Sequence, fit_data


def sequence(path: Path, **options: Any) -> HDF5Sequence:  # noqa: F811
    return HDF5Sequence(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), batch_size=BATCH, **options)


@pytest.mark.parametrize("options", [
    {}, {"shuffle": False}, {"workers": 3}, {"workers": 2, "use_multiprocessing": True}, {"steps_per_epoch": 7},
], ids=str)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_fit(path: Path, options: dict[str, Any]) -> None:  # noqa: F811
    rows: list[list[int]] = []

    class Noting(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = tf_keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            rows[-1] += x.numpy()[:, 0].astype(int).tolist()
            np.testing.assert_array_equal(x.numpy(), images(x.numpy()[:, 0]))
            np.testing.assert_array_equal(y.numpy().ravel(), labels(x.numpy()[:, 0]))
            return super().train_step(data)

    class Epochs(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            rows.append([])

    made = Noting()
    made.compile("sgd", "mse", run_eagerly=True)
    made.fit(sequence(path), epochs=3, verbose=0, callbacks=[Epochs()], **options)
    if "steps_per_epoch" in options:  # it begins another pass for each of its epochs
        assert [len(set(epoch)) for epoch in rows] == [len(epoch) for epoch in rows]
        assert all(len(epoch) in (7 * BATCH, 6 * BATCH + ROWS % BATCH) for epoch in rows)
    else:
        assert [sorted(epoch) for epoch in rows] == [list(range(ROWS))] * 3
        assert rows[0] != rows[1] != rows[2]


def test_evaluate_and_predict(path: Path) -> None:  # noqa: F811
    made = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    train, validation = fit_data(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), batch_size=BATCH)
    assert len(made.fit(train, validation_data=validation, epochs=2, verbose=0).history["val_loss"]) == 2
    x, y = images(np.arange(ROWS)), labels(np.arange(ROWS))
    given = sequence(path, shuffle=False)
    np.testing.assert_allclose(made.evaluate(given, verbose=0), made.evaluate(x, y, batch_size=BATCH, verbose=0), rtol=1e-4)
    np.testing.assert_allclose(made.predict(given, verbose=0), made.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_it_is_one_class_for_both(path: Path) -> None:  # noqa: F811
    made = HDF5DataGenerator(path, BATCH, data="image", labels="label")
    assert isinstance(made, tf_keras.utils.Sequence) and isinstance(made, HDF5DataGenerator)
    assert isinstance(made, sys.modules["keras"].utils.PyDataset)
    assert repr(made).startswith("<HDF5DataGenerator of 21 batches, pass 0, from <h5fast.Loader of x, y: 1,003 rows")
    copy = pickle.loads(pickle.dumps(made))
    assert isinstance(copy, tf_keras.utils.Sequence)
    np.testing.assert_array_equal(copy[3][0], made[3][0])
