"""``patch()``, ``unpatch()`` and ``patched()``: code that uses h5py as it is reads through h5fast.

While it is patched, the reading methods of ``h5py.Dataset`` first ask the dataset's reader, which answers only where its
answer is h5py's to the last bit; everything else, errors above all, comes from h5py's own methods. Nothing else in h5py
changes: the objects stay h5py's, and each keeps its reader in its ``__dict__``. This module reads nothing itself.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any

import h5py

from h5fast.errors import H5FastError
from h5fast.methods import invalidate, iterate_rows, read_as, read_into, reader_of

__all__ = ["patch", "patched", "unpatch"]

_Method = Callable[..., Any]


def patch() -> None:
    """Make every ``h5py.Dataset`` of this process read through h5fast, until :func:`unpatch`.

    Values, dtypes, shapes and errors stay h5py's. Datasets that are open already are served too. Patching again changes
    nothing. Safe from any thread; a read that is under way finishes as it began.
    """
    _PATCH.set_lasting(True)


def unpatch() -> None:
    """Undo :func:`patch`; without one, do nothing. Inside a :func:`patched` block it takes effect at the end of the block.

    Raises ``RuntimeError``, and leaves everything as it is, if other code has replaced one of the methods since: taking
    h5fast out would take that code out too. Undo its patch first.
    """
    _PATCH.set_lasting(False)


class patched(ContextDecorator):  # noqa: N801  (used as a function, like contextlib.suppress)
    """Context manager, or decorator, inside which every ``h5py.Dataset`` of the process reads through h5fast.

    Blocks may be nested, entered again and overlap between threads: h5py is restored when the last one ends, unless
    :func:`patch` made it lasting. If other code has replaced a method meanwhile, leaving the last block raises
    ``RuntimeError`` and h5py stays patched; call :func:`unpatch` once that code has undone its own patch.
    """

    def __enter__(self) -> None:
        """Patch h5py until the block ends."""
        _PATCH.enter()

    def __exit__(self, *exc_info: object) -> None:
        """End the block; ``RuntimeError`` if other code has replaced a method meanwhile."""
        _PATCH.leave()


def _getitem(original: _Method) -> _Method:
    @functools.wraps(original)
    def __getitem__(self: Any, args: Any, new_dtype: Any = None) -> Any:
        if self._id.id:  # zero when closed: h5py then raises its own error
            read = reader_of(self).read_patched
            result = read(args) if new_dtype is None else read_as(read, self, args, new_dtype)
            if result is not NotImplemented:
                return result
        return original(self, args, new_dtype)

    return __getitem__


def _read_direct(original: _Method) -> _Method:
    @functools.wraps(original)
    def read_direct(self: Any, dest: Any, source_sel: Any = None, dest_sel: Any = None) -> None:
        try:
            done = bool(self._id.id) and read_into(self, dest, source_sel, dest_sel)
        except H5FastError:  # h5py meets the same fault and reports it its own way
            done = False
        if not done:
            original(self, dest, source_sel, dest_sel)

    return read_direct


def _iter(original: _Method) -> _Method:
    @functools.wraps(original)
    def __iter__(self: Any) -> Any:
        rows = iterate_rows(self) if self._id.id else None
        return original(self) if rows is None else rows

    return __iter__


def _invalidating(original: _Method) -> _Method:
    @functools.wraps(original)
    def changed(self: Any, *args: Any, **kwds: Any) -> Any:
        result = original(self, *args, **kwds)
        invalidate(self)
        return result

    return changed


# What is replaced, and by what. ``__array__`` reads through ``read_direct``; the views of ``astype``, ``asstr`` and
# ``fields`` through ``__getitem__``. ``__iter__`` is here because one row at a time would decode a chunk for every row.
_REPLACEMENTS: dict[str, Callable[[_Method], _Method]] = {
    "__getitem__": _getitem,
    "read_direct": _read_direct,
    "__iter__": _iter,
    "refresh": _invalidating,
    "resize": _invalidating,
}


class _Patch:
    """The one patch of this process: who wants it, and what it replaced."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasting = False  # patch() was called, and not unpatch() since
        self._blocks = 0  # patched() blocks that are open, over all threads
        self._methods: dict[str, tuple[_Method, _Method]] = {}  # name: (h5py's, ours); empty when not installed

    def set_lasting(self, lasting: bool) -> None:
        with self._lock:
            self._settle(lasting, self._blocks)

    def enter(self) -> None:
        with self._lock:
            self._settle(self._lasting, self._blocks + 1)

    def leave(self) -> None:
        with self._lock:
            try:
                self._settle(self._lasting, self._blocks - 1)
            except RuntimeError:
                # The block is over all the same; what it leaves behind is now the lasting patch that unpatch() removes.
                self._lasting, self._blocks = True, 0
                raise

    def _settle(self, lasting: bool, blocks: int) -> None:
        """Install or remove so that the methods are as these wishes ask, then record them; no change if it raises."""
        if lasting or blocks:
            if not self._methods:
                self._install()
        elif self._methods:
            self._remove()
        self._lasting, self._blocks = lasting, blocks

    def _install(self) -> None:
        for name, replacement in _REPLACEMENTS.items():
            original = vars(h5py.Dataset)[name]
            self._methods[name] = original, replacement(original)
            setattr(h5py.Dataset, name, self._methods[name][1])

    def _remove(self) -> None:
        for name, (_, ours) in self._methods.items():
            if vars(h5py.Dataset).get(name) is not ours:
                raise RuntimeError(
                    f"cannot unpatch h5py: h5py.Dataset.{name} was replaced by {vars(h5py.Dataset).get(name)!r} "
                    "after h5fast.patch(); undo that first, then call h5fast.unpatch()"
                )
        for name, (original, _) in self._methods.items():
            setattr(h5py.Dataset, name, original)
        self._methods.clear()

    def after_fork(self) -> None:
        """In a forked child: whichever thread held the lock is not there to release it."""
        self._lock = threading.Lock()


_PATCH = _Patch()
# The child gets a new lock. To take the lock before a fork would wait for threads that hold h5py's, which h5py takes then.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PATCH.after_fork)
