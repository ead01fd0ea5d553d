"""What the tests of h5fast.torch share: how batches are compared with what the files hold, and the ways to start workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from loader_files import Shards

CONTEXTS = ["fork", "spawn", "forkserver"]


def check(batch: Any, shards: Shards) -> np.ndarray:
    """A batch of (image, label): tensors of the rows that the labels say; returns these."""
    images, labels = batch
    rows: np.ndarray = labels.numpy()
    np.testing.assert_array_equal(images.numpy(), shards.image[rows])
    return rows
