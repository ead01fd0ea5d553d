"""``keras.distribution``: data parallel over four devices of jax, on one processor; test_keras.py runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import pytest
from keras_models import Counting, images, labels, model, path  # noqa: F401

import h5fast.keras
from h5fast import HDF5Matrix
from h5fast.keras import HDF5Sequence

ROWS, BATCH = 1000, 40  # which four devices share evenly
X, Y = images(np.arange(ROWS)), labels(np.arange(ROWS))


@pytest.fixture(autouse=True)
def parallel() -> Iterator[None]:
    assert jax.device_count() == 4
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
    h5fast.keras.install()
    yield
    h5fast.keras.uninstall()
    keras.distribution.set_distribution(None)


def matrices(path: Path, normalizer: Any = None) -> tuple[HDF5Matrix, HDF5Matrix]:  # noqa: F811
    return HDF5Matrix(path, "image", 0, ROWS, normalizer), HDF5Matrix(path, "label", 0, ROWS)


@pytest.mark.parametrize("options", [{}, {"validation_split": 0.2}], ids=str)
@pytest.mark.parametrize("given", ["sequence", "matrices"])
def test_it_trains_as_on_arrays(path: Path, given: str, options: dict[str, Any]) -> None:  # noqa: F811
    mine, same = model(), model()
    expected = same.fit(X, Y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, **options).history
    if given == "matrices":
        history = mine.fit(*matrices(path), batch_size=BATCH, epochs=2, shuffle=False, verbose=0, **options).history
    elif options:
        train, validation = h5fast.keras.fit_data(*matrices(path), batch_size=BATCH, shuffle=False, **options)
        history = mine.fit(train, validation_data=validation, epochs=2, verbose=0).history
    else:
        history = mine.fit(HDF5Sequence(*matrices(path), batch_size=BATCH, shuffle=False), epochs=2, verbose=0).history
    assert history.keys() == expected.keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-5)
    assert len(mine.layers[1].kernel.value.sharding.device_set) == 4


def test_shuffled_it_reads_each_row_once_an_epoch(path: Path) -> None:  # noqa: F811
    counting = Counting()
    x, y = matrices(path, counting)
    assert x.shape == (ROWS, 4)  # reads a row
    counting.rows = 0
    model().fit(HDF5Sequence(x, y, batch_size=BATCH), epochs=3, verbose=0)
    assert counting.rows == 3 * ROWS
    model().fit(x, y, batch_size=BATCH, epochs=2, verbose=0)
    assert counting.rows == 5 * ROWS


def test_evaluate_and_predict(path: Path) -> None:  # noqa: F811
    made, (x, y) = model(), matrices(path)
    np.testing.assert_allclose(made.evaluate(x, y, batch_size=BATCH, verbose=0),
                               made.evaluate(X, Y, batch_size=BATCH, verbose=0), rtol=1e-4)
    for given in (x, HDF5Sequence(x, batch_size=BATCH, shuffle=False)):
        np.testing.assert_allclose(made.predict(given, batch_size=BATCH, verbose=0),
                                   made.predict(X, batch_size=BATCH, verbose=0), rtol=1e-4, atol=1e-6)


def test_batches_that_do_not_divide_are_left_out(path: Path) -> None:  # noqa: F811
    made = HDF5Sequence(HDF5Matrix(path, "image"), HDF5Matrix(path, "label"), batch_size=BATCH, drop_last=True)
    assert np.isfinite(model().fit(made, verbose=0).history["loss"]).all()
