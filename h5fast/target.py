"""Where a writer's rows go: a file that is named when it is complete, or one that is read while it grows."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from h5fast.outputs import DirectOutput, Output, open_output, smallest_memory
from h5fast.sizes import format_bytes
from h5fast.specs import Recipe, Spec, lay_out
from h5fast.transaction import Transaction, drop_commit

__all__ = ["CODEC_ATTRIBUTE", "ROWS_ATTRIBUTE", "AtomicTarget", "LiveTarget", "Plan", "Target", "check_fields",
           "check_new", "check_target", "finished_together", "partial_path"]

#: Attributes of a dataset: why its chunks are as they are.
ROWS_ATTRIBUTE, CODEC_ATTRIBUTE = "h5fast_chunk_rows", "h5fast_codec"


def partial_path(path: Path) -> Path:
    """Where the file is until it is complete."""
    return path.with_name(path.name + ".partial")


@dataclass(frozen=True)
class Plan:
    """What is said of all fields at once.

    Attributes:
        rows: of each field; None where they grow
        access: what their chunks are chosen for
        memory: bytes for rows on their way
        reasons: why a field has the codec it has, where nobody asked for it
    """

    rows: int | None
    access: str
    memory: int
    reasons: Mapping[str, str] = field(default_factory=dict)

    def most_bytes(self, fields: Mapping[str, Spec]) -> int:
        """Of a chunk whose size is not asked for, so that several of each field have room."""
        return self.memory // smallest_memory(2 * len(fields))


class Target(Protocol):
    """A file under way.

    Attributes:
        path: where it is written
        file: it
        outputs: the way into each field; none before :meth:`begin`
        rows: that it had when it was opened
        note: what the writer's user wants to find again with the rows of a flush
    """

    path: Path
    file: h5py.File
    outputs: dict[str, Output]
    rows: int
    note: Any

    @property
    def resumed(self) -> bool:
        """Whether it has its datasets already."""

    @property
    def left_behind(self) -> str:
        """What is left when writing ends early, as a clause."""

    def begin(self, fields: Mapping[str, Spec], plan: Plan) -> None:
        """Makes the datasets, or opens those that are there."""

    def check(self) -> None:
        """Raises the ``OSError`` of a write that was refused."""

    def flush(self, rows: int) -> None:
        """Makes the first `rows` rows of each field the state to continue from, or to read."""

    def finish(self) -> None:
        """Writes what is left and closes the file, under its name."""

    def leave(self) -> None:
        """Closes the file as it is."""

    def drop(self) -> None:
        """Closes the file and takes away what this writer made, as if it had never been."""


class AtomicTarget:
    """``NAME.partial``, which becomes ``NAME`` when it is complete; see :class:`Target`."""

    def __init__(self, path: Path, *, overwrite: bool, resume: bool) -> None:
        self._name, self._replace = path, overwrite
        self.outputs: dict[str, Output] = {}
        self.path = partial_path(path)
        check_new(path, overwrite=overwrite, resume=resume)
        self._transaction = Transaction(self.path, resume=resume)
        try:
            state = self._transaction.state
            self.rows = 0 if state is None else int(state["rows"])
            self.note: Any = None if state is None else state.get("note")
            self.file = h5py.File(self._transaction, "w" if state is None else "r+")
        except BaseException:
            self.drop()
            raise

    @property
    def resumed(self) -> bool:
        return self._transaction.state is not None

    def begin(self, fields: Mapping[str, Spec], plan: Plan) -> None:
        self.outputs = self._continued(fields, plan) if self.resumed else create_fields(self.file, fields, plan)

    def _continued(self, fields: Mapping[str, Spec], plan: Plan) -> dict[str, Output]:
        if plan.rows is not None and self.rows > plan.rows:
            raise ValueError(f"{self.path}: has {self.rows} rows already, more than the {plan.rows} announced")
        outputs, efforts = open_fields(self.file, fields, plan), (self._transaction.state or {}).get("efforts", {})
        for name, output in outputs.items():
            kept = self._transaction.blobs.get(name, b"")
            if isinstance(output, DirectOutput):
                output.effort = efforts.get(name, output.effort)
                if kept:
                    tail = np.frombuffer(kept, output.dataset.dtype).reshape(-1, *output.dataset.shape[1:])
                    output.restore_tail(tail)
                else:
                    output.reopen_tail()
            if output.rows != self.rows:
                raise OSError(errno.EIO, f"has {output.rows} rows of {name!r} where its last commit tells of {self.rows}: it cannot "
                              "be continued", str(self.path))
        return outputs

    @property
    def left_behind(self) -> str:
        return f"{self.path.name} has them, and resume=True continues it"

    def check(self) -> None:
        self._transaction.check()

    def flush(self, rows: int) -> None:
        for output in self.outputs.values():
            output.settle()
        self.file.flush()
        tails = {name: output.tail().tobytes() for name, output in self.outputs.items()}
        self._transaction.commit({"rows": rows, "note": self.note, "efforts": self._efforts()}, {name: tail for name, tail in tails.items() if tail})

    def _efforts(self) -> dict[str, int]:
        """What was chosen from rows that a writer which continues no longer has."""
        return {name: output.effort for name, output in self.outputs.items()
                if isinstance(output, DirectOutput) and output.effort is not None}

    def finish(self, then: Callable[[Path], object] | None = None) -> None:
        """Writes what is left and closes the file, under its name; before it gets that, `then` may change the file at a path."""
        for output in self.outputs.values():
            output.close()
        rows = next((output.rows for output in self.outputs.values()), self.rows)
        self.outputs.clear()
        self.file.close()
        self._transaction.finish({"rows": rows, "note": self.note}, self._name, replace=self._replace, then=then)
        self._transaction.close()

    def leave(self) -> None:
        self._transaction.give_up()
        self.outputs = {}
        if hasattr(self, "file"):
            self.file.close()
        self._transaction.close()

    def drop(self) -> None:
        self.leave()
        if not self.resumed:
            self.path.unlink(missing_ok=True)
            drop_commit(self.path)


@contextlib.contextmanager
def finished_together(paths: Mapping[str, Path], *, overwrite: bool, then: Callable[[Path], object] | None = None
                      ) -> Iterator[dict[str, AtomicTarget]]:
    """Files that get their names when all of them are complete; an error leaves nothing of them. `then` as of
    :meth:`AtomicTarget.finish`."""
    targets: dict[str, AtomicTarget] = {}
    try:
        for name, path in paths.items():
            targets[name] = AtomicTarget(path, overwrite=overwrite, resume=False)
        yield targets
        for target in targets.values():  # a disk that is full says so before the first has its name
            target.file.flush()
            target.check()
        for name in list(targets):
            targets[name].finish(then)
            del targets[name]
    except BaseException:
        for target in targets.values():
            target.drop()
        raise


class LiveTarget:
    """A file that is written in place and read meanwhile; see :class:`Target`."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        check_target(path, overwrite)
        self.path = path
        self.rows = 0
        self.note: Any = None
        self.outputs: dict[str, Output] = {}
        self.file = h5py.File(path, "w" if overwrite else "x", libver="latest")

    @property
    def resumed(self) -> bool:
        return False

    def begin(self, fields: Mapping[str, Spec], plan: Plan) -> None:
        self.outputs = create_fields(self.file, fields, plan)
        self.file.swmr_mode = True

    @property
    def left_behind(self) -> str:
        return "the file has them"

    def check(self) -> None:
        """Nothing to do: libhdf5 raises at once."""

    def flush(self, rows: int) -> None:
        for output in self.outputs.values():
            output.show_tail()
            output.dataset.flush()

    def finish(self) -> None:
        for output in self.outputs.values():
            output.close()
        self.leave()

    def leave(self) -> None:
        self.outputs = {}
        self.file.close()

    def drop(self) -> None:
        self.leave()
        self.path.unlink(missing_ok=True)


