"""What a key selects: h5py's answer where h5py has one, numpy's elsewhere.

The oracle is h5py on a real dataset in memory, then numpy on the same array. ``Selection`` holds numbers, no data, so a slow
walker that follows the rule in ``_selection.pxd`` literally stands in for the engine.
"""

from __future__ import annotations

import functools
import itertools
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from h5fast._selection import Selection, Unhandled, h5py_accepts, select, select_rows

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


# ----------------------------------------------------------------------------------------------------------------- tests


@settings(max_examples=1500, deadline=None)
@given(shapes_and_keys())
@example(((2, 3, 4), (0, slice(None), [1, 2])))
@example(((2, 3, 4), (0, slice(None), [2, 1])))
def test_select_agrees_with_h5py_then_numpy(case) -> None:
    check(*case)


S = slice
T = np.True_


@pytest.mark.parametrize(
    ("shape", "key"),
    [
        # h5py's answers that numpy does not share
        ((2, 3, 4), (0, S(None), [1, 2])),
        ((2, 3, 4), (S(None), 0, ..., [1])),
        ((2, 3, 4), (0, S(None), np.array([True, False, True, True]))),
        ((2, 3, 4), ([0, 1], S(None), 2)),
        ((2, 3, 4), (0, S(None), ArrayLike([1, 2]))),
        ((2, 3, 4), (0, S(None), np.array([-2, -1], "i1"))),
        ((3,), True),
        ((3,), False),
        ((3, 4), (True, 1)),
        ((3, 4), (True, [0, 1])),
        ((3,), (..., 2)),
        ((3,), np.array(2)),
        # refused by h5py, so numpy's
        ((2, 3, 4), (0, S(None), [2, 1])),
        ((2, 3, 4), (0, S(None, None, -1), [1, 2])),
        ((2, 3, 4), (0, None, S(None), [1, 2])),
        ((2, 3, 4), (S(None), [0], ..., [1])),
        ((2, 300), (0, np.array([-2, -1], "i1"))),
        ((2, 1, 300), (0, S(None), np.array([-2, -1], "i1"))),
        ((1,), True),
        ((3, 4), (True, [1, 0])),
        ((3, 4), (T, 0, [1, 2])),
        ((3, 4), (S(None), T, 0)),
        ((3, 4), (None, True, None)),
        ((3, 4), ([1, 2], False)),
        ((3, 4), ([1], False)),
        ((3, 4), (T, np.False_)),
        ((3, 4), np.ix_([2, 0], [1, 1, 3])),
        ((3, 4), ([[0], [2]], [1, 3])),
        ((5, 6), (S(-2, None, -2), S(None, None, -1))),
        ((4, 2), [True, False, True, False]),
        ((4, 2), [[True, False]] * 4),
        ((4, 3, 2), (S(None), np.ones((3, 2), bool))),
        ((4, 3, 2), (np.ones((4, 3), bool), 1)),
        ((4,), [[]]),
        # scalar datasets
        ((), ()),
        ((), ...),
        ((), None),
        ((), True),
        ((), (..., False)),
        ((), np.array(True)),
        ((), 0),
        ((), []),
        # nothing selected, or nothing there
        ((3, 4), ([], 0)),
        ((3, 4), (S(5, 9), S(None))),
        ((0,), []),
        ((0, 3), ()),
        ((4, 2), np.zeros((4, 0), bool)),
        ((4, 2), np.zeros(0, bool)),
        ((0, 0, 1), (S(None), ..., np.zeros(0, bool))),
        ((1, 1, 2), (np.array([False]), False, 1)),
        ((1,), (ArrayLike(0), ...)),
        ((3, 4), ([9], np.zeros(0, int))),
        ((3, 4), (9, np.zeros(0, int))),
        # errors, and the order of errors
        ((4, 4), ([9], S(0, 1, 0))),
        ((4, 4), (9, S(0, 1, 0))),
        ((4,), (S(0, 1, 0), 0)),
        ((4,), (..., ...)),
        ((4,), (0, 0)),
        ((3, 4), ([0, 1], [0, 1, 2])),
        ((3,), (None,) * 70),
        ((3,), (None,) * 130),
        ((3,), (True,) * 70),
        ((3,), [0, 1, 5]),
        ((3,), [-4]),
        ((3,), np.array([2**64 - 1], "u8")),
    ],
    ids=str,
)
def test_select_case(shape, key) -> None:
    check(shape, key)


@pytest.mark.parametrize("odd", ODD + BEYOND_64_BITS, ids=str)
def test_odd_entries(odd) -> None:
    for key in (odd, (odd,), (0, odd), (odd, 0), (S(None), odd), (..., odd)):
        check((3, 2), key)
        check((3,), key)


def test_index_error_names_index_axis_and_size() -> None:
    for key, message in [
        (20000, "index 20000 is out of bounds for axis 0 with size 20000"),
        (-20001, "index -20001 is out of bounds for axis 0 with size 20000"),
        ([5, 20000], "index 20000 is out of bounds for axis 0 with size 20000"),
        ((0, [2, -4]), "index -4 is out of bounds for axis 1 with size 3"),
        (2**70, f"index {2**70} is out of bounds for axis 0 with size 20000"),
        ((0, 1, 2), "too many indices for array: array is 2-dimensional, but 3 were indexed"),
        (np.ones(5, bool), "boolean index did not match indexed array along axis 0; size of axis is 20000 but size of "
                           "corresponding boolean axis is 5"),
    ]:
        with pytest.raises(IndexError) as caught:
            select(key, (20000, 3))
        assert str(caught.value) == message


def test_unsorted_unsigned_list_is_not_sorted() -> None:
    """h5py's own check wraps around for unsigned types, and it returns rows 1 and 3 here."""
    key = np.array([3, 1], "u1")
    assert walk(select(key, (4,)), data_of((4,))).tolist() == [3, 1]
    assert not h5py_accepts(key, (4,))


