"""The table of members: a row for each that is known, how its bytes are stored, and the spans that the engine reads it by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from h5fast._members import BY_HDF5, FILE, MEMBER, NOT_LOOKED_AT
from h5fast._spans import SPAN
from h5fast._storage import Storage
from h5fast.tree.content import Content, Stored

__all__ = ["CHUNK", "Pipeline", "Table"]

CHUNK = np.dtype([("address", "<u8"), ("stored", "<u8"), ("mask", "<u4")])
"""A stored chunk: file offset, bytes there, filter mask. Address 0: nothing is stored, zeros are meant."""


class Pipeline(NamedTuple):
    """How chunks are filtered, in the order of writing, and bytes of an element."""

    filters: tuple[tuple[int, tuple[int, ...]], ...]
    itemsize: int


class _Rows:
    """An array that grows at its end."""

    __slots__ = ("_room", "count")

    def __init__(self, dtype: np.dtype) -> None:
        self._room = np.zeros(64, dtype)
        self.count = 0

    @property
    def used(self) -> np.ndarray:
        return self._room[: self.count]

    def add(self, rows: np.ndarray) -> int:
        """Returns where the rows came to stand."""
        first, needed = self.count, self.count + len(rows)
        if needed > len(self._room):
            grown = np.zeros(max(needed, 2 * len(self._room)), self._room.dtype)
            grown[:first] = self.used
            self._room = grown
        self._room[first:needed] = rows
        self.count = needed
        return first


class Table:
    """Rows of members, and what they refer to.

    Attributes:
        pipelines: how their chunks are filtered; number 0 is bytes as they are
        heads: what comes before the content; number 0 is nothing
    """

    def __init__(self) -> None:
        self._members = _Rows(MEMBER)
        self._chunks = _Rows(CHUNK)
        self.pipelines: list[Pipeline] = []
        self.heads: list[bytes] = []
        self._storages: list[Storage] = []
        self._numbers: dict[Any, int] = {}
        self.pipeline_number(Pipeline((), 1))
        self.head_number(b"")

    @property
    def members(self) -> np.ndarray:
        """An array of MEMBER."""
        return self._members.used

    @property
    def chunks(self) -> np.ndarray:
        """An array of CHUNK: those of members that lie in several."""
        return self._chunks.used

    @property
    def storages(self) -> tuple[Storage, ...]:
        """What the engine decodes with, by number of pipeline."""
        return tuple(self._storages)

    def add(self, rows: np.ndarray) -> int:
        """Puts rows of MEMBER at the end; returns the number of the first."""
        return self._members.add(rows)

    def add_chunks(self, chunks: Any) -> int:
        """Puts (address, stored bytes, mask) at the end; returns the place of the first."""
        return self._chunks.add(np.array(chunks, CHUNK))

    def pipeline_number(self, pipeline: Pipeline) -> int:
        """The number that a pipeline has here. ``ValueError`` where there is no decoder for it."""
        number = self._numbers.get(pipeline)
        if number is None:
            self._storages.append(Storage((), (), pipeline.itemsize, pipeline.filters))
            number = self._numbers[pipeline] = len(self.pipelines)
            self.pipelines.append(pipeline)
        return number

    def head_number(self, head: bytes) -> int:
        """The number that a head has here."""
        number = self._numbers.get(head)
        if number is None:
            number = self._numbers[head] = len(self.heads)
            self.heads.append(head)
        return number

    def settle(self, row: int, content: Content, stored: Stored | None) -> None:
        """Notes what a dataset turned out to be; `stored` is None where only its own reader reads it."""
        member = self.members[row]
        member["head"] = self.head_number(content.head)
        if content.size is not None:
            member["size"] = content.size
        if stored is None:
            member["pipeline"] = BY_HDF5
            return
        member["pipeline"] = self.pipeline_number(Pipeline(stored.filters, stored.itemsize))
        member["chunk_bytes"] = stored.chunk_bytes
        member["chunks"] = len(stored.chunks)
        if len(stored.chunks) == 1:
            member["address"], member["stored"], member["mask"] = stored.chunks[0]
        elif stored.chunks:
            member["address"] = self.add_chunks(stored.chunks)

    def is_direct(self, rows: np.ndarray) -> np.ndarray:
        """Which of the rows the engine reads."""
        return np.asarray(self.members["pipeline"][rows] >= 0)

    def is_unknown(self, rows: np.ndarray) -> np.ndarray:
        """Which of the rows have to be looked at before they are read."""
        found = self.members[rows]
        return np.asarray((found["pipeline"] == NOT_LOOKED_AT) & (found["kind"] == FILE))

    def spans(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The spans of whole members that the engine reads: an array of SPAN, and how many each member has."""
        found = self.members[rows]
        counts = found["chunks"].astype(np.int64)
        if (counts == 1).all():
            spans = np.zeros(len(found), SPAN)
            for name in ("address", "stored", "chunk_bytes", "mask", "pipeline"):
                spans[name] = found[name]
            spans["first"], spans["length"] = found["offset"], found["size"]
            return spans, counts
        return self._spans_of_several(found, counts), counts

    def _spans_of_several(self, found: np.ndarray, counts: np.ndarray) -> np.ndarray:
        owner = np.repeat(np.arange(len(found)), counts)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)  # of the chunk within its member
        members = found[owner]
        spans = np.zeros(len(owner), SPAN)
        spans["chunk_bytes"], spans["pipeline"] = members["chunk_bytes"], members["pipeline"]
        several = members["chunks"] > 1
        alone = ~several
        places = members["address"][several].astype(np.int64) + number[several]
        for name in ("address", "stored", "mask"):
            spans[name][several] = self.chunks[name][places]
            spans[name][alone] = members[name][alone]
        # The member is the bytes [offset, offset + size) of its chunks, put end to end.
        size, begin = members["chunk_bytes"].astype(np.int64), members["offset"].astype(np.int64)
        first = np.where(number == 0, begin, 0)
        spans["first"] = first
        spans["length"] = np.minimum(size, begin + members["size"].astype(np.int64) - number * size) - first
        return spans

    def range_spans(self, row: int, start: int, stop: int) -> np.ndarray:
        """The spans of the bytes [start, stop) of one member's content."""
        member = self.members[row]
        size, begin = int(member["chunk_bytes"]), int(member["offset"])
        if member["chunks"] == 1:  # the usual file; this way a read of it takes half as long
            return np.array([(member["address"], member["stored"], size, begin + start, stop - start, member["mask"],
                              member["pipeline"])], SPAN)
        first, last = (begin + start) // size, (begin + stop - 1) // size
        spans = np.zeros(last - first + 1 if stop > start else 0, SPAN)
        spans["chunk_bytes"], spans["pipeline"] = size, member["pipeline"]
        for place, chunk in enumerate(range(first, first + len(spans))):
            source = self.chunks[int(member["address"]) + chunk]
            spans[place]["address"], spans[place]["stored"] = source["address"], source["stored"]
            spans[place]["mask"] = source["mask"]
            spans[place]["first"] = max(begin + start - chunk * size, 0)
            spans[place]["length"] = min(begin + stop - chunk * size, size) - spans[place]["first"]
        return spans
