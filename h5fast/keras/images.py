"""The old route for images in HDF5 files: an image generator with ``flow_hdf5``, its iterator, the function of that name."""

from __future__ import annotations

import importlib.util
import operator
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from h5fast.keras.framework import keras
from h5fast.keras.preparation import Preparation, as_array, random_layers, samplewise
from h5fast.keras.sequence import HDF5Sequence
from h5fast.keras.validation import check_which, split_rows
from h5fast.matrix import HDF5Matrix

__all__ = ["HDF5MatrixCacheIterator", "ImageDataGenerator", "flow_hdf5"]


class ImageDataGenerator:
    """How images are transformed and standardised, and which rows are for validation, for :meth:`flow_hdf5`.

    Parameters
    ----------
    featurewise_center, featurewise_std_normalization:
        Take the mean of each channel over the images that :meth:`fit` was given; divide by their standard deviation.
    samplewise_center, samplewise_std_normalization:
        The same of each image by itself, over all of it.
    rotation_range:
        Degrees that an image is turned by at most.
    width_shift_range, height_shift_range:
        How far it is shifted at most, as a part of its size.
    shear_range:
        Degrees that it is sheared by at most.
    zoom_range:
        z for factors of 1 - z to 1 + z, or the two factors; each axis by its own.
    fill_mode, cval:
        What appears at the borders: ``"nearest"``, ``"reflect"``, ``"wrap"``, or ``"constant"``, which is `cval`.
    horizontal_flip, vertical_flip:
        Mirror half of the images.
    rescale:
        A factor for all values.
    preprocessing_function:
        A function of one image that keeps its shape, called behind the random transforms and before what standardises.
    data_format:
        ``"channels_last"`` (rows, height, width, channels) or ``"channels_first"``; None takes Keras' own setting.
    validation_split:
        The fraction of the rows that is for ``subset="validation"``.
    validation_rows:
        Which rows these are: the ``"first"`` of them, as ``flow_hdf5`` always took them, or the ``"last"``, as ``fit`` does.
    apply_gen_transform:
        Whether all of this is done to the rows at all; else they come as they are stored (`crop` aside).
    random_transform, standardize:
        More layers of Keras, or several: random ones for training, and ones that are called last.
    seed:
        Of the random transforms; None draws one from the generator that ``keras.utils.set_random_seed`` seeds.
    """

    def __init__(
        self,
        *,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        rotation_range: float = 0,
        width_shift_range: float = 0.0,
        height_shift_range: float = 0.0,
        shear_range: float = 0.0,
        zoom_range: float | Sequence[float] = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[np.ndarray], Any] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        validation_rows: str = "first",
        apply_gen_transform: bool = False,
        random_transform: Any = (),
        standardize: Any = (),
        seed: int | None = None,
    ) -> None:
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f"data_format must be 'channels_last' or 'channels_first', not {data_format!r}")
        if not 0 <= validation_split < 1:
            raise ValueError(f"validation_split must be at least 0 and below 1, not {validation_split!r}")
        if preprocessing_function is not None and not callable(preprocessing_function):
            raise TypeError(f"preprocessing_function must be callable, not {type(preprocessing_function).__name__}")
        check_which(validation_rows)
        self.validation_split, self.validation_rows = validation_split, validation_rows
        self.apply_gen_transform, self.preprocessing_function = bool(apply_gen_transform), preprocessing_function
        self._featurewise = featurewise_center, featurewise_std_normalization
        self._normalization: Any = None  # what fit() made of it
        self._random = [
            *random_layers(rotation=rotation_range, shift=(height_shift_range, width_shift_range), shear=shear_range,
                           zoom=zoom_range, flip=(horizontal_flip, vertical_flip), fill_mode=fill_mode, fill_value=cval,
                           seed=_seed(seed)),
            *_several(random_transform),
        ]
        self._standardize = [keras.layers.Rescaling(rescale)] if rescale is not None else []
        if samplewise_center or samplewise_std_normalization:
            self._standardize.append(samplewise(center=samplewise_center, scale=samplewise_std_normalization))
        self._last = _several(standardize)

    def fit(self, x: Any, batch_size: int = 256) -> None:
        """Learns what featurewise standardisation needs, from all images of a matrix, dataset or array, batch by batch."""
        _check_images(x, None, self.data_format)
        prepare = Preparation(function=self.preprocessing_function, standardize=self._standardize,
                              channels_first=self.data_format == "channels_first")
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        for batch in HDF5Sequence(x, batch_size=batch_size, shuffle=False, transform=prepare):
            images = np.asarray(batch[0], np.float64)
            axes = (0, 2, 3) if self.data_format == "channels_first" else (0, 1, 2)
            count += images.size // images.shape[1 if self.data_format == "channels_first" else -1]
            total, squares = total + images.sum(axes), squares + np.square(images).sum(axes)
        mean = total / count
        center, scale = self._featurewise
        self._normalization = keras.layers.Normalization(
            axis=-1, mean=mean if center else np.zeros_like(mean),
            variance=np.maximum(squares / count - mean**2, 0) if scale else np.ones_like(mean))  # rounded, it may fall below

    def preparation(self, *, training: bool, crop: tuple[int, int] | None, seed: int) -> Preparation | None:
        """What is done to a batch; None if nothing is.

        Raises ``ValueError`` if :meth:`fit` is missing.
        """
        form: dict[str, Any] = {"crop": crop, "training": training, "seed": seed,
                                "channels_first": self.data_format == "channels_first"}
        if not self.apply_gen_transform:
            return None if crop is None else Preparation(**form)
        if any(self._featurewise) and self._normalization is None:
            raise ValueError("featurewise standardisation needs the mean and deviation of the images: call fit(x) before")
        normalization = [] if self._normalization is None else [self._normalization]
        return Preparation(**form, random=self._random, function=self.preprocessing_function,
                           standardize=[*self._standardize, *normalization, *self._last])

    def flow_hdf5(self, x: Any, y: Any = None, batch_size: int = 32, shuffle: str | bool = False,
                  **options: Any) -> HDF5MatrixCacheIterator:
        """Batches of the images in x, with y, for ``fit``: an :class:`HDF5MatrixCacheIterator`, which has the options."""
        return HDF5MatrixCacheIterator(x, y, self, batch_size, shuffle, **options)


