"""The file that libhdf5 writes through: a model of it in memory has the same bytes, and the last commit survives whatever follows."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from amount import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from h5fast.transaction import Transaction, commit_path

# Around the sizes that matter: a page, what is held before it is written, and what is written at once.
_SIZES = st.sampled_from([0, 1, 100, 4095, 4096, 4097, 12288, 65535, 65536, 65537, 262143, 262144, 300000])
_STEPS = st.lists(st.one_of(
    st.tuples(st.just("append"), _SIZES),
    st.tuples(st.just("write"), st.integers(0, 500_000), st.sampled_from([1, 7, 512, 5000])),
    st.tuples(st.just("read"), st.integers(0, 500_000), st.sampled_from([1, 4096, 70_000])),
    st.tuples(st.just("grow"), st.integers(0, 10_000)),
    st.tuples(st.just("commit"))), max_size=25)


def changed(file: Transaction, model: bytearray, step: tuple[Any, ...], content: bytes) -> None:
    if step[0] in ("append", "write"):
        first, count = (len(model), step[1]) if step[0] == "append" else step[1:]
        file.seek(first)
        assert file.write(memoryview(content)[:count]) == count and file.tell() == first + count
        if count:
            model.extend(bytes(max(0, first + count - len(model))))
            model[first:first + count] = content[:count]
        else:
            model.extend(bytes(max(0, first - len(model))))
    elif step[0] == "read":
        file.seek(min(step[1], len(model)))
        assert file.read(step[2]) == bytes(model[step[1]:step[1] + step[2]])
    elif step[0] == "grow":
        file.truncate(len(model) + step[1])
        model.extend(bytes(step[1]))


@settings(max_examples=examples(60), deadline=None)
@given(_STEPS, st.integers(0, 2 ** 32 - 1))
def test_a_file_has_the_bytes_of_its_model_and_falls_back_to_its_last_commit(steps: list[Any], seed: int) -> None:
    content = np.random.default_rng(seed).bytes(300_000)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        file, model, committed = Transaction(path, resume=False), bytearray(), None
        for number, step in enumerate(steps):
            changed(file, model, step, content)
            if step[0] == "commit":
                file.commit({"number": number}, {"blob": content[:number]})
                committed = number, bytes(model)
        file.seek(0)
        assert file.read(len(model) + 1) == bytes(model)
        file.close()  # as a process that dies: nothing is committed
        if committed is not None and committed[1]:
            again = Transaction(path, resume=True)
            assert again.state == {"number": committed[0]} and again.blobs == {"blob": content[:committed[0]]}
            assert again.read(len(committed[1]) + 1) == committed[1]
            assert path.read_bytes() == committed[1]
            again.close()


def test_what_is_held_reaches_the_file_with_its_name(tmp_path: Path) -> None:
    file = Transaction(tmp_path / "file", resume=False)
    file.write(b"a few bytes")
    file.finish({}, tmp_path / "named", replace=False)
    file.close()
    assert (tmp_path / "named").read_bytes() == b"a few bytes" and not commit_path(tmp_path / "file").exists()


def test_a_refused_write_is_told_when_what_was_held_is_written(tmp_path: Path) -> None:
    file = Transaction(tmp_path / "file", resume=False)
    file.write(b"held")
    kept, file.descriptor = file.descriptor, os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(OSError, match="file") as told:
        file.check()
    assert told.value.errno == errno.EBADF
    file.write(b"nothing of this is written")
    os.close(kept)
    file.close()
    assert (tmp_path / "file").read_bytes() == b""


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    file = Transaction(tmp_path / "file", resume=False)
    file.write(b"of the parent")
    child = os.fork()
    if child == 0:
        file.write(b", of the child")
        file.settle()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    file.check()
    assert (tmp_path / "file").read_bytes() == b"of the parent"
    file.close()


def commit_first(path: Path) -> None:
    """A file of one commit, which nobody has open."""
    first = Transaction(path, resume=False)
    first.write(b"first")
    first.commit({"rows": 1}, {})
    first.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_another_writer_replaces_meanwhile(resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before the other gave up its lock, locked afterwards: it is not the file that has the name, or that was named."""
    path = tmp_path / "f"
    commit_first(path)
    lock = fcntl.flock

    def meanwhile(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.rename(tmp_path / "named")
        path.write_bytes(b"of another")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with pytest.raises(OSError, match="another Writer") as caught:
        Transaction(path, resume=resume)
    assert caught.value.errno == errno.EBUSY
    assert path.read_bytes() == b"of another" and (tmp_path / "named").read_bytes() == b"first"


def test_a_commit_that_was_made_while_waiting_is_the_one_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    commit_first(path)
    lock = fcntl.flock

    def meanwhile(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        other = Transaction(path, resume=True)
        other.write(b"FIRST and more")
        other.commit({"rows": 2}, {})
        other.close()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    again = Transaction(path, resume=True)
    assert again.state == {"rows": 2} and again.read(100) == b"FIRST and more"
    again.close()


def test_half_a_commit_does_not_stay(tmp_path: Path) -> None:
    """What a process that was killed while it wrote one left behind."""
    path = tmp_path / "f.partial"
    half = tmp_path / "f.partial.commit.new"
    for resume in (False, True):
        half.write_bytes(b"half")
        file = Transaction(path, resume=resume)
        file.write(b"all")
        file.finish({}, tmp_path / "f", replace=True)
        file.close()
        assert [each.name for each in tmp_path.iterdir()] == ["f"]
