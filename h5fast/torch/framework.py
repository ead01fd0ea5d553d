"""PyTorch: the one module here that imports it."""

from __future__ import annotations

try:
    import torch
    import torch.distributed as distributed
    from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, default_collate, get_worker_info
    from torch.utils.data._utils.collate import default_collate_fn_map  # where default_collate says to add types of one's own
except ImportError as error:
    raise ImportError(f"h5fast.torch needs PyTorch, and it cannot be imported ({error}): pip install 'h5fast[torch]'") from error

__all__ = ["DataLoader", "Dataset", "IterableDataset", "Sampler", "default_collate", "default_collate_fn_map", "get_worker_info",
           "is_distributed", "rank_and_world", "torch"]


def is_distributed() -> bool:
    """Whether ``torch.distributed`` knows which process of how many this is."""
    return bool(distributed.is_available() and distributed.is_initialized())


def rank_and_world() -> tuple[int, int]:
    """Which process of a distributed training this is, of how many; (0, 1) outside of one."""
    if is_distributed():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
