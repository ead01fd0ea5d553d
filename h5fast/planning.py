"""What an epoch will cost, before it is run: decodes at several sizes of memory, and how well an order mixes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from h5fast._feed import Schedule, simulate
from h5fast.ordering import Order

__all__ = ["FieldPlan", "Plan", "Shuffle", "field_plan", "shuffle_quality"]

# Larger datasets are simulated at this many rows, in proportion: a second of work at most.
_SIMULATED_ROWS = 60_000
# In proportion there stay at least so many chunks, and where neighbours stay together so many rows of a chunk and of a batch.
_LEAST_CHUNKS, _LEAST_ROWS = 64, 8
_SHARES = (0.05, 0.10, 0.25, 0.50, 1.0)
_SAMPLES = 4096


@dataclass(frozen=True)
class FieldPlan:
    """What a field that is stored compressed will cost.

    Attributes:
        name: of the field
        rows_kept: decoded rows that the memory has room for
        chunk_rows: rows that are drawn from, of a chunk; on average
        chunks: chunks of the rows that are drawn from
        decodes: chunks decoded in the first epoch, and in each later one
        decoded_bytes: all rows, decoded
        at_memory: decodes per chunk of a later epoch for other amounts of memory, by their share of ``decoded_bytes``
    """

    name: str
    rows_kept: int
    chunk_rows: float
    chunks: int
    decodes: tuple[int, int]
    decoded_bytes: int
    at_memory: dict[float, float]


@dataclass(frozen=True)
class Shuffle:
    """How well an order mixes; 1 is what an exactly uniform shuffle gives.

    Attributes:
        displacement: how far rows come to stand from where they are stored
        spread: how many different groups of 32 neighbouring rows (or chunks, where those are larger) a batch takes rows from
    """

    displacement: float
    spread: float


@dataclass(frozen=True)
class Plan:
    """What an epoch will cost. ``print(plan)`` shows it as a table.

    Attributes:
        rows, batches: of an epoch, of this process
        order: "exact", "block", "batches", "file" or "drawn"
        shuffle: how well it mixes
        memory, memory_needed: bytes that may be held, and that will be
        fields: of each field that the engine has to decode
        others: fields that are read in Python, which are not planned
    """

    rows: int
    batches: int
    order: str
    shuffle: Shuffle
    memory: int
    memory_needed: int
    fields: tuple[FieldPlan, ...]
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows in {self.batches:,} batches, order {self.order!r}: displacement "
                 f"{self.shuffle.displacement:.2f}, spread {self.shuffle.spread:.2f} (1 is a uniform shuffle)",
                 f"memory {_in_mib(self.memory)}, of which {_in_mib(self.memory_needed)} are needed"]
        for field in self.fields:
            first, later = (decodes / field.chunks for decodes in field.decodes)
            lines.append(f"{field.name}: {field.chunks:,} chunks of {field.chunk_rows:,.4g} rows, {_in_mib(field.decoded_bytes)} decoded; "
                         f"{field.rows_kept:,} rows kept; decodes per chunk: {first:.2f} in the first epoch, {later:.2f} later")
            lines.append("    with memory for " + ", ".join(f"{share:.0%}: {per:.2f}" for share, per in field.at_memory.items()))
        if self.others:
            lines.append(f"read in Python, and not planned: {', '.join(self.others)}")
        elif not self.fields:
            lines.append("nothing has to be decoded: memory beyond the batches is not used")
        return "\n".join(lines)

    def plot(self, axes: Any = None) -> Any:
        """Draws decodes per chunk over memory, a line for each field, with matplotlib; returns the axes.

        Raises ``ImportError`` where matplotlib is missing.
        """
        if axes is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError("plot() needs matplotlib: pip install 'h5fast[plots]'") from error
            _, axes = pyplot.subplots()
        for field in self.fields:
            sizes = [share * field.decoded_bytes / 2**20 for share in field.at_memory]
            axes.plot(sizes, list(field.at_memory.values()), marker="o", label=field.name)
        axes.set(xlabel="MiB of decoded rows kept", ylabel="decodes per chunk and epoch", title=f"order {self.order!r}")
        if self.fields:
            axes.legend()
        return axes


def field_plan(name: str, order: Order, starts: np.ndarray, *, rows_kept: int, across: int, decoded_bytes: int) -> FieldPlan:
    """Simulates a field.

    Args:
        starts: the first item of each group of items that are decoded together, and the number of items behind them
        rows_kept: decoded rows that the memory has room for
        across: chunks that hold one row
        decoded_bytes: of all rows
    """
    count, groups = order.count, len(starts) - 1
    per_group = count / groups

    def decodes(kept: int) -> tuple[float, float]:
        """Per group of rows, in the first epoch and in the third."""
        if kept >= count:
            return _whole(order, per_group)
        mixing = order
        if order.kind == "block" and kept != rows_kept:  # with other memory, other numbers of blocks are mixed
            mixing = replace(order, window=max(1, int((kept - order.batch) // per_group)))
        small, firsts, slots = (mixing, starts, kept) if count <= _SIMULATED_ROWS else _scaled(mixing, groups, kept)
        first, _, later = simulate([small.schedule(epoch) for epoch in range(4)], firsts, slots)
        return first / (len(firsts) - 1), later / (len(firsts) - 1)

    first, later = decodes(rows_kept)
    table = {share: decodes(int(share * count))[1] for share in _SHARES}
    chunks = groups * across
    return FieldPlan(name, rows_kept, per_group, chunks, (round(first * chunks), round(later * chunks)), decoded_bytes, table)


def _whole(order: Order, per_group: float) -> tuple[float, float]:
    """Where all fits, a group is decoded when its first row is drawn: by this process, whose share changes with the epoch."""
    if order.kind == "file":  # it does not
        return min(1.0, 1 / order.world + order.batch / order.count), 0.0
    missed = (1 - 1 / order.world) ** (1 if order.kind == "block" else per_group)
    if order.kind == "drawn":
        missed = float(np.exp(-per_group / order.world))
    elif order.kind == "batches":
        missed = (1 - 1 / order.world) ** max(1.0, per_group / order.batch)
    return 1 - missed, missed**2 * (1 - missed)


def _scaled(order: Order, groups: int, kept: int) -> tuple[Order, np.ndarray, int]:
    """The same kind of order with fewer rows, in groups of one size; where those start; and rows kept.

    What counts is which part of the data the memory is. Where rows are drawn one by one, a batch is small beside it, and a chunk
    has as many rows as it has. Where neighbours stay together, chunks, batches and memory are in proportion to one another.
    """
    count, per_group = _SIMULATED_ROWS, order.count / groups
    scale = count / order.count
    if order.kind in ("exact", "drawn"):
        rows, batch = min(round(per_group), count // _LEAST_CHUNKS), order.batch * scale
        slots = kept * scale
    else:
        finer = min(1.0, max(scale, _LEAST_ROWS / min(order.batch, per_group)))
        rows, batch = round(per_group * finer), order.batch * finer
        slots = max(kept * scale, min(kept * finer, 4 * (rows + batch)))
    rows, batch = max(1, rows), max(1, round(batch))
    firsts = np.unique(np.append(np.arange(0, count, rows), count)).astype(np.uint64)
    changed: dict[str, Any] = {"count": count, "batch": batch}
    if order.groups is not None:
        changed["groups"] = firsts
        changed["window"] = max(1, min(round(order.window * (len(firsts) - 1) / groups), int((slots - batch) // rows)))
    if order.cumulated is not None:
        changed["cumulated"] = order.cumulated[np.linspace(0, order.count - 1, count).astype(np.int64)]
    return replace(order, **changed), firsts, int(slots)


def shuffle_quality(order: Order, schedule: Schedule, group_rows: int) -> Shuffle:
    """Looks at some thousand places of an order."""
    positions = np.unique(np.linspace(0, min(order.count, schedule.length) - 1, _SAMPLES).astype(np.int64))
    items = schedule.items_at(positions)
    moved = float(np.abs(items - positions).mean()) * 3 / max(1, order.count)  # a uniform shuffle moves rows by a third
    groups = max(2, order.count // group_rows)
    steps = np.unique(np.linspace(0, schedule.steps - 1, 64).astype(np.int64))
    found, expected = 0.0, 0.0
    for step in steps:
        batch = schedule.items(int(step))
        found += len(np.unique(batch // group_rows))
        expected += groups * (1 - (1 - 1 / groups) ** len(batch))
    return Shuffle(moved, found / expected)


def _in_mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
