"""What a loader is given that it refuses, or takes in an odd form; states that go from one loader to another.

Prevents: an order that is not the one that was asked for; a training that goes on with other rows than it stopped at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

from h5fast import Loader


def test_the_state_follows_what_was_set_last(shards: Shards) -> None:  # noqa: F811
    """A state that was loaded, or an epoch that was set, was forgotten for that of an iteration that was given up."""
    loader = Loader(shards.first, "label", 64)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    assert (state["epoch"], state["taken"]) == (0, 64)
    loader.set_epoch(5)
    assert (loader.state_dict()["epoch"], loader.state_dict()["taken"]) == (5, 0)
    loader.load_state_dict(state)
    assert loader.state_dict() == state and len(loader) == -(-ROWS // 64)
    assert sum(len(label) for label in loader) == ROWS - 64
    assert loader.state_dict()["epoch"] == 1 and loader.state_dict()["taken"] == 0


def test_what_is_kept_is_put_in_order_for_another_order_of_blocks(shards: Shards) -> None:  # noqa: F811
    """Rows are kept under the positions of an order, and how many blocks are mixed is part of it."""
    few = Loader(shards.first, ("image", "label"), 50, shuffle="block", memory="100 kB")
    state = few.state_dict()
    loader = Loader(shards.first, ("image", "label"), 50, shuffle="block", memory="175 kB", threads=1)
    for _ in loader:
        pass
    loader.load_state_dict({**state, "epoch": 1})
    for image, label in loader:
        np.testing.assert_array_equal(image, shards.image[label])


@pytest.mark.parametrize("change", [{"window": 0}, {"epoch": -1}, {"taken": -64}, {"taken": None}, {"window": "3"}])
def test_a_state_that_makes_no_sense_is_refused(shards: Shards, change: dict[str, Any]) -> None:  # noqa: F811
    """A window of no blocks divided by zero, in C."""
    loader = Loader(shards.first, "label", 64, shuffle="block")
    with pytest.raises((TypeError, ValueError), match=next(iter(change))):
        loader.load_state_dict({**loader.state_dict(), **change})


@pytest.mark.parametrize("options", [{"rows": [[3, 1, 2, 0], [0, 1, 2, 3]]}, {"weights": [np.ones(ROWS), np.arange(ROWS)]}])
def test_a_state_tells_apart_what_the_order_depends_on(shards: Shards, options: dict[str, Any]) -> None:  # noqa: F811
    [(name, (one, other))] = options.items()
    state = Loader(shards.first, "label", 2, **{name: one}).state_dict()
    Loader(shards.first, "label", 2, **{name: one}).load_state_dict(state)
    with pytest.raises(ValueError, match="belongs to another loader"):
        Loader(shards.first, "label", 2, **{name: other}).load_state_dict(state)


def test_numbers_of_numpy_are_numbers(shards: Shards) -> None:  # noqa: F811
    plain = Loader(shards.first, "label", 64, seed=3, memory=10**6, shard=(1, 2))
    strange = Loader(shards.first, "label", np.int16(64), seed=np.int64(3), memory=np.float64(1e6), prefetch=np.uint8(2),
                     shard=np.array([1, 2]), drop_last=np.bool_(False), shuffle=np.bool_(True), threads=np.int8(1))
    assert [label.tolist() for label in plain] == [label.tolist() for label in strange]
    assert strange.state_dict() == plain.state_dict()


@pytest.mark.parametrize("seed", [None, "text", b"bytes", (1, "a"), 1.5, -7, 10**30, np.float32(2.5)])
def test_seeds_of_any_kind(shards: Shards, seed: Any) -> None:  # noqa: F811
    orders = [[row for label in Loader(shards.first, "label", 64, seed=seed) for row in label] for _ in range(2)]
    assert orders[0] == orders[1] != [row for label in Loader(shards.first, "label", 64, seed="other") for row in label]


@pytest.mark.parametrize("seed", [object(), np.random.default_rng(0), {1, 2}, np.arange(5000), (1, [object()])], ids=repr)
def test_a_seed_that_may_be_written_otherwise_is_refused(shards: Shards, seed: Any) -> None:  # noqa: F811
    """Generators are written as their addresses, sets in any order, long arrays in part: two processes had two orders."""
    with pytest.raises(TypeError, match="a seed is a number, a text, None"):
        Loader(shards.first, "label", 64, seed=seed)


@pytest.mark.parametrize("weights", [np.full(ROWS, 5e-324), np.append(np.zeros(ROWS - 1), 1e-310), np.full(ROWS, 1e300)])
def test_weights_near_the_ends_of_the_numbers(shards: Shards, weights: np.ndarray) -> None:  # noqa: F811
    """A sum too small to be multiplied drew a row behind the last."""
    rows = np.concatenate(list(Loader(shards.first, "label", 64, weights=weights)))
    assert rows.max() < ROWS and (weights[rows] > 0).all()


def test_weights_that_cannot_be_added_up(shards: Shards) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="too large to be added up"):
        Loader(shards.first, "label", 64, weights=np.full(ROWS, 1e307))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_weights_with_rows_and_processes(shards: Shards, world: int, drop_last: bool) -> None:  # noqa: F811
    rows = np.arange(0, ROWS, 3)
    weights = np.where(rows % 2 == 0, 1.0, 0.0)
    loaders = [Loader(shards.first, "label", 30, rows=rows, weights=weights, shard=(rank, world), drop_last=drop_last)
               for rank in range(world)]
    taken = [[label.tolist() for label in loader] for loader in loaders]
    assert {len(batches) for batches in taken} == {len(loader) for loader in loaders} == {len(loaders[0])}
    assert set(np.concatenate([np.concatenate(batches) for batches in taken])) <= set(rows[weights > 0])
    by_row = np.where(np.arange(ROWS) % 2 == 0, 1.0, 0.0)
    again = Loader(shards.first, "label", 30, rows=rows, weights=by_row, shard=(0, world), drop_last=drop_last)
    assert [label.tolist() for label in again] == taken[0]


@pytest.mark.parametrize("rows", [[0.5, 1.5], ["a"], np.ones(3, bool), np.zeros((2, 2), int), [None]])
def test_rows_that_are_none(shards: Shards, rows: Any) -> None:  # noqa: F811
    """Fractions were cut off."""
    with pytest.raises((IndexError, TypeError)):
        Loader(shards.first, "label", 1, rows=rows)
