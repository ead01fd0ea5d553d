"""Files with one dataset for each sample: by path, in nested groups, as arrays and as encoded images."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402
from torch_files import CONTEXTS  # noqa: E402

import h5fast  # noqa: E402
from h5fast import CorruptChunkError  # noqa: E402
from h5fast.torch import H5ImageFolder, H5Samples, loader  # noqa: E402


def content(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (7, 5, 3), dtype="u1")


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """What a converter of a folder writes: each file's array under its relative path, one chunk each, lzf."""
    path = tmp_path_factory.mktemp("samples") / "nested.h5"
    keys = ["root.jpg", *(f"foo/boo/{number}.jpg" for number in range(12)), *(f"foo/goo/deep/er/{number}.JPG" for number in range(9))]
    with h5py.File(path, "w") as file:
        for number, key in enumerate(keys):
            file.create_dataset(key, data=content(number), chunks=(7, 5, 3), compression="lzf")
        file.create_group("empty/group")
        file["again"] = file["foo"]  # a hard link to a group, and one back up: it was gone through for ever
        file["foo/up"] = file["/"]
        file["dangling"] = h5py.SoftLink("/no/such")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    return path, keys


def test_all_samples_of_nested_groups(nested: tuple[Path, list[str]]) -> None:
    path, keys = nested
    dataset = H5Samples(path)
    found = {key.replace("again/", "foo/") for key in dataset.keys}
    assert found == set(keys) and len(dataset) == len(keys)
    for number, key in enumerate(keys):
        sample = dataset[key]
        assert sample.dtype == torch.uint8
        np.testing.assert_array_equal(sample.numpy(), content(number))
    assert [len(sample) for sample in dataset] == [7] * len(keys)


def folder_of(key: str) -> int:
    return key.count("/")


@pytest.mark.parametrize("label", [folder_of, "mapping"], ids=["function", "mapping"])
def test_labels_of_a_function_or_a_mapping(nested: tuple[Path, list[str]], label: Any) -> None:
    path, keys = nested
    dataset = H5Samples(path, label=folder_of if label == "mapping" else label, keys=keys)
    if label == "mapping":
        dataset = H5Samples(path, label={key: folder_of(key) for key in keys}, keys=keys)
    assert [number for _, number in dataset] == [folder_of(key) for key in keys]
    with pytest.raises(KeyError, match="no label for sample 'root.jpg'"):
        H5Samples(path, label={}, keys=["root.jpg"])[0]


def test_which_samples_and_a_transform(nested: tuple[Path, list[str]]) -> None:
    path, keys = nested
    dataset = H5Samples(path, keys=lambda key: key.endswith(".JPG"), transform=lambda array: float(array.mean()))
    assert len(dataset) == 9 and dataset[0] == content(13).mean()


@pytest.mark.parametrize("context", CONTEXTS)
def test_workers_open_the_file_for_themselves(nested: tuple[Path, list[str]], context: str) -> None:
    path, keys = nested
    dataset = H5Samples(path, label=folder_of, keys=keys)
    dataset["root.jpg"]  # open here as well
    batches = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=context)
    samples, labels = (torch.cat(parts) for parts in zip(*batches))
    np.testing.assert_array_equal(samples.numpy(), np.stack([content(number) for number in range(len(keys))]))
    assert labels.tolist() == [folder_of(key) for key in keys]


def test_it_is_shuffled_by_loader_and_pickles(nested: tuple[Path, list[str]]) -> None:
    path, keys = nested
    dataset = pickle.loads(pickle.dumps(H5Samples(path, label=keys.index, keys=keys)))
    batches = loader(dataset, batch_size=5)
    orders = [torch.cat([labels for _, labels in batches]).tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(keys))) and orders[0] != orders[1]


