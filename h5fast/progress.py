"""The bar that shows how far a loop has come: tqdm's, which notebooks and terminals know."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

__all__ = ["has_bar", "with_bar"]


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
