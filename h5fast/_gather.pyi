from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from h5fast._index import ChunkIndex
from h5fast._selection import Selection

deflate_library: str
FILTER_NAMES: dict[int, str]

def use_deflate(library: str) -> str: ...
def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]: ...
def kept_bytes() -> int: ...
def pool_size() -> int: ...
def scratch_bytes() -> int: ...

@final
class Source:
    def __init__(self, origin: int | bytes, *, map: bool = True) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def identity(self) -> tuple[int, int]: ...
    @property
    def mapped(self) -> bool: ...
    def changed(self) -> str: ...

@final
class Cast:
    fused: bool
    def __init__(
        self,
        source: np.dtype[Any],
        target: np.dtype[Any],
        row_shape: tuple[int, ...],
        scale: np.ndarray[Any, Any] | None,
        offset: np.ndarray[Any, Any] | None,
        channels_first: bool,
    ) -> None: ...

@final
class Storage:
    chunk_count: int
    def __init__(
        self,
        shape: tuple[int, ...],
        chunk: tuple[int, ...] | None,
        itemsize: int,
        filters: Sequence[tuple[int, Sequence[int]]] = (),
        raw_edges: bool = False,
        fill: bytes = b"",
    ) -> None: ...
    @property
    def chunk_bytes(self) -> int: ...
    @property
    def chunk(self) -> tuple[int, ...]: ...
    def single_chunk(self, selection: Selection) -> tuple[int, ...] | None: ...
    def chunks_at_most(self, selection: Selection) -> int: ...
    def chunks_of(self, selection: Selection, limit: int) -> list[tuple[int, ...]] | None: ...
    def number_of(self, coordinates: tuple[int, ...]) -> int: ...
    def read(
        self,
        index: ChunkIndex,
        source: Source,
        selection: Selection,
        out: np.ndarray[Any, Any],
        threads: int,
        origin: Callable[[], str],
        *,
        cast: Cast | None = None,
        field_offset: int = 0,
        field_bytes: int = 0,
    ) -> bool: ...
