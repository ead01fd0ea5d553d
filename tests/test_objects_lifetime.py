"""Objects after their file was closed, and in other processes: what they still read, and what they refuse.

Prevents: a handle that goes on reading a file that was closed, or that reads another file after it travelled.
"""

from __future__ import annotations

import copy
import gc
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from object_files import TABLE, file, path  # noqa: F401  # fixtures, used by name

import h5fast
from h5fast import addresses

CLOSED: dict[str, Callable[[h5fast.File, Any], Any]] = {
    "index": lambda f, d: d[0],
    "index as another type": lambda f, d: d.__getitem__(0, new_dtype=np.dtype("f8")),
    "take": lambda f, d: d.take([0]),
    "reader": lambda f, d: d.reader,
    "array": lambda f, d: np.asarray(d),
    "read_direct": lambda f, d: d.read_direct(np.empty(TABLE.shape, "i4")),
    "iterate": lambda f, d: list(d),
    "member": lambda f, d: f["table"],
    "get": lambda f, d: f.get("table"),
}


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("action", CLOSED)
def test_closed_file(path: Path, action: str, used: bool) -> None:
    """The reader has a descriptor of its own: without a check it would go on reading a file that was closed."""
    f = h5fast.File(path)
    dataset = f["group/chunked"]
    if used:
        dataset[[3, 1]]
    f.close()
    with pytest.raises(ValueError, match=r"its file is closed"):
        CLOSED[action](f, dataset)


def test_file_closed_while_iterating(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5fast.methods._ITERATION_BYTES", 1)
    with h5fast.File(path) as f:
        rows = iter(f["table"])
        next(rows)
    with pytest.raises(ValueError, match=r"its file is closed"):
        list(rows)


def test_closed_through_another_object(path: Path) -> None:
    with h5fast.File(path) as f:
        dataset, other = f["table"], f["group/chunked"]
        dataset.id.close()
        with pytest.raises(ValueError, match=r"closed"):
            dataset[0]
        assert np.array_equal(other[0], TABLE[0])
        other.file.close()
        with pytest.raises(ValueError, match=r"closed"):
            other[0]


def test_dataset_outlives_its_file_object(path: Path) -> None:
    dataset = h5fast.File(path)["group/chunked"]
    gc.collect()
    assert np.array_equal(dataset[[3, 1]], TABLE[[3, 1]])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_objects_open_the_file_again(path: Path, protocol: int) -> None:
    with h5fast.File(path, rdcc_nbytes=1 << 22, rdcc_nslots=1009, rdcc_w0=0.25, locking=False) as f:
        for obj in (f, f["group"], f["group/chunked"], f["group/external"]):
            twin = pickle.loads(pickle.dumps(obj, protocol))
            assert type(twin) is type(obj) and twin == obj and twin.name == obj.name and twin.file.mode == "r"
        assert twin.file.filename == str(path.parent / "other.h5")
        access = pickle.loads(pickle.dumps(f, protocol)).id.get_access_plist()
        assert access.get_cache()[1:] == (1009, 1 << 22, 0.25)
        # Before 1.14.4, HDF5 does not tell; but it refuses to open a file with other locking than it is open with.
        assert access.get_file_locking() == f.id.get_access_plist().get_file_locking()
        assert np.array_equal(copy.deepcopy(f["group/chunked"])[[4, 2]], TABLE[[4, 2]])


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pickled_dataset_reads_in_another_process(file: h5fast.File, method: str) -> None:
    """A handle that travels as a number reads nothing, or another file, in the process that receives it."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert np.array_equal(pool.submit(np.asarray, file["group/chunked"]).result(timeout=60), TABLE)
        assert np.array_equal(pool.submit(h5fast.Dataset.take, file["table"], [5, -1]).result(timeout=60), TABLE[[5, -1]])


def test_pickle_follows_the_path_that_was_opened(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path means another file once the working directory changed."""
    monkeypatch.chdir(path.parent)
    with h5fast.File(path.name) as f:
        (tmp_path / "elsewhere").mkdir()
        data = pickle.dumps(f["table"])
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert np.array_equal(pickle.loads(data)[:], TABLE)
        with pytest.raises(TypeError, match="not the one at"):
            pickle.dumps(f["table"])


def test_pickle_refuses_a_replaced_file(path: Path) -> None:
    with h5fast.File(path) as f:
        path.unlink()
        with pytest.raises(TypeError, match="moved, replaced or deleted"):
            pickle.dumps(f)


@pytest.mark.parametrize("kind", ["writing", "in memory", "file object", "closed", "anonymous"])
def test_pickle_refuses_what_cannot_be_opened_again(path: Path, kind: str) -> None:
    """A copy that shows other data than the original is worse than none."""
    if kind == "writing":
        f, reason = h5fast.File(path, "r+"), "open for writing"
    elif kind == "in memory":
        f, reason = h5fast.File(path, driver="core", backing_store=False), "'core'"
    elif kind == "file object":
        f, reason = h5fast.File(io.BytesIO(path.read_bytes()), "r"), "'fileobj'"
    else:
        f, reason = h5fast.File(path, "r" if kind == "closed" else "r+"), "closed|open for writing"
    with f:
        objects = [f, f["group"], f["group/chunked"]]
        if kind == "closed":
            f.close()
        for obj in objects:
            with pytest.raises(TypeError, match=f"cannot pickle this h5fast .*({reason})"):
                pickle.dumps(obj)


def test_the_locking_of_an_open_file_is_kept_in_pickles(path: Path) -> None:
    """HDF5 1.14.2 tells "best-effort" whatever the file was opened with, and then refuses that."""
    for locking in (False, True, "best-effort", None):
        with h5fast.File(path, locking=locking) as f:
            with pickle.loads(pickle.dumps(f["table"].file)) as twin:
                assert np.array_equal(twin["table"][3], TABLE[3])
            asked = {} if locking is None else {"locking": locking}
            assert asked.items() <= f.__reduce__()[1][2].items()
    assert not addresses._locking_given, "entries of closed files"


@pytest.mark.parametrize("compression", [None, "lzf"])
def test_an_iteration_ends_with_its_file(tmp_path, compression):
    """Rows that had been read ahead came out of a file that was closed."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(30).reshape(10, 3), chunks=(5, 3), compression=compression)
    with h5fast.File(path) as file:
        dataset = file["x"]
        rows = iter(dataset)
        assert next(rows).tolist() == [0, 1, 2]
    with pytest.raises(ValueError) as closed:
        dataset[1]
    with pytest.raises(ValueError, match=str(closed.value)):
        next(rows)
    with h5py.File(path) as plain, h5fast.patched():
        rows = iter(plain["x"])
        next(rows)
        plain.close()
        with pytest.raises((OSError, RuntimeError)):
            next(rows)
