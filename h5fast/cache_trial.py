"""What a chunk cache brings to h5py's own reads, measured on a part of a dataset.

The part lies in a file of its own, stored as the dataset is, and is read with plain h5py: once with the cache that HDF5 has by
itself, once with the proposed one. Where a cache holds a share of all chunks, it is tried with that share of the part's.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5fast.caching import DEFAULT_BYTES, ChunkCache

__all__ = ["measure_cache"]

# The cache is filled first: each chunk is read so often on average, unless that takes too long.
_FILLING_READS, _FILLING_SECONDS = 3, 1.0
_SECONDS = 0.4
_LEAST_READS = 3


def measure_cache(path: Path, name: str, access: str, crop: tuple[int, ...], cache: ChunkCache, share: float) -> tuple[float, float]:
    """Rows, or crops, a second that h5py reads with HDF5's own chunk cache and with `cache`.

    Args:
        path, name: a file and a chunked dataset in it, which nobody has open in this process
        access, crop: as of :func:`~h5fast.caching.chunk_cache`
        share: which part of the dataset that the cache is for this one is
    """
    own = ChunkCache(DEFAULT_BYTES, cache.rdcc_nslots, 0.75, 0, "")
    part = 1.0 if access == "sequential" else share  # rows one after the other need room for themselves, however many they are
    first, second = (_rate(path, name, access, crop, _scaled(path, name, each, part)) for each in (own, cache))
    return first, second


def _scaled(path: Path, name: str, cache: ChunkCache, share: float) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        chunk = math.prod(file[name].chunks) * file[name].dtype.itemsize
    room = -(-int(cache.rdcc_nbytes * share) // chunk) * chunk
    return {**cache.options, "rdcc_nbytes": room}


def _rate(path: Path, name: str, access: str, crop: tuple[int, ...], options: dict[str, Any]) -> float:
    with h5py.File(path, "r", **options) as file:
        dataset = file[name]
        keys = _keys(dataset.shape, access, crop, np.random.default_rng(0))
        filling = _FILLING_READS * dataset.id.get_num_chunks()
        _read(dataset, itertools.islice(keys, filling), _FILLING_SECONDS)
        begun = time.perf_counter()
        count = _read(dataset, keys, _SECONDS)
        return count / max(1e-9, time.perf_counter() - begun)


def _read(dataset: h5py.Dataset, keys: Iterator[Any], seconds: float) -> int:
    """How many were read, of all or until the time is over."""
    end, count = time.perf_counter() + seconds, 0
    for count, key in enumerate(keys, 1):
        dataset[key]
        if count >= _LEAST_READS and time.perf_counter() >= end:
            break
    return count


def _keys(shape: tuple[int, ...], access: str, crop: tuple[int, ...], rng: np.random.Generator) -> Iterator[Any]:
    """What is read, one after the other, without end."""
    if access == "sequential":
        yield from itertools.cycle(range(shape[0]))
    while True:
        if access == "crops":
            corner = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(shape, crop, strict=True)]
            yield tuple(slice(first, first + part) for first, part in zip(corner, crop, strict=True))
        else:
            yield int(rng.integers(0, shape[0]))
