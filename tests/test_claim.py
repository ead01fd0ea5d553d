"""Places of a list that processes share: the same for the same key, whoever looks first."""

from __future__ import annotations

import mmap
import multiprocessing
from typing import Any

import numpy as np
import pytest

from h5fast._claim import claim

PROCESSES, ROUNDS = 8, 3000


def test_keys_stand_in_the_order_in_which_they_came_up() -> None:
    places = np.zeros(3, np.int64)
    assert [claim(places, key) for key in (7, -2, 7, 5, -2, 9, 5)] == [0, 1, 0, 2, 1, -1, 2]
    assert places.tolist() == [7, -2, 5]


@pytest.mark.parametrize("places", [np.zeros(3, np.int32), np.zeros((2, 2), np.int64), np.zeros(6, np.int64)[::2],
                                    np.zeros(2, ">i8")], ids=["type", "axes", "steps", "order"])
def test_what_is_no_list_is_refused(places: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a list of int64"):
        claim(places, 1)
    with pytest.raises(ValueError, match="a key other than 0"):
        claim(np.zeros(3, np.int64), 0)


def claims(memory: mmap.mmap, which: int, barrier: Any, results: Any) -> None:
    lists = np.frombuffer(memory, np.int64).reshape(ROUNDS, PROCESSES)
    found = np.empty(ROUNDS, np.int64)
    barrier.wait()
    for number in range(ROUNDS):
        found[number] = claim(lists[number], 1 + which // 2)
    results.put((which, found))


def test_processes_that_claim_at_once_agree() -> None:
    """Of two keys that were written at once one overwrote the other: workers of one iteration were in different epochs."""
    context = multiprocessing.get_context("fork")
    memory = mmap.mmap(-1, ROUNDS * PROCESSES * 8)
    barrier, results = context.Barrier(PROCESSES), context.SimpleQueue()
    workers = [context.Process(target=claims, args=(memory, which, barrier, results)) for which in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = dict(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    for which in range(0, PROCESSES, 2):  # two of each key
        np.testing.assert_array_equal(found[which], found[which + 1])
    together = np.sort([found[which] for which in range(0, PROCESSES, 2)], axis=0)
    np.testing.assert_array_equal(together, np.repeat(np.arange(PROCESSES // 2)[:, None], ROUNDS, axis=1))
