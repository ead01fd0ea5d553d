"""What ``fit`` is fed with (x, y and sample_weight, each one thing or several) as one source of a loader, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py

from h5fast.fields import Field
from h5fast.matrix import HDF5Matrix
from h5fast.objects import Dataset

__all__ = ["Pairs", "is_lazy", "leaves", "mapped", "paired"]

_PARTS = ("x", "y", "sample_weight")


@dataclass(frozen=True)
class Pairs:
    """What a loader reads, and how its batches become those of a model.

    Attributes:
        source, fields: of the loader
        names: for x, y and sample_weight, as far as they are given, names of fields in the structure that was given
    """

    source: Any
    fields: dict[str, Any]
    names: tuple[Any, ...]

    def batch(self, fields: Mapping[str, Any]) -> tuple[Any, ...]:
        """``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)`` of a batch of the loader."""
        return tuple([mapped(names, fields.__getitem__) for names in self.names])


def paired(x: Any, y: Any, sample_weight: Any, source: Any) -> Pairs:
    """Pairs x, y and sample_weight: one each, or lists, tuples or dicts of several.

    Args:
        source: files; x, y and sample_weight are then names of datasets in them, or ``Field``. None: they are matrices,
            datasets or arrays.

    Raises:
        TypeError: something in them is neither.
        ValueError: sample_weight without y.
    """
    if x is None:
        raise TypeError("x must be an HDF5Matrix, a dataset, an array, or a list or dict of these, not None")
    if y is None and sample_weight is not None:
        raise ValueError("sample_weight weighs the loss of y, and there is no y")
    given = [part for part in (x, y, sample_weight) if part is not None]
    fields: dict[str, Any] = {}
    names = []
    for name, part in zip(_PARTS, given):
        names.append(_named(name, part, fields, _field if source is not None else _rows))
        if not any(True for _ in leaves(names[-1])):
            raise ValueError(f"{name} is {part!r}: there is nothing in it")
    if source is not None:
        return Pairs(source, fields, tuple(names))
    return Pairs(fields, {name: name for name in fields}, tuple(names))


def _named(name: str, part: Any, found: dict[str, Any], checked: Callable[[str, Any], Any]) -> Any:
    """Names for what is in ``part``, in its structure; what they name goes to ``found``."""
    if isinstance(part, Mapping) and not isinstance(part, h5py.HLObject):
        return {key: _named(f"{name}/{key}", value, found, checked) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return tuple(_named(f"{name}/{place}", value, found, checked) for place, value in enumerate(part))
    while name in found:  # {"a/b": …, "a": {"b": …}}
        name += "'"
    found[name] = checked(name, part)
    return name


def _field(name: str, part: Any) -> Any:
    if isinstance(part, (str, Field)):
        return part
    raise TypeError(f"{name}: with source= a name of a dataset or an h5fast.Field is wanted, not {type(part).__name__}")


def _rows(name: str, part: Any) -> Any:
    if isinstance(part, (str, bytes, os.PathLike, Field)):
        raise TypeError(f"{name}={part!r} names a dataset or a file; say which files: HDF5Sequence('image', 'label', "
                        "source='train.h5'), or pass h5fast.HDF5Matrix('train.h5', 'image')")
    if isinstance(part, h5py.Group):
        raise TypeError(f"{name} is the group {part.name!r}, not a dataset; take one of {sorted(part)}")
    if isinstance(part, h5py.Dataset) and not isinstance(part, Dataset):
        return Dataset(part.id)  # h5py's own do not pickle
    if not isinstance(part, (HDF5Matrix, Dataset)) and not hasattr(part, "__array__"):
        raise TypeError(f"{name} must be an HDF5Matrix, a dataset, an array, or a list or dict of these, not "
                        f"{type(part).__name__}")
    return part


def mapped(structure: Any, function: Callable[[Any], Any]) -> Any:
    """The structure, with the function's result in the place of everything that is in it but None."""
    if isinstance(structure, Mapping) and not isinstance(structure, h5py.HLObject):
        return {key: mapped(value, function) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return tuple([mapped(value, function) for value in structure])
    return None if structure is None else function(structure)


def leaves(structure: Any) -> Iterator[Any]:
    """All that is in a structure, None left out."""
    found: list[Any] = []
    mapped(structure, found.append)
    return iter(found)


def is_lazy(leaf: Any) -> bool:
    """Whether it is something that stands in a file."""
    return isinstance(leaf, (HDF5Matrix, h5py.Dataset))
