"""``loader()``: the ``DataLoader`` that suits a source, a number of workers and a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from h5fast.torch.framework import DataLoader, Dataset, IterableDataset, rank_and_world, torch
from h5fast.torch.iterable import H5IterableDataset
from h5fast.torch.ring import CudaCopier, PinnedMemory, Ring, has_cuda
from h5fast.torch.samplers import BlockSampler, DistributedBlockSampler
from h5fast.torch.tensors import collate

__all__ = ["H5DataLoader", "loader"]


class H5DataLoader(DataLoader):
    """What :func:`loader` makes: a ``DataLoader`` that knows epochs and states, and may copy to a GPU ahead."""

    def __init__(self, dataset: Any, *, device: Any = None, memory: PinnedMemory | None = None, **options: Any) -> None:
        super().__init__(dataset, **options)
        self._copier = None if device is None else CudaCopier(device)
        self._memory = memory
        self._ring: Ring | None = None

    def __iter__(self) -> Iterator[Any]:
        """An epoch of batches, on the device if there is one."""
        self._forget_ring()
        # Without workers the DataLoader's own iterator would only add its cost, a tenth of what a batch of plain rows takes.
        batches: Iterator[Any] = iter(self.dataset) if self._keeps_state and not self.pin_memory else super().__iter__()
        if self._copier is None:
            return batches
        done = None if self._memory is None else self._memory.give_back
        tell = self.dataset.state_dict if self._keeps_state else None
        self._ring = Ring(batches, self._copier, done=done, state=tell)
        return self._ring  # kept here too: it is what knows where training stands

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration start at the beginning of this epoch."""
        self._forget_ring()
        if isinstance(self.dataset, H5IterableDataset):
            self.dataset.set_epoch(epoch)
        else:
            self.batch_sampler.sampler.set_epoch(epoch)

    @property
    def _keeps_state(self) -> bool:
        return isinstance(self.dataset, H5IterableDataset) and self.num_workers == 0

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, behind the batch that was taken last. Raises ``RuntimeError`` where that is in workers."""
        self._require_state()
        state: dict[str, Any] = (self._ring and self._ring.state()) or self.dataset.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there. Raises ``ValueError`` for the state of another dataset, seed or order."""
        self._require_state()
        self._forget_ring()
        self.dataset.load_state_dict(state)

    def _forget_ring(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()

    def _require_state(self) -> None:
        if not self._keeps_state:
            raise RuntimeError("what workers read ahead only torchdata's StatefulDataLoader can tell: give it this dataset, "
                               "with batch_size=None for an H5IterableDataset")


def loader(source: Any, fields: Any = None, batch_size: int = 256, *, shuffle: str | bool = "exact", seed: Any = 0,
           drop_last: bool = False, num_workers: int = 0, device: Any = None, **options: Any) -> H5DataLoader:
    """The ``DataLoader`` that suits what it reads.

    Parameters
    ----------
    source, fields, batch_size, shuffle, seed, drop_last:
        As :class:`h5fast.Loader` has them, and then batches are its own: an :class:`H5IterableDataset` with native threads.
        Or a map-style dataset instead of source and fields (:class:`H5Samples`, :class:`H5ImageFolder`, an
        :class:`H5Dataset`, one of your own): its rows are drawn in that order, and collated.
    num_workers:
        Worker processes. 0 is best unless Python is kept busy for each row or batch: by a `transform`, or by decoding images.
    device:
        ``"cuda"`` or another CUDA device: batches come as tensors there. They are read into pinned memory and copied ahead on a
        stream of their own, while the step computes. None or ``"cpu"`` leaves them in memory.
    options:
        For a source, the other arguments of :class:`h5fast.Loader` (shard, rows, weights, memory, transform …). For both, those of
        ``DataLoader`` that concern workers: multiprocessing_context, worker_init_fn, timeout, prefetch_factor,
        persistent_workers (True where there are workers).

    In a distributed training, as ``torch.distributed`` knows it, each process gets its share.

    Raises ``RuntimeError`` for a device that is not there, and what the classes raise.
    """
    where = _checked_device(device)
    workers = _worker_options(options, num_workers)
    if not isinstance(source, Dataset) or isinstance(source, IterableDataset):
        if isinstance(source, IterableDataset):
            raise TypeError(f"{type(source).__name__} has an order of its own: DataLoader(dataset, batch_size=None)")
        memory = PinnedMemory() if where is not None and num_workers == 0 and "allocator" not in options else None
        if memory is not None:
            options["allocator"] = memory
        dataset = H5IterableDataset(source, fields, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, **options)
        return H5DataLoader(dataset, batch_size=None, device=where, memory=memory, collate_fn=_as_it_is,
                            pin_memory=where is not None and memory is None, **workers)
    if fields is not None:
        raise TypeError(f"{type(source).__name__} has fields of its own; leave them out")
    sampler = _sampler(source, shuffle, seed, options)
    if options:
        raise TypeError(f"for a dataset loader() takes no {', '.join(map(repr, options))}")
    batches = torch.utils.data.BatchSampler(sampler, batch_size, drop_last)
    return H5DataLoader(source, batch_sampler=batches, collate_fn=getattr(source, "collate_fn", collate), device=where,
                        pin_memory=where is not None, **workers)


def _as_it_is(batch: Any) -> Any:
    return batch


def _sampler(dataset: Any, shuffle: str | bool, seed: Any, options: dict[str, Any]) -> BlockSampler:
    """The order of a map-style dataset's rows; takes what concerns it from the options."""
    mine = {name: options.pop(name) for name in ("memory",) if name in options}
    rank, world = options.pop("shard", None) or rank_and_world()
    if world == 1:
        return BlockSampler(dataset, shuffle=shuffle, seed=seed, **mine)
    return DistributedBlockSampler(dataset, world, rank, shuffle=shuffle, seed=seed, **mine)


def _checked_device(device: Any) -> Any:
    """The CUDA device to copy to; None if batches stay in memory."""
    if device is None or torch.device(device).type == "cpu":
        return None
    where = torch.device(device)
    if where.type != "cuda":
        raise RuntimeError(f"device={device!r}: batches are copied to CUDA devices; leave it out, and copy them in the loop")
    if not has_cuda():
        raise RuntimeError(f"device={device!r}: this PyTorch ({torch.__version__}) finds no CUDA device; leave it out, or use 'cpu'")
    return where


def _worker_options(options: dict[str, Any], num_workers: int) -> dict[str, Any]:
    """What concerns workers, taken from the options."""
    names = ("multiprocessing_context", "worker_init_fn", "timeout", "prefetch_factor", "persistent_workers")
    found = {name: options.pop(name) for name in names if name in options}
    if num_workers:
        found.setdefault("persistent_workers", True)
    return {"num_workers": num_workers, **found}

