"""Batches on their way to a GPU: copied ahead from pinned memory, on a stream of their own, while the step computes.

The ring knows batches and when their copies are done; what a copy is, it is told. On a GPU a copy runs behind the back of the
processor, so two things can go wrong: a batch is used before its copy is done, and pinned memory is written to before its
copy is done. Each has its event: the step's stream waits for it, and the memory goes back to those who fill it only behind it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from h5fast.torch.framework import torch

__all__ = ["Copier", "CudaCopier", "PinnedMemory", "Ring", "has_cuda", "pinned"]


class Copier(Protocol):
    """Copies batches to where they are used."""

    def start(self, batch: Any) -> tuple[Any, Any]:
        """Starts copying a batch; the copy, and the event that happens when it is done."""

    def hand_over(self, copied: Any, event: Any) -> None:
        """Makes whoever uses the copy from now on wait for the event, without waiting here."""

    def wait(self, event: Any) -> None:
        """Waits here until the event has happened."""


def has_cuda() -> bool:
    """Whether there is a GPU that memory can be pinned for."""
    return bool(torch.cuda.is_available())


def pinned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in pinned memory, if there is a GPU; else in memory as usual. For ``Loader(allocator=h5fast.torch.pinned)``.

    Batches in pinned memory are copied to a GPU without a detour, and while the processor does something else:
    ``torch.from_numpy(batch).to("cuda", non_blocking=True)``.
    """
    if not has_cuda():
        return np.empty(shape, dtype)
    # Bytes, since not every type of NumPy's is one of PyTorch's. An empty tensor has no address to pin.
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array: np.ndarray = torch.empty(max(count, 1), dtype=torch.uint8, pin_memory=True).numpy()[:count].view(dtype).reshape(shape)
    return array


class PinnedMemory:
    """The memory of batches, used again when its copies are done. It is an allocator for a loader.

    Args:
        make: makes an array of a shape and type; each of them once it is known that none can be used again
    """

    def __init__(self, make: Callable[[tuple[int, ...], Any], np.ndarray] = pinned) -> None:
        self._make = make
        self._free: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = {}
        # By the address of the first byte. Weak, since batches that nobody takes any more are forgotten by their loader.
        self._lent: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
        self.made = 0  # arrays so far

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of this shape and type that nobody uses."""
        free = self._free.setdefault((shape, np.dtype(dtype)), [])
        if free:
            array = free.pop()
        else:
            array = self._make(shape, dtype)
            self.made += 1
        self._lent[array.ctypes.data] = array
        return array

    def give_back(self, batch: Any) -> None:
        """The arrays that the tensors of a batch lie in may be used again."""
        for tensor in _tensors(batch):
            array = self._lent.pop(tensor.data_ptr(), None)
            if array is not None:
                self._free[array.shape, array.dtype].append(array)


class CudaCopier:
    """Copies to a CUDA device, on a stream beside the one that computes.

    Args:
        device: such as ``"cuda"`` or ``"cuda:1"``

    Raises:
        RuntimeError: there is no such device.
    """

    def __init__(self, device: Any) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)

    def start(self, batch: Any) -> tuple[Any, Any]:
        """See :class:`Copier`."""
        with torch.cuda.stream(self._stream):
            copied = _mapped(batch, lambda tensor: tensor.to(self._device, non_blocking=True))
            event = torch.cuda.Event()
            event.record(self._stream)
        return copied, event

    def hand_over(self, copied: Any, event: Any) -> None:
        """See :class:`Copier`. The memory of the copy is the computing stream's from now on."""
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(event)
        for tensor in _tensors(copied):
            tensor.record_stream(computing)

    def wait(self, event: Any) -> None:
        """See :class:`Copier`."""
        event.synchronize()


class Ring:
    """An iteration over batches that are copied ahead.

    Args:
        batches: what is to be copied; tensors, in tuples, lists or dicts; anything else is handed on as it is
        copier: how
        ahead: batches whose copies were started, beside the one that is being used
        done: told of each batch whose copy is done
        state: tells where the batches stand, behind the one that was taken last
    """

    def __init__(self, batches: Iterator[Any], copier: Copier, ahead: int = 2, done: Callable[[Any], None] | None = None,
                 state: Callable[[], Any] | None = None) -> None:
        self._batches, self._copier, self._ahead, self._done, self._tell = batches, copier, ahead, done, state
        self._started: deque[tuple[Any, Any, Any]] = deque()  # copy, event, and the state behind it
        self._copying: deque[tuple[Any, Any]] = deque()  # batch and event: memory that is not to be written to
        self._end: BaseException | None = None  # why no more batches come; raised behind those that were copied ahead
        self._state: Any = None

    def __iter__(self) -> Ring:
        return self

    def __next__(self) -> Any:
        while self._end is None and len(self._started) <= self._ahead:
            self._start_one()
        if not self._started:
            self._release(0)
            assert self._end is not None
            raise self._end
        copied, event, self._state = self._started.popleft()
        self._copier.hand_over(copied, event)
        return copied

    def _start_one(self) -> None:
        # Whoever fills the batches needs their memory back: of all but the copies that are ahead, which have just begun.
        self._release(self._ahead)
        try:
            batch = next(self._batches)
        except Exception as error:  # the end, or whatever else: it is for whoever takes the batches
            self._end = error
            return
        copied, event = self._copier.start(batch)
        self._started.append((copied, event, None if self._tell is None else self._tell()))
        self._copying.append((batch, event))

    def _release(self, left: int) -> None:
        """Waits for the copies that were started first, and gives the memory of their batches back."""
        while len(self._copying) > left:
            batch, event = self._copying.popleft()
            self._copier.wait(event)
            if self._done is not None:
                self._done(batch)

    def state(self) -> Any:
        """Where the batches stand, behind the one that was handed out last; None if none was."""
        return self._state

    def close(self) -> None:
        """Ends the iteration; what was copied ahead is forgotten, its memory given back."""
        self._end = StopIteration()
        self._started.clear()
        self._release(0)
        self._batches = iter(())


def _mapped(batch: Any, change: Callable[[Any], Any]) -> Any:
    """A batch with each of its tensors changed."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: _mapped(one, change) for name, one in batch.items()}
    if isinstance(batch, (tuple, list)):
        changed = [_mapped(one, change) for one in batch]
        return type(batch)(*changed) if hasattr(batch, "_fields") else type(batch)(changed)
    return batch


def _tensors(batch: Any) -> list[Any]:
    """The tensors of a batch."""
    found: list[Any] = []
    _mapped(batch, found.append)
    return found
