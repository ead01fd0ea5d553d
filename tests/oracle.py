"""What "h5fast returns exactly what h5py returns" means, in one place.

`difference` compares two answers, `selections` draws the keys that every dataset is asked for, and `compare_dataset`
puts both together for one dataset. Plain h5py is the oracle; where h5py refuses a key, numpy on h5py's whole array is.
Used by the corpus harness, the hazard tests and the property tests. Reads files, never writes.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

# h5py's fancy index costs up to 70 ns an element: above this numpy indexes the whole array that h5py has read.
H5PY_INDEX_LIMIT = 1_000_000
NUMPY_AGREES = {"slices", "row slice", "last axis", "rows", "unsorted rows", "mask", "reversed"}
X87_LONGDOUBLE = np.finfo(np.longdouble).nmant == 63
X87_VALUE_BYTES = 10  # the rest of a 16-byte x87 long double is padding, which conversions leave undefined


def difference(got: Any, expected: Any, got_file: Any = None, expected_file: Any = None) -> str | None:
    """The first way in which `got` is not `expected` (type, dtype, shape, bits), or None when they are the same.

    Padding between the members of a compound and inside long doubles is ignored; NaNs must agree bit for bit.
    The files are needed for comparing references, which mean something in their file only.
    """
    if isinstance(expected, np.ndarray) or isinstance(got, np.ndarray):
        if type(got) is not type(expected):
            return f"type {type(got).__name__}, expected {type(expected).__name__}"
        if dtype_difference(got.dtype, expected.dtype):
            return dtype_difference(got.dtype, expected.dtype)
        if got.shape != expected.shape:
            return f"shape {got.shape}, expected {expected.shape}"
        return _bits_difference(got, expected, got_file, expected_file)
    if isinstance(expected, np.generic):
        if not isinstance(got, np.generic):
            return f"type {type(got).__name__}, expected numpy scalar {expected.dtype}"
        return difference(np.asarray(got), np.asarray(expected), got_file, expected_file)
    if type(got) is not type(expected):
        return f"type {type(got).__name__}, expected {type(expected).__name__}"
    if isinstance(expected, h5py.Empty):
        return dtype_difference(got.dtype, expected.dtype)
    if isinstance(expected, (h5py.Reference, h5py.RegionReference)):
        target, expected_target = _reference_target(got, got_file), _reference_target(expected, expected_file)
        return None if target == expected_target else f"reference to {target}, expected {expected_target}"
    if isinstance(expected, tuple):
        if len(got) != len(expected):
            return f"{len(got)} items, expected {len(expected)}"
        return next((d for pair in zip(got, expected) if (d := difference(*pair, got_file, expected_file))), None)
    return None if got == expected else f"{got!r:.80}, expected {expected!r:.80}"


def dtype_difference(got: np.dtype, expected: np.dtype) -> str | None:
    """Dtypes must agree in layout, byte order and in h5py's metadata (strings, enums, vlen, references)."""
    if got != expected and expected.names and got.names != expected.names:
        got, expected = _by_offset(got), _by_offset(expected)
    if got != expected or got.str != expected.str:
        return f"dtype {got}, expected {expected}"
    if (got.metadata or {}) != (expected.metadata or {}):
        return f"dtype metadata {got.metadata}, expected {expected.metadata}"
    if expected.names:
        pairs = ((got[name], expected[name]) for name in expected.names)
        return next((d for pair in pairs if (d := dtype_difference(*pair))), None)
    if expected.subdtype:
        return dtype_difference(got.base, expected.base)
    return None


def _by_offset(dtype: np.dtype) -> np.dtype:
    """Members ordered by offset. libhdf5 itself sorts them so, in place, when a dataset is first read, so that h5py's
    dtype of the same dataset differs before and after (seen in h5repack_nested_8bit_enum_deflated.h5)."""
    if not dtype.names:
        return dtype
    members = sorted(((dtype.fields[name][1], name) for name in dtype.names))
    return np.dtype({"names": [name for _, name in members], "formats": [dtype[name] for _, name in members],
                     "offsets": [offset for offset, _ in members], "itemsize": dtype.itemsize})


