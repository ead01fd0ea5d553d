"""One dataset in many threads and processes: fork, spawn, forkserver, pickles, Ctrl-C, and how many threads are taken.

Whatever forks or is interrupted runs in an interpreter of its own.
"""

from __future__ import annotations

import functools
import os
import pickle
import threading
from pathlib import Path

import hdf5_files as files
import h5py
import numpy as np
import pytest
from at_once import run_in_threads

import h5fast

ROWS = 6000
DATA = files.content((ROWS, 40), "i4")
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pipelines = pytest.mark.parametrize("name", ["none", "gzip", "shuffle+lzf"])
methods = pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return files.write(tmp_path / "f.h5", DATA, chunks=(32, 40), pipeline=files.PIPELINES["shuffle+lzf"])


@pipelines
@pytest.mark.parametrize("pool", [1, 2, 8])
def test_eight_python_threads_on_one_dataset(tmp_path: Path, name: str, pool: int) -> None:
    """Scratch memory or results shared between callers: rows of one caller's batch in another's."""
    path = files.write(tmp_path / "f.h5", DATA, chunks=(32, 40), pipeline=files.PIPELINES[name])
    before = h5fast.get_num_threads()
    h5fast.set_num_threads(pool)

    def gather(dataset: h5fast.Dataset, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            rows = rng.integers(-ROWS, ROWS, int(rng.integers(1, 600)))
            np.testing.assert_array_equal(dataset.take(rows), DATA[rows])
            start = int(rng.integers(0, ROWS - 100))
            np.testing.assert_array_equal(dataset[start : start + 100 : 3, 5:9], DATA[start : start + 100 : 3, 5:9])

    try:
        with h5fast.File(path) as file:
            run_in_threads([functools.partial(gather, file["d"], seed) for seed in range(8)])
    finally:
        h5fast.set_num_threads(before)


def test_threads_on_the_general_path(tmp_path: Path) -> None:
    """The general path calls libhdf5, which is not thread-safe: it must hold h5py's lock."""
    path = tmp_path / "f.h5"
    with h5fast.File(path, "w") as file:
        file.create_dataset("d", data=DATA, chunks=(100, 40), compression="gzip")

        def gather(seed: int) -> None:
            rows = np.random.default_rng(seed).integers(0, ROWS, 300)
            for _ in range(5):
                np.testing.assert_array_equal(file["d"].take(rows), DATA[rows])

        run_in_threads([functools.partial(gather, seed) for seed in range(8)])


def test_closing_the_file_during_gathers(path: Path) -> None:
    """A descriptor closed under a running gather may be reused by another file: a clear error, or the right rows."""
    files.run_python("""
        import h5fast, numpy as np, os, sys, threading, time
        errors, wrong = [], []
        for turn in range(20):
            file = h5fast.File(sys.argv[1])
            dataset = file["d"]
            whole = dataset[...]
            def gather(seed):
                rng = np.random.default_rng(seed)
                while True:
                    rows = rng.integers(0, len(whole), 500)
                    try:
                        got = dataset.take(rows)
                    except Exception as error:
                        errors.append(error)
                        return
                    if not np.array_equal(got, whole[rows]):
                        wrong.append(rows)
            threads = [threading.Thread(target=gather, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.01)
            file.close()
            decoys = [os.open(__import__("h5py").__file__, os.O_RDONLY) for _ in range(8)]
            for thread in threads:
                thread.join()
            for decoy in decoys:
                os.close(decoy)
        assert not wrong and len(errors) == 80, (wrong, errors[:3])
    """, path)


@methods
@pytest.mark.parametrize("what", ["h5fast.File(path)['d']", "h5fast.HDF5Matrix(path, 'd')", "h5fast.HDF5Matrix(path, 'd', 100, 900)"])
def test_workers_of_every_kind(tmp_path: Path, path: Path, method: str, what: str) -> None:
    """A handle sent to a worker: a pickled descriptor or address means nothing there; it reopens by path and name."""
    script = tmp_path / "workers.py"
    script.write_text(f"""
import multiprocessing, sys, warnings
import h5py
import numpy as np
import h5fast

def read(job):
    handle, rows = job
    return handle[rows]

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from Python 3.12 on
    path = sys.argv[1]
    handle = {what}
    whole = np.asarray(handle[0:len(handle)])
    jobs = [(handle, np.random.default_rng(seed).integers(0, len(handle), 200)) for seed in range(12)]
    with multiprocessing.get_context({method!r}).Pool(3) as pool:
        for (_, rows), got in zip(jobs, pool.map(read, jobs)):
            assert np.array_equal(got, whole[rows])
    print("read")
""")
    finished = files.run_python("import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
                                if method == "fork" else _MAIN, script, path)
    assert finished.stdout == "read\n"


# spawn and forkserver import the main script in the child, so it must be a file, run as such
_MAIN = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"


def test_pickled_dataset_in_the_same_process(path: Path) -> None:
    """Pickling keeps path, name and options; the copy reads on after the original is closed."""
    with h5fast.File(path) as file:
        copy = pickle.loads(pickle.dumps(file["d"]))
    rows = [5, 5, -1, 4000]
    np.testing.assert_array_equal(copy.take(rows), DATA[rows])
    copy.file.close()


def test_pickle_of_a_missing_file(tmp_path: Path, path: Path) -> None:
    """The file is gone, or the dataset is, where the pickle is opened: an error with the path, at the latest at the first read."""
    with h5fast.File(path) as file:
        pickled = pickle.dumps(file["d"])
    path.rename(tmp_path / "elsewhere.h5")
    with pytest.raises((OSError, KeyError), match="f.h5"):
        pickle.loads(pickled)[0]


def test_fork_during_gathers(path: Path) -> None:
    """A fork while another thread gathers: locks held at that moment stay locked in the child, its pool has no threads."""
    files.run_python("""
        import numpy.random  # loaded lazily by numpy: a fork during that import would leave Python's import lock held
        import h5fast, numpy as np, os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        h5fast.set_num_threads(2)
        dataset = h5fast.File(sys.argv[1])["d"]
        whole, stop, wrong = dataset[...], threading.Event(), []

        def gather(seed):
            rng = np.random.default_rng(seed)
            while not stop.is_set():
                rows = rng.integers(0, len(whole), 2000)
                if not np.array_equal(dataset.take(rows), whole[rows]):
                    wrong.append(rows)

        threads = [threading.Thread(target=gather, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        statuses = []
        for turn in range(40):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    rows = np.random.default_rng(1000 + turn).integers(0, len(whole), 2000)
                    assert np.array_equal(dataset.take(rows), whole[rows])
                    assert np.array_equal(h5fast.File(sys.argv[1])["d"].take(rows), whole[rows])
                    status = 0
                finally:
                    os._exit(status)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        stop.set()
        for thread in threads:
            thread.join()
        assert not any(statuses) and not wrong, (statuses, wrong)
    """, path, timeout=90)


def test_exit_during_gathers(path: Path) -> None:
    """The interpreter ends while daemon threads gather: no crash and no hang at exit."""
    files.run_python("""
        import h5fast, numpy as np, sys, threading, time
        dataset = h5fast.File(sys.argv[1])["d"]
        def gather():
            while True:
                dataset.take(np.arange(6000))
        for _ in range(3):
            threading.Thread(target=gather, daemon=True).start()
        time.sleep(0.1)
    """, path, timeout=60)


@pytest.mark.parametrize("read", ["dataset[:, 1023:]", "dataset.take(numpy.arange(len(dataset))[::-1], out=out)"])
@pytest.mark.parametrize("threads", [1, 2])
def test_keyboard_interrupt_during_a_long_read(tmp_path: Path, read: str, threads: int) -> None:
    """Ctrl-C during seconds of decoding must end it within 0.2 s, and the dataset must read on afterwards."""
    path = tmp_path / "f.h5"
    phrases = np.random.default_rng(5).integers(0, 256, (256, 64), dtype=np.uint8)
    block = phrases[np.random.default_rng(6).integers(0, 256, 16_384)].reshape(1024, 1024)
    stored = files.deflate(block.tobytes(), 1)
    chunks = 3000 if "take" not in read else 1500
    files.run_python("""
        import h5py, hdf5_files as files, sys
        path, chunks = sys.argv[1], int(sys.argv[2])
        stored = open(path + ".chunk", "rb").read()
        with h5py.File(path, "w", libver="latest") as file:
            dataset = file.create_dataset("d", (1024 * chunks, 1024), "u1", chunks=(1024, 1024), compression="gzip")
            for number in range(chunks):
                dataset.id.write_direct_chunk((1024 * number, 0), stored)
    """, _with_chunk(path, stored), chunks)
    finished = files.run_python(f"""
        import h5fast, numpy, os, signal, sys, threading, time
        h5fast.set_num_threads({threads})
        dataset = h5fast.File(sys.argv[1])["d"]
        out = numpy.empty(dataset.shape if "take" in {read!r} else 0, "u1")
        dataset[0]
        sent = []
        def interrupt():
            time.sleep(0.3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        delays = []
        while len(delays) < 5 and min(delays, default=1) > 0.2:  # a busy machine only adds to the delay
            timer = threading.Thread(target=interrupt)
            timer.start()
            try:
                {read}
                print("finished" if len(sent) == len(delays) else "ignored", flush=True)
                os._exit(0)
            except KeyboardInterrupt:
                delays.append(time.perf_counter() - sent[-1])
        print(min(delays))
        got = dataset[1024:1030, 3]
        assert (got == dataset[0:6, 3]).all()
    """, path)
    outcome = finished.stdout.strip()
    if outcome == "finished":
        pytest.skip("the read ended before it could be interrupted: this machine is too fast for the test's file")
    assert outcome != "ignored"
    assert float(outcome) < 0.2


def _with_chunk(path: Path, stored: bytes) -> Path:
    path.with_name(path.name + ".chunk").write_bytes(stored)
    return path


PRINT_THREADS = "import h5fast; print(h5fast.get_num_threads())"


def _threads(**environment: str) -> int:
    cleared = {name: "" for name in ("H5FAST_NUM_THREADS", "LOCAL_WORLD_SIZE") if name in os.environ}
    return int(files.run_python(PRINT_THREADS, environment={**cleared, **environment}).stdout)


def test_set_and_get_num_threads() -> None:
    """The setting is what was set; nonsense is refused and changes nothing."""
    before = h5fast.get_num_threads()
    try:
        for count in (1, 3, 64):
            h5fast.set_num_threads(count)
            assert h5fast.get_num_threads() == count
        for nonsense in (0, -1, 1.5, "two"):
            with pytest.raises((ValueError, TypeError)):
                h5fast.set_num_threads(nonsense)
        assert h5fast.get_num_threads() == 64
        h5fast.set_num_threads(None)
        assert h5fast.get_num_threads() >= 1
    finally:
        h5fast.set_num_threads(before)


def test_threads_from_the_environment() -> None:
    """H5FAST_NUM_THREADS is taken as it is; what is not a positive number must not break the import."""
    assert _threads(H5FAST_NUM_THREADS="5") == 5
    assert _threads(H5FAST_NUM_THREADS="1") == 1


def test_threads_are_divided_by_local_world_size() -> None:
    """Eight ranks on one machine with all its threads each: 64 cores run 512 threads. Never fewer than one."""
    assert _threads(LOCAL_WORLD_SIZE=str(len(CPUS) * 4)) == 1
    if len(CPUS) < 2:
        pytest.skip("one CPU cannot be divided")
    assert _threads(LOCAL_WORLD_SIZE="2") == max(1, _threads() // 2)


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5"])
def test_a_wrong_number_of_processes_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for 1: every process of the machine then used all of its CPUs."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    monkeypatch.delenv("H5FAST_NUM_THREADS", raising=False)
    h5fast.set_num_threads(None)
    with pytest.raises(ValueError, match=f"LOCAL_WORLD_SIZE must be .*, not '{value}'"):
        h5fast.get_num_threads()
    monkeypatch.setenv("H5FAST_NUM_THREADS", "3")
    assert h5fast.get_num_threads() == 3
    h5fast.set_num_threads(None)


def test_threads_respect_affinity() -> None:
    """A container or taskset that leaves one CPU: the machine's other CPUs must not be counted."""
    if not CPUS:
        pytest.skip("this platform has no CPU affinity")
    code = f"import os; os.sched_setaffinity(0, {{{CPUS[0]}}}); {PRINT_THREADS}"
    assert int(files.run_python(code).stdout) == 1
    assert 1 <= _threads() <= len(CPUS)


def test_threads_of_a_forked_child_and_of_the_parent(path: Path) -> None:
    """set_num_threads in the parent holds in the child, and the child's own setting stays its own."""
    files.run_python("""
        import h5fast, os, sys
        h5fast.set_num_threads(3)
        h5fast.File(sys.argv[1])["d"].take(range(2000))
        pid = os.fork()
        if pid == 0:
            ok = h5fast.get_num_threads() == 3
            h5fast.set_num_threads(1)
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert h5fast.get_num_threads() == 3
    """, path)


def test_changing_threads_between_gathers(path: Path) -> None:
    """The pool shrinks and grows between calls, while other threads use it, without losing a batch."""
    stop, failures = threading.Event(), []

    def gather() -> None:
        rng = np.random.default_rng(9)
        with h5fast.File(path) as file:
            while not stop.is_set():
                rows = rng.integers(0, ROWS, 900)
                if not np.array_equal(file["d"].take(rows), DATA[rows]):
                    failures.append(rows)

    before = h5fast.get_num_threads()
    threads = [threading.Thread(target=gather) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for count in [1, 8, 2, 16, 1, 3] * 5:
            h5fast.set_num_threads(count)
            with h5fast.File(path) as file:
                np.testing.assert_array_equal(file["d"].take([7, 3]), DATA[[7, 3]])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        h5fast.set_num_threads(before)
    assert not failures


def test_ctrl_c_on_the_general_path(tmp_path: Path) -> None:
    """An object that was made for each read ended after it: Python drops a KeyboardInterrupt that arrives just then."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        data = np.random.default_rng(0).integers(0, 1000, (64, 1 << 18))
        file.create_dataset("d", data=data, chunks=(1, 1 << 18), scaleoffset=0)
    script = """
        import os, signal, sys, threading
        import h5fast
        dataset = h5fast.File(sys.argv[1])["d"]
        assert dataset.reader.startswith("general")
        for _ in range(4):
            threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            try:
                for _ in range(100):
                    dataset[::-1]
            except KeyboardInterrupt:
                continue
            sys.exit("lost")
    """
    files.run_python(script, tmp_path / "f.h5", timeout=60)
