"""What an epoch will cost, before it is run: decodes at several sizes of memory, and how well an order mixes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from h5fast._feed import Schedule, simulate
from h5fast.ordering import Order

__all__ = ["FieldPlan", "Plan", "Shuffle", "field_plan", "shuffle_quality"]

# Larger datasets are simulated at this many rows, with batch and memory in proportion: a second of work at most. What
# counts is which part of the data a batch and the memory are, and how many rows a chunk has.
_SIMULATED_ROWS = 60_000
_SHARES = (0.05, 0.10, 0.25, 0.50, 1.0)
_SAMPLES = 4096


@dataclass(frozen=True)
class FieldPlan:
    """What a field that is stored compressed will cost.

    Attributes:
        name: of the field
        rows_kept: decoded rows that the memory has room for
        chunk_rows: rows of a chunk
        chunks: chunks of the rows that are drawn from
        decodes: chunks decoded in the first epoch, and in each later one
        decoded_bytes: all rows, decoded
        at_memory: decodes per chunk of a later epoch for other amounts of memory, by their share of ``decoded_bytes``
    """

    name: str
    rows_kept: int
    chunk_rows: int
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
        order: "exact", "blocks", "batches", "file" or "drawn"
        shuffle: how well it mixes
        memory, memory_needed: bytes that may be held, and that will be
        fields: of each field that has to be decoded
    """

    rows: int
    batches: int
    order: str
    shuffle: Shuffle
    memory: int
    memory_needed: int
    fields: tuple[FieldPlan, ...]

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows in {self.batches:,} batches, order {self.order!r}: displacement "
                 f"{self.shuffle.displacement:.2f}, spread {self.shuffle.spread:.2f} (1 is a uniform shuffle)",
                 f"memory {_in_mib(self.memory)}, of which {_in_mib(self.memory_needed)} are needed"]
        for field in self.fields:
            first, later = (decodes / field.chunks for decodes in field.decodes)
            lines.append(f"{field.name}: {field.chunks:,} chunks of {field.chunk_rows:,} rows, {_in_mib(field.decoded_bytes)} decoded; "
                         f"{field.rows_kept:,} rows kept; decodes per chunk: {first:.2f} in the first epoch, {later:.2f} later")
            lines.append("    with memory for " + ", ".join(f"{share:.0%}: {per:.2f}" for share, per in field.at_memory.items()))
        if not self.fields:
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


def field_plan(name: str, order: Order, *, rows_kept: int, chunk_rows: int, chunks: int, decoded_bytes: int) -> FieldPlan:
    """Simulates a field. ``chunks`` counts those of all the rows that the order draws from."""
    def decodes(kept: int) -> tuple[float, float]:
        """Per group of rows, in the first epoch and in the third."""
        scale = min(1.0, _SIMULATED_ROWS / order.count)
        if kept >= order.count:
            return 1.0, 0.0
        mixing = order
        if order.kind == "blocks" and kept != rows_kept:  # with other memory, other numbers of blocks are mixed
            mixing = replace(order, window=max(1, (kept - order.batch) // chunk_rows))
        small = _scaled(mixing, scale, chunk_rows)
        first, _, later = simulate([small.schedule(epoch) for epoch in range(4)], chunk_rows, int(kept * scale))
        groups = -(-small.count // chunk_rows)
        return first / groups, later / groups

    first, later = decodes(rows_kept)
    table = {share: decodes(int(share * order.count))[1] for share in _SHARES}
    return FieldPlan(name, rows_kept, chunk_rows, chunks, (round(first * chunks), round(later * chunks)), decoded_bytes, table)


def _scaled(order: Order, scale: float, chunk_rows: int) -> Order:
    """The same kind of order with fewer rows, all of them in chunks of this many."""
    if scale == 1:
        return order
    count = max(1, int(order.count * scale))
    changed: dict[str, Any] = {"count": count, "batch": max(1, round(order.batch * scale))}
    if order.groups is not None:
        changed["groups"] = np.unique(np.append(np.arange(0, count, chunk_rows), count)).astype(np.uint64)
        changed["window"] = max(1, round(order.window * scale))
    if order.cumulated is not None:
        changed["cumulated"] = order.cumulated[np.linspace(0, order.count - 1, count).astype(np.int64)]
    return replace(order, **changed)


def shuffle_quality(order: Order, schedule: Schedule, group_rows: int) -> Shuffle:
    """Looks at some thousand places of an order."""
    positions = np.unique(np.linspace(0, order.count - 1, _SAMPLES).astype(np.int64))
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
