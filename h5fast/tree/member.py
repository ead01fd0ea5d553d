"""The bytes of members: many in one read of the engine, a range of one, one as a file object."""

from __future__ import annotations

import errno
import io
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from h5fast import _spans
from h5fast._members import NOT_LOOKED_AT, UNKNOWN
from h5fast.errors import CorruptFileError, H5FastError, ReadError, UnsupportedError
from h5fast.layout import phil
from h5fast.opened import OpenFile
from h5fast.threads import get_num_threads
from h5fast.tree import content
from h5fast.tree.catalogue import Catalogue
from h5fast.tree.paths import as_bytes

__all__ = ["Contents", "Member", "MemberFile"]

# A decoded chunk up to this size is kept by a file object for its next read.
_KEPT_CHUNK = 64 << 20


class Contents:
    """The bytes of the members of an open file.

    Args:
        catalogue: which there are
        bytes_of: the file's bytes; None where libhdf5 alone may read them
    """

    def __init__(self, catalogue: Catalogue, bytes_of: OpenFile | None) -> None:
        self._catalogue = catalogue
        self._table = catalogue.table
        self._bytes_of = bytes_of

    def dataset(self, path: str) -> Any:
        """The dataset at a path without links."""
        found = self._catalogue.file[as_bytes(path)]
        if not isinstance(found, h5py.Dataset):
            raise CorruptFileError(errno.EIO, f"{self._named(path)} is no longer a dataset; close and reopen the file")
        return found

    def size(self, path: str, row: int, *, raw: bool) -> int:
        """Bytes of a file. Reads text to tell.

        Raises:
            UnsupportedError: it has no bytes that would mean something elsewhere.
        """
        member = self._table.members[row]
        if member["pipeline"] == NOT_LOOKED_AT:
            self._look_at([path], np.array([row]))
            member = self._table.members[row]
        size = int(member["size"])
        if size == UNKNOWN:
            member["size"] = size = len(self._by_hdf5(path, row))
        return size + (0 if raw else len(self.head(row)))

    def head(self, row: int) -> bytes:
        """What comes before the content, of a member that was looked at."""
        return self._table.heads[int(self._table.members["head"][row])]

    def are_known(self, rows: np.ndarray) -> bool:
        """Whether reading these files opens no dataset, so that their paths are only names in messages."""
        return self._bytes_of is not None and bool(self._table.is_direct(rows).all())

    def read_many(self, paths: Sequence[str], rows: np.ndarray, *, raw: bool) -> list[bytes]:
        """The contents of files, links resolved, in the order given."""
        self._look_at(paths, rows)
        direct = self._table.is_direct(rows) if self._bytes_of is not None else np.zeros(len(rows), bool)
        if direct.all():
            found = self._direct(paths, rows)
        else:
            found = [b""] * len(rows)
            places = np.flatnonzero(direct).tolist()
            for place, read in zip(places, self._direct([paths[place] for place in places], rows[places])):
                found[place] = read
            for place in np.flatnonzero(~direct).tolist():
                found[place] = self._by_hdf5(paths[place], int(rows[place]))
        if raw:
            return found
        heads = self._table.members["head"][rows]
        for place in np.flatnonzero(heads).tolist():
            found[place] = self._table.heads[int(heads[place])] + found[place]
        return found

    def read_range(self, path: str, row: int, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of the content, without head, of a file whose size is known; reads the chunks they lie in."""
        if stop <= start:
            return b""
        if self._bytes_of is not None and self._table.members["pipeline"][row] >= 0:
            spans = self._table.range_spans(row, start, stop)
            return self._read([path], spans, np.array([stop - start]), np.array([len(spans)]))[0]
        group = self._catalogue.where(row)
        if group is not None:
            begin = int(self._table.members["offset"][row])
            return content.read_range(self._encoded_data(group), begin + start, begin + stop)
        dataset = self.dataset(path)
        with _naming(self._named(path)):
            about = content.examine(dataset)
            if about.form in ("bytes", "array"):
                return content.read_range(dataset, start, stop)
            return content.read_all(dataset, about)[start:stop]

    def chunk_around(self, row: int, position: int) -> tuple[int, int] | None:
        """The range of the content that is decoded for the byte at a position; None where nothing is."""
        member = self._table.members[row]
        if self._bytes_of is None or member["pipeline"] < 0 or not self._table.pipelines[int(member["pipeline"])].filters:
            return None
        size, begin = int(member["chunk_bytes"]), int(member["offset"])
        if size > _KEPT_CHUNK:
            return None
        first = (begin + position) // size * size - begin
        return max(first, 0), min(first + size, int(member["size"]))

    # --- the two ways ---

    def _look_at(self, paths: Sequence[str], rows: np.ndarray) -> None:
        for place in np.flatnonzero(self._table.is_unknown(rows)).tolist():
            with phil:
                dataset = self.dataset(paths[place])
                with _naming(self._named(paths[place])):
                    about = content.examine(dataset)
                    stored = content.stored_as(dataset, about) if self._bytes_of is not None else None
                self._table.settle(int(rows[place]), about, stored)

    def _direct(self, paths: Sequence[str], rows: np.ndarray) -> list[bytes]:
        spans, counts = self._table.spans(rows)
        return self._read(paths, spans, self._table.members["size"][rows], counts)

    def _read(self, paths: Sequence[str], spans: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> list[bytes]:
        if self._bytes_of is None:
            return []
        source = self._bytes_of.source
        found, failure = None, None
        try:
            found = _spans.read(source, self._table.storages, spans, sizes, counts, get_num_threads(),
                                lambda number: self._named(paths[number]))
        except H5FastError as error:
            failure = error
        changed = source.changed()
        if changed:
            where = self._catalogue.file.filename
            raise ReadError(errno.ESTALE, f"{where}: the file changed on disk while it was open: {changed}; close and reopen it") \
                from failure
        if failure is not None:
            raise failure
        return found or []

    def _by_hdf5(self, path: str, row: int) -> bytes:
        group = self._catalogue.where(row)
        if group is not None:
            begin = int(self._table.members["offset"][row])
            return content.read_range(self._encoded_data(group), begin, begin + int(self._table.members["size"][row]))
        dataset = self.dataset(path)
        with _naming(self._named(path)):
            return content.read_all(dataset, content.examine(dataset))

    def _encoded_data(self, group: str) -> Any:
        return self.dataset(f"{group}/data" if group else "data")

    def _named(self, path: str) -> str:
        return f"{self._catalogue.file.filename}: {'/' + path!r}"


class _naming:
    """Puts the file and the member in front of what an error says that does not know them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UnsupportedError) and self._name not in str(error):
            raise UnsupportedError(f"{self._name}: {error}") from error
        if isinstance(error, CorruptFileError) and self._name not in str(error):
            raise CorruptFileError(errno.EIO, f"{self._name}: {error}") from error


