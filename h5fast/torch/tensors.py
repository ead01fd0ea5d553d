"""Batches as tensors: what the loader gives, with arrays replaced by tensors on the same memory, and how batches collate.

A batch that was gathered whole must not be stacked again. :func:`collate` passes it on, and so does PyTorch's own
``default_collate``, which is told of such batches here: it takes a batch for a list of rows, and would stack two fields of one
shape into one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from h5fast.torch.framework import default_collate, default_collate_fn_map, torch

__all__ = ["as_tensors", "collate", "row_of", "whole"]


def as_tensors(value: Any) -> Any:
    """A batch with every array of numbers as a tensor on the same memory.

    Arrays in the other byte order, and those that run backwards, are copied; of strings and objects, and sparse matrices, are left as they are. Raises
    ``TypeError`` for a type of numbers that PyTorch does not have.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return value
        if not value.dtype.isnative or any(stride < 0 for stride in value.strides):
            value = value.astype(value.dtype.newbyteorder("="), "C")
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {name: as_tensors(one) for name, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(as_tensors, value))
    return type(value)(map(as_tensors, value)) if isinstance(value, (tuple, list)) else value


def row_of(batch: Any, place: int) -> Any:
    """A row of a batch, in the batch's form."""
    if isinstance(batch, Mapping):
        return {name: one[place] for name, one in batch.items()}
    if isinstance(batch, tuple):
        return tuple(one[place] for one in batch)
    return batch[place]


class _Fields(tuple[Any, ...]):
    """A whole batch, field by field."""


class _NamedFields(dict[str, Any]):
    """A whole batch, fields by name. ``default_collate`` looks at ``batch[0]`` to see what rows are like."""

    def __missing__(self, key: Any) -> Any:
        if key == 0:
            return _FIRST
        raise KeyError(key)


class _First:
    """What ``default_collate`` finds for the first row of a whole batch of named fields."""


_FIRST = _First()


def whole(batch: Any) -> Any:
    """A batch, such that collating leaves it as it is."""
    if isinstance(batch, tuple):
        return _Fields(batch)
    return _NamedFields(batch) if isinstance(batch, Mapping) else batch


def collate(rows: Any) -> Any:
    """The ``collate_fn`` for datasets that give whole batches: passes them on, and collates lists of rows as usual."""
    if isinstance(rows, list):
        return default_collate(rows)
    if isinstance(rows, _Fields):
        return tuple(rows)
    return dict(rows) if isinstance(rows, _NamedFields) else rows


def _whole_or(stack: Callable[..., Any], batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Of what ``default_collate`` would stack, whole batches as they are."""
    if isinstance(batch, (_Fields, _NamedFields, torch.Tensor, np.ndarray)):
        return collate(batch)
    return stack(batch, collate_fn_map=collate_fn_map)


def _tell_default_collate() -> None:
    for kind in (torch.Tensor, np.ndarray):
        default_collate_fn_map[kind] = partial(_whole_or, default_collate_fn_map[kind])
    default_collate_fn_map[_First] = partial(_whole_or, default_collate)  # which is never asked: lists of these there are none


_tell_default_collate()
