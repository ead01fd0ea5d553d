"""Images as they were filed, in one dataset: batches are what Pillow makes of each, whatever the order, threads and memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import h5fast
from h5fast import CorruptChunkError, Field, Loader

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
IMAGES = Field("/", layout="encoded")


def picture(number: int, size: tuple[int, int] = (20, 24)) -> np.ndarray[Any, Any]:
    steps = np.add.outer(np.arange(size[0]) * 5, np.arange(size[1]) * 3)
    return np.stack([(steps + 7 * number) % 256, steps % 256, np.full_like(steps, number % 256)], axis=-1).astype("u1")


def filed(array: np.ndarray[Any, Any], kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind)
    return content.getvalue()


def shown(content: bytes, mode: str = "RGB", size: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(content)) as image:
        converted = image.convert(mode)
        return np.asarray(converted if size is None else converted.resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(90):
        kind = ("PNG", "JPEG")[number % 2]
        path = tmp_path / "images" / f"class{number % 3}" / f"{number:02}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(filed(picture(number), kind))
    return tmp_path / "images"


def pack(folder: Path, **options: Any) -> tuple[Path, list[bytes]]:
    """The file, and the images in its order."""
    path = folder.parent / "images.h5"
    h5fast.pack(folder, path, layout="encoded", **options)
    with h5fast.FileTree(path) as tree, h5py.File(path) as file:
        return path, [tree[name.decode()] for name in file["paths"][()] if not name.endswith(b"/")]


@pytest.mark.parametrize("codec", [None, "lzf", "gzip"])
@pytest.mark.parametrize("shuffle", ["exact", "block", False])
def test_batches_are_what_pillow_shows(folder: Path, codec: Any, shuffle: Any) -> None:
    path, content = pack(folder, codec=codec)
    with h5py.File(path) as file:
        labels = file["label"][()]
    loader = Loader(path, {"image": IMAGES, "label": "label"}, 16, shuffle=shuffle, threads=2)
    seen = 0
    for rows, batch in zip(loader.epoch_rows(0), loader, strict=True):
        np.testing.assert_array_equal(batch["image"], np.stack([shown(content[row]) for row in rows]))
        np.testing.assert_array_equal(batch["label"], labels[rows])
        seen += len(rows)
    assert seen == 90


def test_they_are_cast_as_rows_are(folder: Path) -> None:
    path, content = pack(folder)
    field = Field("/", layout="encoded", dtype="f4", scale=1 / 255, channels_first=True, size=(8, 10))
    [batch] = Loader(path, field, 90, shuffle=False)
    wanted = np.stack([shown(one, size=(8, 10)) for one in content]).astype("f4") * np.float32(1 / 255)
    np.testing.assert_array_equal(batch, wanted.transpose(0, 3, 1, 2))
    [grey] = Loader(path, Field("/", layout="encoded", mode="L"), 90, shuffle=False)
    np.testing.assert_array_equal(grey, np.stack([shown(one, "L") for one in content]))
    with pytest.raises(ValueError, match="mode 'L' have no axis of channels"):
        Loader(path, Field("/", layout="encoded", mode="L", channels_first=True))


def test_several_files_and_little_memory(folder: Path, tmp_path: Path) -> None:
    path, content = pack(folder)
    loader = Loader([path, path], IMAGES, 7, memory="1 MiB", seed=3)
    for rows, batch in zip(loader.epoch_rows(0), loader, strict=True):
        np.testing.assert_array_equal(batch, np.stack([shown(content[row % 90]) for row in rows]))


def test_images_of_different_shapes_need_a_size(folder: Path) -> None:
    (folder / "class1" / "large.png").write_bytes(filed(picture(1, (40, 50)), "PNG"))
    path, content = pack(folder)
    with pytest.raises(CorruptChunkError, match=r"large\.png.*\(40, 50, 3\).*\(20, 24, 3\).*size=\(height, width\)"):
        list(Loader(path, IMAGES, 16))
    [batch] = Loader(path, Field("/", layout="encoded", size=(20, 24)), 91, shuffle=False)
    np.testing.assert_array_equal(batch, np.stack([shown(one, size=(20, 24)) for one in content]))


def test_a_damaged_image_is_named_or_left_out(folder: Path) -> None:
    path, content = pack(folder)
    with h5py.File(path, "r+") as file:
        first = int(file["offsets"][5])
        file["data"][first:first + 8] = 0
    with pytest.raises(CorruptChunkError, match=r"images\.h5: group '/': image 'class0/15\.jpeg' is no image"):
        list(Loader(path, IMAGES, 16, shuffle=False))
    loader = Loader(path, IMAGES, 16, shuffle=False, on_error="skip")
    batch = next(iter(loader))
    np.testing.assert_array_equal(batch, np.stack([shown(one) for row, one in enumerate(content[:16]) if row != 5]))


def test_rows_that_are_no_images(folder: Path) -> None:
    (folder / "empty").mkdir()
    path, content = pack(folder)
    with h5py.File(path) as file:
        is_file = np.array([not name.endswith(b"/") for name in file["paths"][()]])
    assert not is_file.all()
    with pytest.raises(ValueError, match=r"row \d+ is the folder 'empty/'.*rows="):
        list(Loader(path, IMAGES, 16))
    assert sum(len(batch) for batch in Loader(path, IMAGES, 16, rows=is_file)) == 90


@pytest.mark.parametrize("options,message", [
    ({"size": (0, 4)}, "size"), ({"size": (4,)}, "size"), ({"layout": None, "size": (4, 4)}, "layout='encoded'"),
    ({"window": 3}, "window"), ({"crop": (2,)}, "crop"), ({"layout": "jpeg"}, "layout"),
])
def test_fields_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Field("/", **{"layout": "encoded", **options})


def test_what_is_not_of_the_layout(tmp_path: Path, folder: Path) -> None:
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.zeros(10, "u1")
        file["x/y"] = 1
    with pytest.raises(ValueError, match=r"plain\.h5: group '/' is not of the layout 'encoded'"):
        Loader(tmp_path / "plain.h5", IMAGES)
    with pytest.raises(KeyError, match=r"layout='encoded' needs a group that h5fast\.pack made.*plain\.h5"):
        Loader(tmp_path / "plain.h5", Field("x", layout="encoded"))
    with pytest.raises(ValueError, match="mode is one of Pillow's"):
        Loader(pack(folder)[0], Field("/", layout="encoded", mode="XYZ"))
