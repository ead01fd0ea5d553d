"""Datasets cut into boxes of whole chunks that fit the memory, and boxes cut into chunks: arithmetic, no file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

__all__ = ["Box", "boxes", "tiled"]

Box = tuple[slice, ...]


def boxes(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, most_bytes: int, align: int = 1) -> Iterator[Box]:
    """Boxes that cover `shape` without overlap, each of whole chunks (but for the ends of the axes), in the order of the elements.

    They take up to `most_bytes`, or one chunk where that is larger. The first axis is cut at multiples of `align` too, where
    that leaves boxes this small: those who read from chunks of so many rows decode each of them once then.
    """
    if not math.prod(shape):
        return
    box, size = list(chunks), math.prod(chunks) * itemsize
    for axis in reversed(range(len(shape))):
        whole = -(-shape[axis] // chunks[axis])
        taken = max(1, min(whole, most_bytes // max(1, size)))
        box[axis] *= taken
        size *= taken
        if taken < whole:
            break
    step = math.lcm(chunks[0], align)
    if box[0] > step:
        box[0] -= box[0] % step
    for start in _places([range(0, length, extent) for length, extent in zip(shape, box, strict=True)]):
        yield tuple(slice(first, min(first + extent, length)) for first, extent, length in zip(start, box, shape, strict=True))


def _places(ranges: list[range]) -> Iterator[tuple[int, ...]]:
    """``itertools.product`` of ranges, which it would make lists of first, however long they are."""
    if not ranges:
        yield ()
        return
    for first in ranges[0]:
        for rest in _places(ranges[1:]):
            yield (first, *rest)


def tiled(values: np.ndarray, chunks: tuple[int, ...], fill: np.ndarray) -> np.ndarray:
    """The chunks of a box one behind the other, as an array of shape ``(number, *chunks)``, those at its ends padded with `fill`."""
    grid = tuple(-(-length // chunk) for length, chunk in zip(values.shape, chunks, strict=True))
    whole = tuple(count * chunk for count, chunk in zip(grid, chunks, strict=True))
    if whole != values.shape:
        padded = np.empty(whole, values.dtype)
        padded[...] = fill
        padded[tuple(map(slice, values.shape))] = values
        values = padded
    apart = values.reshape(tuple(itertools.chain.from_iterable(zip(grid, chunks, strict=True))))
    axes = (*range(0, apart.ndim, 2), *range(1, apart.ndim, 2))
    return np.ascontiguousarray(apart.transpose(axes)).reshape(-1, *chunks)
