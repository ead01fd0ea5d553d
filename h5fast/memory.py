"""How a loader divides the memory it may use: the ring of batches first, then what threads need, then decoded rows."""

from __future__ import annotations

from dataclasses import dataclass

from h5fast._feed import ROW_OVERHEAD, Items
from h5fast.columns import EngineColumn, PythonColumn, Table

__all__ = ["Division", "divide", "forget", "grant"]

# Lists of rows that are read and noted for one batch: bytes for each row that may change hands in it. What is usual of that
# is too little to count, and of what the engine's threads decode in, which they keep for every read of the process.
_BATCH_ROW = 96
_UNCOUNTED_LISTS = 4 << 20
# Of a list of rows, those of a group that is read whole are listed: bytes for each. Of ranges nothing is.
_LISTED_ROW = 64
_UNCOUNTED_THREADS = 8 << 20
# A field that takes no more than this part of what is left is kept whole before the others share the rest: the labels of
# a thousand images weigh less than one of them, and would be decoded as often.
_SMALL = 1 / 16


@dataclass(frozen=True)
class Division:
    """What of the memory goes where.

    Attributes:
        fixed: bytes of the ring and of lists; of threads at work, what is more than usual
        made: of these, bytes for what is made of the ring's batches in Python
        kept: of each field that is decoded, by name, how many of its rows can be kept; all of them where that is their number
        needed: bytes of all of it
        granted: of each field that Python reads and that can be kept, by name, bytes for that
        ahead: of those that do not fit and share chunks, how many batches are read at once with these bytes
    """

    fixed: int
    made: int
    kept: dict[str, int]
    needed: int
    granted: dict[str, int]
    ahead: dict[str, int]


def grant(division: Division, table: Table) -> None:
    """Lets the fields that Python reads keep what was divided to them."""
    for column in _keeping(table):
        if column.keeper is not None:
            column.keeper.grant(0 if column.name in division.ahead else division.granted[column.name])


def forget(table: Table) -> None:
    """Frees what the fields that Python reads keep."""
    for column in _keeping(table):
        if column.keeper is not None:
            column.keeper.forget()


def divide(memory: int, table: Table, items: Items, *, batch: int, places: int, threads: int, other: int,
           transformed: bool) -> Division:
    """Divides ``memory`` bytes.

    Args:
        items: the rows that an epoch draws from
        batch: rows of a batch
        places: places of the ring; batches in the taker's hands are the taker's
        threads: native threads
        other: bytes that orders take
        transformed: whether batches go through a function of the user's. What that makes is taken to be as large as they are

    Raises:
        ValueError: not even the batches fit, with what would be needed.
    """
    decoded = [column for column in table.engine if column.is_decoded]
    count = len(items)
    filled = sum(batch * column.out_bytes for column in table.engine)
    finished = sum(column.bytes_of(batch) if isinstance(column, PythonColumn) else batch * column.finished_bytes
                   for column in table.columns)
    untouched = sum(batch * column.out_bytes for column in table.engine if column.finish is None)
    made = places * (finished + (finished + untouched if transformed else 0))
    fixed = other + items.nbytes + places * filled + made
    if items.listed() is not None and decoded:
        fixed += _LISTED_ROW * min(count, _largest_group(decoded))
    fixed += max(0, threads * _thread_bytes(table.engine) - _UNCOUNTED_THREADS)
    fixed += max((c.work_bytes(batch) for c in table.columns if isinstance(c, PythonColumn) and c.work_bytes), default=0)
    left = memory - fixed
    if left < 0:
        raise ValueError(
            f"memory={memory:,} bytes are too few: {places} batches of {batch} rows ahead need {fixed:,}; "
            "give more memory, or take smaller batches, or prefetch fewer of them"
        )
    kept: dict[str, int] = {}
    sizes = {column.name: count * column.row_bytes for column in decoded}
    for column in sorted(decoded, key=lambda column: sizes[column.name]):
        if sizes[column.name] <= left * _SMALL:
            kept[column.name] = count
            left -= sizes[column.name]
    rest = [column for column in decoded if column.name not in kept]
    granted, ahead = _granted(_keeping(table), left, rest, sum(sizes[column.name] for column in rest), batch, count)
    left -= sum(granted.values())
    if sum(sizes[column.name] for column in rest) <= left:
        kept.update({column.name: count for column in rest})
    elif rest:
        each = sum(column.row_bytes + ROW_OVERHEAD for column in rest)
        # Of all that a batch decodes, no more rows change hands than there are places to keep them.
        lists = max(0, _BATCH_ROW * min(count, batch * _largest_group(rest)) - _UNCOUNTED_LISTS)
        rows = max((left - lists) // each, (left + _UNCOUNTED_LISTS) // (each + _BATCH_ROW * len(rest)))
        rows = min(rows, left // each)
        rows = min(rows, count, (1 << 31) - 1)
        kept.update({column.name: rows for column in rest})
    needed = fixed + sum(granted.values())
    needed += sum(kept[c.name] * (c.row_bytes + (ROW_OVERHEAD if kept[c.name] < count else 0)) for c in decoded)
    return Division(fixed, made, kept, needed, granted, ahead)


def _keeping(table: Table) -> list[PythonColumn]:
    """The fields that Python reads and that can be kept, the smallest first."""
    found = [(column.keeper.nbytes, place, column) for place, column in enumerate(table.columns)
             if isinstance(column, PythonColumn) and column.keeper is not None]
    return [column for _, _, column in sorted(found, key=lambda one: one[:2])]


def _granted(keeping: list[PythonColumn], left: int, rivals: list[EngineColumn], rivals_bytes: int, batch: int,
             items: int) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes for each of these fields, of those that are left for them and for the rivals together; and where that is for
    reading some batches at once, for how many."""
    granted: dict[str, int] = {}
    ahead: dict[str, int] = {}
    all_fit = sum(c.keeper.nbytes for c in keeping if c.keeper is not None) + rivals_bytes <= left
    for place, column in enumerate(keeping):
        if column.keeper is None:
            continue
        share = left // (len(keeping) - place + len(rivals))
        whole = column.keeper.nbytes
        if all_fit or whole <= max(share, int(left * _SMALL)):
            granted[column.name] = whole
        elif (batches := _batches_in(share, column, batch, items)) > 1:
            granted[column.name], ahead[column.name] = column.fetch_bytes(batches * batch), batches
        else:
            granted[column.name] = share if column.keeper.takes_part else 0
        left -= granted[column.name]
    return granted, ahead


def _batches_in(nbytes: int, column: PythonColumn, batch: int, items: int) -> int:
    """How many batches of a field can be read at once with so many bytes; 0 where that is of no use."""
    if not column.shares_chunks:
        return 0
    low, high = 0, -(-items // batch) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if column.fetch_bytes(middle * batch) <= nbytes:
            low = middle
        else:
            high = middle
    return low


def _thread_bytes(columns: list[EngineColumn]) -> int:
    """What one thread needs to decode a chunk: the chunk as stored and in one or two steps of its pipeline."""
    stored = {part.chunks[0] for column in columns for part in column.parts}
    return max((min(storage.filter_count, 2) + 1) * storage.chunk_bytes if storage.filter_count else 0
               for storage in stored) if stored else 0


def _largest_group(columns: list[EngineColumn]) -> int:
    """Rows that are decoded together, at most."""
    return max(part.chunks[0].chunk[0] for column in columns for part in column.parts)
