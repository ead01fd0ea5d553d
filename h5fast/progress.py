"""The bar that shows how far a loop, or a source of bytes, has come: tqdm's, which notebooks and terminals know."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

__all__ = ["ByteBar", "has_bar", "with_bar"]


def has_bar() -> bool:
    """Whether tqdm is there."""
    return importlib.util.find_spec("tqdm") is not None


def with_bar(batches: Iterator[Any], total: int | None, initial: int) -> Any:
    """The same batches, counted by a bar that begins at `initial`. Raises ``ImportError`` without tqdm."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install 'h5fast[progress]'") from error
    return tqdm(batches, total=total, initial=initial, unit="batch")


class ByteBar:
    """A bar of bytes, with the rate and the time left. Shows nothing where it is not wanted, or tqdm is not there.

    Args:
        total: bytes there are; None where nobody knows
    """

    def __init__(self, total: int | None, *, shown: bool) -> None:
        self._bar: Any = None
        if shown and has_bar():
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="B", unit_scale=True)

    def tell(self, position: int, count: int) -> None:
        """The source stands at a byte, and so many of its members are done."""
        if self._bar is not None and position > self._bar.n:
            self._bar.set_postfix(files=count, refresh=False)
            self._bar.update(position - self._bar.n)

    def __enter__(self) -> ByteBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
