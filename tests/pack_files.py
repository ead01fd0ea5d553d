"""Folders and archives of real images (patches of scikit-learn's two photographs) for the tests of packing."""

from __future__ import annotations

import io
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="packing images needs Pillow")
load_sample_images = pytest.importorskip("sklearn.datasets", reason="the images are scikit-learn's").load_sample_images

CLASSES = ("china", "flower")


@lru_cache
def photographs() -> list[np.ndarray]:
    return [np.asarray(image) for image in load_sample_images().images]


@lru_cache
def images(count: int, size: int = 24, kind: str = "PNG") -> dict[str, bytes]:
    """Files by path, in the order of their paths: patches of a photograph, in a folder of its name."""
    random = np.random.default_rng(3)
    found = {}
    for number in range(count):
        photograph = photographs()[number % 2]
        y, x = (int(random.integers(0, length - size)) for length in photograph.shape[:2])
        out = io.BytesIO()
        Image.fromarray(photograph[y:y + size, x:x + size]).save(out, kind)
        found[f"{CLASSES[number % 2]}/{number // 2 % 3}/{number:03d}.{kind.lower()}"] = out.getvalue()
    return dict(sorted(found.items()))


def pixels(data: bytes, mode: str = "RGB") -> np.ndarray:
    """What Pillow makes of a file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path
