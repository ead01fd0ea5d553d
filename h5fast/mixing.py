"""``mix``: batches of several loaders, drawn by weight. It reads nothing and starts no thread: the loaders do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from h5fast.loader import Loader

__all__ = ["Mixture", "mix"]

_STATE_VERSION = 1
_STOPS = ("first", "all", "never")
# Draws that are made at a time; part of what an order is.
_BLOCK = 1024


def mix(loaders: Sequence[Loader], weights: Sequence[float] | None = None, seed: Any = 0, stop: str = "first") -> Mixture:
    """Mixes the batches of several loaders: each batch comes whole from one of them, drawn at random.

    Parameters
    ----------
    loaders:
        Loaders whose batches have one form: bare arrays, tuples of one length, or dicts of the same names.
    weights:
        How often each is drawn, as positive numbers in proportion; None draws all equally often.
    seed:
        Anything with a stable ``repr``. Which loader is drawn is a function of seed, epoch and step alone.
    stop:
        ``"first"``: an epoch ends with the last batch of the loader that is exhausted first. ``"all"``: exhausted loaders
        drop out, and the epoch ends with the last batch of all. ``"never"``: an exhausted loader begins its next epoch.

    Returns
    -------
    An iterable over batches. Epoch n begins epoch n of each loader: their own count of epochs is set. It has what a
    :class:`Loader` has: ``len()`` (a ``TypeError`` where it is endless), ``set_epoch``, ``state_dict``, ``load_state_dict``,
    ``stats`` (a list, of each loader), ``close``, which closes the loaders, and ``with``.

    Raises ``TypeError`` or ``ValueError`` for batches of different forms, weights that cannot be, or the same loader twice.
    """
    return Mixture(loaders, weights, seed, stop)


class Mixture:
    """What :func:`mix` returns, and takes the arguments of."""

    def __init__(self, loaders: Sequence[Loader], weights: Sequence[float] | None, seed: Any, stop: str) -> None:
        self._loaders = list(loaders)
        if not self._loaders:
            raise ValueError("there are no loaders to mix")
        for loader in self._loaders:
            if not isinstance(loader, Loader):
                raise TypeError(f"mix takes loaders, not {type(loader).__name__}")
        if len({id(loader) for loader in self._loaders}) < len(self._loaders):
            raise ValueError("the same loader is there twice: make two, or give it more weight")
        if stop not in _STOPS:
            raise ValueError(f"stop must be one of {_STOPS}, not {stop!r}")
        _check_forms(self._loaders)
        self._weights = _checked_weights(weights, len(self._loaders))
        self._seed, self._stop = seed, stop
        self._next_epoch = 0
        self._resumed: tuple[int, list[int]] | None = None  # step and batches of each loader that are done with
        self._current: _MixedEpoch | None = None

    def __len__(self) -> int:
        """Batches of the next whole epoch. ``TypeError`` where it does not end."""
        if self._stop == "never":
            raise TypeError("a mix with stop='never' has no length")
        lengths = np.array([len(loader) for loader in self._loaders])
        if self._stop == "all":
            return int(lengths.sum())
        taken, block = np.zeros(len(lengths), np.int64), 0
        while True:
            drawn = self._drawn(self._next_epoch, block, np.ones(len(lengths), bool))
            ends = [np.flatnonzero(drawn == number)[left - 1:left] for number, left in enumerate(lengths - taken)]
            found = [int(end[0]) for end in ends if len(end)]
            if found:
                return block * _BLOCK + min(found) + 1
            taken += np.bincount(drawn, minlength=len(lengths))
            block += 1

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next iteration starts with."""
        return self._next_epoch

    def __repr__(self) -> str:
        """The loaders and their weights."""
        return f"<h5fast.mix of {self._loaders}, weights={self._weights.tolist()}, stop={self._stop!r}, epoch {self._next_epoch}>"

    def __iter__(self) -> Iterator[Any]:
        """An epoch of batches. It starts, and is counted, when its first batch is asked for."""
        return _MixedEpoch(self)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration start at the beginning of this epoch."""
        for loader in self._loaders:
            loader.set_epoch(epoch)  # which checks it
        self._next_epoch, self._resumed = int(epoch), None

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: what :meth:`load_state_dict` needs to go on behind the batch that was taken last."""
        epoch = self._next_epoch
        step, taken = self._resumed or (0, [0] * len(self._loaders))
        if self._current is not None and self._current.is_under_way:
            epoch, step, taken = self._current.number, self._current.step, self._current.taken
        return {"version": _STATE_VERSION, "epoch": epoch, "step": step, "taken": list(taken), **self._identity(),
                "loaders": [loader.state_dict() for loader in self._loaders]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken. Raises ``ValueError`` for the state of another mix or other loaders."""
        if state.get("version") != _STATE_VERSION:
            raise ValueError(f"this is no state of a mix of this version of h5fast: {state!r:.200}")
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(f"the state belongs to another mix: its {name} is {state.get(name)!r}, here it is {value!r}")
        for loader, one in zip(self._loaders, state["loaders"]):
            loader.load_state_dict(one)
        self._next_epoch, step = int(state["epoch"]), int(state["step"])
        self._resumed = (step, [int(count) for count in state["taken"]]) if step else None
        if self._current is not None:
            self._current.is_under_way = False

    def stats(self) -> list[dict[str, Any]]:
        """What :meth:`Loader.stats` tells, of each loader."""
        return [loader.stats() for loader in self._loaders]

    def close(self) -> None:
        """Closes the loaders. May be called again; iterating afterwards is a ``ValueError``."""
        if self._current is not None:
            self._current.is_under_way = False
        for loader in self._loaders:
            loader.close()

    def __enter__(self) -> Mixture:
        """The mix itself; leaving the block closes its loaders."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the loaders."""
        self.close()

    def _identity(self) -> dict[str, Any]:
        return {"seed": repr(self._seed), "weights": self._weights.tolist(), "stop": self._stop,
                "lengths": [len(loader) for loader in self._loaders]}

    def _begin(self, epoch: _MixedEpoch) -> tuple[int, int, list[int]]:
        """Number, step and batches taken, of the epoch that begins now."""
        number = self._next_epoch
        step, taken = self._resumed or (0, [0] * len(self._loaders))
        self._next_epoch, self._resumed, self._current = number + 1, None, epoch
        return number, step, list(taken)

    def _drawn(self, epoch: int, block: int, active: np.ndarray) -> np.ndarray:
        """The loaders of a block of steps, while these are active."""
        digest = hashlib.blake2b(f"mix/{self._seed!r}/{epoch}/{block}".encode(), digest_size=16).digest()
        bits = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(_BLOCK)
        numbers = np.flatnonzero(active)
        edges = np.cumsum(self._weights[numbers])
        uniform = (bits >> np.uint64(11)) * 2.0**-53
        place = np.minimum(np.searchsorted(edges, uniform * edges[-1], side="right"), len(numbers) - 1)
        return np.asarray(numbers[place])


class _MixedEpoch:
    """One iteration of a mix. It starts at the first ``next()``."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture
        self._loaders = mixture._loaders
        self._batches: list[Iterator[Any] | None] = [None] * len(self._loaders)
        self._drawn: tuple[int, np.ndarray] | None = None
        self.number = self.step = 0
        self.taken: list[int] = []
        self.is_under_way = False
        self._has_begun = self._is_over = False

    def __iter__(self) -> _MixedEpoch:
        return self

    def __next__(self) -> Any:
        if self._is_over:
            raise StopIteration
        if not self._has_begun:
            self.number, self.step, self.taken = self._mixture._begin(self)
            self._lengths = [len(loader) for loader in self._loaders]
            self._active = np.array([not self._ends or done < length for done, length in zip(self.taken, self._lengths)])
            self._has_begun = self.is_under_way = True
        try:
            return self._next()
        except BaseException:
            self._finish()
            raise

    @property
    def _ends(self) -> bool:
        return self._mixture._stop != "never"

    def _next(self) -> Any:
        while True:
            if not self._active.any() or (self._mixture._stop == "first" and not self._active.all()):
                raise StopIteration
            number = self._draw()
            if self._batches[number] is None:
                self._start(number)
            batches = self._batches[number]
            assert batches is not None
            try:
                batch = next(batches)
                break
            except StopIteration:
                if self._ends:  # before its time: of its last batches no row was left that decodes
                    self.taken[number] = self._lengths[number]
                    self._retire(number)
                    continue
                self._batches[number] = iter(self._loaders[number])  # of an endless mix: the loader's next epoch
        self.step += 1
        self.taken[number] += 1
        if self._ends and self._loaders[number]._is_between_epochs:  # batches of which nothing decoded were not counted
            self.taken[number] = self._lengths[number]
            self._retire(number)
            if not self._active.any() or self._mixture._stop == "first":
                self._finish()
        return batch

    def _retire(self, number: int) -> None:
        """This loader has no more batches in this epoch."""
        self._active[number] = False
        self._drawn = None

    def _draw(self) -> int:
        block, at = divmod(self.step, _BLOCK)
        if self._drawn is None or self._drawn[0] != block:
            self._drawn = block, self._mixture._drawn(self.number, block, self._active)
        return int(self._drawn[1][at])

    def _start(self, number: int) -> None:
        loader = self._loaders[number]
        if self.taken[number] == 0:  # else it was told where it stands
            loader.set_epoch(self.number)
        self._batches[number] = iter(loader)

    def _finish(self) -> None:
        self._is_over, self.is_under_way = True, False
        for batches in self._batches:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def close(self) -> None:
        """Ends it, and the iterations of the loaders."""
        self._finish()


def _checked_weights(weights: Sequence[float] | None, count: int) -> np.ndarray:
    values = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if values.shape != (count,):
        raise ValueError(f"there are {count} loaders and weights of shape {values.shape}: there must be one for each")
    if not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError(f"weights must be finite and positive, not {values.tolist()}")
    return values


def _check_forms(loaders: list[Loader]) -> None:
    """What the user's own functions make of batches is not known; else they must look alike."""
    forms = [_form(loader) for loader in loaders if loader._transform is None]
    for form in forms[1:]:
        if form != forms[0]:
            raise ValueError(f"the loaders give batches of different forms: {forms[0]} and {form}")


def _form(loader: Loader) -> str:
    table = loader._table
    names = [column.name for column in table.columns]
    if table.form == "dict":
        return f"dict of {sorted(names)}"
    return "bare arrays" if table.form == "single" else f"tuples of {len(names)}"
