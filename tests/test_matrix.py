"""``HDF5Matrix`` against numpy on the same window of rows, and the checklist of the class that it replaces."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any

import h5py
import numpy as np
import pytest
from amount import examples
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from matrix_files import ROWS, image, path, same  # noqa: F401  # fixtures, used by name

from h5fast import File, HDF5Matrix, Normalize
from h5fast import matrix as matrix_module

# The unit tests of the original class.


@pytest.fixture
def thousand(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "thousand.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.random.default_rng(0).random((1200, 10))
    return path


def test_original_checklist(thousand: pathlib.Path) -> None:
    x = HDF5Matrix(thousand, "x", start=0, end=1000)
    assert len(x) == 1000 and x.shape == (1000, 10) and x.dtype == np.float64 and x.ndim == 2 and x.size == 10_000
    assert len(x[0:]) == len(x)
    for beyond in (1000, slice(1000, 1001), [1000, 1001], range(1000, 1001), np.array([1000])):
        with pytest.raises(IndexError):
            x[beyond]
    with pytest.raises(TypeError):
        x[None]
    assert same(x[0], x[:1][0])
    assert same(x[[0, 1]], x[:2])
    assert same(x[np.array([0, 1])], x[:2])
    assert same(x[range(2)], x[:2])
    assert same(x[np.int64(3)], x[3])
    assert same(x[iter([5, 3])], x[[5, 3]])


def test_original_checklist_of_normalizers(thousand: pathlib.Path) -> None:
    plain = HDF5Matrix(thousand, "x")
    scaled = HDF5Matrix(thousand, "x", normalizer=lambda x: x + 1)
    assert same(scaled[0], plain[0] + 1)
    halved = HDF5Matrix(thousand, "x", normalizer=lambda x: x[:, ::2])
    assert halved.shape == (1200, 5) and halved.size == 6000
    cast = HDF5Matrix(thousand, "x", normalizer=lambda x: x.astype("f4"))
    assert cast.dtype == np.float32
    reshaped = HDF5Matrix(thousand, "x", normalizer=lambda x: x.reshape(len(x), 5, 2))
    assert reshaped.ndim == 3 and reshaped[7].shape == (5, 2)


# The window.


def test_negative_rows_stay_inside_the_window(path: pathlib.Path, image: np.ndarray) -> None:
    """The original returned row 49 for ``[-1]`` of rows 50:150, and 105 rows for ``[-5:]``."""
    x = HDF5Matrix(path, "image", start=50, end=140)
    assert same(x[-1], image[139])
    assert same(x[-90], image[50])
    assert same(x[-5:], image[135:140])
    assert same(x[[-1, 0, -90]], image[[139, 50, 50]])
    with pytest.raises(IndexError, match="index -91 is out of bounds for axis 0 with size 90"):
        x[-91]
    with pytest.raises(IndexError, match="index 90 is out of bounds for axis 0 with size 90"):
        x[[0, 90]]


def test_slices_at_the_end(path: pathlib.Path, image: np.ndarray) -> None:
    x = HDF5Matrix(path, "image", end=100)
    assert same(x[90:110], image[90:100])
    assert len(x[100:]) == 0 and len(x[100:100]) == 0 and len(x[:0]) == 0 and len(x[20:10]) == 0
    assert same(x[::-1], image[99::-1]) and same(x[200::-40], image[99:0:-40])
    with pytest.raises(IndexError, match="rows 100:101 are out of bounds for axis 0 with size 100"):
        x[100:101]
    with pytest.raises(IndexError):
        x[500:600, 0]


@pytest.mark.parametrize(
    ("start", "end", "error"),
    [(-1, None, IndexError), (0, -1, IndexError), (0, ROWS + 1, IndexError), (ROWS + 1, None, IndexError),
     (9, 8, ValueError), (0.5, None, TypeError), (0, 10.0, TypeError)],
)  # fmt: skip
def test_windows_that_do_not_exist(path: pathlib.Path, start: int, end: int | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        HDF5Matrix(path, "image", start, end)


def test_window_error_names_bound_size_and_dataset(path: pathlib.Path) -> None:
    with pytest.raises(IndexError, match=r"end=151 is out of bounds for 'image' of '.*data.h5' with 150 rows"):
        HDF5Matrix(path, "image", end=ROWS + 1)


@pytest.mark.parametrize("bounds", [(0, 0), (70, 70), (ROWS, ROWS)])
def test_empty_window(path: pathlib.Path, bounds: tuple[int, int]) -> None:
    seen = []

    def normalizer(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return (batch / batch.max()).reshape(len(batch), -1)

    x = HDF5Matrix(path, "image", *bounds, normalizer=normalizer)
    assert len(x) == 0 and x.shape == (0, 90) and x.dtype == np.float64 and x.size == 0 and x.ndim == 2
    assert x[:].shape == x[[]].shape == np.asarray(x).shape == (0, 90)
    assert list(x) == []
    assert 0 not in seen
    with pytest.raises(IndexError):
        x[0]


# Keys, against numpy.


def strange(batch: np.ndarray) -> np.ndarray:
    """A normalizer that changes type and shape of a row, works on whole batches only, and leaves rows apart."""
    assert batch.shape[1:] == (6, 5, 3) and len(batch)
    return batch.astype("f8").mean(axis=3)[:, ::2] - 3


NORMALIZERS = [None, strange, Normalize(1 / 255, -0.5), Normalize([1, 2, 3], channels_first=True)]


def keys(shape: tuple[int, ...]) -> st.SearchStrategy[object]:
    def part(length: int) -> st.SearchStrategy[object]:
        index = st.integers(-length - 1, length)
        inside = st.integers(-length, length - 1)
        arrays = st.lists(inside, max_size=5) | st.lists(inside, min_size=1, max_size=5).map(np.array)
        masks = st.lists(st.booleans(), min_size=length, max_size=length).map(np.array)
        bound = st.none() | st.integers(-length - 3, length + 3)
        slices = st.builds(slice, bound, bound, st.none() | st.integers(-4, 4).filter(bool))
        return inside | index | slices | arrays | masks

    def matrix_part(length: int) -> st.SearchStrategy[object]:
        inside = st.integers(-length, length - 1)
        grid = st.tuples(st.integers(1, 3), st.integers(1, 3))
        return grid.flatmap(lambda rc: st.lists(inside, min_size=rc[0] * rc[1], max_size=rc[0] * rc[1]).map(
            lambda values: np.array(values).reshape(rc)
        ))  # fmt: skip

    first = part(shape[0]) | matrix_part(shape[0])
    several = st.tuples(*[part(length) for length in shape]).flatmap(
        lambda parts: st.integers(1, len(parts)).map(lambda n: parts[:n])
    )
    dotted = st.tuples(several, st.integers(0, 4)).map(lambda pair: (*pair[0][: pair[1]], ..., *pair[0][pair[1] + 1 :]))
    widened = st.tuples(several, st.integers(0, 4)).map(lambda pair: (*pair[0][: pair[1]], None, *pair[0][pair[1] :]))
    mask_pair = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).random(shape[:2]) < 0.3)
    return first | several | dotted | widened | mask_pair | st.just(...) | st.just(())


def first_slice(key: object) -> slice | None:
    """The slice that addresses the rows, if one does."""
    parts = [part for part in (key if isinstance(key, tuple) else (key,)) if part is not None]
    return parts[0] if parts and isinstance(parts[0], slice) else None


def promises_missing_rows(key: object, size: int) -> bool:
    rows = first_slice(key)
    if rows is None or rows.start is None or rows.stop is None or (rows.step or 1) < 0:
        return False
    return size <= rows.start < rows.stop


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=["none", "callable", "fused", "channels"])
@settings(deadline=None, max_examples=examples(250), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_keys_mean_what_numpy_means(
    path: pathlib.Path, image: np.ndarray, normalizer: object, data: st.DataObject
) -> None:
    start = data.draw(st.sampled_from([0, 3, 50]), "start")
    end = data.draw(st.sampled_from([60, 64, ROWS]), "end")
    x = HDF5Matrix(path, "image", start, end, normalizer)
    window = image[start:end] if normalizer is None else normalizer(image[start:end])
    assert x.shape == window.shape and x.dtype == window.dtype
    key = data.draw(keys(window.shape), "key")
    note(f"key: {key!r}")
    try:
        expected = window[key]
    except IndexError:
        with pytest.raises(IndexError):
            x[key]
        return
    if promises_missing_rows(key, len(window)):
        with pytest.raises(IndexError):
            x[key]
        return
    assert same(x[key], expected)


@pytest.mark.parametrize("key", [True, np.True_, [0.0], np.array([0.5]), 1.0, {"a"}, b"x", "a", (..., ...), (0,) * 5])
def test_keys_that_are_none(path: pathlib.Path, key: object) -> None:
    with pytest.raises(IndexError):
        HDF5Matrix(path, "image")[key]


def test_unsigned_rows_do_not_wrap(path: pathlib.Path, image: np.ndarray) -> None:
    x = HDF5Matrix(path, "image")
    assert same(x[np.array([3, 1], np.uint64)], image[[3, 1]])
    with pytest.raises(IndexError):
        x[np.array([2**64 - 1], np.uint64)]


def test_any_iterable_of_rows(path: pathlib.Path, image: np.ndarray) -> None:
    x = HDF5Matrix(path, "image")
    assert same(x[(row for row in (4, 2, 2))], image[[4, 2, 2]])
    assert same(x[{7}], image[[7]])
    assert same(x[x[:0, 0, 0, 0]], image[:0])


def test_fields_and_array_types(path: pathlib.Path) -> None:
    record = HDF5Matrix(path, "record", 10, 20)
    assert same(record["a"], np.arange(10, 20, dtype="i4"))
    assert record[3]["b"] == 6.5
    with pytest.raises(IndexError):
        record["c"]
    pair = HDF5Matrix(path, "pair", 10, 20)
    assert pair.shape == pair[...].shape == (10, 2, 3) and pair.dtype == np.int32
    assert same(pair[2:4, 1, [0, 2]], np.ones((2, 2), "i4"))


def test_labels_are_scalars(path: pathlib.Path) -> None:
    label = HDF5Matrix(path, "label", 5)
    assert label.shape == (ROWS - 5,) and isinstance(label[0], np.int64)
    shifted = HDF5Matrix(path, "label", 5, normalizer=lambda batch: batch + 1)
    assert shifted[0] == label[0] + 1


# Normalizers.


def test_a_normalizer_gets_batches_only_and_only_rows_of_the_window(path: pathlib.Path, image: np.ndarray) -> None:
    batches: list[np.ndarray] = []

    def normalizer(batch: np.ndarray) -> np.ndarray:
        batches.append(batch.copy())
        return batch * 1.0

    x = HDF5Matrix(path, "image", 20, 30, normalizer)
    assert batches == []
    assert x.shape == (10, 6, 5, 3)
    x[3], x[-2:], x[[1, 1]], x[2, 1], x[[[0, 1], [1, 0]]], x[..., 0], x[x[:, 0, 0, 0] >= 0], list(x), np.asarray(x)
    rows = {row.tobytes() for row in image[20:30]}
    assert all(batch.ndim == 4 and {row.tobytes() for row in batch} <= rows for batch in batches)


@pytest.mark.parametrize("bad", [lambda b: b.sum(), lambda b: b[:-1], lambda b: np.concatenate([b, b])])
def test_a_normalizer_must_keep_the_rows(path: pathlib.Path, bad: object) -> None:
    with pytest.raises(ValueError, match="normalizer made shape"):
        HDF5Matrix(path, "image", normalizer=bad)[:4]


def test_a_normalizer_may_return_a_list(path: pathlib.Path) -> None:
    x = HDF5Matrix(path, "label", normalizer=lambda batch: [float(value) for value in batch])
    assert x.dtype == np.float64 and x[:3].shape == (3,)


def test_a_normalizer_must_be_callable(path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match="normalizer must be callable"):
        HDF5Matrix(path, "image", normalizer=1 / 255)


@pytest.mark.parametrize(
    "normalize",
    [
        Normalize(),
        Normalize(1 / 255),
        Normalize(offset=-1),
        Normalize(1 / 255, 0.5, "f8"),
        Normalize([0.1, 0.2, 0.3], [1, 2, 3]),
        Normalize(np.array([0.1, 0.2, 0.3], "f4"), None, np.float32, True),
        Normalize(None, None, None, channels_first=True),
        Normalize(2, 1, "f4", channels_first=True),
        Normalize((0.1, 0.2, 0.3), 0.5),
        Normalize(0.1, dtype=None),
        Normalize(dtype="i2"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["image", "feature", "label"])
def test_normalize_is_the_fused_kernel(path: pathlib.Path, normalize: Normalize, name: str) -> None:
    plain = HDF5Matrix(path, name, 20, 90)
    per_channel = isinstance(normalize.scale, tuple)
    fused = HDF5Matrix(path, name, 20, 90, normalize)
    if per_channel and name != "image":  # which has other channels
        with pytest.raises(ValueError, match="scale must be one number or one for each"):
            fused[:]
        return
    for key in (slice(None), [5, 3, 3, -1], slice(60, 2, -7), [], 4):
        rows = plain[key]
        expected = normalize(rows[None])[0] if key == 4 else normalize(rows)
        assert same(fused[key], expected)
    assert fused.dtype == fused[:1].dtype and fused.shape == fused[:].shape


def test_normalize_is_a_value() -> None:
    one = Normalize(np.array([1, 2]), np.float32(0.5), "float32")
    assert one == Normalize((1, 2), 0.5) and hash(one) == hash(Normalize((1, 2), 0.5))
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.dtype == np.dtype("f4")
    for bad in ("1", [[1, 2]], 1j):
        with pytest.raises(TypeError):
            Normalize(bad)
    with pytest.raises(TypeError, match="floating"):
        Normalize(2, dtype="int32")


# As an array.


def test_asarray(path: pathlib.Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    x = HDF5Matrix(path, "image", 5, 25)
    assert same(np.asarray(x), image[5:25])
    assert same(np.asarray(x, dtype="f4"), image[5:25].astype("f4"))
    assert same(np.stack([x, x]), np.stack([image[5:25]] * 2))
    with pytest.raises(ValueError, match="copy"):
        x.__array__(copy=False)
    monkeypatch.setattr(matrix_module, "MAX_ARRAY_BYTES", x.size)
    np.asarray(x)
    with pytest.raises(ValueError, match=r"refusing.*1,800 bytes.*np.asarray\(matrix\[a:b\]\)"):
        monkeypatch.setattr(matrix_module, "MAX_ARRAY_BYTES", x.size - 1)
        np.asarray(x)
    assert same(x[...], image[5:25]) and same(x[()], image[5:25])


@pytest.mark.parametrize("module", ["keras.src.trainers.data_adapters.array_slicing", "keras.src.trainers.epoch_iterator"])
def test_no_array_for_fit_at_any_size(path: pathlib.Path, module: str) -> None:
    """Keras 3 makes an array of its input 2 * epochs + 1 times: the whole file, silently, each time."""
    x = HDF5Matrix(path, "image", 5, 6)
    keras = {"__name__": module, "np": np, "x": x}
    with pytest.raises(ValueError, match=r"h5fast\.keras\.install\(\).*h5fast\.keras\.HDF5Sequence\(x, y, batch_size=\.\.\.\)"):
        eval("np.asarray(x)", keras)
    assert eval("np.asarray(x).shape", {**keras, "__name__": "keras.src.backend.common"}) == (1, 6, 5, 3)


@pytest.mark.parametrize("normalizer", [None, Normalize(1 / 255), lambda rows: rows[:, ::2] / 255])
def test_part(path: pathlib.Path, image: np.ndarray, normalizer: Any) -> None:
    whole = HDF5Matrix(path, "image", 5, 25, normalizer)
    part = whole.part(3, 9)
    assert same(part[...], whole[3:9]) and part.shape == whole[3:9].shape and repr(part).count("rows 8:14") == 1
    assert same(part.part(1)[...], whole[4:9]) and len(whole.part()) == 20 and len(whole.part(20)) == 0
    whole.close()
    assert same(part.part(end=2)[...], HDF5Matrix(path, "image", 8, 10, normalizer)[...])
    for start, end in ((-1, 3), (0, 7), (4, 3)):
        with pytest.raises(IndexError, match=f"no rows {start} to {end}"):
            part.part(start, end)
    part.close()
    with pytest.raises(ValueError, match="closed"):
        part.part()


def test_part_of_an_open_dataset(path: pathlib.Path, image: np.ndarray) -> None:
    with h5py.File(path) as file:
        assert same(HDF5Matrix(file["image"]).part(2, 4)[...], image[2:4])


def test_the_limit_counts_normalized_bytes(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_module, "MAX_ARRAY_BYTES", 2 * ROWS * 90)
    np.asarray(HDF5Matrix(path, "image"))
    with pytest.raises(ValueError, match="refusing"):
        np.asarray(HDF5Matrix(path, "image", normalizer=Normalize(1 / 255)))


def test_iteration(path: pathlib.Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_module, "_BLOCK_BYTES", 90 * 8)
    x = HDF5Matrix(path, "image", 5, 25)
    assert same(np.stack(list(x)), image[5:25])
    assert sum(1 for _ in x) == 20
    assert [int(label) for label in HDF5Matrix(path, "label", 0, 3)] == list(HDF5Matrix(path, "label")[:3])


def test_repr_reads_nothing(path: pathlib.Path) -> None:
    x = HDF5Matrix(path, "image", 5, 25, normalizer=Normalize(0.5))
    where = f"<HDF5Matrix 'image' of {str(path)!r}, rows 5:25, shape (20, 6, 5, 3), uint8"
    assert repr(x).startswith(f"{where}, then Normalize(")
    x.close()
    assert repr(x).endswith(", closed>")


@pytest.mark.parametrize(
    "rows", [np.array([2**63], "u8"), np.array([1, 2**64 - 1], "u8"), [2**63], [-(2**70)], range(2**63, 2**63 + 2),
             np.uint64(2**63), 2**63]
)  # fmt: skip
def test_an_index_beyond_64_bits_is_named_as_given(tmp_path, rows):
    """It was named as what remains of it in 64 bits, or called a float."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.arange(40).reshape(10, 4)
    number = next((n for n in np.atleast_1d(np.array(rows, object)).tolist() if abs(int(n)) >= 2**63))
    with File(tmp_path / "f.h5") as file:
        matrix = HDF5Matrix(tmp_path / "f.h5", "x")
        tries = [lambda: matrix[rows], lambda: matrix[rows, 1], lambda: matrix[0, rows]]
        if number != 2**64 - 1:  # to numpy, and so to a dataset, -1
            tries += [lambda: file["x"][rows], lambda: file["x"][1, rows]]
            tries += [lambda: file["x"].take(rows)] if np.ndim(rows) else []
        for attempt in tries:
            with pytest.raises(IndexError, match=f"index {number} is out of bounds"):
                attempt()


def test_a_closed_matrix_does_not_keep_its_file_open(tmp_path: pathlib.Path) -> None:
    """An exception that is still referred to, as in an interactive session, holds the frames of the read it came from."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["d"] = np.zeros((12, 9))
    first, second = (HDF5Matrix(tmp_path / "f.h5", "d") for _ in range(2))
    with pytest.raises(IndexError) as error:
        first[np.arange(12) < 5, np.arange(9) < 2]
    first.close()
    assert second[3].tolist() == [0.0] * 9
    second.close()
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["d"][0, 0] = 1
    with HDF5Matrix(tmp_path / "f.h5", "d") as again:
        assert again[0, 0] == 1
    assert error.tb is not None
