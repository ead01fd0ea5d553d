"""``H5ImageFolder``: a file of encoded images, one dataset of bytes each, whose top-level groups are the classes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from h5fast.class_numbers import labels_path, write_labels
from h5fast.torch.samples import H5Samples

__all__ = ["H5ImageFolder", "decode_image"]


class H5ImageFolder(H5Samples):
    """A folder of images, in an HDF5 file: each image is a dataset of its encoded bytes, each class a top-level group.

    Parameters
    ----------
    path:
        The HDF5 file.
    transform, target_transform:
        Functions of the decoded image, and of the number of its class.
    class_to_idx:
        Numbers of the classes; or the path of a JSON file of them. None looks for the JSON file beside the HDF5 file
        (``flowers_h5_labels.json`` of ``flowers.h5``), and where there is none numbers the classes in the order of their names.
    decode:
        A function of the bytes; by default :func:`decode_image`, an RGB image of Pillow's.

    ``dataset[i]`` is (image, number of the class). :attr:`classes`, :attr:`class_to_idx`, :attr:`samples` (key and class of
    each) and :attr:`targets` are those of torchvision's ``ImageFolder``.

    Raises ``OSError`` for a file that cannot be opened, ``ValueError`` for images outside of groups, classes without a number, or
    JSON that does not number classes.
    """

    def __init__(self, path: str | os.PathLike[str], transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None, *,
                 class_to_idx: Mapping[str, int] | str | os.PathLike[str] | None = None,
                 decode: Callable[[bytes], Any] | None = None) -> None:
        super().__init__(path, transform=transform)
        self.target_transform = target_transform
        self.decode = decode_image if decode is None else decode
        classes = [_class_of(self.path, key) for key in self.keys]
        self.class_to_idx = _numbered(self.path, sorted(set(classes)), class_to_idx)
        self.classes = sorted(self.class_to_idx, key=self.class_to_idx.__getitem__)
        self.targets = [self.class_to_idx[name] for name in classes]
        self.samples = list(zip(self.keys, self.targets))
        self._label = dict(self.samples)

    def made(self, stored: np.ndarray) -> Any:
        """The image that the bytes are of. Raises ``ValueError`` for what is stored otherwise."""
        if stored.dtype != np.uint8 or stored.ndim != 1:
            raise ValueError(f"{self.path} holds {stored.dtype} {stored.shape} where the bytes of an image should be")
        image = self.decode(stored.tobytes())
        return image if self.transform is None else self.transform(image)

    def label(self, key: str) -> Any:
        """The number of the class of an image."""
        number = super().label(key)
        return number if self.target_transform is None else self.target_transform(number)

    def write_labels(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the numbers of the classes as JSON, by default beside the file; returns where."""
        return write_labels(self.path, self.class_to_idx, path)


def decode_image(encoded: bytes) -> Any:
    """An RGB image of Pillow's, of the bytes of a JPEG, PNG or other file. Raises ``ValueError`` for bytes that are no image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("decoding images needs Pillow: pip install 'h5fast[images]', or give a decode= of your own") from error
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ValueError(f"these {len(encoded):,} bytes are no image: {error}") from error


def _class_of(path: str, key: str) -> str:
    group, slash, _ = key.partition("/")
    if not slash:
        raise ValueError(f"{key!r} of {path} is in no group: an image's top-level group is its class")
    return group


def _numbered(path: str, classes: list[str], given: Mapping[str, int] | str | os.PathLike[str] | None) -> dict[str, int]:
    """The numbers of these classes."""
    where: Any = None
    if given is None and labels_path(path).exists():
        given = labels_path(path)
    if given is None:
        return {name: number for number, name in enumerate(classes)}
    if not isinstance(given, Mapping):
        where = given
        try:
            given = json.loads(Path(where).read_text(encoding="utf-8", errors="surrogateescape"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{os.fspath(where)} is no JSON: {error}") from None
    said = "class_to_idx" if where is None else os.fspath(where)
    if not isinstance(given, Mapping) or not all(type(number) is int for number in given.values()):
        raise ValueError(f"{said} must give each class a whole number, by its name")
    missing = [name for name in classes if name not in given]
    if missing:
        raise ValueError(f"{said} has no number for the class {missing[0]!r} of {path}; it has {sorted(given)}")
    return dict(given)
