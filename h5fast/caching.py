"""The chunk cache that suits a dataset and a way of reading it: arithmetic on shapes, and a look at the datasets of a file.

libhdf5 keeps decoded chunks of every open dataset in a hash table of ``rdcc_nslots`` places, up to ``rdcc_nbytes`` bytes; of
those that were read to the end, it gives up some before others that were used longer ago, the more of them the nearer
``rdcc_w0`` is to 1. A chunk that is larger than the cache is decoded again for every read of it.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from h5fast.chunking import ACCESSES, choose_rows
from h5fast.sizes import format_bytes, parse_bytes

__all__ = ["CACHE_ACCESSES", "ChunkCache", "check_cache_access", "chunk_cache", "open_arguments", "open_signature",
           "survey"]

#: The ways of reading that chunk caches are computed for.
CACHE_ACCESSES = (*ACCESSES, "crops")

#: HDF5's own cache since 2.0. Nothing is gained by less of it.
DEFAULT_BYTES, _DEFAULT_SLOTS = 8 << 20, 8191
# A chunk finds its place by its number modulo the slots: so many times the chunks make it unlikely that two need the same one.
_SLOTS_EACH = 100
# Primes both. Fewer than the one (HDF5's own number before 2.0) save nothing; from the other on, clearing them (8 bytes each)
# takes longer than all else that opens a dataset.
_LEAST_SLOTS, _MOST_SLOTS = 521, 131_071
# Objects that are looked at in a file. Opening one takes some 30 µs.
_SURVEYED = 4096
_NAMES = ("rdcc_nbytes", "rdcc_nslots", "rdcc_w0")


@dataclass(frozen=True)
class ChunkCache:
    """A chunk cache, and why it is such.

    Attributes:
        rdcc_nbytes: bytes of decoded chunks that libhdf5 keeps of each open dataset
        rdcc_nslots: places for them, a prime number
        rdcc_w0: how readily chunks that were read to the end make place for others, 0 to 1
        kept_bytes: of decoded chunks that h5fast's own reader keeps of the file
        reason: for all of it, in words
    """

    rdcc_nbytes: int
    rdcc_nslots: int
    rdcc_w0: float
    kept_bytes: int
    reason: str

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for ``h5py.File``, and for ``create_dataset`` and ``require_dataset``."""
        return {name: getattr(self, name) for name in _NAMES}


