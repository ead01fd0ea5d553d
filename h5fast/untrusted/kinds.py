"""Types of elements as JSON: both directions, for types whose bytes in a file are NumPy's, and text.

``encode`` runs where the file is parsed, ``decode`` where nothing is believed: every number in it is checked.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from h5fast.untrusted.messages import Nonsense

__all__ = ["decode", "encode", "parts", "whole_number"]

# What a type may be made of. HDF5 itself has 64 KiB for a type in a header; 10,000 members do not fit there.
_MOST_MEMBERS = 10_000
_DEEPEST = 16
_LARGEST = 1 << 31
_MAX_RANK = 32  # H5S_MAX_RANK

_SIZES = {"i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 16), "c": (8, 16, 32)}


def encode(dtype: np.dtype) -> dict[str, Any] | None:
    """A type as JSON; None where it is none of those that can be told (references, opaque bytes, lists of variable length)."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return {"kind": "text", "utf8": text.encoding == "utf-8", "length": text.length}
    members = h5py.check_enum_dtype(dtype)
    if members is not None:
        return {**_number(dtype), "members": [[name, int(value)] for name, value in members.items()]}
    if dtype.subdtype is not None:
        base = encode(dtype.base)
        return None if base is None else {"kind": "array", "base": base, "shape": list(dtype.shape)}
    if dtype.names is not None and dtype.fields is not None:
        fields = [(name, encode(dtype.fields[name][0]), dtype.fields[name][1]) for name in dtype.names]
        if any(one is None for _, one, _ in fields):
            return None
        return {"kind": "compound", "size": dtype.itemsize, "fields": [list(field) for field in fields]}
    if dtype.kind == "b":
        return {"kind": "b"}
    if dtype.kind in _SIZES and not dtype.metadata and dtype.itemsize in _SIZES[dtype.kind]:
        return _number(dtype)
    return None


def _number(dtype: np.dtype) -> dict[str, Any]:
    return {"kind": dtype.kind, "size": dtype.itemsize, "big": dtype.str[0] == ">"}


def decode(told: Any, depth: int = 0) -> np.dtype:
    """The type that :func:`encode` was told.

    Raises:
        Nonsense: there is no such type.
    """
    kind = told.get("kind") if isinstance(told, dict) else None
    if depth > _DEEPEST or not isinstance(kind, str):
        raise Nonsense("a type that is none")
    if kind == "b":
        return np.dtype(bool)
    if kind == "text":
        length = told.get("length")
        length = None if length is None else whole_number(length, 1, _LARGEST, "length of a text")
        text: np.dtype = h5py.string_dtype("utf-8" if told.get("utf8") is True else "ascii", length)
        return text
    if kind == "array":
        shape = _shape(told.get("shape"))
        base = decode(told.get("base"), depth + 1)
        if base.itemsize * int(np.prod(shape, dtype=object)) > _LARGEST:
            raise Nonsense("an array type beyond all sizes")
        inner: np.dtype = np.dtype((base, shape))
        return inner
    if kind == "compound":
        return _compound(told, depth)
    return _plain(told, kind)


def _plain(told: dict[str, Any], kind: str) -> np.dtype:
    size = told.get("size")
    if kind not in _SIZES or type(size) is not int or size not in _SIZES[kind]:
        raise Nonsense(f"a type {kind[:8]!r} that is none")
    dtype: np.dtype = np.dtype(f"{'>' if told.get('big') is True else '<'}{kind}{size}")
    if "members" not in told:
        return dtype
    members = told["members"]
    if kind not in "iu" or not isinstance(members, list) or not 0 < len(members) <= _MOST_MEMBERS:
        raise Nonsense("an enumeration that is none")
    limits = np.iinfo(dtype)
    values: dict[str, int] = {}
    for member in members:
        name, value = parts(member, 2)
        values[_name(name)] = whole_number(value, int(limits.min), int(limits.max), "value of an enumeration")
    if len(values) != len(members):
        raise Nonsense("an enumeration with one name twice")
    named: np.dtype = h5py.enum_dtype(values, dtype)
    return named


def _compound(told: dict[str, Any], depth: int) -> np.dtype:
    size = whole_number(told.get("size"), 1, _LARGEST, "size of a compound type")
    fields = told.get("fields")
    if not isinstance(fields, list) or not 0 < len(fields) <= _MOST_MEMBERS:
        raise Nonsense("a compound type without fields")
    names, formats, offsets = [], [], []
    for field in fields:
        name, inner, offset = parts(field, 3)
        names.append(_name(name))
        formats.append(decode(inner, depth + 1))
        offsets.append(whole_number(offset, 0, size, "place of a field"))
    try:
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    except ValueError as error:
        raise Nonsense(f"a compound type that is none ({error})") from error


def _shape(told: Any) -> tuple[int, ...]:
    if not isinstance(told, list) or not 0 < len(told) <= _MAX_RANK:
        raise Nonsense("an array type without axes")
    return tuple(whole_number(extent, 1, _LARGEST, "extent of an array type") for extent in told)


def parts(told: Any, length: int) -> list[Any]:
    """A list of exactly so many things. Raises :class:`Nonsense` for anything else."""
    if not isinstance(told, list) or len(told) != length:
        raise Nonsense(f"{length} things that belong together and are not so many")
    return told


def _name(told: Any) -> str:
    if not isinstance(told, str) or not told or "\0" in told:
        raise Nonsense("a name that is none")
    return told


def whole_number(told: Any, least: int, most: int, what: str) -> int:
    """A whole number between two limits, both included.

    Raises:
        Nonsense: it is none, with `what` it was to be.
    """
    if type(told) is not int or not least <= told <= most:
        raise Nonsense(f"{what}: {str(told)[:40]} is not between {least} and {most}")
    return told