def _bits_difference(got: np.ndarray, expected: np.ndarray, got_file: Any, expected_file: Any) -> str | None:
    if expected.dtype.names:
        for name in expected.dtype.names:
            if found := _bits_difference(got[name], expected[name], got_file, expected_file):
                return f"member {name!r}: {found}"
        return None
    if expected.dtype.hasobject:
        for place, (a, b) in enumerate(zip(got.ravel(), expected.ravel())):
            if found := difference(a, b, got_file, expected_file):
                return f"element {place}: {found}"
        return None
    if expected.size == 0 or expected.dtype.itemsize == 0:
        return None
    a, b = _value_bytes(got), _value_bytes(expected)
    if a.tobytes() == b.tobytes():
        return None
    wrong = np.flatnonzero((a != b).reshape(expected.size, -1).any(axis=1))
    first = np.unravel_index(int(wrong[0]), expected.shape)
    values = f"{got[first]!r:.60}, expected {expected[first]!r:.60}"
    return f"{wrong.size} of {expected.size} elements differ, first at {tuple(map(int, first))}: {values}"


def _value_bytes(array: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(array).reshape(-1)
    raw = flat.view(np.uint8).reshape(flat.size, -1)
    if X87_LONGDOUBLE and array.dtype.type in (np.longdouble, np.clongdouble):
        return np.ascontiguousarray(raw.reshape(-1, np.dtype(np.longdouble).itemsize)[:, :X87_VALUE_BYTES])
    return raw


def _reference_target(reference: Any, file: Any) -> tuple:
    """What a reference points at, by address: H5Rget_name would search the whole file for a name."""
    if not reference:
        return ("null",)
    with contextlib.suppress(Exception):
        target = h5py.h5o.get_info(h5py.h5r.dereference(reference, file.id)).addr
        if isinstance(reference, h5py.RegionReference):
            region = h5py.h5r.get_region(reference, file.id)
            return (target, region.get_select_npoints(), region.get_select_bounds())
        return (target,)
    return ("unresolvable",)


def selections(shape: tuple[int, ...], seed: int, *, full: bool = True) -> Iterator[tuple[str, Any]]:
    """(label, key) pairs for a dataset of this shape, a pure function of shape and seed. Label "take" means ds.take(key)."""
    rng = random.Random(f"{seed}{shape}")
    if full:
        yield "[...]", Ellipsis
        yield "[()]", ()
    if not shape:
        return
    n = shape[0]
    rows = [rng.randrange(n) for _ in range(min(2 * n, 40))] if n else []
    rows += rows[:3]
    yield "take", np.array(rows, dtype=np.int64)
    yield "take", np.array([row - n for row in rows[:7]], dtype=np.int64)
    yield "rows", sorted(set(rows[:12]))
    yield "unsorted rows", rows[:9]
    for row in rows[:3]:
        yield "row", row
    if n:
        yield "negative row", -1 - rng.randrange(n)
    for _ in range(4):
        yield "slices", tuple(_slice(extent, rng) for extent in shape)
    yield "row slice", _slice(n, rng)
    yield "reversed", (slice(None, None, -1),)
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    yield "mask", mask
    yield "last axis", (Ellipsis, _slice(shape[-1], rng))
    if len(shape) > 1 and all(shape):
        yield "element", tuple(rng.randrange(extent) for extent in shape)
        inner = sorted({rng.randrange(shape[-1]) for _ in range(5)})
        yield "row and list", (rng.randrange(n), Ellipsis, inner)


def _slice(extent: int, rng: random.Random) -> slice:
    start, stop = sorted((rng.randint(0, extent), rng.randint(0, extent)))
    return slice(start, stop, rng.choice([1, 1, 2, 3, 7]))


class NoOracleError(Exception):
    """h5py can neither read the whole dataset nor serve this key: nothing says what the answer should be."""


def expected_answer(dataset: h5py.Dataset, whole: Any, label: str, key: Any) -> Any:
    """h5py's answer for the key; numpy's on the whole array where h5py refuses, or would take minutes.

    Raises what h5py raises where h5py cannot read; raises IndexError where numpy, too, refuses the key.
    """
    big = isinstance(whole, np.ndarray) and whole.size > H5PY_INDEX_LIMIT
    if whole is not None and (label == "take" or (big and label in NUMPY_AGREES)):
        return _copy(whole[key])
    if whole is None and label in ("take", "unsorted rows"):
        return np.stack([dataset[int(row)] for row in key])
    try:
        return dataset[key]
    except (TypeError, ValueError, IndexError) as error:
        if whole is None:
            raise NoOracleError from error
        return _copy(whole[key])


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


@dataclass
class Comparison:
    """What came of comparing one dataset. `differences` must be empty; `refusals` and `extra` are for a human to judge."""

    differences: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)  # h5fast raised one of its documented errors, h5py returned bytes
    extra: list[str] = field(default_factory=list)  # h5fast read what h5py has no plug-in for
    reader: str = ""
    error: str = ""  # h5py's error for the whole dataset
    whole: Any = None  # h5py's whole array


