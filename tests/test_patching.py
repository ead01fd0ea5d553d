"""``patch()``, ``unpatch()``, ``patched()``: h5py as it is, only faster, and gone without a trace."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from at_once import run_in_threads

import h5fast
from h5fast.patching import _PATCH
from h5fast.reading import DatasetReader

REPLACED = ("__getitem__", "__iter__", "read_direct", "refresh", "resize")
ORIGINALS = {name: vars(h5py.Dataset)[name] for name in REPLACED}
TABLE = np.arange(300, dtype="i4").reshape(50, 6)


def is_patched() -> bool:
    """Whether h5fast's methods are in place: all of them, or none."""
    replaced = {vars(h5py.Dataset)[name] is not original for name, original in ORIGINALS.items()}
    assert len(replaced) == 1
    return replaced.pop()


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """Every test begins and ends with h5py as it was."""
    assert not is_patched()
    yield
    h5fast.unpatch()
    assert not is_patched()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    records = np.zeros(50, dtype=[("i", "i4"), ("f", "f8")])
    records["i"], records["f"] = np.arange(50), np.arange(50) / 4
    with h5py.File(tmp_path / "patched.h5", "w") as f:
        f["contiguous"] = TABLE
        f.create_dataset("chunked", data=TABLE, chunks=(8, 4), compression="lzf", shuffle=True)
        f.create_dataset("big endian", data=TABLE.astype(">f8"), chunks=(7, 6))
        f["line"] = np.arange(20, dtype="u1")
        f["scalar"] = 2.5
        f["none"] = h5py.Empty("f4")
        f["zero"] = np.empty((0, 6), "f4")
        f["records"] = records
        f["flags"] = np.arange(50) % 3 == 0
        f["text"] = np.array(["ä", "b"], dtype=h5py.string_dtype())
    return tmp_path / "patched.h5"


NAMES = ["contiguous", "chunked", "big endian", "line", "scalar", "none", "zero", "records", "flags", "text"]

READS: dict[str, Callable[[Any], Any]] = {
    "everything": lambda d: d[()],
    "ellipsis": lambda d: d[...],
    "row": lambda d: d[3],
    "last row": lambda d: d[-1],
    "numpy integer": lambda d: d[np.int64(2)],
    "element": lambda d: d[3, 4],
    "slice": lambda d: d[2:9],
    "step": lambda d: d[1::3, 2:4],
    "beyond the end": lambda d: d[5:1000],
    "empty slice": lambda d: d[4:4],
    "reversed": lambda d: d[::-1],
    "list": lambda d: d[[1, 4, 6]],
    "list of columns": lambda d: d[:, [0, 2]],
    "unsorted list": lambda d: d[[4, 1]],
    "repeated list": lambda d: d[[4, 4]],
    "negative list": lambda d: d[[1, -1]],
    "two lists": lambda d: d[[1, 2], [3, 4]],
    "empty list": lambda d: d[[]],
    "mask": lambda d: d[np.arange(d.shape[0]) % 2 == 1],
    "full mask": lambda d: d[np.arange(d.size).reshape(d.shape) % 5 == 1],
    "wrong mask": lambda d: d[np.ones(3, bool)],
    "newaxis": lambda d: d[None],
    "out of range": lambda d: d[1000],
    "negative out of range": lambda d: d[-1000],
    "list out of range": lambda d: d[[1, 1000]],
    "too many axes": lambda d: d[1, 2, 3, 4],
    "float index": lambda d: d[1.5],
    "string index": lambda d: d["f"],
    "string and slice": lambda d: d["f", 2:4],
    "field view": lambda d: d.fields(["f"])[3:5],
    "text view": lambda d: d.asstr()[:],
    "wider type": lambda d: d.astype("f8")[2:5],
    "wider type, one element": lambda d: d.astype(">f8")[3, 4],
    "narrower type": lambda d: d.astype("i1")[()],
    "new_dtype": lambda d: d.__getitem__(np.s_[2:5], new_dtype=np.dtype("i8")),
    "array": lambda d: np.asarray(d),
    "array of another type": lambda d: np.asarray(d, dtype="f4"),
    "array without a copy": lambda d: d.__array__(copy=False),
    "iteration": lambda d: list(d),
    "length": lambda d: len(d),
    "read_direct": lambda d: filled(d, np.s_[2:6]),
    "read_direct, broadcast": lambda d: filled(d, np.s_[2]),
}


