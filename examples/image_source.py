"""Real images for the examples, without downloading any: patches of scikit-learn's two photographs, as JPEG files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def patches(count: int, side: int = 48, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of images, from all over both photographs."""
    photographs = [np.asarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(seed)
    for number in range(count):
        photograph = photographs[number % 2]
        y, x = (int(random.integers(0, length - side)) for length in photograph.shape[:2])
        out = io.BytesIO()
        Image.fromarray(photograph[y:y + side, x:x + side]).save(out, "JPEG", quality=90)
        yield f"{('china', 'flower')[number % 2]}/image_{number:05d}.jpg", out.getvalue()


def write_tar(path: Path, count: int) -> Path:
    """An archive of such images, gzip-compressed."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in patches(count):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def write_folder(folder: Path, count: int) -> Path:
    """A folder of such images."""
    for name, data in patches(count):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