def test_mistakes_are_named(nested: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, _ = nested
    dataset = H5Samples(path)
    with pytest.raises(KeyError, match="foo/none.jpg"):
        dataset["foo/none.jpg"]
    with pytest.raises(KeyError, match="is a group, not a sample"):
        dataset["foo/boo"]
    with pytest.raises(KeyError, match="no sample 'x'"):
        H5Samples(path, keys=["x"])
    with pytest.raises(ValueError, match="no dataset that is a sample, of those that keys= takes"):
        H5Samples(path, keys=lambda key: False)
    with pytest.raises(OSError, match="none.h5"):
        H5Samples(tmp_path / "none.h5")
    with pytest.raises(IndexError):
        dataset[10_000]


def test_damage_is_told_of_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        for number in range(3):
            file.create_dataset(f"a/{number}", data=content(number), chunks=(7, 5, 3), compression="gzip")
        file["a/1"].id.write_direct_chunk((0, 0, 0), b"no deflate")
    dataset = H5Samples(path)
    with pytest.raises(CorruptChunkError, match="a/1"):
        dataset[1]
    np.testing.assert_array_equal(dataset[2].numpy(), content(2))


# Encoded images.


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Classes as top-level groups, each image a dataset of its bytes, contiguous, as virtual file systems in HDF5 keep them."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "flow.ers.h5"
    with h5py.File(path, "w") as file:
        for number, name in enumerate(["red_rose", "blue_bell", "white_lily"]):
            for copy in range(4):
                encoded = io.BytesIO()
                shade = image.new("RGB", (9, 6), (60 * number, 20 * copy, 7))
                shade.save(encoded, "PNG")
                file[f"{name}/{copy}.png"] = np.frombuffer(encoded.getvalue(), "u1")
        grey = io.BytesIO()
        image.new("L", (9, 6), 33).save(grey, "PNG")
        file["white_lily/deep/er.png"] = np.frombuffer(grey.getvalue(), "u1")
    return path


def as_array(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def test_classes_are_the_top_level_groups(flowers: Path) -> None:
    dataset = H5ImageFolder(flowers)
    assert dataset.classes == ["blue_bell", "red_rose", "white_lily"]
    assert dataset.class_to_idx == {"blue_bell": 0, "red_rose": 1, "white_lily": 2}
    assert len(dataset) == 13 and dataset.targets == [0] * 4 + [1] * 4 + [2] * 5
    assert dataset.samples[4] == ("red_rose/0.png", 1)
    image, number = dataset[6]
    assert (image.mode, image.size, image.getpixel((0, 0)), number) == ("RGB", (9, 6), (0, 40, 7), 1)
    assert dataset["white_lily/deep/er.png"][0].getpixel((1, 1)) == (33, 33, 33)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_trains_as_a_folder_does(flowers: Path, workers: int) -> None:
    dataset = H5ImageFolder(flowers, transform=as_array, target_transform=str)
    seen = [(int(image[0, 0, 0]), label) for images, labels in loader(dataset, batch_size=4, num_workers=workers)
            for image, label in zip(images, labels)]
    assert sorted(seen) == sorted([(60, "0")] * 4 + [(0, "1")] * 4 + [(120, "2")] * 4 + [(33, "2")])


def test_numbers_of_classes_are_kept_beside_the_file(flowers: Path) -> None:
    where = H5ImageFolder(flowers, class_to_idx={"red_rose": 0, "blue_bell": 1, "white_lily": 2, "gone": 3}).write_labels()
    assert where == flowers.with_name("flow_ers_h5_labels.json")
    assert json.loads(where.read_text()) == {"red_rose": 0, "blue_bell": 1, "white_lily": 2, "gone": 3}
    assert H5ImageFolder(flowers).classes == ["red_rose", "blue_bell", "white_lily", "gone"]
    assert H5ImageFolder(flowers).targets[:5] == [1, 1, 1, 1, 0]


def test_labels_that_do_not_fit_are_named(flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no number for the class 'red_rose'"):
        H5ImageFolder(flowers, class_to_idx={"blue_bell": 0, "white_lily": 1})
    labels = tmp_path / "labels.json"
    for text, words in (("{", "is no JSON"), ("[1]", "each class a whole number"), ('{"a": "b"}', "each class a whole number")):
        labels.write_text(text)
        with pytest.raises(ValueError, match=f"labels.json.*{words}"):
            H5ImageFolder(flowers, class_to_idx=labels)


def test_what_is_no_image_is_told(flowers: Path) -> None:
    with h5py.File(flowers, "a") as file:
        file["red_rose/bad.png"] = np.arange(50, dtype="u1")
        file["red_rose/array"] = np.zeros((3, 3))
    dataset = H5ImageFolder(flowers)
    with pytest.raises(ValueError, match="50 bytes are no image"):
        dataset["red_rose/bad.png"]
    with pytest.raises(ValueError, match=r"holds float64 \(3, 3\) where the bytes of an image should be"):
        dataset["red_rose/array"]
    dataset.close()
    undecoded = H5ImageFolder(flowers, decode=len)
    assert undecoded["red_rose/bad.png"] == (50, 1)
    undecoded.close()
    with h5py.File(flowers, "a") as file:
        file["stray.png"] = np.arange(50, dtype="u1")
    with pytest.raises(ValueError, match="'stray.png' .* is in no group"):
        H5ImageFolder(flowers)


def test_names_of_classes_that_are_no_unicode_are_kept(flowers: Path) -> None:
    """Folders may be named in Latin 1; writing their classes raised UnicodeEncodeError, where packing wrote them."""
    numbers = {"red_rose": 0, "blue_bell": 1, "white_lily": 2, os.fsdecode(b"r\xf6slein"): 3}
    where = H5ImageFolder(flowers, class_to_idx=numbers).write_labels()
    assert b"r\xf6slein" in where.read_bytes()
    assert H5ImageFolder(flowers).class_to_idx == numbers


def test_what_was_packed_comes_with_its_classes(tmp_path: Path) -> None:
    """The index that pack() leaves in the file was taken for a class without a number."""
    for name, grey in (("rote Rosen é", 10), ("zinnia", 20)):
        (tmp_path / "images" / name).mkdir(parents=True)
        pytest.importorskip("PIL.Image").new("L", (5, 4), grey).save(tmp_path / "images" / name / "one.png")
    h5fast.pack(tmp_path / "images", tmp_path / "images.h5", layout="tree")
    dataset = H5ImageFolder(tmp_path / "images.h5", transform=as_array)
    assert dataset.class_to_idx == {"rote Rosen é": 0, "zinnia": 1}
    assert [(int(image[0, 0, 0]), number) for image, number in dataset] == [(10, 0), (20, 1)]
    assert H5Samples(tmp_path / "images.h5").keys == ["rote Rosen é/one.png", "zinnia/one.png"]
    before = (tmp_path / "images_h5_labels.json").read_bytes()
    assert dataset.write_labels().read_bytes() == before
    assert H5ImageFolder(tmp_path / "images.h5", class_to_idx=dataset.write_labels(tmp_path / "l.json")).targets == [0, 1]
