"""What selecting must give, and random keys: for the tests of ``select`` and ``select_rows``.

The oracle is h5py on a real dataset in memory, then numpy on the same array. ``Selection`` holds numbers, no data, so a slow
walker that follows the rule in ``_selection.pxd`` literally stands in for the engine.
"""

from __future__ import annotations

import functools
import itertools

import h5py
import numpy as np
from hypothesis import strategies as st

from h5fast._selection import Selection, h5py_accepts, select

RECORD = np.dtype([("a", "i8"), ("b", "f4")])


class Index:
    """An integer by ``__index__`` only."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value})"


class ArrayLike:
    """An array by ``__array__`` only."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)

    def __repr__(self) -> str:
        return f"ArrayLike({self.value})"


# ------------------------------------------------------------------------------------------------- walker and oracles


def data_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(int(np.prod(shape, dtype=int)), dtype="i8").reshape(shape)


def walk(s: Selection, data: np.ndarray) -> object:
    """Read ``s`` element by element, and check that every element of the result is written exactly once."""
    out = np.full(int(np.prod(s.shape, dtype=int)), -1, dtype=data.dtype)
    assert out.size == s.size
    assert s.rank == data.ndim
    ranges = [axis for axis in range(s.rank) if not s.axes[axis][4]]
    for p in range(s.npoints if s.size else 0):
        for steps in itertools.product(*(range(s.axes[axis][1]) for axis in ranges)):
            element = [0 if column is None else int(column[p]) for column in s.coordinates]
            target = s.out_offset + p * s.point_stride
            for axis, i in zip(ranges, steps):
                start, _, step, out_stride, _ = s.axes[axis]
                assert step >= 1
                element[axis] = start + i * step
                target += i * out_stride
            assert all(0 <= e < n for e, n in zip(element, data.shape))
            assert 0 <= target < out.size and out[target] == -1
            out[target] = data[tuple(element)]
    assert not (out == -1).any()
    out = out.reshape(s.shape)
    return out[()] if s.scalar else out


@functools.cache
def memory_file() -> h5py.File:
    return h5py.File("selection", "w", driver="core", backing_store=False)


@functools.cache
def datasets(shape: tuple[int, ...]) -> tuple[h5py.Dataset, h5py.Dataset]:
    """One dataset on h5py's fast path (integers) and one on its slow path (a compound)."""
    records = np.zeros(shape, RECORD)
    records["a"] = data_of(shape)
    name = "x".join(map(str, shape)) or "scalar"
    return memory_file().create_dataset(name, data=data_of(shape)), memory_file().create_dataset(name + "r", data=records)


def outcome(function, *args) -> object:
    try:
        return function(*args)
    except Exception as error:
        return error


def is_wrong_in_h5py(key: object, result: object, data: np.ndarray) -> bool:
    """The three answers of h5py's that are not followed (see the head of ``_selection.pyx``)."""
    entries = key if isinstance(key, tuple) else (key,)
    for entry in entries:
        if isinstance(entry, (np.ndarray, ArrayLike)):
            array = np.asarray(entry)
            if array.dtype.kind == "u" and array.ndim == 1 and (np.diff(array.astype("i8")) <= 0).any():
                return True
            if array.dtype.kind == "i" and (array < 0).any() and max(data.shape) > np.iinfo(array.dtype).max:
                return True
    # (its True and False are 1 and 0)
    meant = tuple(int(entry) if isinstance(entry, bool) else entry for entry in entries)
    return np.size(result) == 0 and isinstance(outcome(data.__getitem__, meant), (IndexError, DeprecationWarning))


def expected(shape: tuple[int, ...], key: object) -> object:
    data = data_of(shape)
    result = outcome(datasets(shape)[0].__getitem__, key)
    if isinstance(result, Exception) or is_wrong_in_h5py(key, result, data):
        result = outcome(data.__getitem__, key)
    return result


def same(ours: object, theirs: object) -> None:
    if isinstance(theirs, Exception):
        # numpy says OverflowError of 2**63 to 2**64-1 alone, and IndexError of every other index that is too large;
        # numpy 1 only warned of an index out of range where the result was empty
        kind = IndexError if isinstance(theirs, (OverflowError, DeprecationWarning)) else type(theirs)
        assert type(ours) is kind, (ours, theirs)
        return
    if isinstance(ours, Exception):
        raise AssertionError((theirs, ours)) from ours
    assert type(ours) is type(theirs)
    assert np.shape(ours) == np.shape(theirs)
    np.testing.assert_array_equal(ours, theirs)


def check(shape: tuple[int, ...], key: object) -> None:
    data = data_of(shape)

    def ours(numpy_only: bool) -> object:
        return walk(select(key, shape, numpy_only), data)

    mine = outcome(ours, False)
    same(mine, expected(shape, key))
    same(outcome(ours, True), outcome(data.__getitem__, key))
    if h5py_accepts(key, shape):
        plain, records = datasets(shape)
        same(mine, outcome(plain.__getitem__, key))
        same(mine, outcome(lambda: records[key]["a"]))


