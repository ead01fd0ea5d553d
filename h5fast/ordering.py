"""In which order a loader draws its rows: from what the user asks for to the schedule of an epoch.

A schedule is a pure function of seed, epoch, rank, world and the rows; that of blocks also of how many are mixed at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h5fast._feed import Items, Schedule

__all__ = ["Order", "group_starts", "kind_of", "stable_seed"]

_KINDS = {"exact": "exact", True: "exact", "block": "block", "batches": "batches", "batch": "batches", False: "file",
          None: "file"}
# Items that are drawn by weight at once: numbers on the way to it take four times their memory.
_DRAWN_AT_ONCE = 1 << 18


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
    """The seed, in the form whose ``repr`` is the same in every process and with every version of Python and NumPy.

    Raises ``TypeError`` for anything but numbers, texts, None, and tuples or lists of them: what else there is may be written as
    its address, in another order, or not in full.
    """
    if isinstance(seed, np.generic):
        seed = seed.item()
    if isinstance(seed, (tuple, list)):
        return type(seed)(stable_seed(part) for part in seed) if type(seed) in (tuple, list) else _refused(seed)
    return seed if seed is None or type(seed) in (bool, int, float, complex, str, bytes) else _refused(seed)


def _refused(seed: Any) -> Any:
    raise TypeError(f"a seed is a number, a text, None, or a tuple or list of these, not {type(seed).__name__}: {seed!r:.80}")


@dataclass
class Order:
    """How each epoch goes through the items.

    Attributes:
        kind: "file", "exact", "batches", "block" or "drawn"
        count: items
        seed: any value with a stable ``repr``
        batch: rows of a batch of one process
        rank, world: which of how many processes
        worker, workers: which of how many that take the process's batches in turn
        drop_last: leave out what does not fill a batch
        groups, window: of "block": first item of each group of rows that are decoded together; groups mixed at a time
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
    worker: int = 0
    workers: int = 1
    cumulated: np.ndarray | None = field(default=None, repr=False)

    def schedule(self, epoch: int, begun: int = 0) -> Schedule:
        """The batches of an epoch, from the ``begun``-th row (of all processes together) on.

        Of a worker, ``begun`` is what all processes would have taken, had their other workers come as far.
        """
        key = self._key(epoch)
        drawn = None if self.cumulated is None else _draw(self.cumulated, key)
        return Schedule(self.kind, self.count, key=key, batch=self.batch, rank=self.rank, world=self.world,
                        drop_last=self.drop_last, epoch=epoch, begun=begun, worker=self.worker, workers=self.workers,
                        groups=self.groups, window=self.window, drawn=drawn)

    @property
    def steps(self) -> int:
        """Batches of a whole epoch, of this process or its worker."""
        rows = self._rows
        batches = rows // self.batch if self.drop_last else -(-rows // self.batch)
        return batches // self.workers + (self.worker < batches % self.workers)

    @property
    def are_full(self) -> bool:
        """Whether all batches of a process are full."""
        return self.drop_last or self._rows % self.batch == 0

    @property
    def _rows(self) -> int:
        """Rows of a process, before those are left out that fill no batch."""
        share, rest = divmod(self.count, self.world)
        return share + (rest > 0 and self.kind != "drawn" and not self.drop_last)

    @property
    def per_step(self) -> int:
        """Rows that all processes and their workers take while this one takes a batch."""
        return self.batch * self.world * self.workers

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
    random = np.random.Philox(key=key)
    # Of numbers too small to be halved the product may be rounded up to the sum itself.
    last = int(np.searchsorted(cumulated, cumulated[-1]))
    drawn = np.empty(len(cumulated), np.int64)
    for first in range(0, len(drawn), _DRAWN_AT_ONCE):
        part = drawn[first:first + _DRAWN_AT_ONCE]
        # Raw bits, which NumPy promises not to change, unlike what its generators make of them.
        points = (random.random_raw(len(part)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        np.minimum(np.searchsorted(cumulated, points * cumulated[-1], side="right"), last, out=part)
    return drawn


def group_starts(items: Items, boundaries: np.ndarray) -> np.ndarray:
    """First item of each group of rows, and the number of items behind them, where groups have some.

    Args:
        items: in ascending order of their rows, which is not their own where these are listed in another
        boundaries: first row of each group, ascending, and the number of rows behind them
    """
    rows = items.ranked()
    if rows is None:
        start, step = items.first, items.step
        firsts = np.clip(-(-(boundaries - start) // step), 0, len(items))
    else:
        firsts = np.searchsorted(rows, boundaries)
    starts: np.ndarray = firsts[np.flatnonzero(np.diff(firsts, prepend=-1))]  # np.unique would take 1.7 s of a million
    return starts.astype(np.uint64)