def filled(dataset: Any, source: Any) -> np.ndarray[Any, Any]:
    array = np.full((4, *dataset.shape[1:]), 1, dtype=dataset.dtype)
    dataset.read_direct(array, source)
    return array


def outcome(read: Callable[[Any], Any], dataset: Any) -> tuple[Any, ...]:
    """What `read` gives, in a form in which equal means identical to the bit; for an error its type and message."""
    try:
        value = read(dataset)
    except Exception as error:
        return type(error), str(error)
    if isinstance(value, list):
        return "list", [(type(item), getattr(item, "dtype", None), np.asarray(item).tolist()) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        content = value.tolist() if value.dtype.hasobject else value.tobytes()
        return type(value), value.dtype, value.dtype.metadata, value.shape, content
    return type(value), repr(value)


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("name", NAMES)
def test_reads_are_h5pys_to_the_bit(path: Path, name: str, mode: str) -> None:
    """Code that was never written for h5fast must not see it: not in a value, a dtype, or an error that it catches."""
    with h5py.File(path, mode) as f:
        expected = {case: outcome(read, f[name]) for case, read in READS.items()}
    with h5fast.patched(), h5py.File(path, mode) as f:
        assert type(f[name]) is h5py.Dataset
        found = {case: outcome(read, f[name]) for case, read in READS.items()}
    assert found == expected


def test_reads_are_served_by_h5fast(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch that always falls back passes every other test and saves nothing."""
    served: list[Any] = []
    original = DatasetReader.read_patched

    def counted(self: DatasetReader, key: Any) -> Any:
        result = original(self, key)
        served.append(result is not NotImplemented)
        return result

    monkeypatch.setattr(DatasetReader, "read_patched", counted)
    with h5fast.patched(), h5py.File(path) as f:
        f["chunked"][2:9]
        f["chunked"].astype("f8")[[1, 4]]
    assert served == [True, True]


def test_patch_and_unpatch(path: Path) -> None:
    with h5py.File(path) as f:
        dataset = f["chunked"]
        h5fast.patch()
        h5fast.patch()
        assert is_patched() and np.array_equal(dataset[3:5], TABLE[3:5])
        h5fast.unpatch()
        assert not is_patched() and np.array_equal(dataset[3:5], TABLE[3:5])
        h5fast.unpatch()


def test_blocks_nest(path: Path) -> None:
    block = h5fast.patched()
    with block:
        with block, h5fast.patched():
            assert is_patched()
        assert is_patched()
        h5fast.unpatch()
        assert is_patched()
    assert not is_patched()
    h5fast.patch()
    with pytest.raises(KeyError), h5fast.patched():
        raise KeyError
    assert is_patched()


def test_decorator() -> None:
    @h5fast.patched()
    def inside() -> bool:
        return is_patched()

    assert inside() and not is_patched()


def test_blocks_of_several_threads_overlap(path: Path) -> None:
    """A block that ends in one thread must not take the patch from under another, nor leave it behind."""
    start = threading.Barrier(8)
    wrong: list[str] = []

    def work() -> None:
        start.wait()
        for _ in range(200):
            with h5fast.patched():
                if not is_patched():
                    wrong.append("not patched")

    run_in_threads([work] * 8)
    assert not wrong and not is_patched()


@pytest.mark.parametrize("name", REPLACED)
def test_refuses_to_unpatch_what_others_patched_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Putting the original back would silently take the other patch out; leaving half of the methods would be worse."""
    h5fast.patch()
    ours = vars(h5py.Dataset)[name]
    monkeypatch.setattr(h5py.Dataset, name, lambda *args: None)
    with pytest.raises(RuntimeError, match=rf"h5py\.Dataset\.{name} was replaced"):
        h5fast.unpatch()
    assert is_patched()
    with h5fast.patched():
        pass
    monkeypatch.undo()
    assert vars(h5py.Dataset)[name] is ours
    h5fast.unpatch()
    assert not is_patched()


def test_block_that_others_patched_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"call h5fast\.unpatch"), h5fast.patched():
        monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *args: None)
    monkeypatch.undo()
    assert is_patched()
    h5fast.unpatch()
    assert not is_patched()


