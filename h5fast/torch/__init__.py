"""PyTorch: batches of HDF5 rows for ``DataLoader``, distributed training and GPUs. Needs torch: ``pip install 'h5fast[torch]'``.

::

    from h5fast.torch import loader

    batches = loader("train-*.h5", ("image", "label"), batch_size=256, device="cuda")
    for epoch in range(10):
        for images, labels in batches:      # tensors on the device, copied ahead
            ...

:func:`loader` makes the ``DataLoader`` that suits; the rest is what it is made of, for those who make their own. See
``docs/torch.md``. Layers, each of which imports only what stands below it::

    loading             loader()                                    the DataLoader that suits
    images, samples     H5ImageFolder, H5Samples                    one dataset for each sample
    samplers            BlockSampler, DistributedBlockSampler       orders of rows
    iterable, epochs    H5IterableDataset                           the loader's batches; which epoch workers are in
    datasets            H5Dataset                                   rows by number
    ring                pinned()                                    batches on their way to a GPU
    tensors             collate()                                   arrays as tensors
    framework           torch
"""

from __future__ import annotations

from h5fast.torch.datasets import H5Dataset
from h5fast.torch.images import H5ImageFolder
from h5fast.torch.iterable import H5IterableDataset
from h5fast.torch.loading import H5DataLoader, loader
from h5fast.torch.ring import pinned
from h5fast.torch.samplers import BlockSampler, DistributedBlockSampler
from h5fast.torch.samples import H5Samples
from h5fast.torch.tensors import collate

__all__ = [
    "BlockSampler",
    "DistributedBlockSampler",
    "H5DataLoader",
    "H5Dataset",
    "H5ImageFolder",
    "H5IterableDataset",
    "H5Samples",
    "collate",
    "loader",
    "pinned",
]