def test_index_equal_to_size_is_out_of_range() -> None:
    """h5py lets it pass where another axis of the result is empty."""
    for shape, key in [((3, 0), [3]), ((3, 4), ([3], S(0, 0)))]:
        with pytest.raises(IndexError, match="index 3 is out of bounds for axis 0 with size 3"):
            select(key, shape)
        assert not h5py_accepts(key, shape)


def test_changing_the_index_array_later_changes_nothing() -> None:
    """Otherwise another thread could move an index out of bounds between its check and the read."""
    for rows in (np.array([1, 2]), np.array([[1], [2]])):
        s = select(rows, (5,))
        rows[:] = 99
        s.coordinates[0][:] = 99
        assert s.coordinates[0].tolist() == [1, 2]


def test_mask_reshaped_while_the_key_is_parsed() -> None:
    """The coordinates would be those of other axes, or of axes that do not exist."""
    mask = np.ones((2, 2), bool)

    class Reshape:
        def __index__(self) -> int:
            mask.shape = (4,)
            return 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # numpy does not like the assignment either
        with pytest.raises(IndexError):
            select((mask, S(Reshape(), 1)), (2, 2, 2))


def test_field_names() -> None:
    shape = (3, 4)
    for key, fields, rest in [
        ("a", ("a",), ()),
        (("a", "b"), ("a", "b"), ()),
        ((1, "b", [0, 2], "a"), ("b", "a"), (1, [0, 2])),
        ((..., "a", 0), ("a",), (..., 0)),
    ]:
        s, plain = select(key, shape), select(rest, shape)
        assert (s.fields, s.record, s.h5py) == (fields, False, True)
        assert (s.shape, s.axes, s.scalar) == (plain.shape, plain.axes, plain.scalar)
        assert not h5py_accepts(key, shape)
        theirs = datasets(shape)[1][key]
        np.testing.assert_array_equal(walk(s, data_of(shape)), theirs if fields == ("a",) else theirs["a"])
    s = select(["a", "b"], shape)
    assert (s.fields, s.record, s.h5py, s.shape) == (("a", "b"), True, False, shape)
    assert select("a", ()).scalar and not select(("a", ...), ()).scalar


def test_h5pys_own_objects_go_to_h5py() -> None:
    plain, _ = datasets((3, 4))
    refs = [
        plain.regionref[0:2],
        h5py.MultiBlockSlice(count=1),
        (0, h5py.MultiBlockSlice(count=1)),
        h5py._hl.selections.SimpleSelection((3, 4)),
        h5py.Empty("f4"),
    ]
    for key in refs:
        with pytest.raises(Unhandled):
            select(key, (3, 4))
        assert not h5py_accepts(key, (3, 4))
    with pytest.raises(Unhandled):
        select((), None)
    with pytest.raises(Unhandled):
        select(0, (2**63,))
    with pytest.raises(Unhandled):
        select(0, (1,) * 33)


def test_datasets_are_index_arrays() -> None:
    index = memory_file().require_dataset("index", (2,), "i8", data=[0, 2])
    check((3,), index)
    check((2, 3, 4), (0, S(None), index))


def test_shapes_up_to_63_bits() -> None:
    big = 2**63 - 1
    s = select((-1, [big - 2, -1], S(None, None, 2**61)), (big, big, big))
    assert [axis[0] for axis in s.axes] == [big - 1, 0, 0]
    assert s.coordinates[1].tolist() == [big - 2, big - 1]
    assert s.shape == (2, 4)
    assert select(S(None, None, -1), (big,)).axes[0] == (0, big, 1, -1, False)
    assert select(S(None, None, -big), (big,)).axes[0][:3] == (big - 1, 1, 1)
    for key in (S(None), [0, 1, 2]):
        with pytest.raises(ValueError, match="too big"):
            select((key, S(None)), (2**62, 2**62))
    with pytest.raises(ValueError, match="too big"):
        select(..., (2**62, 0, 2**62))


def test_selection_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        Selection()


# ------------------------------------------------------------------------------------------------------------ select_rows


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([(0,), (1,), (5,), (6, 2), (4, 0), (3, 2, 2)]), st.data())
def test_select_rows_agrees_with_numpy(shape, data) -> None:
    n = shape[0]
    rows = data.draw(
        slices(n)
        | index_arrays(n)
        | masks((n,))
        | st.builds(range, indices(n), indices(n), st.sampled_from([1, 2, -1, -3]))
    )
    dense = np.asarray(rows) if not isinstance(rows, slice) else None
    if dense is not None and dense.ndim != 1:
        with pytest.raises((TypeError, IndexError)):
            select_rows(rows, n, shape)
        return
    want = outcome(data_of(shape).__getitem__, rows if not isinstance(rows, tuple) else list(rows))
    if dense is not None and dense.dtype == bool and len(dense) != n:
        want = IndexError()                 # numpy lets an empty mask pass
    same(outcome(lambda: walk(select_rows(rows, n, shape), data_of(shape))), want)


def test_select_rows_keeps_a_range_a_range() -> None:
    """A million consecutive rows must not become a million coordinates."""
    for rows in (range(2, 10**6), range(10**6, 2, -3), slice(5, None)):
        assert select_rows(rows, 2 * 10**6, (2 * 10**6, 3)).coordinates == (None, None)


@pytest.mark.parametrize("rows", [0, None, ..., [[0]], 1.5, np.array(0), True])
def test_select_rows_wants_one_dimension(rows) -> None:
    with pytest.raises((TypeError, IndexError)):
        select_rows(rows, 3, (3, 2))
    with pytest.raises(IndexError):
        select_rows([0], 1, ())
