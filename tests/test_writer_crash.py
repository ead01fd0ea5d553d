"""The writer when things end early: killed, out of disk, left by an exception; and what is continued from then.

Prevents: a file under the final name that is not complete, a partial one that is continued wrongly, rows that are lost or
doubled.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest

import h5fast
from h5fast import Spec, Writer

SPECS = {"image": Spec((8, 8), "u1", chunk_rows=3), "deep/label": Spec((), "<i4", chunk_rows=50, codec="gzip"),
         "raw": Spec((5,), "<f4", codec=None, chunk_rows=7, fletcher32=True), "name": Spec((), str, chunk_rows=20)}


def rows_from(first: int, count: int) -> dict[str, object]:
    """Rows [first, first + count) of every field: a function of the row."""
    number = np.arange(first, first + count)
    image = (number[:, None, None] + np.arange(64).reshape(8, 8) // 3).astype("u1")
    return {"image": image, "deep/label": number.astype("<i4"), "raw": np.sin(number[:, None] * np.arange(1, 6)).astype("<f4"),
            "name": [f"row {row}" * (row % 3) for row in number]}


def check_rows(path: Path, count: int) -> None:
    expected = rows_from(0, count)
    with h5py.File(path) as file:
        for name, rows in expected.items():
            stored = file[name].asstr()[...] if name == "name" else file[name][...]
            assert len(stored) == count, name
            assert np.array_equal(stored, np.asarray(rows)), name


def partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def files_of(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if found.name.startswith(path.name))


def test_exception_leaves_no_file_and_all_rows_to_resume(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with pytest.raises(KeyError, match="mine"):
        with Writer(path, SPECS) as writer:
            writer.append(rows_from(0, 11))
            raise KeyError("mine")
    assert not path.exists() and partial(path).exists()
    with Writer(path, SPECS, resume=True) as writer:
        assert writer.rows == 11
        writer.append(rows_from(11, 200))
    check_rows(path, 211)
    assert files_of(path) == ["w.h5"]


@pytest.mark.parametrize("live", [False, True])
def test_nothing_is_left_where_nothing_was_appended(tmp_path: Path, live: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        with Writer(tmp_path / "w.h5", SPECS, live=live):
            1 / 0
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_make_the_same_file(tmp_path: Path) -> None:
    """Whatever the number of threads, and wherever memory was used before."""
    contents = set()
    for threads in (1, 2, 5):
        path = tmp_path / f"{threads}.h5"
        h5fast.set_num_threads(threads)
        try:
            with Writer(path, {**SPECS, "large": Spec((1000, 300), "<f4", chunk_rows=2)}) as writer:
                for first in range(0, 60, 20):
                    large = np.random.default_rng(first).integers(0, 9, (20, 1000, 300)).astype("<f4")
                    writer.append({**rows_from(first, 20), "large": large})
        finally:
            h5fast.set_num_threads(None)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_partial_file_is_neither_taken_nor_thrown_away_unasked(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    writer = Writer(path, SPECS)
    writer.append(rows_from(0, 5))
    writer.abandon()
    with pytest.raises(FileExistsError, match="resume=True"):
        Writer(path, SPECS)
    with Writer(path, SPECS, overwrite=True) as writer:
        assert writer.rows == 0
        writer.append(rows_from(0, 4))
    check_rows(path, 4)


def test_an_existing_file_is_refused_and_replaced_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    path.write_bytes(b"precious")
    for options in ({}, {"resume": True}, {"live": True}):
        with pytest.raises(FileExistsError):
            Writer(path, SPECS, **options)
    with pytest.raises(ZeroDivisionError):
        with Writer(path, SPECS, overwrite=True) as writer:
            writer.append(rows_from(0, 3))
            1 / 0
    assert path.read_bytes() == b"precious"
    with Writer(path, SPECS, overwrite=True, resume=True) as writer:
        assert writer.rows == 3
    check_rows(path, 3)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    writer = Writer(path, SPECS)
    writer.append(rows_from(0, 30))
    writer.flush()
    path.write_bytes(b"of another")
    with pytest.raises(FileExistsError):
        writer.close()
    assert path.read_bytes() == b"of another"
    path.unlink()
    with Writer(path, SPECS, resume=True) as writer:
        assert writer.rows == 30
        writer.append(rows_from(30, 1))
    check_rows(path, 31)


def test_resuming_again_and_again_is_exact(tmp_path: Path) -> None:
    path, rows = tmp_path / "w.h5", 0
    rng = random.Random(1)
    for _ in range(25):
        writer = Writer(path, SPECS, resume=True, memory="1 MiB")
        assert writer.rows == rows
        for _ in range(rng.randrange(4)):
            count = rng.randrange(1, 60)
            writer.append(rows_from(rows, count))
            rows += count
            if rng.random() < 0.3:
                writer.flush()
        writer.abandon()
    with Writer(path, SPECS, resume=True):
        pass
    check_rows(path, rows)


def test_what_was_not_flushed_is_forgotten(tmp_path: Path) -> None:
    """The state at a flush is continued from, whatever was written since; here by copying the files, as a crash leaves them."""
    path, copy = tmp_path / "w.h5", tmp_path / "copy" / "w.h5"
    copy.parent.mkdir()
    writer = Writer(path, SPECS, memory="1 MiB")
    writer.append(rows_from(0, 500))
    writer.flush()
    writer.append(rows_from(500, 30_000))
    for found in (partial(path), partial(path).with_name("w.h5.partial.commit")):
        shutil.copy(found, copy.parent / found.name)
    writer.close()
    with Writer(copy, SPECS, resume=True) as writer:
        assert writer.rows == 500
        writer.append(rows_from(500, 20))
    check_rows(copy, 520)
    check_rows(path, 30_500)


@pytest.mark.parametrize("damage", ["shorter", "other", "commit", "commit shorter"])
def test_what_cannot_be_continued_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.h5"
    writer = Writer(path, SPECS)
    writer.append(rows_from(0, 500))
    writer.abandon()
    commit = partial(path).with_name("w.h5.partial.commit")
    if damage == "shorter":
        os.truncate(partial(path), partial(path).stat().st_size - 1)
    elif damage == "other":
        partial(path).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(partial(path).stat().st_size))
    elif damage == "commit":
        files.patch_bytes(commit, 100, b"\xff\xff")
    else:
        os.truncate(commit, 70)
    with pytest.raises(OSError, match="continued"):
        Writer(path, SPECS, resume=True)
    with Writer(path, SPECS, overwrite=True) as writer:
        writer.append(rows_from(0, 5))
    check_rows(path, 5)


@pytest.mark.parametrize("changed", [
    {"image": Spec((8, 9), "u1", chunk_rows=3)}, {"image": Spec((8, 8), "i1", chunk_rows=3)}, {"image": Spec((8, 8), "u1", chunk_rows=4)},
    {"image": Spec((8, 8), "u1", chunk_rows=3, codec="gzip")}, {"more": Spec((), "u1")}])
def test_resuming_with_other_fields_is_refused(tmp_path: Path, changed: dict[str, Spec]) -> None:
    path = tmp_path / "w.h5"
    writer = Writer(path, SPECS)
    writer.append(rows_from(0, 40))
    writer.abandon()
    with pytest.raises(ValueError, match="partial file"):
        Writer(path, {**SPECS, **changed}, resume=True)
    with pytest.raises(ValueError, match="announced|rows"):
        Writer(path, SPECS, rows=39, resume=True)
    with Writer(path, SPECS, resume=True) as writer:
        writer.append(rows_from(40, 2))
    check_rows(path, 42)


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with Writer(path, SPECS) as writer:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(OSError, match="another Writer"):
                Writer(path, SPECS, **options)
        writer.append(rows_from(0, 9))
    check_rows(path, 9)


def test_killed_between_name_and_tidying_up(tmp_path: Path) -> None:
    """The file had its name, and the partial one was a second name of it: to begin anew must not empty it."""
    path = tmp_path / "w.h5"
    with Writer(path, SPECS) as writer:
        writer.append(rows_from(0, 9))
    os.link(path, partial(path))
    with pytest.raises(ZeroDivisionError):
        with Writer(path, SPECS, overwrite=True) as writer:
            writer.append(rows_from(0, 3))
            1 / 0
    check_rows(path, 9)


WRITING = """
    import sys, random
    from test_writer_crash import SPECS, rows_from
    from h5fast import Writer
    path, seed = sys.argv[1], int(sys.argv[2])
    rng = random.Random(seed)
    with Writer(path, SPECS, resume=True, memory="1 MiB") as writer:
        print(writer.rows, flush=True)
        while writer.rows < 20_000:
            writer.append(rows_from(writer.rows, min(20_000 - writer.rows, rng.randrange(1, 400))))
            if rng.random() < 0.4:
                writer.flush()
                print(writer.rows, flush=True)
    print("done", flush=True)
