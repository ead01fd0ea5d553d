"""Members decoded by several processes or threads at a time, and given back in order, in bounded memory."""

from __future__ import annotations

import errno
import multiprocessing
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h5fast.errors import ReadError
from h5fast.imaging import Decoder, Undecodable
from h5fast.packing.members import UNREADABLE, Member, Problem, read
from h5fast.sizes import format_bytes

__all__ = ["Decoded", "Decoders"]

Decoded = tuple[Member, Any]
"""A member, and the array that it is, or the :class:`Problem` that it has."""

# Members that go to a process at a time: handing over a batch costs some 0.5 ms, decoding a small image 0.1 to 0.3.
_BATCH = 32
# Files that are tried to see how decoding goes.
_TRIED = 4
# What decoding makes of a byte, where nothing is known yet: photographs as JPEG come to some 10.
_GROWTH = 12

_Job = tuple[str, "bytes | str"]  # a path, and the bytes of it, or the file that has them
_Results = list["np.ndarray | str"]  # the array that each is, or what is wrong with it


class _Worker:
    """What a process decodes with: set once, before it is forked, so that any function serves as a reader."""

    decoder: Decoder | None = None


def _start_worker(decoder: Decoder) -> None:
    _Worker.decoder = decoder


def _decode_in_process(jobs: list[_Job]) -> _Results:
    assert _Worker.decoder is not None
    return _decode(_Worker.decoder, jobs)


def _decode(decoder: Decoder, jobs: list[_Job]) -> _Results:
    """The array that each is, or what is wrong with it."""
    found: _Results = []
    for path, data in jobs:
        try:
            found.append(decoder.decode(path, _content(data)))
        except OSError as error:
            found.append(f"cannot be read: {error.strerror or error}")
        except Undecodable as error:
            found.append(str(error))
    return found


@dataclass
class _Batch:
    """Members that are decoded together.

    Attributes:
        members: they
        jobs: those of them that are no arrays yet
        problems: what of them could not even be read, by their place
        need: bytes that they take, as they are and decoded
        results: of the jobs
    """

    members: list[Member] = field(default_factory=list)
    jobs: list[_Job] = field(default_factory=list)
    problems: dict[int, Problem] = field(default_factory=dict)
    need: int = 0
    results: Future[_Results] | _Results = field(default_factory=list)

    def add(self, member: Member, need: int) -> None:
        """Takes a member, with the bytes of it that the source does not keep."""
        if member.array is None and member.file is None:
            try:
                self.jobs.append((member.path, read(member)))
            except UNREADABLE as error:
                self.problems[len(self.members)] = Problem(member.path, f"cannot be read: {error}")
        elif member.file is not None:
            self.jobs.append((member.path, member.file))
        self.members.append(member)
        self.need += need


def _content(data: bytes | str) -> bytes:
    """The bytes, or those of the file that has them."""
    if isinstance(data, bytes):
        return data
    with open(data, "rb") as file:
        return file.read()


class Decoders:
    """Decodes members in the order they come.

    Threads do where the first of them show that decoding leaves Python's lock alone; else processes, forked where that is safe:
    while this process has no other thread of Python's.

    Args:
        decoder: what makes arrays of bytes
        jobs: how many at a time; 1 decodes in the calling thread
        memory: bytes of members on their way, encoded and decoded; one larger than all of it is a problem
    """

    def __init__(self, decoder: Decoder, jobs: int, memory: int) -> None:
        self._decoder = decoder
        self._jobs = jobs
        self._memory = memory
        self._executor: Executor | None = None
        self._waiting: deque[_Batch] = deque()
        self._held = 0

    def __enter__(self) -> Decoders:
        """Itself, with its processes or threads."""
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def decoded(self, members: Iterable[Member]) -> Iterator[list[Decoded]]:
        """All members with their arrays, batch by batch."""
        batch = _Batch()
        share = self._memory // (2 * self._jobs + 1)
        for member in members:
            need = member.size * (1 if member.array is not None else 1 + _GROWTH)
            if batch.members and (len(batch.members) == _BATCH or batch.need + need > share):
                yield from self._sent(batch)
                batch = _Batch()
            if need > self._memory:
                yield from self._sent(batch)
                yield from self._all()
                batch = _Batch()
                yield [
                    (
                        member,
                        Problem(
                            member.path,
                            f"has {format_bytes(member.size)}, and memory={format_bytes(self._memory)} has no room to "
                            f"decode that: it takes up to {_GROWTH} times as much",
                        ),
                    )
                ]
                continue
            batch.add(member, need)
        yield from self._sent(batch)
        yield from self._all()

    def _sent(self, batch: _Batch) -> Iterator[list[Decoded]]:
        """Sends a batch away, when those before it leave room."""
        while self._waiting and (self._held + batch.need > self._memory or len(self._waiting) > 2 * self._jobs):
            yield self._next()
        self._held += batch.need
        batch.results = self._begun(batch.jobs)
        batch.jobs = []
        self._waiting.append(batch)

    def _begun(self, jobs: list[_Job]) -> Future[_Results] | _Results:
        if self._jobs == 1:
            return _decode(self._decoder, jobs)
        if self._executor is None:
            threads = not _may_fork() or self._free(jobs)
            self._executor = ThreadPoolExecutor(self._jobs) if threads else _processes(self._jobs, self._decoder)
        if isinstance(self._executor, ProcessPoolExecutor):
            with warnings.catch_warnings():
                # Python 3.12 warns of any fork beside threads. Those that are here are native ones, which the child has no use
                # for.
                warnings.simplefilter("ignore", DeprecationWarning)
                return self._executor.submit(_decode_in_process, jobs)
        return self._executor.submit(_decode, self._decoder, jobs)

    def _free(self, jobs: list[_Job]) -> bool:
        try:
            return bool(jobs) and all(self._decoder.frees_python(_content(data)) for _, data in jobs[:_TRIED])
        except OSError:
            return False

    def _all(self) -> Iterator[list[Decoded]]:
        while self._waiting:
            yield self._next()

    def _next(self) -> list[Decoded]:
        batch = self._waiting.popleft()
        self._held -= batch.need
        try:
            arrays = iter(batch.results if isinstance(batch.results, list) else batch.results.result())
        except BrokenProcessPool as error:
            raise ReadError(
                errno.EIO,
                f"a process that decoded was killed, at {batch.members[0].path!r} or one of the {len(batch.members) - 1} "
                "behind it: is there too little memory? jobs=1 decodes in this process",
            ) from error
        return [(member, batch.problems.get(place) or self._one(member, arrays)) for place, member in enumerate(batch.members)]

    def _one(self, member: Member, arrays: Iterator[np.ndarray | str]) -> Any:
        if member.array is None:
            found = next(arrays)
        else:
            try:
                found = self._decoder.fit(member.array)
            except Undecodable as error:
                found = str(error)
        return Problem(member.path, found) if isinstance(found, str) else found


def _may_fork() -> bool:
    return threading.active_count() == 1 and "fork" in multiprocessing.get_all_start_methods()


def _processes(jobs: int, decoder: Decoder) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), initializer=_start_worker, initargs=(decoder,))
