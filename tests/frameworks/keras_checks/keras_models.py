"""What the checks of h5fast.keras share: a file whose rows tell which row they are, models that note what they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

ROWS, BATCH = 1003, 50
STEPS = 21  # batches of an epoch

# Keras' torch backend, of what numpy 2 asks of tensors. Everything else is an error.
EXPECTED = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


def images(rows: np.ndarray) -> np.ndarray:
    """The images of these rows: 4 numbers each, the first of them the row's."""
    rows = np.asarray(rows, np.float32)
    return np.stack([rows, rows % 7, rows % 5, -rows], axis=-1)


def labels(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows, np.float32) % 3


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("keras") / "train.h5"
    rows = np.arange(ROWS)
    with h5py.File(found, "w") as file:
        file.create_dataset("image", data=images(rows), chunks=(32, 4), compression="lzf")
        file.create_dataset("label", data=labels(rows))
        file.create_dataset("weight", data=(rows % 11).astype("f4"))
    return found


def model(**options: Any) -> Any:
    """A classifier of three classes, always with the same weights at the beginning."""
    keras.utils.set_random_seed(3)
    made = keras.Sequential([keras.layers.Rescaling(1 / ROWS), keras.layers.Dense(3, activation="softmax")])
    made.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy",
                 **{"metrics": ["accuracy"], **options})
    return made


class Noting:
    """A model, and the batches that its training steps were given, epoch by epoch. It takes no step: that would be slow."""

    def __init__(self, ends_after: int | None = None) -> None:
        self.epochs: list[list[Any]] = []
        self.model = model(run_eagerly=True, metrics=None)
        self._batches: list[Any] = []
        self._ends_after = ends_after

        def train_step(*given: Any) -> Any:
            self._batches.append(tuple(keras.ops.convert_to_numpy(part) for part in given[-1]))
            if self._ends_after is not None and len(self._batches) == self._ends_after:
                raise KeyboardInterrupt
            logs = {"loss": keras.ops.zeros(())}
            return (logs, given[0]) if keras.backend.backend() == "jax" else logs

        self.model.train_step = train_step

    def fit(self, *args: Any, **options: Any) -> list[np.ndarray]:
        """Fits, and returns the rows of each epoch, in the order in which they came."""
        self.epochs.clear()
        self._batches.clear()
        self.model.fit(*args, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=self._end_epoch)], **options)
        return [np.concatenate([batch[0][:, 0] for batch in epoch]).astype(int) for epoch in self.epochs]

    def _end_epoch(self, epoch: int, logs: Any) -> None:
        self.epochs.append(list(self._batches))
        self._batches.clear()

    def check_pairs(self) -> None:
        """Each label came with its own image."""
        for x, y, *weight in (batch for epoch in self.epochs for batch in epoch):
            rows = x[:, 0].astype(int)
            np.testing.assert_array_equal(x, images(rows))
            np.testing.assert_array_equal(y.ravel(), labels(rows))
            if weight:
                np.testing.assert_array_equal(weight[0], rows % 11)


class Counting:
    """A normalizer that counts what was read through it."""

    def __init__(self) -> None:
        self.rows, self.most = 0, 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.rows += len(batch)
        self.most = max(self.most, len(batch))
        return batch