@dataclass(frozen=True)
class _Chunked:
    """A dataset, as far as its cache depends on it."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int
    filtered: bool

    @property
    def chunk_bytes(self) -> int:
        return max(1, math.prod(self.chunks) * self.itemsize)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(-(-length // chunk) for length, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def count(self) -> int:
        return math.prod(self.grid)

    @property
    def total(self) -> int:
        return self.count * self.chunk_bytes


def check_cache_access(access: Any) -> str:
    """`access` itself, if it is one of :data:`CACHE_ACCESSES`; else ``ValueError``."""
    if not isinstance(access, str) or access not in CACHE_ACCESSES:
        raise ValueError(f"access is {', '.join(map(repr, CACHE_ACCESSES[:-1]))} or {CACHE_ACCESSES[-1]!r}, not {access!r}")
    return access


def chunk_cache(dataset_or_shape: h5py.Dataset | Sequence[int], access: str = "random rows", *,
                chunks: Sequence[int] | None = None, dtype: DTypeLike = "f4", compressed: bool = True,
                crop: Sequence[int] | None = None, memory: int | float | str = "256 MiB") -> ChunkCache:
    """The chunk cache that suits reads through h5py of one dataset.

    ::

        cache = h5fast.chunk_cache(dataset, "sequential")
        h5py.File("train.h5", **cache.options)

    Parameters
    ----------
    dataset_or_shape:
        A dataset of h5py's or h5fast's, or the shape of one.
    access:
        What it is for: "random rows", "sequential" (rows one after the other, singly or in batches), or "crops" (boxes at
        random places).
    chunks, dtype, compressed:
        With a shape: its chunk shape (None: the one that :class:`Writer` chooses), the type of its elements (by default
        float32, as in ``create_dataset``), and whether chunks have to be decoded.
    crop:
        With "crops": the shape of one, in elements. None takes one as large as a chunk.
    memory:
        Bytes, or a text such as "1 GiB", that the cache may take.

    Returns
    -------
    A :class:`ChunkCache`. Its slots are a prime number, about a hundred times the chunks that fit and at most 131,071.

    Raises
    ------
    ValueError
        No such access; shapes that mean nothing together; a dataset without a shape; `memory` that is no size.
    TypeError
        `chunks` or `crop` where they make no sense.
    """
    check_cache_access(access)
    if crop is not None and access != "crops":
        raise TypeError(f"crop is the shape of crops, and access is {access!r}")
    if isinstance(dataset_or_shape, h5py.Dataset):
        if chunks is not None:
            raise TypeError(f"{dataset_or_shape.name!r} is a dataset, which has its own chunks: pass its shape to try others")
        found = _chunked(dataset_or_shape)
        if found is None:
            return _none(f"{_layout(dataset_or_shape)}, so HDF5 keeps no chunks of it")
    else:
        found = _of_shape(tuple(map(int, dataset_or_shape)), access, chunks, np.dtype(dtype).itemsize, compressed)
    return _suited(found, access, _crop_shape(found, crop), parse_bytes(memory))


def survey(file: h5py.File, access: str, memory: int = 256 << 20) -> ChunkCache:
    """The one chunk cache that suits all datasets of an open file: what its largest needs, within `memory` together.

    The first few thousand objects are looked at. A dataset that cannot be opened, and so not be read, does not count.
    """
    chunked = [found for found in map(_chunked, _datasets(file)) if found is not None]
    filtered = [found for found in chunked if found.filtered]
    if not chunked:
        return _none("no dataset of the file is chunked")
    large = [found for found in filtered if found.total > DEFAULT_BYTES]
    share = memory // max(1, len(large))
    caches = [_suited(found, access, _crop_shape(found, None), share) for found in filtered or chunked]
    most = max(caches, key=lambda cache: cache.rdcc_nbytes)
    kept = DEFAULT_BYTES if access == "sequential" else _kept(sum(found.total for found in filtered), memory)
    return ChunkCache(most.rdcc_nbytes, max(cache.rdcc_nslots for cache in caches), most.rdcc_w0, kept,
                      f"for the largest of {len(caches)} datasets: {most.reason}")


def open_arguments(asked: Any, *arguments: Any, **options: Any) -> tuple[dict[str, Any], int | None]:
    """What ``h5py.File(*arguments, **options)`` is to be called with instead, and how much h5fast itself may keep, for a file
    whose chunk cache is `asked` for: "auto", an access, or a :class:`ChunkCache`.

    Raises:
        ValueError: it is none of these, or there is no file to look at, or the options name a cache too.
        OSError: the file cannot be opened.
    """
    call = inspect.signature(h5py.File.__init__).bind_partial(None, *arguments, **options).arguments
    del call["self"]
    call.update(call.pop("kwds", {}))
    given = [name for name in _NAMES if call.get(name) is not None]
    if given:
        raise ValueError(f"chunk_cache and {', '.join(given)} say the same thing: give one of them")
    cache = asked if isinstance(asked, ChunkCache) else _looked_up(asked, call)
    if cache is None:
        return call, None
    writable = call.get("mode", "r") != "r"
    if writable and cache.rdcc_nbytes < DEFAULT_BYTES and not isinstance(asked, ChunkCache):
        return call, None  # datasets may be added, and written to piece by piece
    return {**call, **cache.options}, cache.kept_bytes


def open_signature() -> inspect.Signature:
    """Of h5py's ``File``, with the options that are h5fast's."""
    theirs = inspect.signature(h5py.File.__init__)
    ours = [inspect.Parameter("chunk_cache", inspect.Parameter.KEYWORD_ONLY, default=None),
            inspect.Parameter("untrusted", inspect.Parameter.KEYWORD_ONLY, default=False)]
    named = [one for one in theirs.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    rest = [one for one in theirs.parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD]
    return theirs.replace(parameters=[*named, *ours, *rest])


def _looked_up(asked: Any, call: Mapping[str, Any]) -> ChunkCache | None:
    if asked != "auto" and asked not in CACHE_ACCESSES:
        raise ValueError(f"chunk_cache is 'auto', {', '.join(map(repr, CACHE_ACCESSES))}, or what h5fast.chunk_cache() returns, "
                         f"not {asked!r}")
    name, mode = call["name"], call.get("mode", "r")
    if not isinstance(name, (str, bytes, os.PathLike)):
        raise ValueError("chunk_cache looks at the file first, and needs its path: pass what h5fast.chunk_cache() returns")
    if mode in ("w", "w-", "x"):
        raise ValueError(f"chunk_cache={asked!r} looks at the datasets of the file, and mode {mode!r} makes a new one: pass what "
                         "h5fast.chunk_cache() returns for the shapes to come")
    if mode == "a" and not os.path.exists(name):
        return None
    # What else h5py.File takes is about writing, or about caches.
    same = {key: value for key, value in call.items() if key in ("driver", "swmr", "locking")}
    with h5py.File(name, "r", **same) as file:
        return survey(file, "random rows" if asked == "auto" else asked)


def _datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
    names: list[str] = []

    def note(name: str) -> bool | None:
        names.append(name)
        return True if len(names) >= _SURVEYED else None

    try:
        file.visit(note)
    except (OSError, KeyError, RuntimeError, ValueError):
        return  # a damaged group: what was found before it says enough, and reading what follows will say what is wrong
    for name in names:
        try:
            found = file[name]
        except (OSError, KeyError, RuntimeError, TypeError, ValueError):
            continue
        if isinstance(found, h5py.Dataset):
            yield found


def _chunked(dataset: h5py.Dataset) -> _Chunked | None:
    """None for a dataset that has no chunks, or no elements."""
    if dataset.chunks is None or not dataset.size:
        return None
    properties = dataset.id.get_create_plist()
    return _Chunked(dataset.shape, dataset.chunks, dataset.id.get_type().get_size(), properties.get_nfilters() > 0)


def _layout(dataset: h5py.Dataset) -> str:
    if dataset.shape is None:
        raise ValueError(f"{dataset.name!r} is empty: it has no shape")
    return "no elements" if dataset.chunks is not None else "virtual" if dataset.is_virtual else "not chunked"


def _of_shape(shape: tuple[int, ...], access: str, chunks: Sequence[int] | None, itemsize: int,
              compressed: bool) -> _Chunked:
    if not shape or any(length < 1 for length in shape):
        raise ValueError(f"a chunked dataset has a shape of lengths of at least 1, not {shape}")
    if chunks is None:
        row_bytes = math.prod(shape[1:]) * itemsize
        rows, _ = choose_rows(row_bytes, compressed=compressed, access=access, rows=shape[0], most_bytes=1 << 32)
        chunks = (rows, *shape[1:])
    chunk = tuple(map(int, chunks))
    if len(chunk) != len(shape) or any(length < 1 for length in chunk):
        raise ValueError(f"chunks of shape {chunk} do not tile a dataset of shape {shape}")
    return _Chunked(shape, chunk, itemsize, compressed)


def _crop_shape(found: _Chunked, crop: Sequence[int] | None) -> tuple[int, ...]:
    shape = found.chunks if crop is None else tuple(map(int, crop))
    if len(shape) != len(found.shape) or any(length < 1 for length in shape):
        raise ValueError(f"a crop of shape {shape} is not of a dataset of shape {found.shape}")
    return tuple(min(length, whole) for length, whole in zip(shape, found.shape, strict=True))


def _suited(found: _Chunked, access: str, crop: tuple[int, ...], memory: int) -> ChunkCache:
    size = format_bytes(found.chunk_bytes)
    if not found.filtered and access != "sequential":
        return ChunkCache(0, _LEAST_SLOTS, 0.0, DEFAULT_BYTES, f"{access}: chunks are stored as they are: without a cache, HDF5 reads "
                          f"just what is asked for, and with one the whole chunk of {size}")
    at_once = _held_at_once(found, access, crop)
    wanted = min(found.count, 2 * at_once) if access == "sequential" else found.count
    held = min(wanted, memory // found.chunk_bytes)
    what = f"the chunks of a crop of {crop}" if access == "crops" else "the chunks of a row"
    if held < at_once:
        reason = (f"{what} take {format_bytes(at_once * found.chunk_bytes)}, more than the {format_bytes(memory)} allowed: "
                  "they are decoded again for each read; other chunks would help, or more memory")
    elif held == found.count:
        reason = f"all {found.count} chunks, of {size} each, are decoded once"
    elif access == "sequential":
        reason = f"{what} ({at_once} of {size}) and those of the next: each is decoded once, and not needed again"
    else:
        reason = f"{held} of {found.count} chunks, of {size} each: one read in {found.count / held:.1f} finds its chunk decoded"
    size_bytes, sequential = min(max(held * found.chunk_bytes, DEFAULT_BYTES), memory), access == "sequential"
    return ChunkCache(size_bytes, _slots(size_bytes // found.chunk_bytes), 1.0 if sequential else 0.0,
                      DEFAULT_BYTES if sequential else _kept(found.total, memory), f"{access}: {reason}")


def _held_at_once(found: _Chunked, access: str, crop: tuple[int, ...]) -> int:
    """Chunks that one read touches, at most: with fewer kept, the next read finds none of them."""
    if access == "crops":
        return math.prod(min(all_of, (length + chunk - 2) // chunk + 1)
                         for all_of, length, chunk in zip(found.grid, crop, found.chunks, strict=True))
    return math.prod(found.grid[1:])


def _kept(total: int, memory: int) -> int:
    """h5fast itself keeps everything or little: to keep a chunk it must be decoded to its end, which costs twice as much as
    what a row needs of it, and pays only where the chunk is still there when it is asked for again."""
    return max(total, DEFAULT_BYTES) if total <= memory else DEFAULT_BYTES


def _slots(chunks: int) -> int:
    wanted = min(max(_SLOTS_EACH * chunks, _LEAST_SLOTS), _MOST_SLOTS)
    return next(number for number in range(wanted, 2 * wanted) if _is_prime(number))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _none(reason: str) -> ChunkCache:
    return ChunkCache(DEFAULT_BYTES, _DEFAULT_SLOTS, 0.75, DEFAULT_BYTES, f"HDF5's own: {reason}")
