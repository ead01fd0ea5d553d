"""What becomes of a batch of images on its way to the model: a crop, random transforms, standardisation.

Random transforms and standardisation are Keras' own layers, called on whole batches ahead of the training loop. Inside, images
have their channels last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from h5fast.keras.framework import keras

__all__ = ["Preparation", "random_layers", "samplewise"]

Layers = Sequence[Callable[..., Any]]


class Preparation:
    """A function of a batch ``(images, …)``.

    Args:
        crop: (height, width) that is cut out of each image: somewhere in training, else from its middle; None for all of it
        training: whether crops and transforms are random
        random: layers that are called in training
        function: called then on each image, without the batch's axis; it keeps the shape
        standardize: layers that are called last
        channels_first: images are (channels, height, width)
        seed: of the crops
    """

    def __init__(self, *, crop: tuple[int, int] | None = None, training: bool = False, random: Layers = (),
                 function: Callable[[np.ndarray], Any] | None = None, standardize: Layers = (),
                 channels_first: bool = False, seed: int = 0) -> None:
        self._crop, self._training, self._function = crop, training, function
        self._random, self._standardize = tuple(random) if training else (), tuple(standardize)
        self._channels_first, self._seed = channels_first, seed
        self._crops = 0  # batches that were cropped so far

    def __call__(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """The batch, with its images prepared."""
        images = np.moveaxis(batch[0], 1, -1) if self._channels_first else batch[0]
        if self._crop is not None:
            images = self._cropped(images, *self._crop)
        for layer in self._random:
            images = layer(images, training=True)
        if self._function is not None:
            images = np.stack([_image(self._function(image), image.shape) for image in as_array(images)])
        for layer in self._standardize:
            images = layer(images)
        images = as_array(images)
        return (np.ascontiguousarray(np.moveaxis(images, -1, 1)) if self._channels_first else images, *batch[1:])

    def _cropped(self, images: np.ndarray, height: int, width: int) -> np.ndarray:
        room = images.shape[1] - height, images.shape[2] - width
        if not self._training:
            top, left = room[0] // 2, room[1] // 2
            return np.ascontiguousarray(images[:, top : top + height, left : left + width])
        self._crops += 1
        rng = np.random.default_rng((self._seed, self._crops))
        corners = rng.integers(0, room, (len(images), 2), endpoint=True).tolist()
        return np.stack([image[top : top + height, left : left + width] for image, (top, left) in zip(images, corners)])


def as_array(images: Any) -> np.ndarray:
    """The images, which may be a backend's tensor by now, as an array of numpy's."""
    found: np.ndarray = images if isinstance(images, np.ndarray) else keras.ops.convert_to_numpy(images)
    return found


def _image(made: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What a function of the user's made of an image of this shape. Raises ``ValueError`` if that is none."""
    found = np.asarray(made)
    if found.shape != shape or found.dtype.kind not in "biuf":
        raise ValueError(f"preprocessing_function made {found.dtype} {found.shape} of an image {shape}: it must return an image "
                         "of that shape")
    return found


def samplewise(*, center: bool, scale: bool) -> Callable[[Any], np.ndarray]:
    """A layer that takes from each image its mean, and divides it by its standard deviation, or one of these."""
    return _Samplewise(center, scale)


class _Samplewise:
    def __init__(self, center: bool, scale: bool) -> None:
        self._center, self._scale = center, scale

    def __call__(self, images: Any) -> np.ndarray:
        found = as_array(images).astype(keras.config.floatx())
        axes = tuple(range(1, found.ndim))
        if self._center:
            found -= found.mean(axes, keepdims=True)
        if self._scale:
            found /= found.std(axes, keepdims=True) + keras.config.epsilon()
        return found


def random_layers(*, rotation: float, shift: tuple[float, float], shear: float, zoom: float | Sequence[float],
                  flip: tuple[bool, bool], fill_mode: str, fill_value: float, seed: int) -> list[Any]:
    """Keras' layers for what the ranges of an image generator mean.

    Args:
        rotation: degrees to either side
        shift: down and right, as parts of height and width, to either side
        shear: degrees
        zoom: z for factors of 1 - z to 1 + z, or the two factors; below 1 zooms in
        flip: (left to right, upside down)
    """
    seeds = iter(np.random.default_rng(seed).integers(0, 1 << 31, 8).tolist())
    fill = {"fill_mode": fill_mode, "fill_value": fill_value}
    factors_of_zoom = (1 - zoom, 1 + zoom) if isinstance(zoom, (int, float)) else tuple(zoom)
    if len(factors_of_zoom) != 2 or not 0 < min(factors_of_zoom) <= max(factors_of_zoom) <= 2:
        raise ValueError(f"zoom_range must be a number below 1, or two factors above 0 up to 2, not {zoom!r}")
    low, high = factors_of_zoom
    layers, make = [], keras.layers
    if rotation:
        layers.append(make.RandomRotation(rotation / 360, seed=next(seeds), data_format="channels_last", **fill))
    if any(shift):
        layers.append(make.RandomTranslation(*shift, seed=next(seeds), data_format="channels_last", **fill))
    if shear:
        part = math.tan(math.radians(shear))
        layers.append(make.RandomShear(x_factor=part, seed=next(seeds), data_format="channels_last", **fill))
    if (low, high) != (1, 1):
        factors = (low - 1, high - 1)
        layers.append(make.RandomZoom(factors, factors, seed=next(seeds), data_format="channels_last", **fill))
    if any(flip):
        mode = {(True, True): "horizontal_and_vertical", (True, False): "horizontal"}.get(flip, "vertical")
        layers.append(make.RandomFlip(mode, seed=next(seeds), data_format="channels_last"))
    return layers
