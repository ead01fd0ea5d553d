"""In which order a loader draws its rows: from what the user asks for to the schedule of an epoch.

A schedule is a pure function of seed, epoch, rank, world and the rows; that of blocks also of how many are mixed at a time.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h5fast._feed import Items, Schedule

__all__ = ["Order", "group_starts", "kind_of", "stable_seed"]

_KINDS = {"exact": "exact", True: "exact", "block": "blocks", "batches": "batches", "batch": "batches", False: "file",
          None: "file"}


def kind_of(shuffle: Any, has_weights: bool) -> str:
    """The engine's name for ``shuffle``. Raises ``ValueError`` for what it cannot be."""
    try:
        kind = _KINDS[shuffle]
    except (KeyError, TypeError):
        raise ValueError(
            f"shuffle must be 'exact' (or True), 'block', 'batches' or False, not {shuffle!r}"
        ) from None
    if has_weights:
        if shuffle is not True and kind not in ("exact",):
            raise ValueError(f"with weights rows are drawn at random, which shuffle={shuffle!r} contradicts")
        return "drawn"
    return kind


def stable_seed(seed: Any) -> Any:
    """The seed, in the form whose ``repr`` is the same with every version of NumPy.

    Raises ``TypeError`` for what is written as its address in memory, which the next process would not find again.
    """
    seed = seed.item() if isinstance(seed, np.generic) else seed
    if re.search(r" at 0x[0-9a-fA-F]+>", repr(seed)):
        raise TypeError(f"a seed must be written the same in every process, and this one is not: {seed!r}")
    return seed


@dataclass
class Order:
    """How each epoch goes through the items.

    Attributes:
        kind: "file", "exact", "batches", "blocks" or "drawn"
        count: items
        seed: any value with a stable ``repr``
        batch: rows of a batch of one process
        rank, world: which of how many processes
        drop_last: leave out what does not fill a batch
        groups, window: of "blocks": first item of each group of rows that are decoded together; groups mixed at a time
        cumulated: of "drawn": cumulated probabilities of the items
    """

    kind: str
    count: int
    seed: Any
    batch: int
    rank: int
    world: int
    drop_last: bool
    groups: np.ndarray | None = None
    window: int = 1
    cumulated: np.ndarray | None = field(default=None, repr=False)

    def schedule(self, epoch: int, begun: int = 0) -> Schedule:
        """The batches of an epoch, from the ``begun``-th row (of all processes together) on."""
        key = self._key(epoch)
        drawn = None if self.cumulated is None else _draw(self.cumulated, key)
        return Schedule(self.kind, self.count, key=key, batch=self.batch, rank=self.rank, world=self.world,
                        drop_last=self.drop_last, epoch=epoch, begun=begun, groups=self.groups, window=self.window,
                        drawn=drawn)

    @property
    def steps(self) -> int:
        """Batches of a whole epoch, of one process."""
        share, rest = divmod(self.count, self.world)
        if self.drop_last:
            return share // self.batch
        padded = share + (rest > 0 and self.kind != "drawn")
        return -(-padded // self.batch)

    @property
    def nbytes(self) -> int:
        """Bytes that two epochs' schedules hold."""
        tables = 8 * self.count if self.kind == "exact" and self.count < 1 << 16 else 0
        blocks = 0 if self.groups is None else 8 * len(self.groups)
        drawn = 0 if self.cumulated is None else 8 * self.count + 2 * 8 * self.count
        return 2 * (tables + blocks + drawn) + blocks

    def _key(self, epoch: int) -> int:
        digest = hashlib.blake2b(f"{self.seed!r}/{epoch}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")


def _draw(cumulated: np.ndarray, key: int) -> np.ndarray:
    """As many items as there are, each drawn with its probability, with replacement."""
    # Raw bits, which NumPy promises not to change, unlike what its generators make of them.
    bits = np.random.Philox(key=key).random_raw(len(cumulated))
    points = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    drawn: np.ndarray = np.searchsorted(cumulated, points * cumulated[-1], side="right").astype(np.int64)
    # Of numbers too small to be halved the product may be rounded up to the sum itself.
    last = int(np.searchsorted(cumulated, cumulated[-1]))
    np.minimum(drawn, last, out=drawn)
    return drawn


def group_starts(items: Items, boundaries: np.ndarray) -> np.ndarray:
    """First item of each group of rows, and the number of items behind them, where groups have some.

    Args:
        items: ascending by row
        boundaries: first row of each group, ascending, and the number of rows behind them
    """
    rows = items.ranked()
    if rows is None:
        start, step = items.first, items.step
        firsts = np.clip(-(-(boundaries - start) // step), 0, len(items))
    else:
        firsts = np.searchsorted(rows, boundaries)
    return np.unique(firsts).astype(np.uint64)