"""


def test_killed_at_random_points(tmp_path: Path) -> None:
    """kill -9, again and again, at any point of writing, flushing, closing and resuming: what was flushed is there, exactly."""
    path, flushed, kills, delay = tmp_path / "w.h5", 0, 0, 0.0
    rng = random.Random(5)
    for attempt in range(60):
        child = files.start_python(WRITING, path, attempt)
        first = child.stdout.readline()
        if first and first != "done\n":
            assert int(first) >= flushed, "rows that had been flushed are gone"
        delay = rng.random() * (0.02 if kills < 5 else 0.12) if kills < 20 else 60  # a fast machine is done in no time
        deadline = time.monotonic() + delay
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        with child:
            said = [line for line in child.stdout.read().split("\n") if line.isdecimal()]
        status = child.returncode
        assert status in (0, -signal.SIGKILL)
        flushed = int(said[-1]) if said else flushed
        if path.exists():
            break
    else:
        pytest.fail("it never came to an end")
    check_rows(path, 20_000)
    assert kills > 3
    with pytest.raises(FileExistsError):
        Writer(path, SPECS, resume=True)


FULL_DISK = """
    import resource, signal, sys
    import numpy as np
    from h5fast import Spec, Writer
    path, limit = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = Writer(path, {"x": Spec((1000,), "u1", codec=None, chunk_rows=1)}, memory="1 MiB", resume=True)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        while writer.rows < 1000:
            writer.append(x=noise[writer.rows:writer.rows + 50])
            if writer.rows % 200 == 0:
                writer.flush()
        writer.close()
    except OSError as error:
        print(error.errno, error.filename)
        assert writer.closed
        writer.close()
    else:
        print("done")