@pytest.mark.parametrize("name", REPLACED)
def test_signature_and_docstring_stay(name: str) -> None:
    """Help, completion and tools that inspect h5py go on working."""
    original = ORIGINALS[name]
    with h5fast.patched():
        method = getattr(h5py.Dataset, name)
        assert inspect.signature(method) == inspect.signature(original)
        assert (method.__doc__, method.__name__, method.__qualname__, method.__module__) == (
            original.__doc__, original.__name__, original.__qualname__, original.__module__,
        )  # fmt: skip


def test_subclasses_of_h5py_are_served(path: Path) -> None:
    class Doubled(h5py.Dataset):
        def __getitem__(self, args: Any, new_dtype: Any = None) -> Any:
            return super().__getitem__(args, new_dtype) * 2

    with h5py.File(path) as f, h5fast.patched():
        assert np.array_equal(Doubled(f["chunked"].id)[3:5], TABLE[3:5] * 2)
    with h5fast.File(path) as ours, h5fast.patched():
        assert np.array_equal(ours["chunked"][[5, 3, 3]], TABLE[[5, 3, 3]])


@pytest.mark.parametrize("case", ["row", "array", "iteration", "read_direct"])
@pytest.mark.parametrize("name", ["chunked", "contiguous"])
def test_closed_file_raises_what_h5py_raises(path: Path, name: str, case: str) -> None:
    """The reader has a descriptor of its own: without a check it would go on reading a file that was closed."""

    def closed(used: bool) -> tuple[Any, ...]:
        with h5py.File(path) as f:
            dataset = f[name]
            if used:
                dataset[[3, 5]]
        return outcome(READS[case], dataset)

    expected = closed(used=False)
    with h5fast.patched():
        assert closed(used=False) == expected
        # Of a dataset that was read before, h5py raises one of these, by what it has kept from that read.
        kind, message = closed(used=True)
        assert kind in (OSError, RuntimeError, ValueError) and "identifier" in message


def test_resize_under_the_patch(tmp_path: Path) -> None:
    with h5fast.patched(), h5py.File(tmp_path / "grow.h5", "w") as f:
        dataset = f.create_dataset("x", data=np.arange(4), maxshape=(None,), chunks=(2,))
        assert dataset[:].tolist() == [0, 1, 2, 3]
        dataset.resize((6,))
        dataset[4:] = [7, 8]
        assert dataset[3:].tolist() == [3, 7, 8]
        dataset.refresh()
        assert dataset[:].tolist() == [0, 1, 2, 3, 7, 8]


def test_reads_inside_visititems(path: Path) -> None:
    """h5py holds its lock while it visits; a read inside must neither wait for it nor for a thread that does."""
    sums: dict[str, Any] = {}

    def visit(name: str, obj: Any) -> None:
        if obj.shape == TABLE.shape:
            sums[name] = int(obj[1:].sum())

    def work() -> None:
        with h5fast.patched(), h5py.File(path) as f:
            f.visititems(visit)

    run_in_threads([work])
    assert sums == dict.fromkeys(("contiguous", "chunked", "big endian"), int(TABLE[1:].sum()))


def test_reads_under_h5pys_lock(path: Path) -> None:
    """One thread reads while it holds h5py's lock, others without it: no order of locks may stop them both."""
    wrong: list[Any] = []

    def read(f: h5py.File) -> None:
        for name in ("chunked", "contiguous"):
            if not np.array_equal(f[name][2:40], TABLE[2:40]):
                wrong.append(name)

    def under_lock() -> None:
        for _ in range(100):
            with h5py._objects.phil:
                read(f)

    def without_lock() -> None:
        for _ in range(100):
            read(f)

    with h5fast.patched(), h5py.File(path) as f:
        run_in_threads([under_lock, without_lock, under_lock, without_lock])
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_while_another_thread_patches() -> None:
    """A child inherits a lock that nobody is left to release: its first patched() would wait for ever."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with _PATCH._lock:
            held.set()
            release.wait(timeout=60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(timeout=60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a deadlock kills the child, and its status is not 0
        with h5fast.patched():
            os._exit(0 if is_patched() else 1)
    assert os.waitpid(child, 0)[1] == 0
    release.set()
    thread.join()
