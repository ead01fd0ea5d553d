"""Batches of somebody's generator, asked for ahead by threads and handed out in order.

A generator is anything that can be iterated, or that has a length and numbers: Keras' ``Sequence`` and ``PyDataset``, lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from types import TracebackType
from typing import Any

__all__ = ["Batches"]

_END = object()


class Batches:
    """An iterator over the batches of a generator, from number `start` on; a context manager, which lets go of its threads.

    Args:
        steps: batches up to which it goes, those in front of `start` counted; None for all there are
        workers: threads that ask, one at most for a generator without numbers; 0 asks when the next batch is taken
        queue: batches that are asked for ahead
        start: the number of the first batch that is handed out; a generator without numbers is asked for those before it too

    Attributes:
        start: as above
        total: where it ends, if that is known

    Raises:
        ValueError: a number is negative, or there are more steps than batches.
        TypeError: the generator can neither be iterated nor asked for numbers.
    """

    def __init__(self, generator: Any, steps: int | None, *, workers: int, queue: int, start: int) -> None:
        for name, value in (("steps", steps), ("workers", workers), ("max_queue_size", queue)):
            if value is not None and (isinstance(value, bool) or value < (name == "max_queue_size")):
                raise ValueError(f"{name} must be at least {int(name == 'max_queue_size')}, not {value!r}")
        length = _length(generator)
        if steps is not None and length is not None and steps > length:
            raise ValueError(f"{steps} steps are more than the {length} batches of the generator: none is written twice")
        self.start = start
        self.total = steps if steps is not None else length
        self._next = start
        self._queue = queue
        self._waiting: deque[Future[Any]] = deque()
        self._ask: Callable[[int], Any]
        if hasattr(generator, "__getitem__") and not (length is None and steps is None):
            self._ask, self._numbers = generator.__getitem__, iter(_numbers(start, self.total))
        else:
            self._ask, self._numbers = _asker(generator, start), iter(_numbers(start, self.total))
            workers = min(workers, 1)
        self._pool = ThreadPoolExecutor(workers, "h5fast-generator") if workers else None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = self._answer()
        if batch is _END:
            if self.total is not None and self._next < self.total:
                raise ValueError(f"the generator ended after {self._next} of {self.total} batches")
            raise StopIteration
        self._next += 1
        return batch

    def _answer(self) -> Any:
        if self._pool is None:
            number = next(self._numbers, None)
            return _END if number is None else self._ask(number)
        while len(self._waiting) < self._queue:
            number = next(self._numbers, None)
            if number is None:
                break
            self._waiting.append(self._pool.submit(self._ask, number))
        return self._waiting.popleft().result() if self._waiting else _END

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _length(generator: Any) -> int | None:
    """How many batches there are, as far as the generator says."""
    if hasattr(generator, "__len__"):
        return len(generator)
    number = getattr(generator, "num_batches", None)  # what Keras asks a PyDataset for
    return None if number is None else int(number)


def _numbers(start: int, total: int | None) -> Iterator[int]:
    return iter(count(start) if total is None else range(start, total))


def _asker(generator: Any, start: int) -> Callable[[int], Any]:
    """Answers with the next batch of an iterator whatever the number; the first time those before `start` are passed over."""
    batches = iter(generator)
    left = [start]

    def ask(number: int) -> Any:
        while left[0] > 0:
            left[0] -= 1
            if next(batches, _END) is _END:
                return _END
        return next(batches, _END)

    return ask
