"""The ring of copies: nothing is used before it is copied, nothing is written to while it is being copied, nothing is lost.

A copier stands in for the GPU here: it copies when it is told that time passes, never before, and as late as it may, so that
whoever does not wait for an event sees old bytes. What a real device adds is tested where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

torch = pytest.importorskip("torch")

from torch_files import check  # noqa: E402

from h5fast import Loader  # noqa: E402
from h5fast.torch import loader, pinned  # noqa: E402
from h5fast.torch.ring import PinnedMemory, Ring, has_cuda  # noqa: E402
from h5fast.torch.tensors import as_tensors  # noqa: E402


class Event:
    def __init__(self) -> None:
        self.has_happened = False


class SlowCopier:
    """Copies only when it is waited for, in the order in which copies were started, as a stream does."""

    def __init__(self) -> None:
        self.pending: list[tuple[Any, Any, Event]] = []
        self.most = 0

    def start(self, batch: Any) -> tuple[Any, Any]:
        copied, event = tuple(torch.full_like(one, 77) for one in batch), Event()
        self.pending.append((batch, copied, event))
        self.most = max(self.most, len(self.pending))
        return copied, event

    def hand_over(self, copied: Any, event: Event) -> None:
        self.wait(event)

    def wait(self, event: Event) -> None:
        while not event.has_happened:
            batch, copied, done = self.pending.pop(0)
            for source, target in zip(batch, copied):
                target.copy_(source)
            done.has_happened = True


class NeverReady(SlowCopier):
    """Hands over without waiting: what the ring would be without events."""

    def hand_over(self, copied: Any, event: Event) -> None:
        pass


def batches_of(shards: Shards, memory: PinnedMemory, **options: Any) -> tuple[Loader, Iterator[Any]]:  # noqa: F811
    source = Loader(shards.first, ("image", "label"), 100, allocator=memory, **options)
    return source, map(as_tensors, source)


@pytest.mark.parametrize("ahead", [0, 1, 2, 5, 40])
def test_every_batch_arrives_whole(shards: Shards, ahead: int) -> None:  # noqa: F811
    memory, copier = PinnedMemory(), SlowCopier()
    source, batches = batches_of(shards, memory)
    ring = Ring(batches, copier, ahead, memory.give_back)
    rows = np.concatenate([check(batch, shards) for batch in ring])
    assert rows.tolist() == np.concatenate(list(source.epoch_rows(0))).tolist()
    assert copier.most <= ahead + 1 and not copier.pending


def test_memory_goes_round(shards: Shards) -> None:  # noqa: F811
    """As many batches as are made ahead, copied ahead and used; not one for each step."""
    memory = PinnedMemory()
    source, batches = batches_of(shards, memory, prefetch=2)
    for batch in Ring(batches, SlowCopier(), 2, memory.give_back):
        check(batch, shards)
    assert memory.made <= 2 * (2 + 3 + 1) < 2 * len(source)


def test_memory_that_the_loop_holds_is_not_taken_from_it(shards: Shards) -> None:  # noqa: F811
    """Copies are the loop's; the memory that they came from is not, and is written to again."""
    memory = PinnedMemory()
    _, batches = batches_of(shards, memory)
    kept = list(Ring(batches, SlowCopier(), 1, memory.give_back))
    assert sum(len(check(batch, shards)) for batch in kept) == ROWS


def test_the_stand_in_would_show_a_missing_wait(shards: Shards) -> None:  # noqa: F811
    memory = PinnedMemory()
    _, batches = batches_of(shards, memory)
    images, _ = next(Ring(batches, NeverReady(), 2, memory.give_back))
    assert (images == 77).all()


def test_the_stand_in_would_show_memory_given_back_too_early(shards: Shards) -> None:  # noqa: F811
    class Hasty(Ring):
        def _release(self, left: int) -> None:
            while self._copying:
                self._done(self._copying.popleft()[0])  # type: ignore[misc]

    memory = PinnedMemory()
    source, batches = batches_of(shards, memory)

    def slowly() -> Iterator[Any]:
        for batch in batches:
            time.sleep(0.02)  # the loader's thread has the time to write to what it got
            yield batch

    rows = [labels.tolist() for _, labels in Hasty(slowly(), SlowCopier(), 4, memory.give_back)]
    assert rows != [rows.tolist() for rows in source.epoch_rows(0)]


