"""Batches as they arrive at a writer: checked against the fields, and made arrays of their types, before any row is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from h5fast.specs import Spec

__all__ = ["check_batch", "rows_for"]


def check_batch(batch: Mapping[str, Any], fields: Mapping[str, Spec]) -> tuple[dict[str, np.ndarray[Any, Any]], int]:
    """The arrays of a batch by field, and its number of rows.

    Raises:
        ValueError: a field is missing or unknown, has rows of another shape or more of them than another, or a value that
            its type cannot hold.
        TypeError: the values of a field cannot become its type.
    """
    if batch.keys() != fields.keys():
        missing, unknown = sorted(fields.keys() - batch.keys()), sorted(batch.keys() - fields.keys(), key=str)
        said = [f"{word} {', '.join(map(repr, names))}" for word, names in (("lacks", missing), ("has the unknown", unknown)) if names]
        raise ValueError(f"the batch {' and '.join(said)}; the fields are {', '.join(map(repr, fields))}")
    arrays = {name: rows_for(name, batch[name], spec.shape, spec.element) for name, spec in fields.items()}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError("the fields of a batch have as many rows each, not " +
                         ", ".join(f"{count} of {name!r}" for name, count in counts.items()))
    return arrays, next(iter(counts.values()))


def rows_for(name: str, rows: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The rows of a batch as an array of this type, for the field `name`. Raises as :func:`check_batch`."""
    array = _objects(rows, shape) if dtype == object else np.asarray(rows)
    if array.shape[1:] != shape or array.ndim == 0:
        raise ValueError(f"field {name!r} takes rows of shape {shape}, as an array of shape {('n', *shape)}, "
                         f"not {array.shape}".replace("'n'", "n"))
    return array if array.dtype == dtype and not dtype.hasobject else _converted(name, array, dtype)


def _objects(rows: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Elements of variable length, one Python object each, which NumPy would otherwise take for further axes."""
    if isinstance(rows, np.ndarray):
        return rows.astype(object)
    if shape:
        return np.asarray(rows, dtype=object)
    array = np.empty(len(rows), object)
    array[:] = rows if isinstance(rows, list) else list(rows)
    return array


def _converted(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    numbers = "biu"
    if dtype == object:
        return _converted_objects(name, array, dtype)
    if dtype.names is not None and array.dtype.names is not None:
        return _converted_records(name, array, dtype)
    if array.dtype == dtype:
        return array
    if array.dtype.kind in numbers and dtype.kind in numbers:
        return _converted_exactly(name, array, dtype)
    if array.dtype.kind in "SU" and dtype.kind == "S":
        return _converted_text(name, array, dtype)
    if array.size and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"field {name!r} is of type {dtype}, and values of type {array.dtype} would lose what they say in it: "
                        "convert them first")
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype)
    except FloatingPointError:
        raise ValueError(f"field {name!r} is of type {dtype}, for which a value is too large") from None


def _converted_objects(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Elements that HDF5 stores apart. It would find what is wrong with one only when its chunk is written, many batches later."""
    if h5py.check_string_dtype(dtype) is not None:
        _check_texts(name, array.reshape(-1).tolist())
        return array
    base = h5py.check_vlen_dtype(dtype)
    found = np.empty(array.shape, dtype)
    for place, element in np.ndenumerate(array):
        if base is None:
            if element is not None and not isinstance(element, h5py.Reference):
                raise TypeError(f"field {name!r} holds references, and {element!r} is none")
            found[place] = element
            continue
        values = np.asarray(element)
        if values.ndim != 1:
            raise ValueError(f"field {name!r} holds rows of any length, each an array of one axis, and one has the shape {values.shape}")
        found[place] = _converted(name, values, np.dtype(base))
    return found


def _check_texts(name: str, texts: list[Any]) -> None:
    """All of them at once, which takes a tenth of looking at each."""
    try:
        whole = b"".join(texts) if texts and isinstance(texts[0], bytes) else "".join(texts).encode()
    except (TypeError, UnicodeEncodeError):
        if len(texts) > 1:
            for text in texts:
                _check_texts(name, [text])
            return
        if isinstance(texts[0], str):
            raise ValueError(f"field {name!r} holds text in UTF-8, and {texts[0]!r} has characters that are none") from None
        raise TypeError(f"field {name!r} holds text, and {texts[0]!r} is of type {type(texts[0]).__name__}") from None
    if b"\0" in whole:
        found = next(text for text in texts if ("\0" if isinstance(text, str) else b"\0") in text)
        raise ValueError(f"field {name!r} holds text of any length, which ends at the first NUL, and {found!r} has one")


def _converted_records(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Compounds, member by member. NumPy goes by their places, whatever they are called, and wraps numbers."""
    assert dtype.names is not None and array.dtype.names is not None
    if set(dtype.names) != set(array.dtype.names):
        raise TypeError(f"field {name!r} has the members {', '.join(dtype.names)}, not {', '.join(array.dtype.names)}")
    found = np.empty(array.shape, dtype)
    for member in dtype.names:
        values = array[member]
        if values.shape != found[member].shape:
            raise ValueError(f"field {name!r}: member {member!r} has the shape {dtype[member].shape}, not {array.dtype[member].shape}")
        found[member] = _converted(f"{name}.{member}", values, dtype[member].base)
    return found


def _converted_exactly(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Whole numbers, which NumPy and HDF5 would wrap or clip silently where they do not fit."""
    converted = array.astype(dtype)
    if not np.can_cast(array.dtype, dtype, "safe"):
        wrong = (converted.astype(array.dtype) != array) | ((converted < 0) != (array < 0) if dtype.kind != "b" else False)
        if wrong.any():
            raise ValueError(f"field {name!r} is of type {dtype}, which cannot hold {array[wrong].flat[0]}")
    return converted


def _converted_text(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    encoded = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    if encoded.size and encoded.dtype.itemsize > dtype.itemsize:
        longest = int(np.char.str_len(encoded).max())
        if longest > dtype.itemsize:
            raise ValueError(f"field {name!r} holds {dtype.itemsize} bytes of text, and one has {longest}")
    return encoded.astype(dtype)
