"""What a key selects: h5py's answer where h5py has one, numpy's elsewhere."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest
from amount import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from selection_oracle import (
    ArrayLike,
    BEYOND_64_BITS,
    ODD,
    check,
    data_of,
    datasets,
    index_arrays,
    indices,
    masks,
    memory_file,
    outcome,
    same,
    shapes_and_keys,
    slices,
    walk,
)

from h5fast._selection import Selection, Unhandled, h5py_accepts, select, select_rows


@settings(max_examples=examples(1500), deadline=None)
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


@settings(max_examples=examples(400), deadline=None)
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