class HDF5MatrixCacheIterator(HDF5Sequence):
    """Batches of images, transformed and standardised by an image generator: an :class:`HDF5Sequence`.

    Parameters
    ----------
    x, y:
        An ``HDF5Matrix``, a ``Dataset`` or an array of images, and one of labels or None.
    image_data_generator:
        What is done to the images, and which rows are for validation.
    batch_size, shuffle:
        As of :class:`HDF5Sequence`; without shuffling, rows come as they are stored.
    crop, crop_size:
        (height, width), or True and `crop_size`: what is cut out of each image. For validation it is the middle; else a
        place is drawn for each image.
    seed:
        Of order, crops and transforms; None draws one from the generator that ``keras.utils.set_random_seed`` seeds.
    save_to_dir, save_prefix, save_format:
        A folder that all images are written to as the model gets them, as ``<prefix>_<row>_<pass>.<format>``.
    subset:
        ``"training"``, ``"validation"``, or None for all rows.
    options:
        Others of :class:`HDF5Sequence`.

    Raises ``ValueError`` for x and y of different lengths, a subset that has no rows, or a crop larger than the images,
    ``TypeError`` for an x that is a list, a dict or a name, and for `source`, `rows` and `transform`, which are not of these.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        image_data_generator: ImageDataGenerator | None = None,
        batch_size: int = 32,
        shuffle: str | bool = False,
        *,
        crop: bool | tuple[int, int] | None = None,
        crop_size: tuple[int, int] = (224, 224),
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        **options: Any,
    ) -> None:
        generator = ImageDataGenerator() if image_data_generator is None else image_data_generator
        for name, instead in _INSTEAD.items():
            if name in options:
                raise TypeError(f"images come without {name}=: {instead}")
        seed = _seed(seed)
        size = _checked_crop(crop_size if crop is True else crop or None)
        prepare = generator.preparation(training=subset != "validation", crop=size, seed=seed)
        if not isinstance(x, (HDF5Matrix, h5py.Dataset)) and not hasattr(x, "__array__"):  # of a list, len() is not rows
            raise TypeError(f"x must be an HDF5Matrix, a dataset or an array of images, not {type(x).__name__}")
        if prepare is not None:
            _check_images(x, size, generator.data_format)
        self.data_format = generator.data_format
        self._saving = None if save_to_dir is None else (os.fspath(save_to_dir), save_prefix, save_format)
        if self._saving is not None:
            _require_pillow()
            os.makedirs(self._saving[0], exist_ok=True)
        rows = _subset(subset, len(x), generator.validation_split, generator.validation_rows)
        super().__init__(x, y, batch_size=batch_size, shuffle=shuffle, seed=seed, rows=rows, transform=prepare, **options)

    def _answer(self, index: int) -> tuple[int, int, Any]:
        number, step, batch = super()._answer(index)
        if self._saving is not None:
            folder, prefix, form = self._saving
            for row, image in zip(self.loader.batch_rows(step, number).tolist(), as_array(batch[0])):
                picture = keras.utils.array_to_img(image, data_format=self.data_format, scale=True)
                picture.save(os.path.join(folder, f"{prefix}_{row}_{number}.{form}"))
        return number, step, batch


def flow_hdf5(
    x: Any,
    y: Any = None,
    batch_size: int = 32,
    shuffle: str | bool = False,
    seed: int | None = None,
    subset: str | None = None,
    validation_split: float = 0.0,
    preprocessing_function: Callable[[np.ndarray], Any] | None = None,
    apply_gen_transform: bool = False,
    crop: bool | tuple[int, int] | None = None,
    save_to_dir: str | os.PathLike[str] | None = None,
    *,
    validation_rows: str = "first",
    random_transform: Any = (),
    standardize: Any = (),
    data_format: str | None = None,
    **options: Any,
) -> HDF5MatrixCacheIterator:
    """Batches of images in HDF5 files for ``fit``, without making an :class:`ImageDataGenerator` first.

    validation_split, validation_rows, preprocessing_function, apply_gen_transform, random_transform, standardize and
    data_format are that generator's; the others are those of :class:`HDF5MatrixCacheIterator`, which this returns.
    """
    generator = ImageDataGenerator(validation_split=validation_split, validation_rows=validation_rows,
                                   preprocessing_function=preprocessing_function, apply_gen_transform=apply_gen_transform,
                                   random_transform=random_transform, standardize=standardize, data_format=data_format)
    return generator.flow_hdf5(x, y, batch_size, shuffle, seed=seed, subset=subset, crop=crop, save_to_dir=save_to_dir,
                               **options)


#: Options of :class:`HDF5Sequence` that these batches decide themselves.
_INSTEAD = {"source": "pass h5fast.HDF5Matrix(path, name) as x and as y",
            "rows": "h5fast.HDF5Matrix(path, name, start, end) has fewer rows, and subset= the rows for validation or the others",
            "transform": "give preprocessing_function=, random_transform= or standardize=, and apply_gen_transform=True"}


def _seed(seed: int | None) -> int:
    return random.getrandbits(32) if seed is None else seed


def _several(layers: Any) -> list[Any]:
    """One layer or several, as a list."""
    return [layers] if callable(layers) else list(layers)


def _subset(subset: str | None, count: int, fraction: float, which: str) -> slice:
    """The rows of a subset."""
    if subset not in (None, "training", "validation"):
        raise ValueError(f"subset must be 'training', 'validation' or None, not {subset!r}")
    if subset is None or (subset == "training" and fraction == 0):
        return slice(0, count)
    training, validation = split_rows(count, fraction, which)
    return training if subset == "training" else validation


def _checked_crop(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"crop must be (height, width), two whole numbers, or True with crop_size, not {size!r}")
    return height, width


def _check_images(x: Any, crop: tuple[int, ...] | None, data_format: str) -> None:
    """That these are images, and large enough."""
    if len(x.shape) != 4:
        raise ValueError(f"images have rows, height, width and channels, and x has the shape {tuple(x.shape)}")
    size = x.shape[2:4] if data_format == "channels_first" else x.shape[1:3]
    if crop is not None and any(length > there for length, there in zip(crop, size)):
        raise ValueError(f"a crop to {crop[0]}x{crop[1]} of images of {size[0]}x{size[1]} ({data_format})")


def _require_pillow() -> None:
    if importlib.util.find_spec("PIL") is None:
        raise ImportError("save_to_dir writes pictures with Pillow: pip install pillow")
