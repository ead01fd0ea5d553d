"""Members of a source on their way: those that are wanted, each with its class, into one file or several."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from h5fast.errors import ReadError
from h5fast.packing.choosing import Choice
from h5fast.imaging import Decoder
from h5fast.packing.labels import Labels
from h5fast.packing.layouts import Sink
from h5fast.packing.members import Folder, Member, Problem
from h5fast.packing.pool import Decoders
from h5fast.packing.sources import Source

__all__ = ["Handling", "Route", "wanted"]

# Bytes after which files are flushed, so that what was packed need not be packed again.
_FLUSH_BYTES = 1 << 30


@dataclass(frozen=True)
class Handling:
    """What is done with members.

    Attributes:
        choice: which are wanted
        labels: what their classes are
        decoder, jobs, memory: as of :class:`Decoders`
        strict: whether the first that cannot be packed ends it
        progress: told of the position in the source and the members done
    """

    choice: Choice
    labels: Labels
    decoder: Decoder
    jobs: int
    memory: int
    strict: bool = False
    progress: Callable[[int, int], None] | None = None


@dataclass
class _Seen:
    """The paths that have come by: their hashes, since that is all that is needed of millions."""

    files: set[int] = field(default_factory=set)
    folders: set[int] = field(default_factory=set)
    last: str = ""  # the folder of the file before: most lie in the same one

    def problem(self, path: str) -> str | None:
        """Why a path cannot be that of another file, as a clause; None where it can, and has come by now."""
        mine, folder = hash(path), path.rpartition("/")[0]
        if mine in self.files:
            return "there is another file of that path before it"
        if mine in self.folders or (folder != self.last and not self._is_folder(folder)):
            return "a file and a folder have the same path"
        self.files.add(mine)
        self.last = folder
        return None

    def folder(self, path: str) -> bool:
        """Whether there is none of this path yet; it is there from now on."""
        return hash(path) not in self.folders and self._is_folder(path)

    def _is_folder(self, path: str) -> bool:
        """Whether no file has this path, or one of a folder that it lies in; all of them are folders from now on."""
        whole = path + "/"
        found = {hash(whole[:at]) for at, letter in enumerate(whole) if letter == "/" and at}
        if not self.files.isdisjoint(found):
            return False
        self.folders.update(found)
        return True


def wanted(source: Source, handling: Handling, empty: list[Folder] | None = None) -> Iterator[tuple[Member, Any] | Problem]:
    """The members that are chosen, with their classes, and what cannot be one.

    At the end `empty` has the folders in which there is nothing, where no choice was made.
    """
    seen, folders = _Seen(), []
    for found in source.members():
        if isinstance(found, Folder):
            if empty is not None and handling.choice.takes_all:
                folders.append(found)
            continue
        if not handling.choice.takes(found.path):
            continue
        if isinstance(found, Problem):
            yield found
            continue
        reason = seen.problem(found.path)
        if reason is not None:
            yield Problem(found.path, reason)
            continue
        try:
            yield found, handling.labels.of(found)
        except KeyError as error:
            yield Problem(found.path, str(error.args[0]))
    for folder in reversed(folders):  # those within come behind it
        if empty is not None and seen.folder(folder.path):
            empty.append(folder)


class Route:
    """Takes the members of a source to their files.

    Args:
        sinks: the files, by part
        part_of: the part that a member belongs to, by its path; None leaves it out

    Attributes:
        name: that of the source
        problems: what could not be packed
    """

    def __init__(
        self, source: Source, sinks: Mapping[str, Sink], part_of: Callable[[str], str | None], handling: Handling
    ) -> None:
        self._source, self._sinks, self._part_of, self._handling = source, sinks, part_of, handling
        self.name = source.name
        self.problems: list[Problem] = []
        self._decodes = any(sink.decodes for sink in sinks.values())
        self._flushed = 0
        self._labels: dict[str, Any] = {}  # of members that are being decoded

    def run(self, failed: Mapping[str, str]) -> None:
        """Packs all members, after those that resumed files have.

        Args:
            failed: members that could not be packed before, with the reason

        Raises:
            ReadError: a member cannot be packed, and that is to end it; or the source itself cannot be read.
            Unfit, OSError: a file cannot take what it is given.
        """
        empty: list[Folder] = []
        members = self._new(failed, empty)
        if not self._decodes:
            for member in members:
                self._put([(member, None)])
        else:
            with Decoders(self._handling.decoder, self._handling.jobs, self._handling.memory) as decoders:
                for batch in decoders.decoded(members):
                    self._put(batch)
        for sink in self._sinks.values():
            for folder in reversed(empty) if len(self._sinks) == 1 else ():
                sink.add_folder(folder)

    def _new(self, failed: Mapping[str, str], empty: list[Folder]) -> Iterator[Member]:
        """The members that are still to be packed; their classes are noted."""
        replaying = set(self._sinks)
        for found in wanted(self._source, self._handling, empty):
            if isinstance(found, Problem):
                self._note(found)
                continue
            member, label = found
            part = self._part_of(member.path)
            if part is None:
                continue
            if member.path in failed:
                self._note(Problem(member.path, failed[member.path]))
            elif part in replaying and self._sinks[part].replay(member, label):
                self._tell()
            else:
                replaying.discard(part)
                self._labels[member.path] = label
                yield member

    def _put(self, batch: list[tuple[Member, Any]]) -> None:
        for part, sink in self._sinks.items():
            mine = [(member, found) for member, found in batch if len(self._sinks) == 1 or self._part_of(member.path) == part]
            for _, found in mine:
                if isinstance(found, Problem):
                    self._note(found, sink)
            good = [(member, found, self._labels[member.path]) for member, found in mine if not isinstance(found, Problem)]
            if good:
                for problem in sink.add(good):
                    self._note(problem, sink)
        for member, _ in batch:
            del self._labels[member.path]
        self._tell()
        if sum(sink.written for sink in self._sinks.values()) - self._flushed >= _FLUSH_BYTES:
            for sink in self._sinks.values():
                sink.flush()
            self._flushed = sum(sink.written for sink in self._sinks.values())

    def _note(self, problem: Problem, sink: Sink | None = None) -> None:
        """Notes what could not be packed; a sink keeps what only trying could tell, so that a resumed one knows its rows."""
        if self._handling.strict:
            raise ReadError(
                errno.EIO, f"{problem.reason} (strict: this ends the packing)", f"{self._source.name}: {problem.path}"
            )
        self.problems.append(problem)
        if sink is not None:
            sink.note.setdefault("failed", {})[problem.path] = problem.reason

    def _tell(self) -> None:
        if self._handling.progress is not None:
            self._handling.progress(self._source.position, sum(sink.count for sink in self._sinks.values()))
