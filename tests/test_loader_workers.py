"""Workers that share a process's batches: together, in turn, they give the batches that the process would have given."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from loader_files import Shards, shards  # noqa: F401  # a fixture, used by name

from h5fast import Loader

ORDERS = ["exact", "block", "batches", False]


def epoch_of(shards: Shards, **options: Any) -> list[list[int]]:  # noqa: F811
    return [batch.tolist() for batch in Loader(shards.both, "label", 64, **options)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shard", [(0, 1), (1, 3)])
@pytest.mark.parametrize("shuffle", ORDERS)
@pytest.mark.parametrize("workers", [1, 2, 3, 40])
def test_in_turn_they_give_the_batches_of_the_process(
    shards: Shards, workers: int, shuffle: Any, shard: tuple[int, int], drop_last: bool  # noqa: F811
) -> None:
    options = {"shuffle": shuffle, "shard": shard, "drop_last": drop_last, "seed": 5}
    loaders = [Loader(shards.both, "label", 64, worker=(number, workers), **options) for number in range(workers)]
    whole = Loader(shards.both, "label", 64, **options)
    for _ in range(2):
        shares = [[batch.tolist() for batch in loader] for loader in loaders]
        assert [len(share) for share in shares] == [len(loader) for loader in loaders]
        together = [batch for step in itertools.zip_longest(*shares) for batch in step if batch is not None]
        assert together == [batch.tolist() for batch in whole]
    assert {loader.epoch for loader in loaders} == {2}


@pytest.mark.parametrize("shuffle", ORDERS)
def test_each_goes_on_where_it_stood(shards: Shards, shuffle: Any) -> None:  # noqa: F811
    options = {"shuffle": shuffle, "worker": (1, 3), "memory": "250 kB"}
    epochs = Loader(shards.both, ("image", "label"), 64, **options)
    expected = [[labels.tolist() for _, labels in epochs] for _ in range(2)]
    for taken in range(len(expected[0]) + 1):
        loader = Loader(shards.both, ("image", "label"), 64, **options)
        for _ in itertools.islice(loader, taken):
            pass
        resumed = Loader(shards.both, ("image", "label"), 64, **options)
        resumed.load_state_dict(loader.state_dict())
        rest = expected[0][taken:] or expected[1]
        for (images, labels), wanted in zip(resumed, rest, strict=True):
            assert labels.tolist() == wanted
            np.testing.assert_array_equal(images, shards.image[labels])


def test_the_state_is_the_workers_own(shards: Shards) -> None:  # noqa: F811
    state = Loader(shards.first, "label", 64, worker=(0, 2)).state_dict()
    with pytest.raises(ValueError, match=r"its worker is \[0, 2\], here it is \[1, 2\]"):
        Loader(shards.first, "label", 64, worker=(1, 2)).load_state_dict(state)


def test_what_is_no_worker_is_refused(shards: Shards) -> None:  # noqa: F811
    with pytest.raises(ValueError, match=r"worker=\(2, 2\): the number must be from 0 to workers - 1"):
        Loader(shards.first, "label", 64, worker=(2, 2))
    with pytest.raises(TypeError, match="worker must be"):
        Loader(shards.first, "label", 64, worker=1)  # type: ignore[arg-type]


def test_what_the_workers_keep_is_worth_it(shards: Shards) -> None:  # noqa: F811
    """The cache of a worker looks for its own next use of a row: with room for all, each chunk is decoded once, ever."""
    loader = Loader(shards.first, "image", 64, worker=(1, 2))
    first = [sum(len(batch) for batch in loader) and loader.stats()["decodes"] for _ in range(3)]
    assert first[0] <= 48 and first[1] <= 48 - first[0] and first[2] == 0, first