def test_an_error_comes_behind_the_batches_before_it() -> None:
    def failing() -> Iterator[Any]:
        for number in range(5):
            yield (torch.full((3,), number),)
        raise ValueError("damaged")

    ring = Ring(failing(), SlowCopier(), 3)
    assert [int(next(ring)[0][0]) for _ in range(5)] == list(range(5))
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            next(ring)


def test_the_state_is_that_of_the_batch_in_hand(shards: Shards) -> None:  # noqa: F811
    """Batches that were copied ahead are not done with."""
    memory = PinnedMemory()
    source, batches = batches_of(shards, memory)
    ring = Ring(batches, SlowCopier(), 4, memory.give_back, source.state_dict)
    first = [check(next(ring), shards).tolist() for _ in range(6)]
    resumed = Loader(shards.first, ("image", "label"), 100)
    resumed.load_state_dict(ring.state())
    rest = [labels.tolist() for _, labels in resumed]
    assert first + rest == [rows.tolist() for rows in source.epoch_rows(0)]


def test_closing_gives_everything_back(shards: Shards) -> None:  # noqa: F811
    memory, copier = PinnedMemory(), SlowCopier()
    source, batches = batches_of(shards, memory)
    ring = Ring(batches, copier, 3, memory.give_back)
    next(ring)
    ring.close()
    assert not copier.pending
    with pytest.raises(StopIteration):
        next(ring)
    made = memory.made
    for _ in Ring(map(as_tensors, source), copier, 3, memory.give_back):
        pass
    assert memory.made <= made + 2 * 3, "memory of the iteration that was given up is used again"


def test_other_things_than_tensors_are_handed_on() -> None:
    class Plain(SlowCopier):
        def start(self, batch: Any) -> tuple[Any, Any]:
            return batch, Event()

        def wait(self, event: Event) -> None:
            event.has_happened = True

    batch = {"text": np.array(["a"], object), "x": [torch.zeros(1), "b"]}
    memory = PinnedMemory()
    assert list(Ring(iter([batch]), Plain(), 2, memory.give_back)) == [batch]


@pytest.mark.parametrize("shape", [(3, 4), (0, 5), ()])
@pytest.mark.parametrize("dtype", ["u1", "f4", "i8", "?", "u2", "c8"])
def test_pinned_arrays_are_arrays(shape: tuple[int, ...], dtype: str) -> None:
    array = pinned(shape, np.dtype(dtype))
    assert array.shape == shape and array.dtype == dtype and array.flags.carray
    array[...] = 1
    assert (array == 1).all()


def test_a_device_that_is_not_there_is_refused(shards: Shards) -> None:  # noqa: F811
    if has_cuda():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(RuntimeError, match="finds no CUDA device"):
        loader(shards.first, "label", device="cuda")
    with pytest.raises(RuntimeError, match="CUDA devices"):
        loader(shards.first, "label", device="meta")


needs_cuda = pytest.mark.skipif(not has_cuda(), reason="needs a CUDA device: torch.cuda.is_available() is False here")


@needs_cuda
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_on_the_device(shards: Shards, workers: int) -> None:  # noqa: F811
    batches = loader(shards.both, ("image", "label"), 64, device="cuda", num_workers=workers)
    for epoch in range(3):
        rows = []
        for images, labels in batches:
            assert images.is_cuda and labels.is_cuda
            torch.cuda._sleep(3_000_000)  # the step is slower than the reading: copies and memory pile up behind it
            rows.append(check(((images + 1 - 1).cpu(), labels.cpu()), shards))
        assert sorted(np.concatenate(rows)) == list(range(len(shards.label)))


@needs_cuda
def test_pinned_memory_is_pinned() -> None:
    assert torch.from_numpy(pinned((10, 10), np.dtype("f4"))).is_pinned()


@needs_cuda
def test_copies_overlap_the_step(shards: Shards) -> None:  # noqa: F811
    """An epoch with steps takes as long as the steps, not the steps and the reading."""
    batches = loader(shards.both, ("image", "label"), 64, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for timed in (False, True):
        torch.cuda.synchronize()
        start.record()
        for _ in batches:
            torch.cuda._sleep(20_000_000)  # some 10 ms
        end.record()
    torch.cuda.synchronize()
    with_batches = start.elapsed_time(end)
    start.record()
    for _ in range(len(batches)):
        torch.cuda._sleep(20_000_000)
    end.record()
    torch.cuda.synchronize()
    assert with_batches < 1.2 * start.elapsed_time(end)
