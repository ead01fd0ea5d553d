"""Where the files of the layout `encoded` lie: their rows of the table of members."""

from __future__ import annotations

import numpy as np

from h5fast._members import BY_HDF5, FILE, FOLDER, MEMBER, NO_TIME
from h5fast.tree import content
from h5fast.tree.encoded import EncodedFiles
from h5fast.tree.table import Pipeline, Table

__all__ = ["rows_of"]


def rows_of(files: EncodedFiles, table: Table, *, is_direct: bool) -> np.ndarray:
    """A row for each file, not in the table yet; their chunks are.

    Args:
        is_direct: whether bytes may be read beside libhdf5
    """
    rows = np.zeros(len(files.paths), MEMBER)
    starts = files.offsets[:-1]
    rows["size"] = files.offsets[1:] - starts
    rows["kind"] = [FOLDER if path.endswith("/") else FILE for path in files.paths]
    rows["modified"] = NO_TIME if files.modified is None else files.modified
    if files.permissions is not None:
        rows["permissions"] = files.permissions
    stored = content.stored_as(files.data, content.examine(files.data)) if is_direct else None
    if stored is None:
        rows["pipeline"] = BY_HDF5
        rows["offset"] = starts
        return rows
    rows["pipeline"] = table.pipeline_number(Pipeline(stored.filters, stored.itemsize))
    rows["chunk_bytes"] = stored.chunk_bytes
    there = np.flatnonzero(rows["size"] > 0)
    first = starts[there] // stored.chunk_bytes
    rows["offset"][there] = starts[there] - first * stored.chunk_bytes
    rows["chunks"][there] = (files.offsets[1:][there] - 1) // stored.chunk_bytes - first + 1
    base = table.add_chunks(stored.chunks)
    rows["address"][there] = base + first
    alone = there[rows["chunks"][there] == 1]
    places = rows["address"][alone].astype(np.int64)
    for name in ("address", "stored", "mask"):
        rows[name][alone] = table.chunks[name][places]
    return rows