"""


@pytest.mark.parametrize("limit", [1, 3000, 150_000, 350_000, 500_000, 1_000_500])
def test_full_disk(tmp_path: Path, limit: int) -> None:
    import errno

    path = tmp_path / "w.h5"
    done = files.run_python(FULL_DISK, path, limit)
    number, name = done.stdout.split()
    assert int(number) in (errno.EFBIG, errno.ENOSPC) and name == str(partial(path))
    assert not path.exists()
    assert files.run_python(FULL_DISK, path, 1 << 30).stdout == "done\n"  # there is room again
    with h5py.File(path) as file:
        assert np.array_equal(file["x"][...], np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8))


FORKING = """
    import os, sys
    from test_writer_crash import SPECS, rows_from
    from h5fast import Writer
    with Writer(sys.argv[1], SPECS) as writer:
        writer.append(rows_from(0, 100))
        writer.flush()
        writer.append(rows_from(100, 5000))
        child = os.fork()
        if child == 0:
            try:
                writer.append(rows_from(5100, 1))
            except OSError:
                sys.exit(0)  # libhdf5 writes what it has when it is closed, at the exit
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        writer.append(rows_from(5100, 50))
"""


def test_a_forked_child_does_not_write(tmp_path: Path) -> None:
    files.run_python(FORKING, tmp_path / "w.h5")
    check_rows(tmp_path / "w.h5", 5150)


CALLS = ("pwrite", "fsync", "ftruncate", "replace", "link", "unlink", "open")


def _die_at(number: int) -> None:
    """Makes this process end in the `number`-th of the calls that change files, a write half done."""
    left = [number]

    def dying(call):
        def counted(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                if call is real["pwrite"]:
                    call(arguments[0], arguments[1][:len(arguments[1]) // 2], arguments[2])
                os._exit(9)
            return call(*arguments, **options)
        return counted

    real = {name: getattr(os, name) for name in CALLS}
    for name, call in real.items():
        setattr(os, name, dying(call))


def _write_a_little(path: Path) -> None:
    with Writer(path, SPECS, resume=True, memory="1 MiB") as writer:
        while writer.rows < 240:
            writer.append(rows_from(writer.rows, 40))
            if writer.rows in (40, 120, 200):
                writer.flush()


def kill_everywhere(folder: Path) -> int:
    """Dies in every third of the calls that change the folder, then in another one, then continues; returns how many."""
    number = -1
    while True:
        number += 3
        path = folder / f"{number}.h5"
        for step in (number, 3 + number // 2):
            child = os.fork()
            if child == 0:
                _die_at(step)
                _write_a_little(path)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if path.exists():
                break
        complete = path.exists()
        if not complete:
            _write_a_little(path)
        check_rows(path, 240)
        if complete and status == 0:
            return number


def test_killed_at_every_system_call(tmp_path: Path) -> None:
    code = "import sys, pathlib; from test_writer_crash import kill_everywhere; print(kill_everywhere(pathlib.Path(sys.argv[1])))"
    assert int(files.run_python(code, tmp_path).stdout) > 40