# ------------------------------------------------------------------------------------------------------------ strategies


def indices(size: int) -> st.SearchStrategy[int]:
    inside = st.integers(-size, size - 1) if size else st.integers(-1, 1)
    return inside | inside | inside | inside | inside | inside | inside | st.integers(-size - 2, size + 1)


def slices(size: int) -> st.SearchStrategy[slice]:
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.sampled_from([1, 2, 3, -1, -2, -5, 7]) | st.integers(-7, 7)
    return st.builds(slice, bound, bound, step)


@st.composite
def index_arrays(draw, size: int):
    """An index array of 0 to 3 dimensions, as a list, a tuple, a range or an array of any integer type."""
    ndim = draw(st.sampled_from([1, 1, 1, 1, 1, 2, 3, 0]))
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 2, 3]), min_size=ndim, max_size=ndim)))
    length = int(np.prod(shape, dtype=int))
    values = draw(st.lists(indices(size), min_size=length, max_size=length))
    order = draw(st.sampled_from(["any", "sorted", "unique"]))
    if ndim == 1 and order != "any":
        values = sorted(set(values) if order == "unique" else values)
        shape = (len(values),)
    dtype = draw(st.sampled_from(["i8", "i8", "i4", "i1", "u1", "u8", ">i4", "f8", "O"]))
    array = np.array(values, "i8").reshape(shape)
    form = draw(st.sampled_from(["list", "list", "array", "array", "strided", "tuple", "numpy ints", "like"]))
    if form in ("list", "tuple") and ndim:
        return array.tolist() if form == "list" else tuple(array.tolist())
    if form == "numpy ints" and ndim == 1:
        return list(array)
    if dtype[0] == "u":
        array = abs(array)
    array = array.astype(dtype)
    if form == "strided" and ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    return ArrayLike(array) if form == "like" else array


@st.composite
def masks(draw, shape: tuple[int, ...]):
    shape = tuple(n + draw(st.sampled_from([0] * 12 + [1, -1])) for n in shape)
    shape = tuple(max(0, n) for n in shape)
    length = int(np.prod(shape, dtype=int))
    values = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    mask = np.array(values, bool).reshape(shape)
    return mask.tolist() if shape and draw(st.booleans()) else mask


ODD = [True, False, np.True_, np.False_, np.array(True), np.array(False), 1.0, b"a", [None], [1.5], np.array([]),
       [[0], [0, 1]], [2**63], slice(0.5, 1), slice(2**70), slice(None, -(2**70), -(2**80)), [True, 2]]

# numpy refuses these before it looks at the rest of the key, so a key with another fault besides raises something else there
BEYOND_64_BITS = [2**63, 2**70, -(2**70), Index(2**70)]


@st.composite
def entries(draw, shape: tuple[int, ...], axis: int):
    """One entry of a key that starts at ``axis``, and the number of axes that it should consume."""
    size = shape[axis] if axis < len(shape) else 2
    kinds = ["int"] * 4 + ["slice"] * 6 + ["array"] * 4 + ["mask"] * 2 + ["newaxis", "bool", "range", "odd"]
    kind = draw(st.sampled_from(kinds))
    if kind == "int":
        wrap = draw(st.sampled_from([int, int, int, np.int64, np.uint8, Index, np.array]))
        value = draw(indices(size))
        return wrap(abs(value) if wrap is np.uint8 else value), 1
    if kind == "slice":
        return draw(slices(size)), 1
    if kind == "array":
        return draw(index_arrays(size)), 1
    if kind == "range":
        return range(*draw(st.tuples(indices(size), indices(size), st.sampled_from([1, 2, -1])))), 1
    if kind == "mask":
        ndim = draw(st.integers(0, max(0, len(shape) - axis)))
        return draw(masks(shape[axis:axis + ndim])), ndim
    if kind == "newaxis":
        return None, 0
    return (draw(st.sampled_from(ODD[:6])), 0) if kind == "bool" else (draw(st.sampled_from(ODD)), 1)


@st.composite
def shapes_and_keys(draw):
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 3, 4, 5, 6]), max_size=4)))
    if draw(st.integers(0, 15)) == 0:
        return shape, draw(masks(shape))
    key: list[object] = []
    axis = 0
    ellipsis = False
    for _ in range(draw(st.integers(0, len(shape) + 1))):
        entry, used = draw(entries(shape, axis))
        if axis + used > len(shape) and draw(st.integers(0, 20)):
            break
        key.append(entry)
        axis += used
        if not ellipsis and draw(st.integers(0, 4)) == 0:
            key.append(Ellipsis)
            axis += draw(st.integers(0, max(0, len(shape) - axis)))
            ellipsis = draw(st.integers(0, 20)) > 0
    if len(key) == 1 and draw(st.booleans()) and not isinstance(key[0], tuple):
        return shape, key[0]
    return shape, tuple(key)
