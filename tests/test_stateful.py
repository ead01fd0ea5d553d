"""A writer and a loader through long lives: whatever is done to them in whatever order, a model in memory does the same."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from amount import examples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import h5fast
from h5fast import Loader, Spec, Writer

CODECS = [None, "lzf", ("gzip", 1), ("gzip", 6), "auto"]


def images(first: int, count: int) -> np.ndarray[Any, Any]:
    """Rows that tell where they belong, and shrink somewhat."""
    rows = np.arange(first, first + count)
    return (rows[:, None] * 7 + np.arange(50)[None, :] // 3).astype("i4")


class WriterLife(RuleBasedStateMachine):
    """Appends, flushes, is abandoned, killed and continued; then closes, and h5py reads what the model has."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "file.h5"
        self.writer: Writer | None = None
        self.rows = self.flushed = 0
        self.note: Any = None

    @initialize(codec=st.sampled_from(CODECS), chunk=st.sampled_from([1, 3, 16, "auto"]), checksum=st.booleans(), ragged=st.booleans())
    def begin(self, codec: Any, chunk: Any, checksum: bool, ragged: bool) -> None:
        self.fields = {"image": Spec((50,), "i4", chunk_rows=chunk, codec=codec, fletcher32=checksum),
                       "label": Spec((), "u2", chunk_rows=64)}
        if ragged:
            self.fields["text"] = Spec((), str, chunk_rows=8, codec=None)
        self.open(resume=False)

    def open(self, *, resume: bool) -> None:
        self.writer = Writer(self.path, self.fields, resume=resume, memory="4 MiB", flush_every=None)
        assert self.writer.rows == self.rows

    def batch(self, count: int) -> dict[str, Any]:
        numbers = np.arange(self.rows, self.rows + count)
        batch = {"image": images(self.rows, count), "label": numbers % 1000}
        if "text" in self.fields:
            batch["text"] = [f"row {number}" * (number % 3) for number in numbers]
        return batch

    @rule(count=st.integers(0, 200))
    def append(self, count: int) -> None:
        batch = self.batch(count)
        self.writer.append(batch)
        batch["image"][...] = -1  # taken already
        self.rows += count

    @rule(wrong=st.sampled_from(["missing", "rows", "shape", "value"]))
    def refuse(self, wrong: str) -> None:
        batch = self.batch(3)
        if wrong == "missing":
            del batch["label"]
        elif wrong == "rows":
            batch["label"] = batch["label"][:2]
        elif wrong == "shape":
            batch["image"] = batch["image"][:, :-1]
        else:
            batch["label"] = batch["label"] - 5000
        try:
            self.writer.append(batch)
        except ValueError:
            return
        raise AssertionError(f"a batch was taken that is wrong: {wrong}")

    @rule(note=st.one_of(st.none(), st.integers(), st.text(max_size=5)))
    def flush(self, note: Any) -> None:
        self.writer.note = note
        self.writer.flush()
        self.flushed, self.note = self.rows, json.loads(json.dumps(note))

    @rule()
    def abandon(self) -> None:
        self.writer.abandon()
        if self.rows == 0 and not self.partial():
            self.note = None
        self.flushed = self.rows
        self.open(resume=True)

    @rule()
    def kill(self) -> None:
        """What lies in the folder at a moment is what a dead process leaves."""
        left = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self.writer.abandon()
        for path in self.folder.iterdir():
            path.unlink()
        for name, content in left.items():
            (self.folder / name).write_bytes(content)
        self.rows = self.flushed
        self.open(resume=True)
        if self.flushed:
            assert self.writer.note == self.note

    def partial(self) -> bool:
        return any(self.folder.iterdir())

    @invariant()
    def only_what_is_complete_has_the_name(self) -> None:
        assert not self.path.exists()
        if self.writer is not None:
            assert self.writer.rows == self.rows

    def teardown(self) -> None:
        try:
            if self.writer is not None:
                self.writer.close()
                with h5py.File(self.path) as file:
                    np.testing.assert_array_equal(file["image"][...], images(0, self.rows))
                    np.testing.assert_array_equal(file["label"][...], np.arange(self.rows) % 1000)
                    if "text" in self.fields:
                        assert [text.decode() for text in file["text"][...]] == [f"row {n}" * (n % 3) for n in range(self.rows)]
                with h5fast.File(self.path) as again:
                    np.testing.assert_array_equal(again["image"].take(np.arange(self.rows)[::-1]), images(0, self.rows)[::-1])
                assert [path.name for path in self.folder.iterdir()] == ["file.h5"]
        finally:
            shutil.rmtree(self.folder)


