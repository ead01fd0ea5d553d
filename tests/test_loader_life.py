"""A loader's iterations: however they end, nothing of them stays, and whatever goes wrong reaches the loop.

Prevents: a thread, a descriptor or memory that outlives an iteration; a loop that waits for ever, or ends as if its epoch
were over; a process that hangs at its end, in a forked child or at Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from loader_files import ROWS, Shards, shards, write_numbered  # noqa: F401  # a fixture, used by name

import h5fast
from h5fast import Loader
from h5fast.epoch import Epoch
from h5fast.pipeline import Worker


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "h5fast loader"]


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    yield
    gc.collect()
    wait_until(lambda: not workers())


# --- iterations that end early, and several at once ------------------------------------------------------------------------


def test_nothing_starts_before_the_first_next(shards: Shards) -> None:  # noqa: F811
    wait_until(lambda: not workers())  # of tests in other files
    loader = Loader(shards.first, "label", 64)
    batches = iter(loader)
    assert not workers() and loader.epoch == 0
    next(batches)
    assert loader.epoch == 1


def test_two_iterations_do_not_disturb_each_other(shards: Shards) -> None:  # noqa: F811
    options: dict[str, Any] = {"batch_size": 50, "memory": "200 kB", "seed": 4}
    expected = Loader(shards.both, ("image", "label"), **options)
    epochs = [[labels.tolist() for _, labels in expected] for _ in range(4)]
    loader = Loader(shards.both, ("image", "label"), **options)
    for first in (0, 2):
        running = {first: iter(loader), first + 1: iter(loader)}
        seen: dict[int, list[Any]] = {number: [] for number in running}
        for _ in range(len(loader)):
            for number, batches in running.items():
                image, label = next(batches)
                np.testing.assert_array_equal(image, shards.image[label])
                seen[number].append(label.tolist())
        assert all(next(batches, None) is None for batches in running.values())
        assert seen == {number: epochs[number] for number in running}


def test_threads_may_share_an_iteration(shards: Shards) -> None:  # noqa: F811
    """They took places of the ring, and gave back each other's: batches were overwritten while they were read."""
    batches = iter(Loader(shards.both, ("image", "label"), 20, memory="200 kB"))
    seen: list[int] = []

    def take() -> None:
        for image, label in batches:
            np.testing.assert_array_equal(image, shards.image[label])
            seen.extend(label.tolist())

    takers = [threading.Thread(target=take) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert sorted(seen) == shards.label.tolist()


@pytest.mark.parametrize("memory", ["150 kB", "200 kB", "10 MB"])
def test_abandoned_iterations_leave_what_is_kept_in_order(shards: Shards, memory: str) -> None:  # noqa: F811
    """The thread of a forgotten iteration was still filling from what the next one used."""
    loader = Loader(shards.both, ("image", "label"), 50, memory=memory, threads=1)
    for taken in (1, 3, 0, 7, 1, 38, 2, 39):
        for number, (image, label) in enumerate(loader):
            np.testing.assert_array_equal(image, shards.image[label])
            if number == taken:
                break
    assert sorted(row for _, label in loader for row in label) == shards.label.tolist()


def test_forgotten_iterations_leave_no_thread_and_no_descriptor(shards: Shards) -> None:  # noqa: F811
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        loader = Loader(shards.both, ("image", "label", "text"), 50, transform=lambda batch: batch)
        next(iter(loader))
        kept = [iter(loader) for _ in range(2)]
        for batches in kept:
            next(batches)
        del loader, kept, batches
    gc.collect()
    wait_until(lambda: not workers())
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_old_iterator_can_be_dropped_at_any_time(shards: Shards) -> None:  # noqa: F811
    """With it went the list of damaged chunks that a later epoch was using."""
    loader = Loader(shards.first, ("image", "label"), 50, on_error="skip")
    old = iter(loader)
    for _ in old:
        pass
    running = iter(loader)
    next(running)
    del old
    gc.collect()
    assert sum(len(label) for _, label in running) == ROWS - 50


def test_progress_counts_from_where_the_epoch_was_resumed(shards: Shards) -> None:  # noqa: F811
    pytest.importorskip("tqdm")
    loader = Loader(shards.first, "label", 64, progress=True)
    assert sum(len(label) for label in loader) == ROWS
    assert len(loader) == -(-ROWS // 64)


# --- closing ----------------------------------------------------------------------------------------------------------------


def test_close_is_idempotent_and_final(shards: Shards) -> None:  # noqa: F811
    with Loader(shards.first, ("image", "label"), 64) as loader:
        batches = iter(loader)
        next(batches)
    loader.close()
    loader.close()
    with pytest.raises(ValueError, match="closed in the middle"):
        next(batches)
    assert next(batches, None) is None
    with pytest.raises(ValueError, match="this loader is closed"):
        iter(loader)
    assert loader.state_dict()["taken"] == 64 and loader.stats()["rows"] == 64


@pytest.mark.parametrize("what", ["loader", "iteration"])
def test_close_wakes_who_waits(shards: Shards, what: str) -> None:  # noqa: F811
    go_on = threading.Event()
    loader = Loader(shards.first, "label", 64, transform=lambda batch: go_on.wait(20))
    batches: Any = iter(loader)
    outcome: list[Any] = []

    def take() -> None:
        try:
            outcome.append(next(batches, "end"))
        except ValueError as error:
            outcome.append(str(error))

    taker = threading.Thread(target=take)
    taker.start()
    wait_until(workers)
    closing = threading.Thread(target=(loader if what == "loader" else batches).close)
    closing.start()
    taker.join(5)
    assert outcome == (["this loader was closed in the middle of an epoch"] if what == "loader" else ["end"])
    go_on.set()
    closing.join()


def test_close_while_another_thread_begins_an_epoch(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What the loader keeps was gone when the thread that had waited for it looked again."""
    loader = Loader(shards.first, ("image", "label"), 64)
    for _ in loader:
        pass
    wait = Worker.wait

    def wait_while_it_is_closed(worker: Worker, seconds: float | None = None) -> None:
        monkeypatch.setattr(Worker, "wait", wait)
        loader.close()
        wait(worker, seconds)

    monkeypatch.setattr(Worker, "wait", wait_while_it_is_closed)
    with pytest.raises(ValueError, match="closed"):
        next(iter(loader))


def test_a_transform_may_close_the_loader(shards: Shards) -> None:  # noqa: F811
    """A thread cannot wait for itself."""
    loader = Loader(shards.first, "label", 64, transform=lambda batch: loader.close())
    with pytest.raises(ValueError, match="closed"):
        next(iter(loader))


# --- exceptions -------------------------------------------------------------------------------------------------------------


def test_exceptions_of_a_transform_arrive_with_their_traceback(shards: Shards) -> None:  # noqa: F811
    def fails_late(batch: np.ndarray) -> np.ndarray:
        if 700 in batch:
            raise LookupError("the seven hundredth")
        return batch

    loader = Loader(shards.first, "label", 64, shuffle=False, transform=fails_late)
    seen = []
    batches = iter(loader)
    with pytest.raises(LookupError, match="the seven hundredth") as caught:
        for batch in batches:
            seen.append(batch)
    assert "fails_late" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert len(seen) == 700 // 64 and next(batches, None) is None
    # The state stands where it failed: it said that the next epoch was to come.
    state = loader.state_dict()
    assert (state["epoch"], state["taken"]) == (0, 700 // 64 * 64)


@pytest.mark.parametrize("error", [StopIteration, GeneratorExit, SystemExit, KeyboardInterrupt])
def test_no_exception_ends_an_epoch_quietly(shards: Shards, error: type[BaseException]) -> None:  # noqa: F811
    """StopIteration of a transform would look like the end of the epoch."""
    def fail(batch: np.ndarray) -> None:
        raise error("mine")

    with pytest.raises(RuntimeError if error is StopIteration else error, match="StopIteration|mine"):
        for _ in Loader(shards.first, "label", 64, transform=fail):
            pass


@pytest.mark.parametrize("good", [0, 1, 2, 5])
def test_exceptions_of_an_allocator_arrive(shards: Shards, good: int) -> None:  # noqa: F811
    made = []

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        made.append(shape)
        if len(made) > good:
            raise MemoryError("no pinned memory")
        return np.empty(shape, dtype)

    batches = iter(Loader(shards.first, "label", 64, allocator=allocate))
    with pytest.raises(MemoryError, match="no pinned memory"):
        for _ in batches:
            pass
    assert next(batches, None) is None


def test_an_allocator_makes_the_arrays(shards: Shards) -> None:  # noqa: F811
    pool: dict[int, np.ndarray] = {}

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = np.empty(shape, dtype)
        pool[array.ctypes.data] = array
        return array

    for label in Loader(shards.first, "label", 64, allocator=allocate):
        assert label.ctypes.data in pool
    with pytest.raises(TypeError, match="must give a writable C-contiguous array"):
        next(iter(Loader(shards.first, "label", 64, allocator=lambda shape, dtype: np.empty(3))))


def test_exceptions_of_a_field_read_in_python_arrive(shards: Shards) -> None:  # noqa: F811
    matrix = h5fast.HDF5Matrix(shards.first, "label", normalizer=lambda rows: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(Loader({"a": matrix}, batch_size=5)))


# --- processes --------------------------------------------------------------------------------------------------------------

WAITING = """
    import sys, time, h5fast
    kind = sys.argv[2]
    slow = (lambda batch: time.sleep(60)) if kind == "transform" else None
    loader = h5fast.Loader(sys.argv[1], ("x", "row"), 500, transform=slow, memory="100 MB", threads=2)
    print("ready", flush=True)
    try:
        while True:
            for batch in loader:
                pass
    except KeyboardInterrupt:
        state = loader.state_dict()
        print("interrupted", state["taken"] % 500, flush=True)
"""


@pytest.mark.parametrize("kind", ["transform", "engine"])
def test_ctrl_c_ends_at_once(tmp_path: Path, kind: str) -> None:
    write_numbered(tmp_path / "a.h5", 20000, 1000)
    child = files.start_python(WAITING, tmp_path / "a.h5", kind)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    since = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=30)
    assert out == "interrupted 0\n" and child.returncode == 0
    assert time.monotonic() - since < 5


FORKED = """
    import gc, os, sys, numpy as np, h5fast
    path, memory = sys.argv[1:3]
    def check(batch):
        assert (batch[0][:, 0] // 5 == batch[1]).all(), batch
    loader = h5fast.Loader(path, ("x", "row"), 20, memory=memory, threads=2, transform=lambda batch: batch)
    for round in range(12):
        batches = iter(loader)
        for _ in range(round % 5):
            check(next(batches))
        child = os.fork()
        if child == 0:
            if round % 5:
                try:
                    next(batches)
                    os._exit(3)
                except RuntimeError as error:
                    assert "forked" in str(error)
            loader.stats()
            if round % 2:
                loader.close()
                loader = h5fast.Loader(path, ("x", "row"), 20, memory=memory)
            if round % 3:
                del batches
                gc.collect()
            for _ in range(2):
                rows = []
                for batch in loader:
                    check(batch)
                    rows += batch[1].tolist()
                assert sorted(rows) == list(range(2000))
            sys.exit(0)  # with atexit, finalizers and all
        assert os.waitpid(child, 0)[1] == 0
        for batch in batches:
            check(batch)
    print("done")
"""


@pytest.mark.parametrize("memory", ["60 kB", "90 kB", "1 MB"])
def test_a_fork_with_a_live_iterator(tmp_path: Path, memory: str) -> None:
    """The child waited for a lock that a thread of its parent held."""
    rows = np.arange(2000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=rows[:, None] * 5 + np.arange(3), chunks=(25, 3), compression="gzip")
        file["row"] = rows
    assert files.run_python(FORKED, tmp_path / "a.h5", memory, timeout=60).stdout == "done\n"


LEAVING = """
    import sys, time, h5fast
    kind, path = sys.argv[1:3]
    transform = {"quick": lambda batch: batch, "slow": lambda batch: time.sleep(60), "none": None}[kind]
    loader = h5fast.Loader(path, ("x", "row"), 100, transform=transform, prefetch=3, memory="5 MB")
    batches = iter(loader)
    if kind != "slow":
        next(batches)
    else:
        import threading
        import contextlib
        def take():
            with contextlib.suppress(ValueError):
                next(batches)
        threading.Thread(target=take, daemon=True).start()
        time.sleep(0.2)
    print("leaving", flush=True)
"""


@pytest.mark.parametrize("kind", ["quick", "slow", "none"])
def test_the_interpreter_ends_with_a_live_iterator(tmp_path: Path, kind: str) -> None:
    write_numbered(tmp_path / "a.h5", 20000, 1000)
    since = time.monotonic()
    done = files.run_python(LEAVING, kind, tmp_path / "a.h5", timeout=30)
    assert done.stdout == "leaving\n" and done.stderr == "" and time.monotonic() - since < 15


def test_a_transform_that_asks_for_its_own_batch(shards: Shards) -> None:  # noqa: F811
    """It waited for itself, for ever."""
    batches: Any = None
    loader = Loader(shards.first, "label", 64, transform=lambda batch: next(batches))
    batches = iter(loader)
    with pytest.raises(RuntimeError, match="asked for the batch that it is to make"):
        next(batches)


def test_a_transform_that_asks_before_its_thread_is_known(shards: Shards) -> None:  # noqa: F811
    batches: Any = None
    loader = Loader(shards.first, "label", 64, transform=lambda batch: next(batches))

    def begin() -> Any:
        begun = loader._begin()
        time.sleep(0.3)
        return begun

    batches = Epoch(begin)
    with pytest.raises(RuntimeError, match="asked for the batch that it is to make"):
        next(batches)


def test_a_loader_that_outlives_the_modules_closes_its_files(shards: Shards) -> None:  # noqa: F811
    """What a framework keeps to the end of the interpreter is freed after ``os`` is gone, which closed the files."""
    code = "import sys, h5fast; sys.kept = h5fast.Loader(sys.argv[1], 'label', 8); next(iter(sys.kept))"
    assert files.run_python(code, shards.first).stderr == ""
