"""Where an ``HDF5Matrix`` gets its rows from: paths and open objects, shared handles, other processes and threads."""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import gc
import multiprocessing
import os
import pathlib
import pickle

import h5py
import numpy as np
import pytest
from at_once import run_in_threads
from matrix_files import ROWS, image, path, same  # noqa: F401  # fixtures, used by name

import h5fast
from h5fast import HDF5Matrix, Normalize

# What it opens.


@pytest.mark.parametrize("kind", [str, pathlib.Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_paths(path: pathlib.Path, image: np.ndarray, kind: object) -> None:
    assert same(HDF5Matrix(kind(path), "image")[3], image[3])


def test_relative_paths_survive_chdir(
    path: pathlib.Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(path.parent)
    x = HDF5Matrix(path.name, "image")
    monkeypatch.chdir(tmp_path)
    assert same(pickle.loads(pickle.dumps(x))[3], image[3])


@pytest.mark.parametrize("module", [h5py, h5fast], ids=["h5py", "h5fast"])
def test_open_objects(path: pathlib.Path, image: np.ndarray, module: object) -> None:
    with module.File(path, "r") as file:
        for x in (
            HDF5Matrix(file, "image", 2, 9),
            HDF5Matrix(file["/"], "image", 2, 9),
            HDF5Matrix(file["image"], None, 2, 9),
            HDF5Matrix(file["image"], start=2, end=9),
        ):
            assert isinstance(x.data, h5fast.Dataset)
            assert same(x[[3, 0]], image[[5, 2]])
            assert same(pickle.loads(pickle.dumps(x))[[3, 0]], image[[5, 2]])
            x.close()
        assert file["image"].shape == (ROWS, 6, 5, 3)
        with pytest.raises(TypeError):
            HDF5Matrix(file["image"], "image")
        with pytest.raises(TypeError):
            HDF5Matrix(file)
        x = HDF5Matrix(file, "image")
    with pytest.raises((ValueError, RuntimeError)):
        x[0]
    with pytest.raises(ValueError, match="closed"):
        HDF5Matrix(file, "image")


def test_an_open_object_that_nobody_else_keeps(path: pathlib.Path, image: np.ndarray) -> None:
    x = HDF5Matrix(h5py.File(path, "r")["image"])
    gc.collect()
    assert same(x[[3, 1]], image[[3, 1]])


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("missing", KeyError, "no dataset 'missing' in '.*data.h5'"),
        ("group", ValueError, "'group' in '.*data.h5' is a group"),
        ("scalar", ValueError, "no rows"),
        ("none", ValueError, "no rows"),
        (None, TypeError, "name of a dataset"),
    ],
)
def test_what_is_no_matrix(path: pathlib.Path, name: str | None, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        HDF5Matrix(path, name)


def test_files_that_do_not_open(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    for name, error in (("missing.h5", FileNotFoundError), ("text.h5", OSError), (".", OSError)):
        with pytest.raises(error):
            HDF5Matrix(tmp_path / name, "x")


# Handles.


def descriptors_on(path: pathlib.Path) -> int:
    wanted, count = os.stat(path), 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            count += os.path.samestat(os.stat(f"/proc/self/fd/{entry}"), wanted)
        except OSError:
            continue
    return count


@pytest.fixture
def own_path(path: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the file that no other test has open."""
    copied = tmp_path / "own.h5"
    copied.write_bytes(path.read_bytes())
    return copied


def test_handles_are_shared_and_released(own_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link.h5").symlink_to(own_path)
    train, test = HDF5Matrix(own_path, "image", 0, 100), HDF5Matrix(tmp_path / "link.h5", "image", 100)
    assert train.data is test.data
    train.close()
    assert len(test[:]) == 50
    with pytest.raises(ValueError, match="closed"):
        train[0]
    assert len(train) == 100 and train.shape == (100, 6, 5, 3)
    del test
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        assert descriptors_on(own_path) == 0
    with h5py.File(own_path, "r+") as file:  # HDF5 refuses this while the file is open read-only
        file["image"][0] = 0


def test_context_manager(own_path: pathlib.Path) -> None:
    with HDF5Matrix(own_path, "image") as x:
        assert len(x[:2]) == 2
    with pytest.raises(ValueError, match="closed"):
        x[0]
    x.close()
    with h5py.File(own_path, "r+"):
        pass


def test_a_replaced_file_is_opened_anew(own_path: pathlib.Path, image: np.ndarray) -> None:
    old = HDF5Matrix(own_path, "image")
    replacement = own_path.with_name("new.h5")
    with h5py.File(replacement, "w") as file:
        file["image"] = np.zeros((3, 2), "u1")
    os.replace(replacement, own_path)
    new = HDF5Matrix(own_path, "image")
    assert new.shape == (3, 2)
    assert same(new[:], np.zeros((3, 2), "u1"))
    assert same(old[[149, 3]], image[[149, 3]])


# Processes and threads.


def identity(batch: np.ndarray) -> np.ndarray:
    return batch


@pytest.mark.parametrize("normalizer", [None, identity, Normalize(0.5, 1)], ids=["none", "function", "fused"])
def test_pickle(path: pathlib.Path, normalizer: object) -> None:
    x = HDF5Matrix(path, "image", 20, 90, normalizer)
    for twin in (pickle.loads(pickle.dumps(x)), copy.copy(x), copy.deepcopy(x)):
        assert (twin.start, twin.end, twin.normalizer) == (20, 90, normalizer)
        assert same(twin[[5, -1]], x[[5, -1]])
    x.close()
    assert same(pickle.loads(pickle.dumps(x))[3], twin[3])


def read_keys(x: HDF5Matrix, keys: list[object]) -> list[object]:
    return [x[key] for key in keys]


# Python 3.12 and later warn of any fork in a process with threads, and h5fast's pool is threads.
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(path: pathlib.Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    x = HDF5Matrix(path, "image", 20, 90, Normalize(0.5))
    keys = [0, [5, 3, 3, -1], slice(None)]
    expected = read_keys(x, keys)
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        for result in [pool.submit(read_keys, x, keys) for _ in range(4)]:
            assert all(same(got, want) for got, want in zip(result.result(120), expected, strict=True))
    assert all(same(got, want) for got, want in zip(read_keys(x, keys), expected, strict=True))


@forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("rows_read_before", [0, 3])
def test_fork_with_an_open_matrix(path: pathlib.Path, image: np.ndarray, rows_read_before: int) -> None:
    """The child uses the handle of its parent, not a pickled copy, and opens another of its own."""
    x = HDF5Matrix(path, "image", 20)
    x[:rows_read_before]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert same(x[[5, 3]], image[[25, 23]])
            assert same(HDF5Matrix(path, "image")[[5, 3]], image[[5, 3]])
            code = 0
        finally:
            os._exit(code)
    assert same(x[[7, 3]], image[[27, 23]])
    assert os.waitpid(child, 0)[1] == 0
    assert same(x[[6, 1]], image[[26, 21]])


@forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_closes_does_not_unlock_its_parents_file(own_path: pathlib.Path) -> None:
    """A lock belongs to the open file that parent and child share: an unlock in one would be an unlock in both."""
    fcntl = pytest.importorskip("fcntl")
    x = HDF5Matrix(own_path, "image")

    def locked() -> bool:
        with open(own_path, "rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    if not locked():
        pytest.skip("this HDF5 does not lock files here")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            x.close()
            HDF5Matrix(own_path, "image").close()
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert locked()
    x.close()


def test_threads(path: pathlib.Path, image: np.ndarray) -> None:
    x = HDF5Matrix(path, "image", 10, 140, Normalize(0.5))
    expected = Normalize(0.5)(image[10:140])

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            rows = rng.integers(-130, 130, 17)
            assert same(x[rows], expected[rows])
            assert same(HDF5Matrix(path, "image", 10, 140)[rows], image[10:140][rows])

    run_in_threads([functools.partial(work, seed) for seed in range(8)])
