"""The protocol h5fast of fsspec: programs that know nothing of HDF5 read files in a file."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from tree_files import MIXED, write_encoded, write_tree

import h5fast
from h5fast import FileTree

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'h5fast[fsspec]'")
from h5fast.tree.filesystem import H5FastFileSystem  # noqa: E402


@pytest.fixture(autouse=True)
def registered() -> None:
    """As the entry point does where the package is installed."""
    fsspec.register_implementation("h5fast", "h5fast.tree.filesystem.H5FastFileSystem", clobber=True)


def test_entry_point_is_declared() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    about = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    where = about["project"]["entry-points"]["fsspec.specs"]["h5fast"]
    module, _, name = where.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name) is H5FastFileSystem


@pytest.mark.parametrize("write", [write_tree, write_encoded])
def test_all_of_it(tmp_path: Path, write: object) -> None:
    path = write(tmp_path / "f.h5")  # type: ignore[operator]
    files = {name: content for name, content in MIXED.items()}
    fs = fsspec.filesystem("h5fast", fo=str(path))
    assert set(fs.find("")) == set(files)
    assert {name: fs.cat_file(name) for name in files} == files
    assert fs.cat(["deep/one", "empty"]) == {"deep/one": b"1", "empty": b""}
    assert fs.cat_file("big.bin", 5, -5) == files["big.bin"][5:-5]
    assert fs.info("deep")["type"] == "directory" and fs.info("deep/one") == {"name": "deep/one", "size": 1, "type": "file"}
    assert fs.glob("**/*.bin") == ["big.bin", "deep/er/and/deeper.bin"]
    assert [entry["name"] for entry in fs.ls("deep")] == ["deep/er", "deep/one"]
    assert fs.exists("deep/one") and not fs.exists("deep/two")
    with pytest.raises(FileNotFoundError):
        fs.ls("nowhere")
    copy = pickle.loads(pickle.dumps(fs))
    assert copy.cat_file("deep/one") == b"1"
    fs.get("deep", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out/er/and/deeper.bin").read_bytes() == files["deep/er/and/deeper.bin"]


def test_chained_urls(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "f.h5")
    with fsspec.open(f"h5fast://deep/one::{path}") as file:
        assert file.read() == b"1"
    with fsspec.open(f"h5fast://with spaces.txt::file://{path}", "rt") as text:
        assert text.read() == "a line\n"
    cached = {"cache_storage": str(tmp_path / "cache")}
    with fsspec.open(f"h5fast://deep/one::simplecache::file://{path}", simplecache=cached) as file:
        assert file.read() == b"1"
    fsspec.filesystem("memory").pipe("/f.h5", path.read_bytes())
    with pytest.raises(h5fast.UnsupportedError, match="simplecache::"):
        fsspec.open("h5fast://deep/one::memory://f.h5").open()
    with pytest.raises(ValueError, match="which HDF5 file"):
        H5FastFileSystem()


def test_pandas_reads_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    path = write_tree(tmp_path / "f.h5", {"tables/a.csv": b"x,y\n1,2\n3,4\n"})
    table = pandas.read_csv(f"h5fast://tables/a.csv::{path}")
    assert table.to_dict("list") == {"x": [1, 3], "y": [2, 4]}


def test_writing(tmp_path: Path) -> None:
    fs = H5FastFileSystem(str(tmp_path / "f.h5"), mode="a")
    with fs.open("a/b.txt", "wb") as file:
        file.write(b"hello ")
        file.write(b"world")
    fs.pipe_file("a/c.txt", b"c")
    fs.mv("a/c.txt", "a/d.txt")
    fs.cp_file("a/d.txt", "e/d.txt")
    fs.makedirs("g/h", exist_ok=True)
    fs.rmdir("g/h")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("a")
    with pytest.raises(FileExistsError):
        fs.pipe_file("a/d.txt", b"", mode="create")
    fs.rm("a/d.txt")
    fs.close()
    with FileTree(tmp_path / "f.h5") as tree:
        assert dict(tree) == {"a/b.txt": b"hello world", "e/d.txt": b"c"} and tree.isdir("g")


def test_a_loader_of_images_in_folders_trains(tmp_path: Path) -> None:
    """Classes are folders, as torchvision's ImageFolder has them; a linear model learns to tell them apart."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    draw = np.random.default_rng(0)
    with FileTree(tmp_path / "f.h5", "w") as tree:
        for label, name in enumerate(("dark", "light")):
            for number in range(40):
                pixels = draw.integers(0, 128, (8, 8), dtype="u1") + 100 * label
                out = io.BytesIO()
                image.fromarray(pixels.astype("u1")).save(out, "PNG")
                tree.put(f"{name}/{number}.png", out.getvalue())
    fs = fsspec.filesystem("h5fast", fo=str(tmp_path / "f.h5"))
    classes = [Path(entry["name"]).name for entry in fs.ls("") if entry["type"] == "directory"]
    samples = [(path, classes.index(path.split("/")[0])) for path in fs.find("")]
    assert classes == ["dark", "light"] and len(samples) == 80
    weights, bias = np.zeros(64), 0.0
    for _ in range(20):
        draw.shuffle(samples)
        for path, label in samples:
            with fs.open(path) as file:
                pixels = np.asarray(image.open(file), float).ravel() / 255 - 0.45
            error = label - 1 / (1 + np.exp(-(weights @ pixels + bias)))
            weights, bias = weights + 0.1 * error * pixels, bias + 0.1 * error
    right = 0
    for path, label in samples:
        pixels = np.asarray(image.open(io.BytesIO(fs.cat_file(path))), float).ravel() / 255 - 0.45
        right += (weights @ pixels + bias > 0) == label
    assert right >= 76
