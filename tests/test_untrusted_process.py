"""However the process that parses an untrusted file fails, it is a ``CorruptFileError`` here, in time; and no lie is believed.

The liars are scripts put in the place of the real process; the real one is killed, starved and interrupted.
"""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from amount import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import h5fast
from h5fast.layout import Layout
from h5fast.untrusted import kinds, messages, process
from h5fast.untrusted.claims import check_index, objects_of
from h5fast.untrusted.messages import Nonsense
from h5fast.untrusted.standin import build

TABLE = files.content((40, 6), "i4")
# What every process begins with, so that only its answers are lies.
READY = "import json, os, struct, sys, time\n" \
        "out = json.loads(sys.argv[1])[2][1]\n" \
        "def say(content, payload=b'', magic=b'h5f1', text=None, more=0):\n" \
        "    text = json.dumps(content).encode() if text is None else text\n" \
        "    os.write(out, struct.pack('<4sQQ', magic, len(text), len(payload) + more) + text + payload)\n" \
        "say({'ready': True})\n" \
        "sys.stdin.buffer.read(21)\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return files.write(tmp_path / "f.h5", TABLE, chunks=(10, 6), pipeline=files.PIPELINES["gzip"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.Limits, "given", classmethod(lambda _: process.Limits(seconds=1.0, cpu_seconds=1)))


@pytest.mark.parametrize(("script", "reason"), [
    ("os.abort()", "died: signal SIGABRT"),
    ("os.kill(os.getpid(), 11)", "died: signal SIGSEGV"),
    ("sys.exit(3)", "died: exit status 3"),
    ("raise ValueError('words of its own')", r"died: exit status 1 \(ValueError: words of its own\)"),
    ("time.sleep(60)", r"gave no answer in 1 s\. If the file is that large, H5FAST_UNTRUSTED_SECONDS"),
    ("os.write(out, b'h5f1'); time.sleep(60)", "gave no answer in 1 s"),
    ("while True: os.write(out, b'x' * 100)", "gave an answer that is no message"),
    ("say({}, magic=b'PK34')", "gave an answer that is no message"),
    ("say({}, more=1 << 60)", r"gave an answer of \d+ bytes where at most \d+ make sense"),
    ("say({}, text=b'{')", "gave an answer that is no JSON"),
    ("say({}, text=b'[' * 100000)", "gave an answer that is no JSON"),
    ("say([1])", "gave an answer that is no JSON object"),
    ("say({})", "it has objects that are no list"),
    ("say({'objects': []})", "it has no root group that can be read"),
    ("say({'error': 'bad\\x1b[31m\\n luck'})", r"f.h5: bad\[31m luck"),
], ids=lambda value: value[:30] if " " in value else value)
@pytest.mark.usefixtures("impatient")
def test_a_process_that_fails_or_lies(monkeypatch: pytest.MonkeyPatch, path: Path, script: str, reason: str) -> None:
    monkeypatch.setattr(process, "_START", READY + script)
    began = time.monotonic()
    with pytest.raises(h5fast.CorruptFileError, match=reason) as caught:
        h5fast.File(path, untrusted=True)
    assert time.monotonic() - began < 8
    assert str(path) in str(caught.value)


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """The file is not to blame."""
    monkeypatch.setattr(process, "_START", "import a_module_that_there_is_not")
    with pytest.raises(h5fast.ReadError, match=r"f.h5: .*was started and died.*No module named 'a_module_that_there_is_not'"):
        h5fast.File(path, untrusted=True)


def test_a_process_that_dies_later(path: Path) -> None:
    with h5fast.File(path, untrusted=True) as file:
        os.kill(process_of(file), signal.SIGBUS)
        for _ in range(2):
            with pytest.raises(h5fast.CorruptFileError, match=r"f.h5: dataset '/d': .*died: signal SIGBUS"):
                file["d"][...]
    with h5fast.File(path, untrusted=True) as file:
        dataset = file["d"]
        dataset[0]
        os.kill(process_of(file), signal.SIGKILL)
        np.testing.assert_array_equal(dataset[...], TABLE)  # all that it had to tell was told


def process_of(file: h5fast.File) -> int:
    found = file._watched.file.process_id
    assert isinstance(found, int)
    return found