class LoaderLife(RuleBasedStateMachine):
    """Iterations that are begun, left, gone on with elsewhere: every batch is the one that the order says."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loaders: list[Loader] = []
        self.iterator: Iterator[Any] | None = None
        self.expected: list[np.ndarray[Any, Any]] = []

    @initialize(rows=st.integers(1, 400), chunk=st.sampled_from([1, 7, 64]), codec=st.sampled_from([None, "lzf", "gzip"]),
                batch=st.integers(1, 60), shuffle=st.sampled_from(["exact", "block", False]), drop=st.booleans(),
                memory=st.sampled_from(["512 KiB", "64 MiB"]), shard=st.sampled_from([(0, 1), (1, 2), (2, 3)]))
    def begin(self, rows: int, chunk: int, codec: Any, batch: int, shuffle: Any, drop: bool, memory: str, shard: Any) -> None:
        path, rows = self.folder / "file.h5", max(rows, shard[1])
        batch = min(batch, rows // shard[1])
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=images(0, rows), chunks=(min(chunk, rows), 50), compression=codec)
            file["label"] = np.arange(rows)
        self.arguments: dict[str, Any] = {"batch_size": batch, "shuffle": shuffle, "drop_last": drop, "memory": memory, "shard": shard,
                                          "seed": 5}
        self.path, self.epoch = path, 0
        self.renew()

    def renew(self) -> None:
        self.loaders.append(Loader(self.path, ("image", "label"), **self.arguments))
        self.loader = self.loaders[-1]

    def order_of(self, epoch: int) -> list[np.ndarray[Any, Any]]:
        with Loader(self.path, ("image", "label"), **self.arguments) as other:
            return list(other.epoch_rows(epoch))

    def check(self, batch: Any, rows: np.ndarray[Any, Any]) -> None:
        np.testing.assert_array_equal(batch[1], rows)
        np.testing.assert_array_equal(batch[0], images(0, int(rows.max()) + 1)[rows])

    @precondition(lambda self: self.iterator is None)
    @rule()
    def iterate(self) -> None:
        self.iterator = iter(self.loader)
        self.expected = self.order_of(self.epoch)[len(self.loader) - self.loader.remaining:]

    @precondition(lambda self: self.iterator is not None)
    @rule(count=st.integers(1, 8))
    def take(self, count: int) -> None:
        for _ in range(count):
            batch = next(self.iterator, None)
            if batch is None:
                assert not self.expected
                self.iterator, self.epoch = None, self.epoch + 1
                return
            self.check(batch, self.expected.pop(0))

    @rule(how=st.sampled_from(["same", "json", "another"]))
    def go_on_with_its_state(self, how: str) -> None:
        state = self.loader.state_dict()
        begun = self.iterator is not None and len(self.expected) < len(self.order_of(self.epoch))
        wanted = self.expected if begun else None
        if how == "json":
            state = json.loads(json.dumps(state))
        if how != "same":
            self.renew()
        self.iterator = None
        self.loader.load_state_dict(copy.deepcopy(state))
        if begun and not wanted:  # all batches were taken: the next epoch is what is left
            self.epoch += 1
        self.iterator = iter(self.loader)
        self.expected = list(wanted) if wanted else self.order_of(self.epoch)

    @rule(epoch=st.integers(0, 5))
    def set_epoch(self, epoch: int) -> None:
        self.iterator = None
        self.loader.set_epoch(epoch)
        self.epoch = epoch
        self.iterate()

    @rule(step=st.integers(0, 50), epoch=st.integers(0, 3))
    def read_one(self, step: int, epoch: int) -> None:
        order = self.order_of(epoch)
        if step < len(order):
            np.testing.assert_array_equal(self.loader.batch_rows(step, epoch), order[step])
            self.check(self.loader.read(step, epoch), order[step])

    def teardown(self) -> None:
        self.iterator = None
        for loader in self.loaders:
            loader.close()
        shutil.rmtree(self.folder)


_LIVES = settings(deadline=None, suppress_health_check=list(HealthCheck), stateful_step_count=20)
TestWriterLife = WriterLife.TestCase
TestWriterLife.settings = settings(_LIVES, max_examples=examples(40))
TestLoaderLife = LoaderLife.TestCase
TestLoaderLife.settings = settings(_LIVES, max_examples=examples(60))
