"""One member after the other into a file, in one of three layouts.

``stack``: one dataset of decoded rows. ``encoded``: the files' own bytes back to back, with a table of where each begins.
``tree``, in layouts_tree.py: a dataset a file, under its path.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from h5fast._members import NO_TIME
from h5fast.errors import ReadError
from h5fast.packing.labels import ClassNumbers
from h5fast.packing.members import UNREADABLE, Folder, Member, Problem, Trail, read
from h5fast.specs import Spec
from h5fast.tree import encoded
from h5fast.writer import Writer

__all__ = ["EncodedSink", "Output", "Sink", "StackSink", "Unfit", "close_labelled", "create_texts", "pieces", "stored_name"]

# A member larger than this goes into the file piece by piece.
_PIECE = 8 << 20
# Short members are handed to the writer in pieces of about this size: each call of it costs as much as copying a good part of
# that.
_TOGETHER = 256 << 10
# Chunks of the bytes of `encoded`: finding one costs what copying some 10 KiB does, and the last one is padded.
_DATA_CHUNK = 256 << 10
# Paths of a stack that lie together.
_PATH_CHUNK = 1024
# Names of members that are written at a time, at the end.
_NAMES = 1 << 16


class Unfit(ValueError):
    """A member that the file cannot take, and no other like it; the message names it and the remedy."""


class Sink(Protocol):
    """A file under way.

    Attributes:
        decodes: whether it wants arrays, not bytes
        note: what a resumed one is to be given again; changes of it count from the next flush on
        count: members that it has
        written: bytes that it took
        classes: of the members
    """

    decodes: bool
    note: dict[str, Any]
    count: int
    written: int
    classes: ClassNumbers

    def replay(self, member: Member, label: Any) -> bool:
        """Whether a resumed file has this member; asked for each from the first on, until it is False once."""

    def add(self, found: Sequence[tuple[Member, Any, Any]]) -> list[Problem]:
        """Takes members, each with its array (None where bytes are wanted) and its class; returns what could not be read."""

    def add_folder(self, folder: Folder) -> None:
        """Takes a folder in which there is nothing, behind all members, if there is a place for such in this layout."""

    def flush(self) -> None:
        """Makes what was added the state to resume from."""

    def finish(self) -> None:
        """Writes what is left, and gives the file its name."""

    def leave(self) -> None:
        """Closes the file as it is, to be resumed."""


@dataclass(frozen=True)
class Output:
    """Where a sink writes.

    Attributes:
        path: the file
        overwrite, resume: as of :class:`Writer`
        memory: bytes for what is on its way
        state: what was told with the last flush of a file that is resumed: its rows and its note
    """

    path: Path
    overwrite: bool
    resume: bool
    memory: int
    state: dict[str, Any] | None

    def trail(self, note: dict[str, Any]) -> Trail:
        """Which members the file has, told in a note."""
        return Trail(note, {} if self.state is None else self.state["note"], self.path)

    def at(self, path: Path) -> Output:
        """The same at another path."""
        return replace(self, path=path)

    def writer(self, fields: dict[str, Spec], note: dict[str, Any]) -> Writer:
        """The writer of such a file."""
        made = Writer(self.path, fields, memory=self.memory, overwrite=self.overwrite, resume=self.resume, flush_every=None)
        made.note = note
        return made


class StackSink:
    """Decoded rows of one shape; see :class:`Sink`. What rows are, the first one tells."""

    decodes = True

    def __init__(self, output: Output, *, name: str, codec: Any, chunk_rows: int | str) -> None:
        self.note: dict[str, Any] = {}
        self.count = self.written = 0
        self.classes = ClassNumbers()
        self._output, self._name = output, name
        self._codec, self._chunk_rows = codec, chunk_rows
        self._spec: Spec | None = None
        self._writer: Writer | None = None
        self._trail = output.trail(self.note)
        if output.state is not None:
            self._begin(
                tuple(output.state["note"]["shape"]), np.dtype(output.state["note"]["dtype"]), output.state["note"]["first"]
            )

    def _begin(self, shape: tuple[int, ...], dtype: np.dtype, first: str) -> None:
        self._spec = Spec(shape, dtype, codec=self._codec, chunk_rows=self._chunk_rows)
        self.note.update(shape=shape, dtype=dtype.str, first=first)
        self._writer = self._output.writer(
            {self._name: self._spec, "path": Spec((), str, codec=None, chunk_rows=_PATH_CHUNK)}, self.note
        )

    def replay(self, member: Member, label: Any) -> bool:
        if self._writer is None or self.count >= self._writer.rows:
            return False
        self.count += 1
        self.classes.add(label)
        self._trail.replay(member)
        return True

    def add(self, found: Sequence[tuple[Member, Any, Any]]) -> list[Problem]:
        self._trail.check()
        if self._writer is None:
            if not found[0][1].size:
                raise Unfit(f"{found[0][0].path} is of shape {found[0][1].shape}: a row of a stack holds something")
            self._begin(found[0][1].shape, found[0][1].dtype, found[0][0].path)
        assert self._writer is not None and self._spec is not None
        for member, row, _ in found:
            if row.shape != self._spec.shape or row.dtype != self._spec.element:
                raise Unfit(
                    f"{member.path} is {row.dtype} of shape {row.shape}, and {self.note['first']} and all since are "
                    f"{self._spec.element} of shape {self._spec.shape}: rows of a stack are all alike. resize= or pad= makes images "
                    "so; layout 'tree' or 'encoded' keeps them as they are"
                )
        self._writer.append(
            {
                self._name: np.stack([row for _, row, _ in found]),
                "path": np.array([stored_name(member.path) for member, _, _ in found], object),
            }
        )
        for _, row, label in found:
            self.classes.add(label)
            self.written += row.nbytes
        self._trail.add(*(member for member, _, _ in found))
        self.count += len(found)
        return []

    def add_folder(self, folder: Folder) -> None:
        """Nothing: rows have no folders."""

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def finish(self) -> None:
        self._trail.check()
        if self._writer is not None:
            close_labelled(self._writer, "stack", self.classes)

    def leave(self) -> None:
        if self._writer is not None and not self._writer.closed:
            self._writer.abandon()


class EncodedSink:
    """The bytes of all members back to back, with a table; see :class:`Sink`. The table is kept in memory: some 30 bytes a
    member and
    its path."""

    decodes = False

    def __init__(self, output: Output, *, codec: Any, chunk_rows: int | str, metadata: bool) -> None:
        self.note: dict[str, Any] = {}
        self.count = self.written = 0
        self.classes = ClassNumbers()
        self._offsets = array("Q", [0])
        self._names = bytearray()
        self._about = (array("q"), array("I")) if metadata else None
        chunk = _DATA_CHUNK if chunk_rows == "auto" else chunk_rows
        self._waiting = bytearray()  # of short members, which are handed to the writer together
        self._trail = output.trail(self.note)
        self._writer = output.writer({"data": Spec((), "uint8", codec=codec, chunk_rows=chunk)}, self.note)

    def replay(self, member: Member, label: Any) -> bool:
        if self._offsets[-1] + member.size > self._writer.rows:
            return False
        self._enter(member, member.size, label)
        self._trail.replay(member)
        return True

    def _enter(self, one: Member | Folder, size: int, label: Any) -> None:
        self._offsets.append(self._offsets[-1] + size)
        self._names += stored_name(one.path) + (b"/\0" if isinstance(one, Folder) else b"\0")
        if self._about is not None:
            self._about[0].append(NO_TIME if one.modified is None else one.modified)
            self._about[1].append(one.permissions or 0)
        self.classes.add(label)
        self.count += isinstance(one, Member)
        self.written += size

    def add_folder(self, folder: Folder) -> None:
        self._enter(folder, 0, None)

    def add(self, found: Sequence[tuple[Member, Any, Any]]) -> list[Problem]:
        self._trail.check()
        problems = []
        for member, _, label in found:
            there = (
                self._writer.rows + len(self._waiting) - self._offsets[-1]
            )  # of a member that was cut off when a resumed file was left
            if member.size > _PIECE or there:
                self._add_long(member, there)
                size = member.size
            else:
                try:
                    data = read(member)
                except UNREADABLE as error:
                    problems.append(Problem(member.path, f"cannot be read: {error}"))
                    continue
                self._waiting += data
                size = len(data)
                if len(self._waiting) >= _TOGETHER:
                    self._hand_over()
            self._enter(member, size, label)
            self._trail.add(member)
        return problems

    def _hand_over(self) -> None:
        if self._waiting:
            self._writer.append(data=np.frombuffer(self._waiting, np.uint8))
            self._waiting = bytearray()

    def _add_long(self, member: Member, there: int) -> None:
        self._hand_over()
        for _, piece in pieces(member, there):
            self._writer.append(data=piece)

    def flush(self) -> None:
        self._hand_over()
        self._writer.flush()

    def finish(self) -> None:
        self._trail.check()
        self._hand_over()
        file = self._writer.file
        create_array(file, "offsets", np.frombuffer(self._offsets, np.uint64))
        create_texts(file, "paths", bytes(self._names).split(b"\0")[:-1])
        if self._about is not None:
            create_array(file, "modified", np.frombuffer(self._about[0], np.int64))
            create_array(file, "permissions", np.frombuffer(self._about[1], np.uint32))
        close_labelled(self._writer, "encoded", self.classes)

    def leave(self) -> None:
        if not self._writer.closed:
            self._hand_over()
            self._writer.abandon()


def stored_name(path: str) -> bytes:
    """A path as it is stored: bytes that are no UTF-8 as they were."""
    return path.encode("utf-8", "surrogateescape")


def close_labelled(writer: Writer, layout: str, classes: ClassNumbers) -> None:
    """Closes a file with the classes of its rows: ``label``, and ``class_names`` where they are not numbers."""
    file = writer.file
    file.attrs[encoded.ATTRIBUTE] = layout
    if classes.found:
        create_array(file, "label", classes.rows())
        if not classes.are_numbers():
            create_texts(file, "class_names", [stored_name(name) for name in classes.numbers()])
    writer.close()


def create_array(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """Writes a table that is known at the end only."""
    _make_room(group, name)
    group.create_dataset(name, data=values)


def _make_room(group: h5py.Group, name: str) -> None:
    """A process that was killed after its last commit, and before the file had its name, left tables that are written anew."""
    if name in group:
        del group[name]


def create_texts(group: h5py.Group, name: str, texts: list[bytes]) -> None:
    """Writes texts, some of them at a time."""
    _make_room(group, name)
    dataset = group.create_dataset(name, (len(texts),), h5py.string_dtype())
    for first in range(0, len(texts), _NAMES):
        dataset[first : first + _NAMES] = np.array(texts[first : first + _NAMES], object)


def pieces(member: Member, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """A member piece by piece from a byte on, each with where it begins.

    Raises:
        ReadError: it cannot be read, after a part of it was given.
    """
    at = 0
    try:
        with member.open() as file:
            while at < member.size:
                data = file.read(min(_PIECE, member.size - at))
                if not data:
                    raise EOFError(f"ended after {at} of {member.size} bytes")
                if at + len(data) > start:
                    yield max(at, start), np.frombuffer(data, np.uint8)[max(0, start - at) :]
                at += len(data)
    except UNREADABLE as error:
        raise ReadError(getattr(error, "errno", None), f"cannot be read: {error}", member.path) from error