def test_limits_of_the_process(path: Path) -> None:
    """What a parser that was taken over could reach for."""
    with h5fast.File(path, untrusted=True) as file:
        told = Path(f"/proc/{process_of(file)}/limits")
        if not told.exists():
            pytest.skip("no /proc to read limits from")
        limits = {line[:26].strip(): line[26:47].strip() for line in told.read_text().splitlines()}
        environment = Path(f"/proc/{process_of(file)}/environ").read_bytes().split(b"\0")
    assert [limits[f"Max {what}"] for what in ("open files", "processes", "file size", "core file size")] == ["0"] * 4
    assert 0 < int(limits["Max address space"]) < 8 << 30
    assert 0 < int(limits["Max cpu time"]) < 60
    assert b"HDF5_PLUGIN_PRELOAD=::" in environment and not any(one.startswith(b"HOME=") for one in environment)


def test_processor_time_and_memory_run_out(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    spend = process._START.replace("main(*arguments)", "from h5fast.untrusted import child\n"
                                   "child._File._tree = lambda self: spend()\nmain(*arguments)\n")
    limits = process.Limits(seconds=20.0, cpu_seconds=1, memory=64 << 20)
    monkeypatch.setattr(process.Limits, "given", classmethod(lambda _: limits))
    monkeypatch.setattr(process, "_START", "def spend():\n    while True: pass\n" + spend)
    with pytest.raises(h5fast.CorruptFileError, match="it had used 1 s of processor time"):
        h5fast.File(path, untrusted=True)
    monkeypatch.setattr(process, "_START", "def spend():\n    return bytes(1 << 28)\n" + spend)
    with pytest.raises(h5fast.CorruptFileError, match="it needs more than 64 MiB of memory"):
        h5fast.File(path, untrusted=True)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many"])
def test_seconds_that_are_none(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    monkeypatch.setenv("H5FAST_UNTRUSTED_SECONDS", text)
    with pytest.raises(ValueError, match=f"H5FAST_UNTRUSTED_SECONDS='{text}'"):
        h5fast.File(path, untrusted=True)
    monkeypatch.setenv("H5FAST_UNTRUSTED_SECONDS", "30")
    assert process.Limits.given() == process.Limits(seconds=30.0, cpu_seconds=30)


def test_interrupted_while_it_waits(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Ctrl-C ends the wait; the answer that is still to come must not be taken for the next one."""
    with h5fast.File(path, untrusted=True) as file:
        stopped = process_of(file)
        os.kill(stopped, signal.SIGSTOP)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            file["d"][...]
        timer.join()
        np.testing.assert_array_equal(file["d"][...], TABLE)
        assert process_of(file) != stopped


# --- what is claimed ---

CLAIMED: dict[str, Any] = {
    "objects": [
        {"kind": "group", "links": [["a", "hard", 1], ["s", "soft", "/a"], ["x", "external", "o.h5", "/y"]], "by_creation": False,
         "ordered": False, "attributes": [{"name": "n", "dtype": {"kind": "i", "size": 4, "big": False}, "shape": [2],
                                           "bytes": [0, 8]},
                                          {"name": "t", "dtype": {"kind": "text", "utf8": True, "length": None}, "shape": [],
                                           "texts": ["x"]}]},
        {"kind": "dataset", "dtype": {"kind": "compound", "size": 8, "fields": [["f", {"kind": "f", "size": 4, "big": True}, 0],
                                                                                ["e", {"kind": "u", "size": 1, "big": False,
                                                                                       "members": [["a", 0], ["b", 1]]}, 4]]},
         "shape": [20, 3], "maxshape": [None, 3], "chunk": [5, 3], "filters": [[2, [8], "shuffle"], [1, [6], "gzip"]],
         "layout": "chunked", "raw_edges": False, "fill": "", "leaves_gaps": False, "address": None, "ordered": False,
         "attributes": []},
        {"kind": "type", "dtype": {"kind": "array", "base": {"kind": "b"}, "shape": [2]}, "attributes": [], "ordered": False},
        {"kind": "broken", "reason": "no"},
    ],
}


def _places(told: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    return [here, *(place for key, value in inner for place in _places(value, (*here, key)))]


PLACES = [place for place in _places(CLAIMED) if place]
LIES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 2**31, 2**32, 2**63, 2**64, 10**30, 1.5, "", "/", "..", "a\0b", "\ud800", [], {}, [[]],
                     "f" * 400]),
    st.integers(), st.text(max_size=5),
    st.recursive(st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), LIES | st.sampled_from(["delete", "twice"])), min_size=1, max_size=3))
def test_every_claim_is_checked(lies: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Whatever stands wherever: objects that can be built, or ``Nonsense``; never another error, never memory without bounds."""
    told = copy.deepcopy(CLAIMED)
    for place, lie in lies:
        _put(told, place, lie)
    if not isinstance(told, dict):
        return
    try:
        objects = objects_of(told, bytes(range(8)), 4096)
        identifier, addresses = build(objects)
    except Nonsense:
        return
    try:
        assert len(addresses) <= len(objects)
        with h5py.File(identifier) as file:
            met: list[Any] = []
            file.visititems(lambda _, found: met.append((found.name, dict(found.attrs))))
    finally:
        if identifier.valid:
            identifier.close()


def _put(told: Any, place: tuple[Any, ...], lie: Any) -> None:
    for key in place[:-1]:
        try:
            told = told[key]
        except (KeyError, IndexError, TypeError):
            return  # an earlier lie took it away
    try:
        if lie == "delete":
            del told[place[-1]]
        elif lie == "twice" and isinstance(told, list):
            told.append(copy.deepcopy(told[place[-1]]))
        else:
            told[place[-1]] = lie
    except (KeyError, IndexError, TypeError):
        return


LAYOUT = Layout("chunked", (20, 3), (None, 3), (5, 3), np.dtype("i4"), ((1, (6,)),), False, b"", False, None)
GOOD = [[0, 100, 50, 0], [1, 150, 50, 0], [3, 4000, 96, 0]]


@pytest.mark.parametrize(("change", "reason"), [
    (lambda t: t, None),
    (lambda t: t[:0], None),
    (lambda t: t[[0, 0, 2]], "in the dataset, or there twice"),
    (lambda t: t[[1, 0, 2]], "in the dataset, or there twice"),
    (lambda t: _with(t, 2, 0, 4), "in the dataset, or there twice"),
    (lambda t: _with(t, 2, 0, 2**64 - 1), "in the dataset, or there twice"),
    (lambda t: _with(t, 0, 1, 0), "within the 4096 bytes"),
    (lambda t: _with(t, 2, 1, 4001), "within the 4096 bytes"),
    (lambda t: _with(t, 2, 1, 2**64 - 50), "within the 4096 bytes"),
    (lambda t: _with(t, 2, 2, 2**64 - 1), "within the 4096 bytes"),
    (lambda t: _with(t, 2, 2, 0), "within the 4096 bytes"),
    (lambda t: _with(t, 1, 1, 149), "lie on each other"),
    (lambda t: _with(t, 1, 3, 2**32), "filter mask"),
    (lambda t: np.repeat(t, 2, 0), "where there can be 4"),
])
def test_every_index_is_checked(change: Callable[[np.ndarray], np.ndarray], reason: str | None) -> None:
    table = change(np.array(GOOD, np.uint64))
    if reason is None:
        check_index(table, LAYOUT, 4096)
        return
    with pytest.raises(Nonsense, match=reason):
        check_index(table, LAYOUT, 4096)


def _with(table: np.ndarray, row: int, column: int, value: int) -> np.ndarray:
    table[row, column] = np.uint64(value)
    return table


@pytest.mark.parametrize("dtype", [
    "?", "i1", ">u8", "f2", ">f8", "c8", "c16", "S5", h5py.string_dtype("ascii", 3), h5py.string_dtype(), "g",
    h5py.enum_dtype({"a": 0, "b": 7}, ">i2"), np.dtype(("f4", (2, 3))),
    np.dtype({"names": ["a", "b"], "formats": ["i4", ("S2", (3,))], "offsets": [4, 20], "itemsize": 40}),
])
def test_types_arrive_as_they_were_sent(dtype: Any) -> None:
    sent = np.dtype(dtype)
    arrived = kinds.decode(messages.parse(messages.begin({"type": kinds.encode(sent)})[messages.HEAD_BYTES:])["type"])
    assert arrived == sent
    assert arrived.isalignedstruct == sent.isalignedstruct and arrived.itemsize == sent.itemsize
    assert h5py.check_enum_dtype(arrived) == h5py.check_enum_dtype(sent)
    assert h5py.check_string_dtype(arrived) == h5py.check_string_dtype(sent)


@pytest.mark.parametrize("dtype", [h5py.ref_dtype, h5py.regionref_dtype, h5py.vlen_dtype("i4"), "V5", [("r", h5py.ref_dtype)]])
def test_types_that_are_not_told(dtype: Any) -> None:
    assert kinds.encode(np.dtype(dtype)) is None