class Member:
    """One file of a tree: any range of its bytes, from any thread.

    Args:
        contents: of the tree
        path, row: where it is, links resolved
        raw: leave out the head of an array
    """

    __slots__ = ("_chunk", "_contents", "_head", "_path", "_row", "size")

    def __init__(self, contents: Contents, path: str, row: int, *, raw: bool) -> None:
        self._contents = contents
        self._path = path
        self._row = row
        self.size = contents.size(path, row, raw=raw)
        self._head = b"" if raw else contents.head(row)
        self._chunk: tuple[int, bytes] = (0, b"")  # where it begins, and the last one that was decoded

    def read_at(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop) as far as there are any."""
        stop = min(stop, self.size)
        if stop <= start:
            return b""
        head = len(self._head)
        if start >= head:
            return self._content(start - head, stop - head)
        return self._head[start:stop] + self._content(0, max(0, stop - head))

    def _content(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            begin, chunk = self._chunk
            if begin <= start < begin + len(chunk):
                end = min(stop, begin + len(chunk))
                parts.append(chunk[start - begin : end - begin])
                start = end
                continue
            around = self._contents.chunk_around(self._row, start)
            # A whole chunk is not copied over; what follows it is read in one go.
            if around is None or (start <= around[0] and stop >= around[1]):
                parts.append(self._contents.read_range(self._path, self._row, start, stop))
                break
            self._chunk = around[0], self._contents.read_range(self._path, self._row, *around)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class MemberFile(io.RawIOBase):
    """A member as an unbuffered, seekable, binary file object for reading."""

    def __init__(self, member: Member, name: str) -> None:
        self._member = member
        self._position = 0
        self.name = name
        self.mode = "rb"

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        self._require_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves there; beyond the end there is nothing to read."""
        self._require_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._member.size}.get(whence)
        if base is None:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}, before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; returns how many bytes, 0 at the end."""
        self._require_open()
        view = memoryview(buffer).cast("B")
        found = self._member.read_at(self._position, self._position + len(view))
        view[: len(found)] = found
        self._position += len(found)
        return len(found)

    def readall(self) -> bytes:
        """All from here to the end."""
        self._require_open()
        found = self._member.read_at(self._position, self._member.size)
        self._position += len(found)
        return found

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name!r} is closed")