def check_new(path: Path, *, overwrite: bool, resume: bool) -> None:
    """Raises ``OSError`` where no file can be begun that will have this name: it is there, or its folder is not, or a part of it is."""
    partial = partial_path(path)
    check_target(path, overwrite)
    _drop_finished(partial, path)
    if partial.exists() and not (overwrite or resume):
        raise FileExistsError(errno.EEXIST, "is of a writer that did not finish: resume=True (--resume) continues it, overwrite=True "
                              "(--overwrite) begins anew", str(partial))


def check_target(path: Path, overwrite: bool) -> None:
    """Raises the ``OSError`` of a place where no file can be made, or must not."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(errno.EEXIST, "exists; overwrite=True (--overwrite) replaces it when the new one is complete", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder does not exist", str(path.parent))


def _drop_finished(partial: Path, path: Path) -> None:
    """Takes away what is left of a writer that was killed when its file had its name already."""
    if path.exists() and partial.exists() and os.path.samefile(path, partial):
        partial.unlink()
        drop_commit(partial)


def check_fields(fields: Mapping[str, Spec], plan: Plan) -> None:
    """Raises the ``ValueError`` of fields for which no datasets can be made, while nothing has been changed."""
    _laid_out({name: spec.with_codec("lzf") if spec.codec == "auto" else spec for name, spec in fields.items()}, plan)


def _laid_out(fields: Mapping[str, Spec], plan: Plan) -> tuple[dict[str, Recipe], dict[str, int]]:
    """How each field is stored, and its share of the memory."""
    layouts = {name: lay_out(name, spec, access=plan.access, rows=plan.rows, most_bytes=plan.most_bytes(fields),
                             codec_reason=plan.reasons.get(name, "asked for")) for name, spec in fields.items()}
    shares = _shares(fields, {name: layout.chunk_rows * fields[name].row_bytes for name, layout in layouts.items()}, plan.memory)
    return layouts, shares


def create_fields(file: h5py.File, fields: Mapping[str, Spec], plan: Plan) -> dict[str, Output]:
    """Makes the datasets of a new file, with their attributes, and the ways into them."""
    layouts, shares = _laid_out(fields, plan)
    outputs = {}
    for name, spec in fields.items():
        found = layouts[name]
        dataset = file.create_dataset(name, (0, *spec.shape), spec.dtype, maxshape=(plan.rows or None, *spec.shape),
                                      chunks=(found.chunk_rows, *spec.shape), fillvalue=spec.fillvalue, track_times=False,
                                      **found.codec.options)
        dataset.attrs[ROWS_ATTRIBUTE] = found.rows_reason
        dataset.attrs[CODEC_ATTRIBUTE] = f"{found.codec.name}: {found.codec_reason}"
        for key, value in spec.attrs.items():
            dataset.attrs[key] = value
        outputs[name] = open_output(dataset, shares[name])
    return outputs


def open_fields(file: h5py.File, fields: Mapping[str, Spec], plan: Plan) -> dict[str, Output]:
    """The ways into the datasets of a file that is continued, which must be such as the fields tell.

    Raises:
        ValueError: they are not.
    """
    chunk_bytes = {}
    for name, spec in fields.items():
        dataset = file.get(name)
        _check_same(name, spec, dataset, plan.rows)
        chunk_bytes[name] = dataset.chunks[0] * spec.row_bytes
    shares = _shares(fields, chunk_bytes, plan.memory)
    return {name: open_output(file[name], shares[name]) for name in fields}


def _check_same(name: str, spec: Spec, dataset: Any, rows: int | None) -> None:
    asked: Any = (spec.shape, spec.element, rows or None)
    found: Any = None
    if isinstance(dataset, h5py.Dataset):
        found = (dataset.shape[1:], dataset.dtype, dataset.maxshape[0])
    if found != asked:
        raise ValueError(f"field {name!r}: the partial file has {found}, and (shape, dtype, rows) asked for are {asked}: resume with the "
                         "same fields and rows, or begin anew with overwrite=True")
    if spec.chunk_rows != "auto" and dataset.chunks[0] != min(int(spec.chunk_rows), rows or int(spec.chunk_rows)):
        raise ValueError(f"field {name!r}: the partial file has chunks of {dataset.chunks[0]} rows, not {spec.chunk_rows}: resume with the "
                         "same fields, or begin anew with overwrite=True")
    codec = dataset.attrs.get(CODEC_ATTRIBUTE, "").partition(":")[0]
    if spec.codec != "auto" and codec != spec.resolved().name:
        raise ValueError(f"field {name!r}: the partial file is encoded with {codec}, not {spec.resolved().name}: resume with the same "
                         "fields, or begin anew with overwrite=True")


def _shares(fields: Mapping[str, Spec], chunk_bytes: Mapping[str, int], memory: int) -> dict[str, int]:
    """Divides the memory among the fields: what each needs, and the rest by the size of their rows."""
    least = {name: smallest_memory(size) for name, size in chunk_bytes.items()}
    needed = sum(least.values())
    if needed > memory:
        largest = max(least, key=least.__getitem__)
        raise ValueError(f"memory of {format_bytes(memory)} is too little: the fields need {format_bytes(needed)}, most of it {largest!r}, "
                         f"with chunks of {format_bytes(chunk_bytes[largest])}")
    total = sum(spec.row_bytes for spec in fields.values())
    return {name: least[name] + (memory - needed) * spec.row_bytes // total for name, spec in fields.items()}
