"""``flow_hdf5`` with the backend that ``KERAS_BACKEND`` names; test_keras.py runs it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras_models import EXPECTED

from h5fast import HDF5Matrix
from h5fast.keras import HDF5MatrixCacheIterator, HDF5Sequence, ImageDataGenerator, flow_hdf5

pytestmark = EXPECTED
ROWS = 103
IMAGES = np.random.default_rng(1).integers(1, 200, (ROWS, 12, 10, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("images") / "images.h5"
    with h5py.File(found, "w") as file:
        file.create_dataset("data", data=IMAGES, chunks=(1, 12, 10, 3), compression="lzf")
        file.create_dataset("first", data=IMAGES.transpose(0, 3, 1, 2))
        file["label"] = np.arange(ROWS, dtype="i2")
    return found


def flow(path: Path, name: str = "data", **options: Any) -> HDF5MatrixCacheIterator:
    return flow_hdf5(HDF5Matrix(path, name), HDF5Matrix(path, "label"), 16, **options)


def rows_of(batches: HDF5Sequence) -> list[int]:
    return np.concatenate([y for _, y in batches]).tolist()


def halved(image: np.ndarray) -> np.ndarray:
    assert image.ndim == 3  # one image, as it always was
    return image / 2


@pytest.mark.parametrize(("options", "training", "validation"), [
    ({}, range(20, 103), range(20)),
    ({"validation_rows": "first"}, range(20, 103), range(20)),
    ({"validation_rows": "last"}, range(82), range(82, 103)),
])
def test_which_rows_are_for_validation(path: Path, options: Any, training: range, validation: range) -> None:
    """int(103 * 0.2) = 20 in front, as flow_hdf5 always did; behind floor(103 * 0.8) = 82, as fit does."""
    parts = {subset: flow(path, validation_split=0.2, subset=subset, **options) for subset in ("training", "validation")}
    assert rows_of(parts["training"]) == list(training) and parts["training"].samples == len(training)
    assert rows_of(parts["validation"]) == list(validation) and len(parts["validation"]) == 2
    assert rows_of(flow(path, validation_split=0.2, **options)) == list(range(ROWS))  # no subset was an AttributeError


def test_without_apply_gen_transform_rows_come_as_stored(path: Path) -> None:
    made = flow(path, preprocessing_function=halved, shuffle=True, seed=3)
    seen: list[int] = []
    for x, y in made:
        assert x.dtype == np.uint8 and y.dtype == np.int16
        np.testing.assert_array_equal(x, IMAGES[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(ROWS)) != seen
    (x,) = flow_hdf5(HDF5Matrix(path, "data"))[0]
    np.testing.assert_array_equal(x, IMAGES[:32])


@pytest.mark.parametrize("name", ["data", "first"])
def test_crop(path: Path, name: str) -> None:
    """Without apply_gen_transform it was a NameError; channels were always taken to be last."""
    form = {"data_format": "channels_first" if name == "first" else "channels_last"}
    back = (lambda x: x.transpose(0, 2, 3, 1)) if name == "first" else lambda x: x
    corners = set()
    for x, y in flow(path, name, crop=(7, 5), seed=4, **form):
        x = back(x)
        assert x.shape[1:] == (7, 5, 3) and x.dtype == np.uint8
        for image, row in zip(x, y):
            places = [(top, left) for top in range(6) for left in range(6)
                      if np.array_equal(image, IMAGES[row, top : top + 7, left : left + 5])]
            corners.update(places)
            assert len(places) == 1
    assert len(corners) > 20 and (5, 5) in corners and (0, 0) in corners
    for options in ({"crop": (7, 5)}, {"crop": True, "crop_size": (7, 5)}):
        for x, y in flow(path, name, subset="validation", validation_split=0.2, **options, **form):
            np.testing.assert_array_equal(back(x), IMAGES[y, 2:9, 2:7])


@pytest.mark.parametrize("name", ["data", "first"])
def test_standardisation_is_for_both_random_transforms_for_training(path: Path, name: str) -> None:
    first = name == "first"
    generator = ImageDataGenerator(preprocessing_function=halved, rescale=0.1, horizontal_flip=True, validation_split=0.2,
                                   apply_gen_transform=True, seed=1, data_format="channels_first" if first else None)
    x, y = HDF5Matrix(path, name), HDF5Matrix(path, "label")
    flips = {True: 0, False: 0}
    for images, rows in generator.flow_hdf5(x, y, 16, subset="training"):
        for image, row in zip(images.transpose(0, 2, 3, 1) if first else images, rows):
            expected = IMAGES[row] * 0.05
            is_flipped = np.allclose(image, expected[:, ::-1], rtol=1e-4)
            assert is_flipped or np.allclose(image, expected, rtol=1e-4)
            flips[is_flipped] += 1
    assert min(flips.values()) > 20
    for images, rows in generator.flow_hdf5(x, y, 16, subset="validation"):
        np.testing.assert_allclose(images.transpose(0, 2, 3, 1) if first else images, IMAGES[rows] * 0.05, rtol=1e-4)


def test_ranges_become_keras_layers(path: Path) -> None:
    generator = ImageDataGenerator(rotation_range=20, width_shift_range=0.1, height_shift_range=0.1, shear_range=5,
                                   zoom_range=0.1, horizontal_flip=True, vertical_flip=True, apply_gen_transform=True,
                                   random_transform=keras.layers.RandomBrightness(0.1, value_range=(0, 255), seed=3))
    (images, rows), (again, _) = (generator.flow_hdf5(HDF5Matrix(path, "data"), np.arange(ROWS), 16)[0] for _ in range(2))
    assert images.shape == (16, 12, 10, 3) and np.isfinite(images).all()
    assert not np.allclose(images, IMAGES[rows]) and not np.allclose(images, again)


def test_a_seed_makes_it_repeatable(path: Path) -> None:
    def images(seed: int | None) -> np.ndarray:
        made = flow(path, crop=(7, 5), shuffle=True, apply_gen_transform=True, seed=seed,
                    random_transform=keras.layers.RandomRotation(0.1, seed=5))
        return np.concatenate([x for x, _ in made])

    np.testing.assert_array_equal(images(3), images(3))
    assert not np.array_equal(images(3), images(4))
    keras.utils.set_random_seed(8)
    one, other = images(None), images(None)
    assert not np.array_equal(one, other)
    keras.utils.set_random_seed(8)
    np.testing.assert_array_equal(images(None), one)


def test_featurewise_and_samplewise(path: Path) -> None:
    x = HDF5Matrix(path, "data")
    generator = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True, apply_gen_transform=True)
    with pytest.raises(ValueError, match=r"call fit\(x\) before"):
        generator.flow_hdf5(x)
    generator.fit(x)
    floats = IMAGES.astype("f8")
    (images,) = generator.flow_hdf5(x, batch_size=ROWS)[0]
    np.testing.assert_allclose(images, (floats - floats.mean((0, 1, 2))) / floats.std((0, 1, 2)), rtol=1e-3, atol=1e-4)
    generator = ImageDataGenerator(samplewise_center=True, samplewise_std_normalization=True, apply_gen_transform=True)
    (images,) = generator.flow_hdf5(x, batch_size=ROWS)[0]
    expected = (floats - floats.mean((1, 2, 3), keepdims=True)) / floats.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-4)


def test_pictures_are_saved_under_their_rows(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    made = flow(path, save_to_dir=tmp_path / "out", save_prefix="digit", subset="validation", validation_split=0.2)
    made[1]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"digit_{row}_0.png" for row in (16, 17, 18, 19)]
    saved = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "out" / "digit_17_0.png"))
    stretched = IMAGES[17] - float(IMAGES[17].min())
    np.testing.assert_allclose(saved, stretched / stretched.max() * 255, atol=1)


def test_it_trains_and_pickles(path: Path) -> None:
    generator = ImageDataGenerator(preprocessing_function=halved, validation_split=0.2, apply_gen_transform=True)
    x, y = HDF5Matrix(path, "data"), HDF5Matrix(path, "label")
    train, validation = (generator.flow_hdf5(x, y, subset=subset) for subset in ("training", "validation"))
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(train, validation_data=validation, epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(validation))[0][0], validation[0][0])


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"subset": "test"}, ValueError, "'training', 'validation' or None"),
    ({"subset": "validation"}, ValueError, "fraction between 0 and 1"),
    ({"validation_split": 1.0}, ValueError, "validation_split"),
    ({"subset": "training", "validation_split": 0.2, "validation_rows": "middle"}, ValueError, "'first' or 'last'"),
    ({"crop": (13, 5)}, ValueError, "crop to 13x5 of images of 12x10"),
    ({"crop": True}, ValueError, "crop to 224x224"),
    ({"crop": (3, 3, 3)}, ValueError, "two whole numbers"),
    ({"name": "label", "apply_gen_transform": True}, ValueError, "x has the shape"),
    ({"data_format": "last"}, ValueError, "channels_last"),
    ({"preprocessing_function": 3}, TypeError, "callable"),
    ({"validation_rows": "middle"}, ValueError, "'first' or 'last'"),
    ({"crop": 5}, ValueError, "two whole numbers"),
    ({"crop": (7, 0)}, ValueError, "two whole numbers"),
    ({"source": "a.h5"}, TypeError, r"without source=: pass h5fast\.HDF5Matrix"),
    ({"rows": slice(3)}, TypeError, "without rows=: .* subset="),
    ({"transform": len}, TypeError, "without transform=: give preprocessing_function="),
], ids=str)
def test_what_cannot_be_is_said_at_once(path: Path, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        flow(path, **options)


@pytest.mark.parametrize("x", [[IMAGES, IMAGES], "data", {"a": IMAGES}], ids=["list", "name", "dict"])
def test_what_has_no_rows_is_no_images(x: Any) -> None:
    """len() was taken for their number: of a list of two inputs two rows were read, of a name as many as it has letters."""
    with pytest.raises(TypeError, match="x must be an HDF5Matrix, a dataset or an array of images"):
        flow_hdf5(x, np.arange(ROWS))


@pytest.mark.parametrize("function", [lambda image: None, lambda image: image[0], str], ids=["none", "row", "text"])
def test_a_function_that_makes_no_image_is_told(path: Path, function: Any) -> None:
    with pytest.raises(ValueError, match=r"preprocessing_function made .* of an image \(12, 10, 3\)"):
        flow(path, apply_gen_transform=True, preprocessing_function=function)[0]


@pytest.mark.parametrize("zoom", [1.5, [0.8], [0.8, 1.0, 1.2], [0, 1], [0.5, 3]], ids=str)
def test_ranges_that_cannot_be_are_told(zoom: Any) -> None:
    with pytest.raises(ValueError, match="zoom_range must be a number below 1, or two factors"):
        ImageDataGenerator(zoom_range=zoom)
    with pytest.raises(ValueError, match="images have rows, height, width and channels"):
        ImageDataGenerator(featurewise_center=True).fit(np.zeros((5, 3)))


@pytest.mark.parametrize("value", np.random.default_rng(0).random(20).tolist())
def test_channels_that_are_constant_have_no_deviation(value: float) -> None:
    """The mean of squares less the square of the mean fell below zero by rounding, and every image became NaN."""
    generator = ImageDataGenerator(featurewise_std_normalization=True, featurewise_center=True, apply_gen_transform=True)
    images = np.full((37, 5, 4, 1), value)
    generator.fit(images)
    assert np.isfinite(generator.flow_hdf5(images)[0][0]).all()


def test_images_and_labels_must_be_as_many(path: Path) -> None:
    with pytest.raises(ValueError, match="different numbers of rows"):
        flow_hdf5(HDF5Matrix(path, "data"), np.arange(5))
