"""Files with one dataset for each sample: rows in natural order, whatever way they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import h5fast
from h5fast import Field, Loader

ORDERS = ["exact", "block", "batches", False]
STORED: dict[str, dict[str, Any]] = {
    "contiguous": {}, "one chunk": {"chunks": (5, 4, 3), "compression": "lzf"},
    "chunks": {"chunks": (2, 4, 2), "compression": "gzip", "shuffle": True}, "by HDF5": {"chunks": (5, 4, 3), "scaleoffset": 0},
}
COUNTS = (30, 13)
IMAGES = np.random.default_rng(0).integers(0, 100, (sum(COUNTS), 5, 4, 3)).astype("i4")


@pytest.fixture(scope="module", params=[*STORED, "mixed"])
def paths(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, found, row = tmp_path_factory.mktemp("samples"), [], 0
    for number, count in enumerate(COUNTS):
        found.append(folder / f"{number}.h5")
        with h5py.File(found[-1], "w") as file:
            for at in np.random.default_rng(1).permutation(count):
                here = row + at
                options = STORED[request.param] if request.param != "mixed" else list(STORED.values())[here % 4]
                sample = file.create_group(f"samples/s{at}")
                sample.create_dataset("image", data=IMAGES[here], **options)
                sample["label"], sample["text"] = here, f"rôw {here}"
                sample["ragged"] = np.arange(here % 5, dtype="f4")
            file["samples/readme"], file["rows"] = "no sample", np.arange(row, row + count)
        row += count
    return found


@pytest.mark.parametrize("memory", ["60 kB", "10 MB"])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_samples_are_rows(paths: list[Path], shuffle: Any, memory: str) -> None:
    fields = {"x": "samples/*/image", "y": "samples/*/label", "rows": "rows", "ragged": "samples/*/ragged",
              "text": Field("samples/*/text", dtype=str), "raw": "samples/*/text",
              "part": Field("samples/*/image", dtype="f4", scale=0.5, crop=(slice(1, 3),), channels_first=True)}
    loader = Loader(paths, fields, 10, shuffle=shuffle, memory=memory, prefetch=1)
    for _ in range(2):
        seen = []
        for batch in loader:
            rows = batch["y"]
            np.testing.assert_array_equal(batch["rows"], rows)
            np.testing.assert_array_equal(batch["x"], IMAGES[rows])
            np.testing.assert_array_equal(batch["part"], (IMAGES[rows][:, 1:3] / 2).transpose(0, 3, 1, 2))
            assert batch["text"].tolist() == [f"rôw {row}" for row in rows]
            assert batch["raw"].tolist() == [f"rôw {row}".encode() for row in rows]
            assert all(np.array_equal(value, np.arange(row % 5)) for value, row in zip(batch["ragged"], rows))
            seen += rows.tolist()
        assert sorted(seen) == list(range(sum(COUNTS)))
        if shuffle is False:
            assert seen == sorted(seen)


def test_resume(paths: list[Path]) -> None:
    whole = [labels.tolist() for _, labels in Loader(paths, ("samples/*/image", "samples/*/label"), 10)]
    first = Loader(paths, ("samples/*/image", "samples/*/label"), 10)
    batches = iter(first)
    next(batches)
    second = Loader(paths, ("samples/*/image", "samples/*/label"), 10, memory="1 MB")
    second.load_state_dict(first.state_dict())
    for (images, labels), expected in zip(second, whole[1:]):
        assert labels.tolist() == expected
        np.testing.assert_array_equal(images, IMAGES[labels])


def test_samples_stored_alike_are_the_engines(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w", userblock_size=512) as file:
        for number in range(40):
            file.create_dataset(f"s_{number}", data=IMAGES[number], **STORED["one chunk"])
            file[f"t_{number}"] = number
    loader = Loader(tmp_path / "f.h5", ("s_*", "t_*"), 8)
    for epoch in range(2):
        for images, labels in loader:
            np.testing.assert_array_equal(images, IMAGES[labels])
        assert loader.stats()["decodes"] == (0 if epoch else 40)
    with h5fast.File(tmp_path / "f.h5") as file:
        assert np.concatenate(list(Loader(file, "t_*", 8, shuffle=False))).tolist() == list(range(40))


def test_the_first_that_lacks_one_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for number in range(12):
            file[f"a/{number}/x"] = number
            if number != 7:
                file[f"a/{number}/y"] = number
    for fields in (("a/*/x", "a/*/y"), ("a/*/y", "a/*/x")):
        with pytest.raises(ValueError, match=r"field 'a/\*/y': 'a/7/y' is not in .*f\.h5"):
            Loader(tmp_path / "f.h5", fields, 4)
    with pytest.raises(KeyError, match=r"no dataset of .*f\.h5 matches 'b/\*'"):
        Loader(tmp_path / "f.h5", "b/*", 4)
    with pytest.raises(ValueError, match="have no window or layout"):
        Loader(tmp_path / "f.h5", Field("a/*/x", window=3), 4)
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["s1"], file["s2"] = np.zeros(3), np.zeros(4)
    with pytest.raises(TypeError, match="samples of different shapes or types"):
        Loader(tmp_path / "g.h5", Field("s*", dtype="f4"), 1)


def test_the_index_of_a_packed_file_is_no_sample(tmp_path: Path) -> None:
    """A pattern of stars found the datasets of the index that pack() leaves in a file, and drew them like any other."""
    for name in "ab":
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "one.bin").write_bytes(b"12345678")
    h5fast.pack(tmp_path / "in", tmp_path / "out.h5", layout="tree")
    with h5py.File(tmp_path / "out.h5") as file:
        assert ".h5fast" in file
    loader = h5fast.Loader(tmp_path / "out.h5", "*/*", 1, shuffle=False)
    assert [batch[0].tobytes() for batch in loader] == [b"12345678"] * 2