def documented_refusals() -> tuple[type[Exception], ...]:
    """The errors that h5fast may raise where h5py returns (uninitialised or zero-filled) bytes."""
    import h5fast

    return (h5fast.CorruptChunkError, h5fast.CorruptFileError, h5fast.ReadError)


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:400]


def answer(dataset: Any, label: str, key: Any) -> Any:
    return dataset.take(key) if label == "take" else dataset[key]


def compare_dataset(fast: Any, plain: h5py.Dataset, seed: int, *, at: Any = lambda stage: None) -> Comparison:
    """Reads `fast` (h5fast) and `plain` (h5py) whole and by every selection, and compares each answer.

    `at` is told each step before it is taken, so that whoever watches knows what a crash interrupted.
    """
    result = Comparison()
    at("h5py whole")
    try:
        result.whole = plain[()]
    except Exception as error:  # noqa: BLE001 - whatever h5py raises is the oracle's answer
        result.error = describe(error)
    at("h5fast attributes")
    for name in ("shape", "dtype", "maxshape", "ndim", "size"):
        _compare_attribute(fast, plain, name, result)
    whole_failed = False
    for number, (label, key) in enumerate(selections(plain.shape or (), seed)):
        if label == "mask" and isinstance(result.whole, h5py.Empty):
            break
        whole_failed |= not _compare_one(fast, plain, label, key, result, at, whole_failed or number == 0)
    if result.whole is not None and plain.dtype.names and not isinstance(result.whole, h5py.Empty):
        for name in plain.dtype.names[:4]:
            _compare_one(fast, plain, "member", name, result, at, whole_failed)
    at("h5fast reader")
    try:
        result.reader = str(fast.reader)
    except Exception as error:  # noqa: BLE001
        result.differences.append(f"reader: raised {describe(error)}")
    return result


def _compare_attribute(fast: Any, plain: Any, name: str, result: Comparison) -> None:
    try:
        expected = getattr(plain, name)
    except Exception:  # noqa: BLE001 - h5py has no such answer (a type without numpy equivalent)
        return
    got = getattr(fast, name)
    if dtype_difference(got, expected) if name == "dtype" else got != expected:
        result.differences.append(f"{name}: {got!r}, expected {expected!r}")


def _compare_one(fast: Any, plain: Any, label: str, key: Any, result: Comparison, at: Any, may_refuse: bool) -> bool:
    """One selection through both. False when h5fast refused it with a documented error, which it may where h5py, reading
    the whole dataset or this part, met undefined bytes: `may_refuse`."""
    at(f"h5py {label}")
    refusal = None
    try:
        expected = expected_answer(plain, result.whole, label, key)
    except NoOracleError:
        return True
    except Exception as error:  # noqa: BLE001
        refusal = error
    at(f"h5fast {label}")
    where = f"{label} {key!r:.120}"
    try:
        got = answer(fast, label, key)
    except Exception as error:  # noqa: BLE001
        documented = isinstance(error, documented_refusals())
        if refusal is None:
            (result.refusals if documented and may_refuse else result.differences).append(f"{where}: raised {describe(error)}")
        return not documented
    if refusal is not None:
        unregistered = "plugin" in str(refusal) or "not registered" in str(refusal)
        kind = result.extra if unregistered else result.differences
        kind.append(f"{where}: data, where h5py raised {describe(refusal)}")
    elif found := difference(got, expected, fast.file, plain.file):
        result.differences.append(f"{where}: {found}")
    return True


def check(path: Any, name: str = "d", *, direct: bool | None = None, seed: int = 0) -> str:
    """Asserts that h5fast reads the dataset as h5py does, refusing nothing; returns the reader.

    direct=True also asserts that the direct path served it, direct=False that the general path did.
    """
    import h5fast

    with h5py.File(path, "r") as plain_file, h5fast.File(path, "r") as fast_file:
        result = compare_dataset(fast_file[name], plain_file[name], seed)
    assert not result.error, f"the oracle itself failed: {result.error}"
    assert not result.differences, "\n".join(result.differences)
    assert not result.refusals, "\n".join(result.refusals)
    if direct is not None:
        assert (result.reader == "direct") is direct, result.reader
    return result.reader
